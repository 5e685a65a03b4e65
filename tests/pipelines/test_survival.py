"""Runs, searches and comparisons whose processes die, meet each other, or fill a disk.

What the message recommends mends everything: a run that was stopped ends with the same
weights as one that was not, nothing is left over, and nothing old is lost.
"""

import random
import shutil
import signal
import subprocess

import pytest
from forks import Job, forks

from pipelines.run_folder import EXTRA, RECORD

pytestmark = pytest.mark.slow
MARKER = "of-the-old-run"


@pytest.fixture(scope="module")
def start():
    with forks() as run:
        yield run


@pytest.fixture(scope="module")
def options(photos, tmp_path_factory):
    """Those of a run with noise, on images in a path that is a pattern to some."""
    root = tmp_path_factory.mktemp("survival") / "photos [1]"
    shutil.copytree(photos, root)
    given = {
        "dataset": f"folder:{root}",
        "backbone": "plain_cnn",
        "width": "4",
        "image_size": "16",
        "batch_size": "8",
        "epochs": "2",
        "learning_rate": "0.05",
        "precision": "float32",
        "head": "log_gumbel_softmax",
    }
    return [word for name, value in given.items() for word in (f"--{name}", value)]


@pytest.fixture(scope="module")
def straight(start, options, tmp_path_factory):
    """A run that nothing stopped, and how it ended."""
    place = tmp_path_factory.mktemp("straight")
    (ended,) = start(Job("train", [*options, "--saved_models", str(place)]))
    assert ended.status == 0, ended
    assert ended.events > 30
    return alone(place), ended


def alone(place):
    """The only thing in a folder."""
    (found,) = place.iterdir()
    return found


def content(folder):
    """What must not depend on what a command went through, by the names of files."""
    kept = {}
    for path in folder.rglob("*"):
        # The events of TensorBoard and what holds times, names or traces.
        if path.is_file() and (
            path.suffix in (".csv", ".md", ".npz", ".txt", ".yaml")
            or path.name.startswith("variables.data")
        ):
            kept[str(path.relative_to(folder))] = path.read_bytes()
    return kept


def mend(start, job):
    """Does what the messages recommend until the command ends well.

    Returns:
        Whether it was all there already.
    """
    (ended,) = start(job)
    if ended.status == 2 and "--resume goes on" in ended.err:
        (ended,) = start(job._replace(argv=[*job.argv, "--resume"]))
    there = ended.status == 2 and "is there already" in ended.err
    assert there or ended.status == 0, ended
    return there


@pytest.mark.parametrize("overwrites", [False, True])
def test_a_run_that_is_killed_at_a_change_of_a_file_is_mended(
    overwrites, start, options, straight, tmp_path
):
    reference, undisturbed = straight
    last = undisturbed.events
    # Those that publish are the last.
    for death in (*range(2, last - 8, 8), *range(last - 6, last, 1 + overwrites)):
        place = tmp_path / str(death)
        job = Job("train", [*options, "--saved_models", str(place)])
        path = place / reference.name
        killed = job._replace(at=death)
        if overwrites:
            shutil.copytree(reference, path)
            (path / MARKER).touch()
            killed = killed._replace(argv=[*job.argv, "--overwrite"])
        (ended,) = start(killed)
        assert ended.status == -signal.SIGKILL, ended
        if overwrites:
            old = place / f".{path.name}.finished" / "old"
            assert any((run / EXTRA / RECORD).exists() for run in (path, old))
        there = mend(start, job)
        if there and (path / MARKER).exists():
            mend(start, job._replace(argv=[*job.argv, "--overwrite"]))
        assert alone(place) == path
        assert content(path) == content(reference)
        assert not (path / MARKER).exists()


def test_a_run_that_gets_a_signal_at_any_moment_is_mended(
    start, options, straight, tmp_path
):
    reference, undisturbed = straight
    rng = random.Random(0)
    for number, kind in enumerate([signal.SIGKILL, signal.SIGTERM, signal.SIGINT] * 2):
        place = tmp_path / str(number)
        job = Job("train", [*options, "--saved_models", str(place)])
        moment = rng.uniform(0.1, 0.9) * undisturbed.seconds
        (ended,) = start(job._replace(after=moment, signal=kind))
        assert ended.status in (0, -kind, 128 + kind)
        assert ended.err == ""
        mend(start, job)
        assert alone(place).name == reference.name
        assert content(alone(place)) == content(reference)


def test_a_comparison_that_is_killed_is_the_old_one_or_the_new_one(
    start, straight, tmp_path
):
    reference, _ = straight
    out = tmp_path / "place" / "comparison"
    argv = [str(reference), "--timings", "false", "--out", str(out)]
    (ended,) = start(Job("evaluate", argv))
    assert ended.status == 0, ended
    (out / "notes.md").write_text("mine")
    (ended,) = start(Job("evaluate", argv))
    new, last = content(out), ended.events
    assert new["notes.md"] == b"mine"
    for death in (*range(1, last - 6, 7), *range(last - 5, last)):
        shutil.copy(out / "comparison.md", out / "comparison.csv")
        old = content(out)
        (ended,) = start(Job("evaluate", argv, at=death))
        assert ended.status == -signal.SIGKILL
        if out.exists():
            assert content(out) in (old, new)
        (ended,) = start(Job("evaluate", argv))
        assert ended.status == 0, ended
        assert alone(out.parent) == out
        assert content(out) == new


def test_a_search_that_is_killed_goes_on(start, options, tmp_path):
    few = ["--trials", "2", "--algorithm", "random", "--searches"]
    (ended,) = start(Job("tune", [*options, *few, str(tmp_path / "straight")]))
    assert ended.status == 0, ended
    best = content(alone(tmp_path / "straight"))
    for death in range(3, ended.events, 16):
        place = tmp_path / str(death)
        job = Job("tune", [*options, *few, str(place)])
        (ended,) = start(job._replace(at=death))
        assert ended.status == -signal.SIGKILL
        (ended,) = start(job)
        if ended.status == 2 and "--overwrite starts anew" in ended.err:
            (ended,) = start(job._replace(argv=[*job.argv, "--overwrite"]))
        assert ended.status == 0, ended
        assert content(alone(place)) == best


@pytest.fixture
def disk(tmp_path):
    """A disk, and the function that gives it another size in KiB."""
    place = tmp_path / "disk"
    place.mkdir()

    def resize(kibibytes, *options):
        options = ",".join([*options, f"size={kibibytes}k"])
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        return subprocess.run(words, capture_output=True).returncode

    if not shutil.which("mount") or resize(64):
        pytest.skip("no disk can be mounted here")
    yield place, lambda kibibytes: resize(kibibytes, "remount")
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("command", ["train", "tune", "evaluate", "report", "export"])
def test_a_full_disk_ends_a_command_in_one_line_and_loses_nothing(
    command, start, options, straight, disk
):
    place, resize = disk
    out = place / "comparison"
    few = ["--trials", "2", "--algorithm", "random", "--searches"]
    compare = Job(
        "evaluate", [str(straight[0]), "--timings", "false", "--out", str(out)]
    )
    job = {
        "train": Job("train", [*options, "--saved_models", str(place)]),
        "tune": Job("tune", [*options, *few, str(place)]),
        "evaluate": compare,
        "report": Job("report", [str(out)]),
        "export": Job("export", [str(straight[0]), "--out", str(place / "export")]),
    }[command]
    if command == "report":
        resize(10_000)
        (ended,) = start(compare)
        assert ended.status == 0, ended
        used = sum(512 * path.stat().st_blocks for path in place.rglob("*"))
        resize(used // 1024 + 64)
    if command == "export":
        resize(16)  # the network is small
    before = content(place)
    (ended,) = start(job)
    assert ended.status == 1, ended
    assert content(place).items() >= before.items()
    *_, line = ended.err.splitlines()
    assert line.startswith(f"error: {place}")
    assert "No space left on device; make room there" in line
    assert len(ended.err.splitlines()) == 1 + (command == "evaluate")  # its progress
    resize(10_000)
    mend(start, job)
    alone(place)


@pytest.mark.parametrize("command", ["train", "tune", "evaluate"])
def test_of_two_at_once_one_is_refused(command, start, options, straight, tmp_path):
    few = ["--trials", "1", "--algorithm", "random", "--searches"]
    jobs = {
        "train": [*options, "--saved_models", str(tmp_path)],
        "tune": [*options, *few, str(tmp_path)],
        "evaluate": [str(straight[0]), "--out", str(tmp_path / "comparison")],
    }
    job = Job(command, jobs[command])
    for delay in (0.0, 0.3):
        first, second = sorted(start(job, job._replace(delay=delay)))
        assert (first.status, second.status) == (0, 2)
        (line,) = second.err.splitlines()
        assert "Another process is writing" in line
        if command == "train":
            assert content(alone(tmp_path)) == content(straight[0])
        shutil.rmtree(alone(tmp_path))


def test_of_two_experiments_at_once_each_run_is_trained_once(
    start, options, straight, tmp_path
):
    experiment = tmp_path / "experiment.yaml"
    pairs = zip(options[::2], options[1::2], strict=True)
    lines = [f"  {name.removeprefix('--')}: {value!r}" for name, value in pairs]
    experiment.write_text("\n".join(["defaults:", *lines, "runs: [{}]"]))
    place = tmp_path / "runs"
    job = Job("run", [str(experiment), "--saved_models", str(place)])
    jobs = [
        job._replace(argv=[*job.argv, "--out", str(tmp_path / name)]) for name in "ab"
    ]
    ended = start(*jobs)
    assert {one.status for one in ended} <= {0, 1}
    assert any(one.status == 0 for one in ended)
    for one in ended:
        assert one.status == 0 or f"failed: {straight[0].name}: " in one.err
        assert "Traceback" not in one.err
    assert content(alone(place)) == content(straight[0])
