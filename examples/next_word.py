"""Next-word prediction over a real vocabulary, with several output layers.

Results on test text after ten minutes of training each, on two cores of an AMD EPYC
with AVX-512 (TensorFlow, means over three seeds, results/next-word):

                examples perplexity  top 1  top 5  top 10
    full       1,003,520        429   19.6   35.7    42.7
    sampled    6,591,488        278   21.9   38.9    45.7
    adaptive  17,326,080        248   22.8   39.9    46.9
    z_loss    36,694,272          -   17.3   36.2    44.6

In the same time, the other layers train on many times as many examples as the full
softmax, and have the next word among their first ten more often. The Z-loss gives
scores, not probabilities, so it has no perplexity. docs/many-classes.md has the results
by minutes.

A feed-forward model (Bengio et al., 2003) reads six words and predicts the next one of
some 105,000. Its output layer is one of:

- `full`: softmax over all words, `ChunkedOutput`;
- `adaptive`: frequent words at full width, rare ones in clusters, `AdaptiveOutput`;
- `sampled`: trained on 8,192 words sampled by their counts, `SampledOutput`;
- `two_level`: first one of some 320 groups, then the word in it, `TwoLevelOutput`;
- `z_loss`, `spherical` and `taylor`: losses other than softmax's, whose step costs the
  same for any number of words, `FactoredOutput`.

Each is trained for the same time, with the learning rate that was best on validation
text in a short trial. The time of a step is measured first, on an idle machine. A run
then takes as many steps as fit into its time on an idle machine, so other work on the
machine does not change the number of steps.

    $ apt install dict-gcide  # 5.4 million words of dictionary prose, or take any text
    $ python examples/next_word.py --text /usr/share/dictd/gcide.dict.dz --plot

Results and plot are written to `build/next-word`, or to the folder of `--out`. A run
whose results are there is not trained again.
"""

import argparse
import collections
import gzip
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import matplotlib.figure
import numpy as np

from kerasoft import RowwiseEmbedding
from kerasoft.heads import SphericalSoftmax
from kerasoft.output_layers import (
    AdaptiveOutput,
    ChunkedOutput,
    Classifier,
    FactoredOutput,
    OutputLayer,
    SampledOutput,
    TwoLevelOutput,
)

CONTEXT, EMBEDDING, HIDDEN = 6, 64, 128
EVALUATED_AT = (0.25, 0.5, *range(1, 1000))  # minutes
SPEED = "steps.json"
BLOCK = 1_000  # consecutive words that belong to the same part of the text


class Output(NamedTuple):
    """An output layer and how it is trained.

    Attributes:
        layer: A function of the words' counts and a learning rate that returns the
            layer. Only `FactoredOutput` uses that learning rate itself; for the other
            layers the optimiser does.
        rates: Learning rates to choose from.
        batch: Examples in a batch.
    """

    layer: Callable[[np.ndarray, float], OutputLayer]
    rates: tuple[float, ...]
    batch: int


OUTPUTS = {
    "full": Output(
        lambda counts, rate: ChunkedOutput(len(counts), top_k=10), (0.03, 0.1), 512
    ),
    "adaptive": Output(
        lambda counts, rate: AdaptiveOutput(len(counts), counts, top_k=10),
        (0.03, 0.1),
        512,
    ),
    "sampled": Output(
        lambda counts, rate: SampledOutput(
            len(counts), min(8192, len(counts)), counts, top_k=10, seed=0
        ),
        (0.03, 0.1),
        512,
    ),
    "two_level": Output(
        lambda counts, rate: TwoLevelOutput(len(counts), top_k=10), (0.03, 0.1), 512
    ),
    "z_loss": Output(
        lambda counts, rate: FactoredOutput(len(counts), "z_loss", rate, top_k=10),
        (40.0, 160.0),
        256,
    ),
    "spherical": Output(
        lambda counts, rate: FactoredOutput(
            len(counts), SphericalSoftmax(epsilon=0.1), rate, top_k=10
        ),
        (1.0, 4.0),
        256,
    ),
    "taylor": Output(
        lambda counts, rate: FactoredOutput(
            len(counts), "taylor_softmax", rate, top_k=10
        ),
        (1.0, 4.0),
        256,
    ),
}


def words(path: Path) -> list[str]:
    """The words of a text file, plain or gzip, in lower case."""
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    return re.findall(r"[^\W\d_]+", raw.decode("utf8", "replace").lower())


def numbered(text: list[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The parts of a text as word numbers, and each word's count in the training text.

    Every 40th block of words is validation text and the one after it test text. Number
    0 stands for all words that occur less than twice in the training text; the others
    are numbered by decreasing frequency.
    """
    part = np.arange(len(text)) // BLOCK % 40
    places = {"validation": part == 38, "test": part == 39, "train": part < 38}
    train = (w for w, here in zip(text, places["train"], strict=True) if here)
    kept = [(w, n) for w, n in collections.Counter(train).most_common() if n > 1]
    number = {w: i for i, (w, _) in enumerate(kept, 1)}
    found = np.array([number.get(w, 0) for w in text], "int32")
    parts = {name: found[here] for name, here in places.items()}
    return parts, np.bincount(parts["train"], minlength=len(kept) + 1)


def examples(numbers: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The contexts that start at given positions, and the words that follow them."""
    return numbers[where[:, None] + np.arange(CONTEXT)], numbers[where + CONTEXT]


def model_of(name: str, counts: np.ndarray, rate: float, seed: int) -> Classifier:
    """A compiled model with the output layer of that name."""
    keras.utils.set_random_seed(seed)
    backbone = keras.Sequential(
        [
            keras.Input((CONTEXT,), dtype="int32"),
            RowwiseEmbedding(len(counts), EMBEDDING),
            keras.layers.Flatten(),
            keras.layers.Dense(HIDDEN, "relu"),
        ]
    )
    layer = OUTPUTS[name].layer(counts, rate)
    model = Classifier(backbone, layer)
    if isinstance(layer, FactoredOutput):
        model.compile(keras.optimizers.Adam())
        return model
    # On TensorFlow, Adagrad updates only the sampled rows of a sampled softmax. Keras
    # starts its sums of squares at 0.1, far above those of rare words.
    model.compile(
        keras.optimizers.Adagrad(rate, initial_accumulator_value=1e-8, epsilon=1e-10)
    )
    return model


def evaluated(model: Classifier, numbers: np.ndarray, count: int) -> dict[str, float]:
    """Accuracies on `count` examples, and perplexity where there are probabilities."""
    where = np.linspace(0, len(numbers) - CONTEXT - 1, count, dtype=int)
    x, y = examples(numbers, np.unique(where))
    found = model.predict(x, 512, verbose=0)
    hit = found["classes"] == y[:, None]
    top = {f"top_{k}": float(np.mean(hit[:, :k].any(axis=-1))) for k in (1, 5, 10)}
    if "log_probabilities" not in found:
        return top
    nll = model.evaluate(x, y, 512, verbose=0, return_dict=True)["nll"]
    return {"perplexity": float(np.exp(nll)), **top}


def batches(train: np.ndarray, batch: int, seed: int) -> Iterator[tuple]:
    """An endless stream of shuffled batches of contexts and their next words."""
    draws = np.random.default_rng(seed)
    while True:
        order = draws.permutation(len(train) - CONTEXT)
        for first in range(0, len(order) - batch + 1, batch):
            yield examples(train, order[first : first + batch])


def seconds_per_step(
    name: str, parts: dict, counts: np.ndarray, seconds: float
) -> float:
    """The mean time of a training step, measured for some seconds."""
    output = OUTPUTS[name]
    model = model_of(name, counts, output.rates[0], 0)
    drawn = batches(parts["train"], output.batch, 0)
    for _ in range(3):  # the first step compiles
        model.train_on_batch(*next(drawn))
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        model.train_on_batch(*next(drawn))
        steps += 1
    return (time.perf_counter() - started) / steps


def trained(
    model: Classifier, parts: dict, minutes: float, step: float, batch: int, seed: int
) -> list[dict]:
    """Trains a model and evaluates it on validation text at some times.

    Args:
        model: The model.
        parts: The parts of the text.
        minutes: The time of training, which gives the number of steps.
        step: Seconds that a step takes.
        batch: Examples in a batch.
        seed: The seed of the order of examples.
    """
    drawn = batches(parts["train"], batch, seed)
    curve, steps = [], 0
    for mark in (*(m for m in EVALUATED_AT if m < minutes), minutes):
        while steps < 60 * mark / step:
            model.train_on_batch(*next(drawn))
            steps += 1
        metrics = evaluated(model, parts["validation"], 5_000)
        curve.append({"minutes": mark, "examples": steps * batch, **metrics})
        print(json.dumps(curve[-1]), flush=True)
    return curve


def chosen_rate(
    name: str, parts: dict, counts: np.ndarray, step: float, given: argparse.Namespace
) -> tuple[float, dict[str, float]]:
    """The learning rate with the best validation top-10 in a trial, and all results.

    If the results of another seed exist, their trials are used.
    """
    for path in sorted(given.out.glob(f"{name}-*.json")):
        kept = json.loads(path.read_text())
        return kept["rate"], kept["validation_top_10_by_rate"]
    trials, batch = {}, OUTPUTS[name].batch
    for rate in OUTPUTS[name].rates:
        print(f"{name}, rate {rate}: trial", flush=True)
        model = model_of(name, counts, rate, 0)
        try:
            curve = trained(model, parts, given.trial_minutes, step, batch, 0)
        except Exception as error:  # of a type that depends on the backend
            if "learning rate of the output layer is too large" not in str(error):
                raise
            curve = [{"top_10": 0.0}]
        trials[str(rate)] = curve[-1]["top_10"]
    return float(max(trials, key=lambda key: trials[key])), trials


def run(
    name: str, seed: int, parts: dict, counts: np.ndarray, given: argparse.Namespace
) -> None:
    """Chooses a learning rate, trains with it, and writes the results."""
    path = given.out / f"{name}-{seed}.json"
    if path.exists():
        print(f"{path} exists already: skipped", flush=True)
        return
    speed = json.loads((given.out / SPEED).read_text())["seconds_per_step"][name]
    rate, trials = chosen_rate(name, parts, counts, speed, given)
    print(f"{name}, rate {rate}, seed {seed}", flush=True)
    model = model_of(name, counts, rate, seed)
    batch = OUTPUTS[name].batch
    curve = trained(model, parts, given.minutes, speed, batch, seed)
    result = {
        "output": name,
        "seed": seed,
        "made_by": " ".join(["python", *sys.argv]),
        "backend": keras.backend.backend(),
        "processor": processor(),
        "words": len(counts),
        "train": len(parts["train"]),
        "batch": batch,
        "validation_top_10_by_rate": trials,
        "rate": rate,
        "curve": curve,
        "test": evaluated(model, parts["test"], 20_000),
    }
    _write(path, result)


def time_steps(parts: dict, counts: np.ndarray, given: argparse.Namespace) -> None:
    """Measures and writes the time of a step of each output that has none yet.

    The number of steps of a run is its time divided by this one. So the machine must be
    idle during this measurement, but not during the runs, and another machine can train
    another seed.
    """
    path = given.out / SPEED
    kept = {"processor": processor(), "seconds_per_step": {}}
    if path.exists():
        kept = json.loads(path.read_text())
    for name in given.outputs:
        if name not in kept["seconds_per_step"]:
            seconds = seconds_per_step(name, parts, counts, given.timed_seconds)
            print(f"{name}: {1000 * seconds:.1f} ms a step", flush=True)
            kept["seconds_per_step"][name] = seconds
            _write(path, kept)


def _write(path: Path, result: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = path.with_suffix(".json.partial")
    begun.write_text(json.dumps(result, indent=1) + "\n")
    begun.rename(path)


def processor() -> str:
    """The name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line for line in lines if "model name" in line).split(": ")[1]


def plot(out: Path) -> None:
    """Plots perplexity and top-10 error over time: means and ranges over seeds."""
    figure = matplotlib.figure.Figure((10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, name in enumerate(OUTPUTS):
        kept = [json.loads(p.read_text()) for p in sorted(out.glob(f"{name}-*.json"))]
        if not kept:
            continue
        style = {"color": f"C{colour}"}
        marks = [p["minutes"] for p in kept[0]["curve"]]
        for axes, value in (
            (left, lambda p: p.get("perplexity", np.nan)),
            (right, lambda p: 100 - 100 * p["top_10"]),
        ):
            curves = np.array([[value(p) for p in one["curve"]] for one in kept])
            axes.fill_between(
                marks, curves.min(axis=0), curves.max(axis=0), alpha=0.2, **style
            )
            if np.isfinite(curves).all() or axes is right:
                axes.plot(marks, curves.mean(axis=0), "o-", ms=3, label=name, **style)
    left.set(xlabel="minutes", ylabel="perplexity on validation text", yscale="log")
    right.set(xlabel="minutes", ylabel="top-10 error on validation text, %")
    left.yaxis.set_major_formatter("{x:.0f}")
    left.yaxis.set_minor_formatter("{x:.0f}")
    for axes in (left, right):
        axes.grid(alpha=0.3, which="both")
    right.legend()
    figure.savefig(out / "next_word.png", dpi=120)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Trains next-word models.")
    parser.add_argument("--text", type=Path, help="a text file, plain or gzip")
    parser.add_argument("--outputs", nargs="+", choices=OUTPUTS, default=list(OUTPUTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--trial_minutes", type=float, default=1)
    parser.add_argument(
        "--timed_seconds", type=float, default=30, help="how long to measure steps"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/next-word"),
        help="the folder of the results; a run that has them there is skipped",
    )
    parser.add_argument("--plot", action="store_true", help="plot the results in --out")
    given = parser.parse_args(argv)
    if given.text:
        if not given.text.is_file():
            parser.error(f"there is no file {given.text}; give --text an existing file")
        parts, counts = numbered(words(given.text))
        print(
            f"{len(counts):,} words, {len(parts['train']):,} words of training text",
            flush=True,
        )
        time_steps(parts, counts, given)
        for seed in given.seeds:
            for name in given.outputs:
                run(name, seed, parts, counts, given)
    elif not given.plot:
        parser.error("give a --text to train on, or --plot")
    if given.plot:
        plot(given.out)


if __name__ == "__main__":
    main()
