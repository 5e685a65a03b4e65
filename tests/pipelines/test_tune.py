import csv
import dataclasses
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
import pytest
import yaml

from pipelines import search as searching
from pipelines import train, training, tune, tuning
from pipelines import trials as found
from pipelines.config import Annealing, Config
from pipelines.errors import InputError
from pipelines.run_folder import read_history


@pytest.fixture(scope="module")
def base(tiny):
    return dataclasses.replace(tiny, head="log_gumbel_softmax")


def flags(base, searches, *more):
    """The command line of a search."""
    searches.mkdir(exist_ok=True)
    file = searches.parent / "base.yaml"
    file.write_text(base.to_yaml())
    return ["--config", str(file), "--searches", str(searches), *more]


def command(main, argv):
    with pytest.raises(SystemExit) as exit:
        main(argv)
    return exit.value.code


def trials(searches):
    (file,) = searches.glob("*/trials.csv")
    return list(csv.DictReader(file.read_text().splitlines()))


@pytest.fixture(scope="module")
def searched(base, tmp_path_factory):
    """A search that ended."""
    searches = tmp_path_factory.mktemp("tuned [1]") / "searches"
    argv = flags(base, searches, "--trials", "3", "--algorithm", "random")
    assert command(tune.main, argv) == 0
    return searches


def test_a_search_ends_with_a_config_that_trains_to_the_same(searched, tmp_path):
    rows = trials(searched)
    assert [row["trial"] for row in rows] == ["0", "1", "2"]
    assert {row["status"] for row in rows} == {"completed"}
    best = max(rows, key=lambda row: float(row["accuracy"]))
    (file,) = searched.glob("*/best.yaml")
    config = yaml.safe_load(file.read_text())
    assert config["temperature"] == float(best["start"]) == float(best["end"])
    argv = ["--config", str(file), "--saved_models", str(tmp_path)]
    assert command(train.main, argv) == 0
    (run,) = tmp_path.iterdir()
    accuracies = read_history(run)["val_accuracy"]
    assert accuracies[-1] == pytest.approx(float(best["accuracy"]), abs=1e-6)


def test_a_search_that_ended_is_not_searched_again(searched, base, capsys):
    (file,) = searched.glob("*/trials.csv")
    before = file.read_text()
    argv = flags(base, searched, "--trials", "3", "--algorithm", "random")
    assert command(tune.main, argv) == 0
    assert file.read_text() == before
    printed = capsys.readouterr().out
    assert printed.count("completed") == 3
    assert "next: python -m pipelines.train --config" in printed


def test_a_full_disk_ends_a_search_in_one_line(base, tmp_path, monkeypatch, capfd):
    def fit(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training, "fit", fit)
    assert command(tune.main, flags(base, tmp_path / "searches")) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'searches'}")
    assert "No space left on device; make room there" in line


def test_what_a_trial_keeps_is_no_model(searched):
    assert not list(searched.rglob("checkpoints"))
    assert len(list(searched.rglob("history.csv"))) == 3


KILL = """
import os, signal, sys
from pipelines import search as searching
from pipelines import training, trials as found, tune

starts = 0

def kill(self, batch, logs=None):
    global starts
    if self.epochs == 0 and batch == 0:
        starts += 1
    if starts == int(sys.argv[1]) and self.epochs == 1 and batch == 3:
        os.kill(os.getpid(), signal.SIGKILL)

training.Progress.on_train_batch_end = kill
tune.main(sys.argv[2:])
"""


@pytest.mark.slow
def test_a_killed_search_resumes_to_the_same_trials(searched, base, tmp_path):
    searches = tmp_path / "searches"
    argv = flags(base, searches, "--trials", "3", "--algorithm", "random")
    shot = subprocess.run([sys.executable, "-c", KILL, "2", *argv], check=False)
    assert shot.returncode == -signal.SIGKILL
    assert command(tune.main, argv) == 0
    assert trials(searches) == trials(searched)


@pytest.mark.slow
def test_hyperband_gives_more_epochs_to_what_does_well(base, tmp_path):
    config = dataclasses.replace(base, epochs=3)
    searches = tmp_path / "searches"
    argv = flags(config, searches, "--algorithm", "hyperband", "--objective", "nll")
    assert command(tune.main, argv) == 0
    rows = trials(searches)
    epochs = [int(row["epochs"]) for row in rows]
    assert set(epochs) == {1, 3}
    (file,) = searches.glob("*/best.yaml")
    best = min(rows, key=lambda row: float(row["nll"]))
    assert yaml.safe_load(file.read_text())["epochs"] == int(best["epochs"])


@pytest.mark.slow
def test_a_trial_that_diverges_fails_alone(base, tmp_path, capsys):
    config = dataclasses.replace(base, warmup_epochs=0, learning_rate=1e30)
    searches = tmp_path / "searches"
    assert command(tune.main, flags(config, searches, "--trials", "2")) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "error: No trial ended well."
    # A learning rate within bounds saves the next search, of the same place.
    argv = flags(config, searches, "--search", "learning_rate", "--trials", "2")
    assert command(tune.main, argv) == 0
    rows = trials(searches)
    assert all(0.02 <= float(row["learning_rate"]) <= 1 for row in rows)


@pytest.mark.parametrize("search", ["temperature", "schedule", "learning_rate"])
@pytest.mark.parametrize("both_signs", [False, True])
def test_the_space_is_what_was_asked_for(search, both_signs):
    asked = searching.Search(
        search=search, lowest=0.5, highest=4, both_signs=both_signs
    )
    oracle = tuning.oracle_of(dataclasses.replace(asked, algorithm="random"), Config())
    base = Config(head="gumbel_softmax")
    drawn = [
        searching.config_of_trial(base, oracle.populate_space(str(i))["values"])
        for i in range(40)
    ]
    temperatures: list[Any] = [config.temperature for config in drawn]
    if search == "schedule":
        assert all(isinstance(t, Annealing) and t.possible for t in temperatures)
        assert {t.kind for t in temperatures} == {"linear", "exponential", "cosine"}
        temperatures = [x for t in temperatures for x in (t.start, t.end)]
    sizes = np.abs(temperatures)
    assert 0.5 <= sizes.min() < sizes.max() <= 4
    assert (min(temperatures) < 0) == both_signs
    # On a log scale half of the draws are below the geometric mean.
    assert 0.25 < np.mean(sizes < np.sqrt(0.5 * 4)) < 0.75
    rates = {config.learning_rate for config in drawn}
    assert len(rates) == (40 if search == "learning_rate" else 1)


def test_the_plot_shows_every_trial(searched):
    rows = [
        {**row, "start": float(row["start"]), "end": float(row["end"])}
        | {"accuracy": float(row["accuracy"])}
        for row in trials(searched)
    ]
    rows[1]["accuracy"] = None
    drawn = found.plot(rows, searching.Search(), rows[0])
    (axes,) = drawn.axes
    points = {
        artist.get_gid(): np.asarray(artist.get_xydata())[0]
        for artist in axes.lines
        if str(artist.get_gid()).startswith("trial-")
    }
    assert points.keys() == {"trial-0", "trial-2"}
    for row in rows[:1] + rows[2:]:
        expected = row["end"], row["accuracy"]
        np.testing.assert_array_equal(points[f"trial-{row['trial']}"], expected)
    legend = axes.get_legend()
    assert legend
    assert "failed (1)" in [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--temperature", "3"], "temperature is what is searched"),
        (["--head", "softmax"], "belongs to the Gumbel heads"),
        (["--lowest", "0"], "lowest must be above 0"),
        (["--lowest", "5", "--highest", "2"], "Received: 5.0 and 2.0"),
        (["--trials", "0"], "trials must be at least 1"),
        (["--trials", "4", "--algorithm", "hyperband"], "follows from the epochs"),
        (["--algorithm", "grid"], "algorithm must be"),
        (
            [
                "--algorithm=hyperband",
                "--loss.first=matched",
                "--loss.then=as_logits",
                "--loss.after=1",
            ],
            "loss must change after at least 1 of the 1 epochs",
        ),
        (["--objective", "loudness"], "objective must be one of accuracy, top5"),
    ],
)
def test_bad_input_ends_in_one_line(argv, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command(tune.main, argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert not list(tmp_path.iterdir())


def test_an_objective_that_the_data_does_not_have_is_refused(base, tmp_path, capsys):
    argv = flags(base, tmp_path / "searches", "--objective", "superclass_accuracy")
    assert command(tune.main, argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "objective superclass_accuracy has no value on folder:" in line
    assert not list((tmp_path / "searches").iterdir())


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 8, 9, 15, 20, 27, 30])
def test_the_shortest_trial_is_hyperbands(epochs):
    oracle = keras_tuner.oracles.HyperbandOracle(max_epochs=epochs)
    brackets = oracle._get_num_brackets()
    first = oracle._get_epochs(brackets - 1, 0)
    assert searching.shortest(epochs) == first


def test_a_metric_of_superclasses_can_be_searched_for(base, loaded):
    known = dataclasses.replace(
        loaded, superclasses=[0, 1, 0], superclass_names=["bg", "r"]
    )
    search = searching.Search(objective="summed_superclass_accuracy")
    tuning.check(base, search, known)
    with pytest.raises(InputError, match="has no value"):
        tuning.check(base, search, loaded)


def test_another_search_is_not_overwritten_unasked(searched, base, capsys):
    (folder,) = searched.iterdir()
    argv = flags(base, searched, "--algorithm", "random", "--trials", "3")
    assert command(tune.main, [*argv, "--lowest", "0.5"]) == 2
    assert "Another search is in" in capsys.readouterr().err
    kept = (folder / "oracle.json").read_text()
    (folder / "oracle.json").write_text(kept[: len(kept) // 2])
    assert command(tune.main, argv) == 2
    assert "damaged" in capsys.readouterr().err
    (folder / "oracle.json").write_text(kept)


@pytest.mark.slow
def test_a_chief_and_two_workers_end_every_trial_though_one_is_killed(base, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    searches = tmp_path / "searches"
    argv = flags(base, searches, "--trials", "5", "--algorithm", "random")
    shared = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}

    def start(tuner, *program):
        environment = {**os.environ, **shared, "KERASTUNER_TUNER_ID": tuner}
        return subprocess.Popen([sys.executable, *program, *argv], env=environment)

    tune_command = ("-m", "pipelines.tune")
    chief = start("chief", *tune_command)
    lost = start("worker0", "-c", KILL, "1")
    other = start("worker1", *tune_command)
    assert lost.wait(300) == -signal.SIGKILL
    again = start("worker0", *tune_command)
    for process in (again, other, chief):
        assert process.wait(300) == 0
    rows = trials(searches)
    assert sorted(row["trial"] for row in rows) == ["0", "1", "2", "3", "4"]
    assert {row["status"] for row in rows} == {"completed"}
    assert len({row["start"] for row in rows}) == 5


def test_errors_name_the_folder_and_not_the_link_to_it():
    with (
        pytest.raises(OSError, match="room") as caught,
        tuning.without_link(Path("/tmp/x/search"), Path("searches/mine")),
    ):
        raise OSError(28, "no room", "/tmp/x/search/oracle.json")
    assert caught.value.filename == "searches/mine/oracle.json"
