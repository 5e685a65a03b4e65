"""Next-word prediction over a real vocabulary, by four output layers.

Nine minutes of training each on two cores of an AMD EPYC with AVX-512 (TensorFlow, one
seed, results/next-word), judged on test text by exact probabilities; and the perplexity
that they had on validation text when each had seen 819,200 examples:

              examples perplexity  top 1  top 5  top 10  after 819,200 examples
    full         880,640        501   17.9   33.5    40.7                    531
    adaptive  10,151,424        264   22.4   39.1    46.3                    471
    sampled    4,581,376        324   20.9   37.4    44.4                    528

In the same time, the adaptive and the sampled softmax see 12 and 5 times as many
examples, and predict better. After the same examples they are no worse than the full
one.

A feed-forward model (Bengio et al., 2003) reads six words and predicts the next one of
some 105,000. Its output layer is one of:

- `full`: softmax over all words, `ChunkedOutput`;
- `adaptive`: frequent words at full width, rare ones in clusters, `AdaptiveOutput`;
- `sampled`: trained on 8,192 words drawn by their counts, `SampledOutput`;
- `two_level`: first one of some 320 groups, then the word in it, `TwoLevelOutput`; it
  has not been trained here.

Each is trained for the same time, with the learning rate that did best on validation
text in a short trial of its own (0.03 for all three; 0.01 and 0.1 were worse).

    $ apt install dict-gcide  # 5.4 million words of dictionary prose, or take any text
    $ python examples/next_word.py --text /usr/share/dictd/gcide.dict.dz
    $ python examples/next_word.py --plot
"""

import argparse
import collections
import gzip
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import matplotlib.figure
import numpy as np

from kerasoft.output_layers import (
    AdaptiveOutput,
    ChunkedOutput,
    Classifier,
    OutputLayer,
    SampledOutput,
    TwoLevelOutput,
)

CONTEXT, EMBEDDING, HIDDEN, BATCH = 6, 64, 128, 512
JUDGED = {100 * 2**k for k in range(20)}  # after how many batches
BLOCK = 1_000  # words in a row that belong to one part of the text

OUTPUTS: dict[str, Callable[[np.ndarray], OutputLayer]] = {
    "full": lambda counts: ChunkedOutput(len(counts), top_k=10),
    "adaptive": lambda counts: AdaptiveOutput(len(counts), counts, top_k=10),
    "sampled": lambda counts: SampledOutput(
        len(counts), min(8192, len(counts)), counts, top_k=10, seed=0
    ),
    "two_level": lambda counts: TwoLevelOutput(len(counts), top_k=10),
}


def words(path: Path) -> list[str]:
    """The words of a text file, which may be compressed by gzip, in lower case."""
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    return re.findall(r"[^\W\d_]+", raw.decode("utf8", "replace").lower())


def numbered(text: list[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The parts of a text as numbers of words, and how often each word is trained on.

    Every 40th block of words is validation text and the one after it test text. Number
    0 stands for all words that are not met twice in the text trained on; the others are
    numbered by falling frequency.
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
    """Contexts that begin at some places, and the words that follow them."""
    return numbers[where[:, None] + np.arange(CONTEXT)], numbers[where + CONTEXT]


def model_of(name: str, counts: np.ndarray, rate: float) -> Classifier:
    """A model with an output layer by its name, compiled."""
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential(
        [
            keras.Input((CONTEXT,), dtype="int32"),
            keras.layers.Embedding(len(counts), EMBEDDING),
            keras.layers.Flatten(),
            keras.layers.Dense(HIDDEN, "relu"),
        ]
    )
    model = Classifier(backbone, OUTPUTS[name](counts))
    # On TensorFlow, Adagrad updates those rows of the embedding that a batch has met.
    # Keras starts its sums of squares at 0.1, far above those of rare words.
    model.compile(
        keras.optimizers.Adagrad(rate, initial_accumulator_value=1e-8, epsilon=1e-10)
    )
    return model


def judged(model: Classifier, numbers: np.ndarray, count: int) -> dict[str, float]:
    """Perplexity and accuracies on `count` examples, by exact probabilities."""
    where = np.linspace(0, len(numbers) - CONTEXT - 1, count, dtype=int)
    x, y = examples(numbers, np.unique(where))
    nll = model.evaluate(x, y, BATCH, verbose=0, return_dict=True)["nll"]
    hit = model.predict(x, BATCH, verbose=0)["classes"] == y[:, None]
    top = {f"top_{k}": float(np.mean(hit[:, :k].any(axis=-1))) for k in (1, 5, 10)}
    return {"perplexity": float(np.exp(nll)), **top}


def trained(model: Classifier, parts: dict, seconds: float) -> list[dict]:
    """Trains for some time, and judges on validation text whenever it has doubled.

    It judges after 100, 200, 400, ... batches and at the end. The time of judging does
    not count, nor that of the first batch, which compiles.
    """
    draws = np.random.default_rng(0)
    train = parts["train"]
    spent, batches, curve = 0.0, 0, []

    def judge():
        found = judged(model, parts["validation"], 5_000)
        curve.append({"seconds": spent, "examples": batches * BATCH, **found})
        print(json.dumps(curve[-1]), flush=True)

    while spent < seconds:
        order = draws.permutation(len(train) - CONTEXT)
        for first in range(0, len(order) - BATCH + 1, BATCH):
            x, y = examples(train, order[first : first + BATCH])
            started = time.perf_counter()
            model.train_on_batch(x, y)
            spent += (time.perf_counter() - started) * (batches > 0)
            batches += 1
            if batches in JUDGED:
                judge()
            if spent >= seconds:
                break
    judge()
    return curve


def run(name: str, parts: dict, counts: np.ndarray, given: argparse.Namespace) -> None:
    """Chooses a rate, trains with it, and writes what came out."""
    trials = {}
    for rate in given.rates:
        print(f"{name}, rate {rate}: trial", flush=True)
        model = model_of(name, counts, rate)
        curve = trained(model, parts, 60 * given.trial_minutes)
        trials[str(rate)] = curve[-1]["perplexity"]
    rate = float(min(trials, key=lambda key: trials[key]))
    print(f"{name}, rate {rate}", flush=True)
    model = model_of(name, counts, rate)
    curve = trained(model, parts, 60 * given.minutes)
    result = {
        "output": name,
        "made_by": " ".join(["python", *sys.argv]),
        "backend": keras.backend.backend(),
        "processor": processor(),
        "words": len(counts),
        "train": len(parts["train"]),
        "validation_perplexity_by_rate": trials,
        "rate": rate,
        "curve": curve,
        "test": judged(model, parts["test"], 20_000),
    }
    given.out.mkdir(parents=True, exist_ok=True)
    begun = given.out / f"{name}.json.partial"
    begun.write_text(json.dumps(result, indent=1) + "\n")
    begun.rename(given.out / f"{name}.json")


def processor() -> str:
    """The processor's own name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line for line in lines if "model name" in line).split(": ")[1]


def plot(out: Path) -> None:
    """Draws perplexity and top-10 error by minutes of what has been run."""
    figure = matplotlib.figure.Figure((10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in OUTPUTS:
        if not (out / f"{name}.json").exists():
            continue
        curve = json.loads((out / f"{name}.json").read_text())["curve"]
        minutes = [point["seconds"] / 60 for point in curve]
        left.plot(minutes, [p["perplexity"] for p in curve], "o-", label=name)
        right.plot(minutes, [100 - 100 * p["top_10"] for p in curve], "o-", label=name)
    left.set(xlabel="minutes", ylabel="perplexity on validation text", yscale="log")
    right.set(xlabel="minutes", ylabel="error of the ten likeliest words, %")
    left.yaxis.set_major_formatter("{x:.0f}")
    left.yaxis.set_minor_formatter("{x:.0f}")
    for axes in (left, right):
        axes.grid(alpha=0.3, which="both")
    left.legend()
    figure.savefig(out / "next_word.png", dpi=120)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Trains next-word models.")
    parser.add_argument("--text", type=Path, help="a text file, plain or gzip")
    parser.add_argument("--outputs", nargs="+", choices=OUTPUTS, default=list(OUTPUTS))
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--trial_minutes", type=float, default=1)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.03])
    parser.add_argument("--out", type=Path, default=Path("results/next-word"))
    parser.add_argument("--plot", action="store_true", help="draw what has been run")
    given = parser.parse_args(argv)
    if given.text:
        if not given.text.is_file():
            parser.error(f"there is no file {given.text}; give --text another")
        parts, counts = numbered(words(given.text))
        print(f"{len(counts):,} words, {len(parts['train']):,} to train on", flush=True)
        for name in given.outputs:
            run(name, parts, counts, given)
    elif not given.plot:
        parser.error("give a --text to train on, or --plot")
    if given.plot:
        plot(given.out)


if __name__ == "__main__":
    main()
