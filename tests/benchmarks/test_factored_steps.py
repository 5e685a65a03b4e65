import json

import pytest

from benchmarks import factored, output_layers


@pytest.mark.slow
@pytest.mark.parametrize("name", factored.SIDES)
def test_every_side_makes_steps(name):
    maker, options = factored.SIDES[name]
    shape = {"batch": 8, "classes": 300, "labels": "uniform", "dim": 16}
    getattr(output_layers, maker)(**shape, optimizer="sgd", **options)(2)


@pytest.mark.slow
def test_sides_are_timed_beside_each_other(tmp_path, monkeypatch):
    few = [factored.KERAS, "kerasoft, Taylor"]
    monkeypatch.setattr(factored, "SIDES", {name: factored.SIDES[name] for name in few})
    with pytest.raises(SystemExit) as ended:
        factored.main(["--classes=[600]", "--rounds=1", "--out", str(tmp_path)])
    assert ended.value.code == 0
    result = json.loads((tmp_path / "factored.json").read_text())
    assert [row["side"] for row in result["rows"]] == few
    assert all(row["seconds"] > 0 for row in result["rows"])
    assert all(row["refactor_seconds"] > 0 for row in result["rows"])
    text = (tmp_path / "factored.md").read_text()
    assert all(name in text for name in few)
    assert (tmp_path / "factored.png").stat().st_size > 0
