import importlib
import importlib.util
import json
import re
import shlex
import subprocess

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, softmax

from benchmarks import runner
from kerasoft import heads
from pipelines import (
    datasets,
    evaluation,
    files,
    formats,
    running,
    training,
    tuning,
)
from pipelines.keeping import read
from pipelines.options import parse


def script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def why(pytestconfig):
    return script(pytestconfig.rootpath / "experiments" / "why_softmax.py")


@pytest.fixture(scope="module")
def figures(pytestconfig):
    path = pytestconfig.rootpath / "results" / "why-softmax" / "figures.json"
    return json.loads(path.read_text("utf-8"))


def assert_close(found, expected):
    """Compares nested figures, numbers up to float32's rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_close(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
    else:
        assert found == expected


def test_the_figures_of_the_text_are_those_of_the_code(why, figures):
    assert_close(why.floors(), figures["floors"])
    assert_close(why.example(), figures["example"])
    assert_close(why.noise(), figures["noise"])


def test_floors_have_a_closed_form(figures):
    for row in figures["floors"]:
        n = row["classes"]
        assert row["chance"] == pytest.approx(np.log(n))
        assert row["floor"] == pytest.approx(np.log(1 + (n - 1) / np.e))
        assert row["highest probability left"] == pytest.approx(np.e / (np.e + n - 1))


def test_the_example_has_the_gradients_of_calculus(figures):
    example = figures["example"]
    x = np.array(example["logits"])
    assert example["log_sum_exp"] == pytest.approx(logsumexp(x))
    p = softmax(x)
    q = softmax(p)
    for row in example["labels"]:
        truth = np.eye(3)[row["label"]]
        for name in ("softmax", "log_softmax"):
            matched = row[f"{name}, matched"]
            assert matched["loss"] == pytest.approx(
                -log_softmax(x)[row["label"]], abs=1e-6
            )
            np.testing.assert_allclose(matched["gradient"], p - truth, atol=1e-6)
        mistake = row["softmax, as_logits"]
        assert mistake["loss"] == pytest.approx(-np.log(q[row["label"]]), abs=1e-6)
        through_softmax = np.diag(p) - np.outer(p, p)
        np.testing.assert_allclose(
            mistake["gradient"], through_softmax @ (q - truth), atol=1e-6
        )
        assert_close(row["log_softmax, as_logits"], row["log_softmax, matched"])


def test_the_gradient_is_followed_through_training(why, figures):
    curves = figures["over_training"]
    assert curves.keys() == why.TRAINED.keys()
    for curve in curves.values():
        steps = np.arange(len(curve["steps"])) * why.EVERY
        np.testing.assert_array_equal(curve["steps"], steps)
        assert np.isfinite(curve["gradient_norm"]).all()


@pytest.fixture(scope="module")
def writeup(pytestconfig):
    """The comparison of the write-up's rows."""
    return read(pytestconfig.rootpath / "results" / "writeup").comparison


def test_the_loss_as_logits_tells_the_accuracy(pytestconfig, writeup):
    """4.62 less the loss, where probabilities can be near 0 and 1."""
    made = script(pytestconfig.rootpath / "experiments" / "writeup_table.py")
    (table,) = writeup.tables
    most = np.log(np.e + len(table.class_names) - 1)
    tried = 0
    for kind in made.kinds(writeup):
        config = kind.runs[0].config
        if config.head.startswith("log_") or config.head == "sin_softmax":
            continue
        for trained in kind.runs:
            learned = most - trained.history["loss"][-1]
            right = trained.history["accuracy"][-1]
            assert learned == pytest.approx(right, abs=0.013)
            tried += 1
    assert tried >= 6


def test_the_document_shows_the_mechanism(pytestconfig):
    """What it says of the runs."""
    made = script(pytestconfig.rootpath / "experiments" / "mechanism.py")
    (table,) = read(made.RESULTS).comparison.tables

    def of(loss, optimizer="sgd"):
        runs = made.members(table, loss, optimizer)
        return (
            100 * np.mean(made.accuracies(table, runs)),
            np.mean(made.last(runs, "val_classes_predicted")),
        )

    accuracy, classes = of(made.AS_LOGITS)
    assert accuracy < 15
    assert classes < 25
    assert all(of(loss)[1] > 95 for loss in (made.RECOVERS, made.KEEPS))
    assert all(of(loss)[0] > 40 for loss in (made.RECOVERS, made.KEEPS))
    doses = [of(loss)[0] for loss in (made.MATCHED, *made.DOSES)]
    assert doses[1] > doses[2] > doses[3] > doses[4]
    for optimizer in ("adam", "muon"):
        assert of(made.AS_LOGITS, optimizer)[0] < of(made.MATCHED, optimizer)[0] - 10
        assert 20 < of(made.AS_LOGITS, optimizer)[1] < 50
    least, most = made.bound(100)
    assert (least, most) == pytest.approx((4.615, 4.622), abs=1e-3)
    for trained in made.members(table, made.AS_LOGITS):
        learned = most - trained.history["loss"][-1]
        assert learned == pytest.approx(trained.history["accuracy"][-1], abs=0.01)
    axes = made.draw(table).axes
    assert len(axes) == 2
    names = [words.get_text() for words in axes[1].get_legend().get_texts()]
    assert names == list(made.WORDS.values())


def test_the_plot_of_heads_shows_few_rows(pytestconfig, writeup):
    made = script(pytestconfig.rootpath / "experiments" / "writeup_table.py")
    (axes,) = made.plot(writeup).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert 5 < len(names) == len(set(names)) <= 10
    for kind in made.kinds(writeup):
        if kind.name in names:
            place = names.index(kind.name)
            lines = [x for x in axes.lines if place in list(x.get_ydata())]
            drawn = [line.get_xdata()[0] for line in lines]
            assert 100 * np.mean(kind.accuracies) == pytest.approx(drawn[0])
            assert 100 * np.mean(kind.matched) == pytest.approx(drawn[-1])


def test_results_stay_small_enough_to_clone(pytestconfig):
    listed = subprocess.run(
        ["git", "ls-files", "-z", "results"],
        cwd=pytestconfig.rootpath,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is no checkout of the repository")
    files = [pytestconfig.rootpath / f for f in listed.stdout.decode().split("\0") if f]
    assert len(files) > 50
    assert sum(f.stat().st_size for f in files if f.exists()) < 10e6


@pytest.fixture(scope="module")
def temperature(pytestconfig):
    """The script of the document on temperature, and the table that it is about."""
    made = script(pytestconfig.rootpath / "experiments" / "temperature.py")
    (table,) = read(made.RESULTS).comparison.tables
    return made, table


def test_the_estimators_are_what_the_document_says(temperature):
    made, _ = temperature
    kept = json.loads((made.RESULTS / "estimators.json").read_text("utf-8"))
    for found, expected in zip(made.estimators(), kept, strict=True):
        for name in ("relaxed", "straight-through"):
            assert found[name] == pytest.approx(expected[name], rel=0.05, abs=0.05)
    for name in ("relaxed", "straight-through"):
        assert np.all(np.diff([row[name]["bias"] for row in kept]) > 0)
        assert np.all(np.diff([row[name]["noise"] for row in kept]) < 0)


def test_accuracy_is_low_at_both_ends_of_the_temperatures(temperature):
    _, table = temperature
    for low, high in ((0.25, 1), (10, 3)):
        (contrast,) = (
            contrast
            for contrast in table.contrasts
            if contrast.a.startswith(f"log_gumbel_softmax t {low:g},")
            and contrast.b.startswith(f"log_gumbel_softmax t {high:g},")
        )
        assert contrast.verdict == "different"
        assert contrast.difference < 0


def test_the_results_are_what_the_explanation_stands_on(writeup):
    (table,) = writeup.tables
    same, noisy, mistake = table.contrasts
    assert same.verdict != "different"
    assert noisy.verdict != "different"
    assert mistake.verdict == "different"
    assert mistake.difference > 0.4
    assert all(len(c.runs_a) == 5 for c in table.contrasts)


def test_the_figures_of_speed_are_those_of_the_benchmarks(pytestconfig):
    root = pytestconfig.rootpath
    text = " ".join((root / "docs" / "speed.md").read_text("utf-8").split())
    readme = " ".join((root / "README.md").read_text("utf-8").split())

    def result(name):
        path = root / "results" / "benchmarks" / f"{name}.json"
        return json.loads(path.read_text("utf-8"))

    rows = {
        (row["width"], row["precision"], row["side"]): row
        for row in result("train_step")["rows"]
    }
    for width in (16, 64):
        row = rows[width, "mixed_bfloat16", "Keras"]
        ratio, low, high = (row[f"to the better{x}"] for x in ("", ", from", ", to"))
        told = rf"{ratio:.2f} times (\S+ ){{0,9}}at width {width} "
        assert re.search(rf"{told}\({low:.2f} to {high:.2f}\b", readme)

    many = {
        row["side"]: row
        for row in result("many_classes")["rows"]
        if row["classes"] == 262144 and row["batch"] == 2048
    }
    chunked, dense = many["kerasoft, chunked"], many["Keras, Dense and softmax"]
    mebibytes = [f"{row['bytes'] / 2**20:,.0f}" for row in (chunked, dense)]
    assert f"{runner.apart(chunked, dense)} of the time of Keras's" in readme
    assert f"takes {mebibytes[0]} MiB of memory" in readme
    assert re.search(rf"where that takes {mebibytes[1]}\b", readme)

    words = {
        (row["side"], row["optimizer"]): row["seconds"]
        for row in result("many_classes")["skewed"]
        if "gcide" in row["labels"] and row["batch"] == 2048
    }
    for optimizer, name in (("adam", "Adam"), ("sgd", "SGD")):
        dense = words["Keras, Dense and softmax", optimizer]
        told = [
            f"{dense / words[f'kerasoft, {side}', optimizer]:.0f}"
            for side in ("adaptive", "sampled 8,192", "two-level")
        ]
        assert f"{told[0]}, {told[1]} and {told[2]} times faster with {name}" in readme
    ours = result("speedrun")["means"]["Keras"]
    assert f"{100 * ours['test accuracy']:.2f} % on average" in readme
    seconds = {
        side: {run["seed"]: run["seconds"] for run in runs}
        for side, runs in runner.by("side", result("speedrun")["runs"]).items()
    }
    ours, theirs = seconds["Keras"], seconds["PyTorch"]
    ratios = [ours[seed] / theirs[seed] for seed in theirs]
    told = "{:.2f}, {:.2f} and {:.2f} of PyTorch's time".format(*ratios)
    assert told in text
    started = result("start_up")["seconds to the first step"]
    assert f"[{started:.1f} seconds]" in text


def test_the_figures_of_many_classes(pytestconfig):
    root = pytestconfig.rootpath
    benchmarks = root / "results" / "benchmarks"
    timed = json.loads((benchmarks / "factored.json").read_text("utf-8"))
    rows = {(r["classes"], r["side"]): r for r in timed["rows"]}
    z, few = (rows[n, "kerasoft, Z-loss"] for n in (10**6, 10**4))
    dense = rows[10**6, "Keras, Dense and softmax"]
    readme = " ".join((root / "README.md").read_text("utf-8").split())

    def spread(one, other):
        low, high = one["fastest"] / other["slowest"], one["slowest"] / other["fastest"]
        return one["seconds"] / other["seconds"], low, high

    def whole(row):  # a step with its share of multiplying out
        return 1000 * row["seconds"] + row["refactor_seconds"]

    middle, low, high = spread(z, few)
    assert (
        f"takes {1000 * z['seconds']:.1f} ms, about as long as with ten thousand "
        f"({middle:.2f} times; {low:.2f} to {high:.2f} between extreme rounds)"
    ) in readme
    assert f"{whole(z):.1f} ms against {whole(few):.1f}" in readme
    middle, low, high = spread(dense, z)
    told = f"{middle:.0f} times as long as the step alone ({low:.0f} to {high:.0f};"
    assert told in readme


def test_the_times_of_heads(pytestconfig):
    root = pytestconfig.rootpath
    text = (root / "docs" / "why-softmax-scored-8-percent.md").read_text("utf-8")
    text = " ".join(text.split())
    timed = json.loads((root / "results/benchmarks/classes.json").read_text("utf-8"))
    rows = {
        (row["head"], row["classes"]): row
        for row in timed["times"]
        if row["pass"] == "with gradient"
    }

    def includes_1(head, n):
        row = rows[head, n]
        return row["to softmax, from"] <= 1 <= row["to softmax, to"]

    # What the document says of log-softmax and of base 2.
    assert rows["log_softmax", 100]["to softmax, to"] < 1
    assert all(includes_1("log_softmax", n) for n in (10**4, 10**6))
    assert rows["log_softmax", 10**5]["to softmax, from"] > 1
    assert all(includes_1("softmax2", n) for n in (100, 10**4, 10**5))
    assert rows["softmax2", 10**6]["to softmax, from"] > 1
    noisy = [rows["gumbel_softmax", 10**power]["to softmax"] for power in (4, 5, 6)]
    assert [round(min(noisy)), round(max(noisy))] == [2, 3]
    forward = [
        row["to softmax"]
        for row in timed["times"]
        if (row["head"], row["pass"]) == ("log_softmax", "forward")
        and row["classes"] >= 10**5
    ]
    assert [round(min(forward), 1), round(max(forward), 1)] == [1.5, 1.7]
    powers = [
        row["exponent"] for row in timed["exponents"] if row["pass"] == "with gradient"
    ]
    assert f"power between {min(powers):.2f} and {max(powers):.2f}" in text


def test_links_between_files_lead_somewhere(pytestconfig):
    root = pytestconfig.rootpath
    pages = [*root.glob("*.md"), *root.glob("tutorials/*.md")]
    pages += [p for name in ("docs", "results") for p in root.glob(f"{name}/**/*.md")]
    assert len(pages) > 20
    for page in pages:
        text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text):
            if not re.match(r"\w+:", link):
                assert (page.parent / link).exists(), f"{page}: {link}"


def next_word(root, name):
    """The runs of an output layer, by seed."""
    paths = sorted((root / "results" / "next-word").glob(f"{name}-*.json"))
    assert len(paths) >= 2
    return [json.loads(path.read_text("utf-8")) for path in paths]


def test_the_figures_of_next_word(pytestconfig):
    root = pytestconfig.rootpath
    header = (root / "examples" / "next_word.py").read_text("utf-8").split('"""')[1]
    readme = (root / "README.md").read_text("utf-8")
    for name in ("full", "sampled", "adaptive", "z_loss"):
        runs = next_word(root, name)
        known = "perplexity" in runs[0]["test"]
        perplexity = np.mean([r["test"]["perplexity"] for r in runs]) if known else None
        row = [
            name,
            f"{runs[0]['curve'][-1]['examples']:,}",
            f"{perplexity:.0f}" if perplexity else "-",
            *(
                f"{100 * np.mean([run['test'][f'top_{k}'] for run in runs]):.1f}"
                for k in (1, 5, 10)
            ),
        ]
        assert row in [line.split() for line in header.splitlines()]
        assert not perplexity or re.search(rf"\b{row[2]}\b", readme)


def test_the_next_word_is_as_the_document_on_many_classes_tells_it(pytestconfig):
    root = pytestconfig.rootpath
    curves = {}
    for name in ("z_loss", "adaptive", "full"):
        runs = next_word(root, name)
        by_minute = {
            point["minutes"]: np.mean([run["curve"][i]["top_10"] for run in runs])
            for i, point in enumerate(runs[0]["curve"])
        }
        curves[name] = by_minute
    z = curves["z_loss"]
    assert all(z[minute] > curves["full"][minute] for minute in z)
    assert all(z[m] < curves["adaptive"][m] for m in z if m >= 1)


def test_the_study_of_many_classes_shows_its_layers(pytestconfig):
    made = script(pytestconfig.rootpath / "experiments" / "many_classes.py")
    found = read(pytestconfig.rootpath / "results" / "glyphs").comparison
    (table,) = found.tables
    ((words, (row,)),) = made.layers(table)
    assert words == "two-level"
    accuracy = 100 * row.as_is.metrics["accuracy"]
    line = made.table_of_runs(found).splitlines()[-1]
    assert line.startswith(f"| 20,902 | two-level | 1 | {accuracy:.1f} |")
    clean, harder = made.draw(found).axes
    for axes, name in ((clean, "accuracy"), (harder, "harder_accuracy")):
        drawn = [tuple(p) for x in axes.lines for p in x.get_xydata()]
        assert (20902, 100 * row.as_is.metrics[name]) in drawn


class Reached(BaseException):
    """A command has understood its options and begins its work."""


WORK = {
    "train": (training, "train"),
    "tune": (tuning, "tune"),
    "evaluate": (evaluation, "evaluate"),
    "predict": (formats, "load"),
    "export": (formats, "export"),
    "report": (files, "read"),
    "run": (running, "run"),
}


def commands(path):
    """The commands of a document that Python runs: module and arguments."""
    blocks = re.findall(r"```console\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    for line in lines:
        for part in line.removeprefix("$ ").split(" && "):
            words = shlex.split(part.split("  # ")[0])
            while words and "=" in words[0]:  # a variable of the environment
                words.pop(0)
            if words[:2] == ["python", "-m"]:
                yield words[2], words[3:]


DOCUMENTS = (
    *("README.md", "CONTRIBUTING.md", "docs/*.md", "docs/how-to/*.md"),
    "results/*/README.md",
)


def test_the_commands_of_the_documents_are_understood(pytestconfig, monkeypatch):
    def reached(*args, **kwargs):
        raise Reached

    for module, function in WORK.values():
        monkeypatch.setattr(module, function, reached)
    monkeypatch.setattr(datasets, "resolve", lambda name: name)
    paths = [p for glob in DOCUMENTS for p in pytestconfig.rootpath.glob(glob)]
    found = [command for path in paths for command in commands(path)]
    assert len(found) > 20
    for module, argv in found:
        package, _, name = module.partition(".")
        if package == "pipelines":
            with pytest.raises(Reached):
                importlib.import_module(module).main(argv)
        elif package == "benchmarks":
            measured = importlib.import_module(module).measured
            parse(runner.parser(name, measured), argv)
        else:
            assert module in ("pytest", "http.server")


def names_after(path):
    """What is defined after a document's code has run."""
    names: dict = {}
    text = path.read_text("utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(block, names)
    return names


def test_the_code_of_readme_runs(pytestconfig, capsys):
    names = names_after(pytestconfig.rootpath / "README.md")
    shown = capsys.readouterr().out
    assert np.fromstring(shown.strip("[]\n "), sep=" ") == pytest.approx(1, abs=1e-5)
    names["model"].fit(names["x"], names["y"], verbose=0)
    assert names["model"].predict(names["x"], verbose=0)["classes"].shape == (64, 5)


def test_the_code_of_the_how_to_pages_runs(pytestconfig):
    folder = pytestconfig.rootpath / "docs" / "how-to"
    found = {path.stem: names_after(path) for path in folder.glob("*.md")}
    x = np.random.default_rng(0).normal(size=(4, 8, 10))
    assert found["gumbel-noise"]["model"](x).shape == (4, 64)
    assert float(found["anneal"]["cosine"](10_000)) == pytest.approx(0.5)
    small = found["own-backbone"]["small"]
    assert small((32, 32, 3)).output_shape == (None, 7, 7, 64)
    # Logits 2.5 times as large as those that the labels are drawn from.
    draws = np.random.default_rng(0)
    logits = draws.normal(scale=2, size=(20_000, 5))
    labels = (logits + draws.gumbel(size=logits.shape)).argmax(axis=-1)
    shown = log_softmax(2.5 * logits, axis=-1)
    temperature = found["calibrate"]["temperature_of"](shown, labels)
    assert temperature == pytest.approx(2.5, rel=0.05)


def test_the_gallery_has_the_accuracy_of_every_head_that_was_trained(
    pytestconfig, monkeypatch
):
    root = pytestconfig.rootpath
    monkeypatch.syspath_prepend(str(root / "docs" / "_site"))
    gallery = importlib.import_module("gallery")
    trained = {
        run.config.head: run.config
        for name in ("writeup", "z")
        for table in read(root / "results" / name).comparison.tables
        for run in table.runs.values()
        if run.config.loss == "matched" and run.config.backbone == "resnet12"
    }
    shown = {n for n in heads.HEADS if "no run" not in gallery.accuracy(n)}
    assert shown == set(trained)
    mean = r"57\.1 % .*; 5 seeds; .*temperature 3"
    assert re.match(mean, gallery.accuracy("log_gumbel_softmax"))
    told = (root / "docs" / "how-to" / "choose.md").read_text("utf-8")
    assert len(shown) == 8
    assert "eight that were trained there" in told
