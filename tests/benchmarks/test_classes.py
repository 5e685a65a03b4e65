import json

import numpy as np
import pytest

from benchmarks import classes, measure, runner
from kerasoft import heads


@pytest.mark.slow
def test_every_head_is_timed_at_every_number_of_classes(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        classes.main(
            ["--most", "100", "--rows", "2", "--rounds", "2", "--out", str(tmp_path)]
        )
    assert ended.value.code == 0
    result = json.loads((tmp_path / "classes.json").read_text())
    found = {(row["head"], row["pass"], row["classes"]) for row in result["times"]}
    assert found == {
        (name, part, count)
        for name in heads.HEADS
        for part in ("forward", "with gradient")
        for count in (10, 100)
    }
    for row in result["times"]:
        assert 0 < row["fastest"] <= row["seconds"]
        if row["head"] == "softmax":
            assert row["to softmax"] == 1
    assert (tmp_path / "classes.png").stat().st_size > 10_000
    table = (tmp_path / "classes.md").read_text()
    assert table.count("| sparsemax |") == 2
    assert not list(tmp_path.glob(".*"))


def test_what_is_timed_is_the_gradient_of_the_matched_loss():
    draws = np.random.default_rng(0)
    logits = classes.tf.constant(draws.normal(size=(2, 5)), classes.tf.float32)
    labels = classes.tf.constant([1, 4])
    work = classes.passes("log_softmax", logits, labels)
    p = np.exp(work["forward"]())
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    expected = (p - np.eye(5)[[1, 4]]) / 2
    np.testing.assert_allclose(work["with gradient"](), expected, atol=1e-6)


def test_exponents_are_those_of_the_times():
    found = [
        {"head": name, "pass": part, "classes": n, "seconds": 3e-9 * n**power}
        for name in heads.HEADS
        for part, power in (("forward", 1.0), ("with gradient", 1.5))
        for n in (10, 100_000, 1_000_000)
    ]
    for row in classes.exponents(found):
        expected = {"forward": 1.0, "with gradient": 1.5}[row["pass"]]
        assert row["exponent"] == pytest.approx(expected)


def test_a_ratio_is_taken_within_each_round():
    found = measure.ratio("to it", [2.0, 50.0, 6.0], [1.0, 20.0, 2.0])
    assert found == {"to it": 2.5, "to it, from": 2, "to it, to": 3}
    assert runner.ratio(found, "to it") == "2.50 (2.00 to 3.00)"


def test_a_ratio_of_sides_timed_apart_goes_between_their_extreme_rounds():
    some = {"seconds": 4.0, "fastest": 3.0, "slowest": 5.0}
    other = {"seconds": 2.0, "fastest": 1.0, "slowest": 2.5}
    assert runner.apart(some, other, ".1f") == "2.0 (1.2 to 5.0)"
    assert runner.apart(some, some, ".1f") == "1.0"


def test_times_are_taken_in_turn():
    order = []
    calls = {"one": lambda: order.append(1), "two": lambda: order.append(2)}
    timed = {name: measure.timed(call) for name, call in calls.items()}
    times = measure.in_turn(timed, rounds=3)
    assert [len(times[name]) for name in ("one", "two")] == [3, 3]
    changes = np.flatnonzero(np.diff(order))
    assert len(changes) == 7  # the first calls of each, then three rounds of both
