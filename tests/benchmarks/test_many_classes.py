import json

import pytest
from extra import needed

from benchmarks import many_classes, output_layers

torch = needed("torch")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*many_classes.SIDES, *many_classes.SKEWED])
def test_every_side_makes_steps(name):
    maker, options = {**many_classes.SIDES, **many_classes.SKEWED}[name]
    for optimizer in ("adam", "sgd"):
        make = getattr(output_layers, maker)
        make(batch=16, classes=64, labels="zipf", optimizer=optimizer, **options)(2)


@pytest.mark.slow
def test_sides_are_timed_and_their_memory_taken(tmp_path, monkeypatch):
    few = {"SIDES": [many_classes.KERAS], "SKEWED": ["kerasoft, adaptive"]}
    for table, names in few.items():
        sides = {name: getattr(many_classes, table)[name] for name in names}
        monkeypatch.setattr(many_classes, table, sides)
    argv = ["--batches=[16]", "--classes=[4096]", "--rounds=1", "--out", str(tmp_path)]
    argv += ["--skewed=[9000]", "--samples=[4096]"]
    with pytest.raises(SystemExit) as ended:
        many_classes.main(argv)
    assert ended.value.code == 0
    result = json.loads((tmp_path / "many_classes.json").read_text())
    text = (tmp_path / "many_classes.md").read_text()
    for name, sides, times in (
        ("rows", few["SIDES"], 1),
        ("skewed", few["SKEWED"], 2),  # by Adam and by SGD
        ("samples", list(many_classes.SAMPLES), 1),
    ):
        assert [row["side"] for row in result[name]] == sides * times
        assert all(row["seconds"] > 0 for row in result[name])
        assert all(side in text for side in sides)
    assert (tmp_path / "many_classes.png").stat().st_size > 0
