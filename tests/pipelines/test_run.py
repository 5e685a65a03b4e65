import dataclasses
import fcntl
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from records import ended, leave

from pipelines import evaluation, run, running
from pipelines.config import Annealing, Config
from pipelines.errors import InputError
from pipelines.experiment import Planned, read

# Stands for the trainer: publishes a run at once, or fails where the seed is 1.
STUB = """
import json, pathlib, sys
_, records, _, config, _, folder, *rest = sys.argv
text = pathlib.Path(config).read_text()
seed = int(text.split("seed: ")[1])
name, record = json.loads(records)[seed]
with open(pathlib.Path(folder) / "calls.txt", "a") as calls:
    print(seed, *rest, file=calls)
if seed == 1:
    sys.exit(3)
extra = pathlib.Path(folder) / name / "assets.extra"
extra.mkdir(parents=True)
(extra / "run.json").write_text(json.dumps(record))
"""


@pytest.fixture
def experiment(tmp_path):
    """Writes an experiment."""

    def write(content):
        path = tmp_path / "experiment.yaml"
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def configs():
    return [Config("softmax", dataset="cifar100", seed=seed) for seed in range(3)]


@pytest.fixture(autouse=True)
def trainer(tmp_path, configs, monkeypatch):
    stub = tmp_path / "stub.py"
    stub.write_text(STUB)
    records = [(c.run_name, dataclasses.asdict(ended(c))) for c in configs]
    command = (sys.executable, str(stub), json.dumps(records))
    monkeypatch.setattr(running, "TRAIN", command)


def calls(folder):
    path = folder / "calls.txt"
    found = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def record(config, folder, **others):
    leave(ended(config, **others), folder / config.run_name)


def test_lists_are_axes_and_a_run_wins_over_the_defaults(experiment):
    path = experiment(
        {
            "defaults": {"dataset": "cifar100", "width": 8, "seed": [0, 1]},
            "runs": [
                {"head": "gumbel_softmax", "temperature": [3, -1.5], "width": 4},
                {"head": "softmax", "seed": 5, "reported": {"accuracy": 0.0809}},
                {"head": ["softmax", "log_softmax"], "seed": 5},
            ],
        }
    )
    made = functools.partial(Config, dataset="cifar100")
    assert read(path).runs == [
        *(
            Planned(made("gumbel_softmax", t, width=4, seed=seed), None)
            for seed in (0, 1)
            for t in (3, -1.5)
        ),
        Planned(made("softmax", width=8, seed=5), {"accuracy": 0.0809}),
        Planned(made("log_softmax", width=8, seed=5), None),
    ]


def test_an_annealing_is_one_value(experiment):
    annealing = {"kind": "linear", "start": 3, "end": 1}
    entry = {"head": "gumbel_softmax", "temperature": annealing, "dataset": "cifar100"}
    (planned,) = read(experiment({"runs": [entry]})).runs
    assert planned.config.temperature == Annealing("linear", 3.0, 1.0)


def test_an_experiment_declares_what_it_compares(experiment):
    content = {
        "defaults": {"dataset": "shapes100", "width": 4, "seed": [0, 1]},
        "runs": [{"head": ["softmax", "log_softmax"]}, {"head": "softmax2"}],
        "contrasts": [[{"head": "softmax"}, {"head": "log_softmax"}]],
        "margin": 2,
    }
    described = read(experiment(content))
    assert len(described.runs) == 6
    ((a, b),) = described.contrasts
    softmax = Config(dataset="shapes100", width=4, head="softmax")
    assert (a, b) == (softmax, dataclasses.replace(softmax, head="log_softmax"))
    assert described.margin == 0.02
    assert read(experiment({"runs": [{}]})).contrasts == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("runs: [", "cannot be read"),
        ("softmax", "must hold"),
        ({"runs": [], "default": {}}, "must hold"),
        ({"runs": ["softmax"]}, "must hold"),
        ({"runs": [{}, {"haed": "softmax"}]}, "Run 2 of .*no option haed.*mean head"),
        ({"runs": [{"width": "wide"}]}, "Run 1 of .*width must be int"),
        ({"runs": [{"head": "softmax", "temperature": [1]}]}, "belongs to the Gumbel"),
        ({"runs": []}, "at least 1 run and at most 10,000.* Received: 0"),
        ({"runs": [{"seed": 1}, {"seed": []}]}, "Run 2 of .*list without values"),
        (
            {"runs": [{name: [1] * 30 for name in ("seed", "width", "epochs")}]},
            "at most 10,000.* Received: 27000",
        ),
        (
            {"runs": [{f"k{i}": [1, 2, 3] for i in range(90)}]},
            r"Received: over 10\*\*9",
        ),
        ({"runs": [{"seed": None}]}, "Run 1 of .*seed must not be null"),
        ({"runs": [{"config": {"seed": 1}}]}, "Run 1 of .*option config"),
        ("runs: [&a {seed: *a}]", "anchors"),
        ("runs: [{seed: 1, seed: 2}]", "line 1: the key seed stands there twice"),
        ("runs: " + "[" * 3000, "at most 16 levels"),
        ("runs: [{seed: !!bool x}]", "tags"),
        ({"runs": [{"reported": {"row": [1]}}]}, "Run 1 of .*reported must hold"),
        ({"runs": [{"reported": {"row": 1}}]}, "reported must hold"),
        ({"runs": [{"reported": {"row": "x", "acc": 0.5}}]}, "Received: .*acc"),
        ({"runs": [{"reported": {"accuracy": True}}]}, "reported must hold"),
        ({"runs": [{"reported": {"accuracy": [0.5]}}]}, "reported must hold"),
        ({"runs": [{"reported": {"accuracy": float("nan")}}]}, "reported must hold"),
        ({"runs": [{"reported": ["accuracy"]}]}, "reported must hold"),
        ({"runs": [{}], "contrasts": {}}, "contrasts must be a list"),
        ({"runs": [{}], "contrasts": [[{}]]}, "Contrast 1 of .*two mappings"),
        ({"runs": [{}], "contrasts": ["ab"]}, "Contrast 1 of .*two mappings"),
        ({"runs": [{}], "contrasts": [[{}, {}]]}, "Contrast 1 of .*both are the same"),
        (
            {"runs": [{}], "contrasts": [[{}, {"head": "softmax"}]]},
            "Contrast 1 of .*no configurations have the options .*softmax",
        ),
        (
            {"runs": [{}], "contrasts": [[{}, {"width": "wide"}]]},
            "Contrast 1 of .*width must be int",
        ),
        (
            {
                "runs": [{"width": [4, 8]}],
                "contrasts": [[{"width": 4}, {"epochs": 15}]],
            },
            "Contrast 1 of .*2 configurations have the options .*epochs",
        ),
        (
            {"runs": [{"width": [4, 8]}], "contrasts": [[{"width": 4}, {"seed": 0}]]},
            "Contrast 1 of .*over all seeds; omit seed",
        ),
        (
            {
                "runs": [{"label": ["fine", "coarse"], "dataset": "shapes100"}],
                "contrasts": [[{"label": "fine"}, {"label": "coarse"}]],
            },
            "Contrast 1 of .*same dataset, label, .*tested on different images",
        ),
        (
            {"runs": [{"dataset": ["folder:a/photos", "folder:b/photos"]}]},
            "several runs that would be named photos-resnet12-log_softmax-s0",
        ),
        ({"runs": [{}], "margin": 0}, "margin must be .* Received: 0"),
        ({"runs": [{}], "margin": "1"}, "margin must be"),
        ({"runs": [{}], "margin": float("nan")}, "margin must be"),
    ],
)
def test_a_wrong_experiment_is_refused(content, message, experiment):
    with pytest.raises(InputError, match=message) as caught:
        read(experiment(content))
    assert "\n" not in str(caught.value)


def test_a_pipe_is_no_experiment(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no regular file"):
        read(tmp_path / "pipe")


def test_a_missing_experiment_ends_in_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run.main([str(tmp_path / "none.yaml")])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize(
    "path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda p: p.stem
)
def test_the_experiments_of_the_repository_can_be_read(path):
    planned = read(path).runs
    names = [one.config.run_name for one in planned]
    assert len(set(names)) == len(names) >= 3
    assert f"python -m pipelines.run experiments/{path.name}" in path.read_text()


def test_the_plan_tells_what_is_there_and_how_long_the_rest_takes(
    experiment, tmp_path, capsys
):
    done = Config("softmax", dataset="cifar100", epochs=4)
    record(done, tmp_path / "runs", wall_seconds=240.0)
    stopped = Config("log_softmax", dataset="cifar100", epochs=10)
    partial = tmp_path / "runs" / f".{stopped.run_name}.partial"
    partial.mkdir()
    (partial / "config.yaml").touch()
    entries = [
        {"head": "softmax", "epochs": 4},
        {"head": "log_softmax", "epochs": 10},
        {"head": "log_softmax", "epochs": 3},
        {"head": "log_softmax", "steps_per_epoch": 9},
    ]
    path = experiment({"defaults": {"dataset": "cifar100"}, "runs": entries})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        run.main([str(path), "--saved_models", str(tmp_path / "runs"), "--dry-run"])
    assert ended.value.code == 0
    there, resumed, new, unknown, words = capsys.readouterr().out.splitlines()
    assert there.split() == ["there", done.run_name]
    assert resumed.startswith("stopped")
    assert resumed.endswith("(about 10 min)")
    assert new.startswith("new")
    assert new.endswith("(about 3 min)")
    assert unknown.endswith("-s0")
    assert words == (
        "3 of 4 runs to train; 2 of them in about 13 min; the time of 1 is not known "
        "until one of their size is there"
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_there_is_skipped_and_a_failure_does_not_stop_the_rest(
    configs, tmp_path
):
    folder = tmp_path / "runs"
    record(configs[0], folder)
    failures = running.train_all(configs, folder)
    assert calls(folder) == ["1", "2"]
    assert failures == {configs[1].run_name: "the training ended with status 3"}
    assert running.train_all(configs, folder) == failures
    assert calls(folder) == ["1"]
    assert not list(folder.glob("*.lock"))


def test_a_stopped_run_is_resumed(configs, tmp_path):
    partial = tmp_path / f".{configs[0].run_name}.partial"
    partial.mkdir()
    (partial / "config.yaml").touch()
    assert not running.train_all(configs[:1], tmp_path)
    assert calls(tmp_path) == ["0 --resume"]


@pytest.mark.skipif(len(running.all_cores()) < 2, reason="takes two cores")
def test_jobs_share_the_runs_and_the_cores(configs, tmp_path):
    failures = running.train_all(configs, tmp_path, jobs=2)
    assert sorted(calls(tmp_path)) == ["0", "1", "2"]
    log = tmp_path / f".{configs[1].run_name}.log"
    assert list(failures) == [configs[1].run_name]
    assert str(log) in failures[configs[1].run_name]
    assert list(tmp_path.glob(".*")) == [log]
    seen = [set(share) for share in running.share_cores(2)]
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == set(running.all_cores())


@pytest.mark.skipif(len(running.all_cores()) < 2, reason="takes two cores")
def test_a_trainer_keeps_to_its_cores(configs, tmp_path, monkeypatch):
    script = "import os, sys; print(sorted(os.sched_getaffinity(0))); sys.exit(1)"
    sleep = "import time; time.sleep(1)\n"  # the cores are set just after the start
    monkeypatch.setattr(running, "TRAIN", (sys.executable, "-c", sleep + script))
    running.train_all(configs[:2], tmp_path, jobs=2)
    logs = {path.read_text().strip() for path in tmp_path.glob(".*.log")}
    assert logs == {str(share) for share in running.share_cores(2)}


@pytest.mark.parametrize("jobs", [0, 10_000])
def test_impossible_jobs_are_refused(jobs, configs, tmp_path):
    with pytest.raises(InputError, match=f"jobs must be .* Received: {jobs}"):
        running.train_all(configs, tmp_path / "runs", jobs=jobs)
    assert not (tmp_path / "runs").exists()


def test_stopping_stops_every_trainer(configs, tmp_path, monkeypatch):
    forever = "import time; time.sleep(600)"
    monkeypatch.setattr(running, "TRAIN", (sys.executable, "-c", forever))
    before = signal.signal(signal.SIGALRM, lambda *_: sys.exit(143))
    started = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(SystemExit):
            running.train_all(configs, tmp_path, jobs=len(running.all_cores()[:2]))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < 60  # the trainers would take 600 s


def test_a_place_that_no_comparison_can_take_is_refused_before_training(
    experiment, configs, tmp_path
):
    path = experiment({"runs": [{"head": "softmax", "dataset": "cifar100"}]})
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; name a folder"):
        running.run(path, tmp_path / "runs", tmp_path / "file")
    assert not (tmp_path / "runs").exists()


def test_another_run_of_the_same_name_is_left_alone(configs, tmp_path):
    record(dataclasses.replace(configs[0], head="log_softmax"), tmp_path)
    other = tmp_path / "cifar100-resnet12-log_softmax-s0"
    other.rename(tmp_path / configs[0].run_name)
    failures = running.train_all(configs[:1], tmp_path)
    assert "another run" in failures[configs[0].run_name]
    assert not calls(tmp_path)


def test_a_run_that_a_left_over_trainer_still_trains_is_not_trained_twice(
    configs, tmp_path
):
    lock = os.open(tmp_path / f".{configs[0].run_name}.lock", os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    orphan = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock]
    )
    os.close(lock)
    failures = running.train_all(configs[:1], tmp_path)
    orphan.communicate(b"\n")
    assert failures == {configs[0].run_name: "another process is training it"}
    assert not running.train_all(configs[:1], tmp_path)
    assert calls(tmp_path) == ["0"]


def test_the_runs_that_ended_are_compared(
    experiment, configs, tmp_path, monkeypatch, capsys
):
    compared = []
    monkeypatch.setattr(evaluation, "evaluate", lambda *a, **k: compared.append((a, k)))
    reported = {"accuracy": 0.0809}
    path = experiment(
        {
            "defaults": {"dataset": "cifar100", "head": "softmax"},
            "runs": [{"seed": [0], "reported": reported}, {"seed": [1, 2]}],
        }
    )
    folder = tmp_path / "runs"
    with pytest.raises(SystemExit) as ended:
        run.main([str(path), f"--saved_models={folder}", f"--out={tmp_path / 'out'}"])
    assert ended.value.code == 1
    names = [config.run_name for config in configs]
    paths = [folder / names[0], folder / names[2]]
    assert compared == [
        (
            (paths, tmp_path / "out", {names[0]: reported}),
            {
                "made_by": f"python -m pipelines.run {path}",
                "contrasts": [],
                "margin": 0.01,
            },
        )
    ]
    assert f"failed: {names[1]}" in capsys.readouterr().err
