"""The examples run on small data, and learn what there is to learn."""

import argparse
import gzip
import json

import numpy as np
import pytest

from examples import next_word


@pytest.fixture
def text(tmp_path):
    """A text in which each word but the first of a line follows from the one before."""
    draws = np.random.default_rng(0)
    letters = "abcdefghijkl"
    words = [a + b for a in letters for b in letters]
    found = []
    for _ in range(5_000):
        start = draws.integers(len(words))
        found += [words[(start + 7 * k) % len(words)] for k in range(20)]
    path = tmp_path / "text.gz"
    path.write_bytes(gzip.compress(" ".join(found).encode()))
    return path


@pytest.mark.parametrize(
    "names",
    [
        ["z_loss"],
        pytest.param(
            ["full", "adaptive", "sampled", "two_level", "spherical", "taylor"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_next_word_of_a_text(names, text, tmp_path):
    # As if a step took 10 ms: 300 steps on any machine, and 60 for each trial.
    speed = {"processor": "any", "seconds_per_step": dict.fromkeys(names, 0.01)}
    (tmp_path / "steps.json").write_text(json.dumps(speed))
    argv = ["--text", str(text), "--minutes", "0.05", "--trial_minutes", "0.01"]
    argv += ["--out", str(tmp_path), "--plot"]
    next_word.main([*argv, "--outputs", *names, "--seeds", "0", "1"])
    for name in names:
        results = [
            json.loads((tmp_path / f"{name}-{seed}.json").read_text())
            for seed in (0, 1)
        ]
        assert results[0]["rate"] == results[1]["rate"]
        assert results[0]["curve"] != results[1]["curve"]
        for result in results:
            assert result["words"] == 145  # and the word that stands for rare ones
            assert len(result["validation_top_10_by_rate"]) == 2
            assert result["curve"][-1]["examples"] == 300 * result["batch"]
            # 19 of 20 words are certain; one is any of 144.
            # Few steps for plain gradient descent, where a guess is right once in 145.
            few = name in ("spherical", "taylor")
            assert result["test"]["top_1"] > (0.1 if few else 0.6)
            if name != "z_loss" and not few:
                assert 144 ** (1 / 20) < result["test"]["perplexity"] < 20
    kept = (tmp_path / f"{names[0]}-0.json").read_bytes()
    next_word.main([*argv, "--outputs", names[0]])
    assert (tmp_path / f"{names[0]}-0.json").read_bytes() == kept
    assert (tmp_path / "next_word.png").stat().st_size > 0


def test_steps_are_timed(text, tmp_path):
    given = argparse.Namespace(out=tmp_path, outputs=["full"], timed_seconds=0.1)
    parts, counts = next_word.numbered(next_word.words(text))
    next_word.time_steps(parts, counts, given)
    kept = json.loads((tmp_path / "steps.json").read_text())
    assert 0 < kept["seconds_per_step"]["full"] < 0.2


def test_a_text_is_numbered_by_what_is_trained_on():
    text = ["rare"] + ["often", "seldom", "often"] * 20_000 + ["once"]
    parts, counts = next_word.numbered(text)
    assert sum(map(len, parts.values())) == len(text)
    assert len(parts["validation"]) == len(parts["test"]) == 1_000
    assert counts[0] == np.sum(parts["train"] == 0) > 0
    assert counts[1] > counts[2] > 0
    assert set(np.unique(parts["test"])) == {1, 2}


def test_neither_text_nor_plot(capsys):
    with pytest.raises(SystemExit) as ended:
        next_word.main([])
    assert ended.value.code == 2
    assert "give a --text to train on, or --plot" in capsys.readouterr().err


def test_no_such_text(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        next_word.main(["--text", str(tmp_path / "none.txt")])
    assert ended.value.code == 2
    assert "none.txt" in capsys.readouterr().err
