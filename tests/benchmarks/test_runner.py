import importlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import runner
from pipelines.options import parse

RESULTS = Path(__file__).parents[2] / "results" / "benchmarks"


def test_a_result_names_the_command_that_repeats_it():
    def measured(
        rounds: int = 7,
        widths: Sequence[int] = (16, 64),
        precision: str = "float32",
        experiment: Path = Path("experiments/speedrun.yaml"),
    ) -> dict:
        raise NotImplementedError

    parser = runner.parser("train_step", measured)
    usual = runner.begun(parser, parse(parser, ["--out=elsewhere"]))
    assert usual["made_by"] == "python -m benchmarks.train_step"
    assert usual["experiment"] == "experiments/speedrun.yaml"
    argv = ["--widths=[4, 8]", "--precision=auto", "--rounds=7"]
    given = runner.begun(parser, parse(parser, argv))
    told = "python -m benchmarks.train_step --widths '[4, 8]' --precision auto"
    assert given["made_by"] == told
    assert given["widths"] == [4, 8]
    assert given["machine"]["cores"] >= 1


@pytest.mark.parametrize("name", sorted(path.stem for path in RESULTS.glob("*.json")))
def test_a_page_is_made_from_the_result_alone(name):
    benchmark = importlib.import_module(f"benchmarks.{name}")
    result = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    text = runner.markdown(result, benchmark.page(result))
    assert text == (RESULTS / f"{name}.md").read_text("utf-8")
    assert f"({name}.png)" in text
    assert all(axes.has_data() for axes in benchmark.plot(result).axes)


def test_words_stand_left_and_numbers_right_in_a_table():
    rows = [
        {"name": "a", "classes": 10, "side": "x"},
        {"name": "b", "classes": "", "side": "y"},
    ]
    assert runner.table(rows).splitlines() == [
        "| name | classes | side |",
        "|---|---:|---:|",
        "| a | 10 | x |",
        "| b |  | y |",
    ]
    text = runner.table(rows, "name", "side", names=["", "N", "side"])
    assert text.splitlines()[:2] == ["| | N | side |", "|---|---:|---|"]
