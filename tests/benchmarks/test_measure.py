from pathlib import Path

from benchmarks import measure
from pipelines.config import parse


def test_a_result_names_the_command_that_repeats_it():
    parser = measure.parser("train_step", "", rounds=7)
    parser.add_argument("--widths", type=list[int], default=[16, 64])
    parser.add_argument("--precision", type=str, default="float32")
    parser.add_argument("--experiment", type=Path, default="experiments/speedrun.yaml")
    usual = measure.begun(parser, parse(parser, ["--out=elsewhere"]))
    assert usual["made_by"] == "python -m benchmarks.train_step"
    assert usual["experiment"] == "experiments/speedrun.yaml"
    argv = ["--widths=[4, 8]", "--precision=auto", "--rounds=7"]
    given = measure.begun(parser, parse(parser, argv))
    told = "python -m benchmarks.train_step --widths '[4, 8]' --precision auto"
    assert given["made_by"] == told
    assert given["widths"] == [4, 8]
    assert given["machine"]["cores"] >= 1
