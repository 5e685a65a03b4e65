import json

import pytest

from benchmarks import many_classes

torch = pytest.importorskip("torch", reason="PyTorch comes with the extra `bench`")


@pytest.mark.slow
def test_every_side_is_timed_and_its_memory_taken(tmp_path):
    argv = ["--batches=[16]", "--classes=[4096]", "--rounds=1", "--out", str(tmp_path)]
    argv += ["--skewed=[9000]", "--samples=[4096]"]
    with pytest.raises(SystemExit) as ended:
        many_classes.main(argv)
    assert ended.value.code == 0
    result = json.loads((tmp_path / "many_classes.json").read_text())
    text = (tmp_path / "many_classes.md").read_text()
    for name, sides, times in (
        ("rows", many_classes.SIDES, 1),
        ("skewed", many_classes.SKEWED, 2),  # by Adam and by SGD
        ("samples", many_classes.SAMPLES, 1),
    ):
        assert [row["side"] for row in result[name]] == list(sides) * times
        assert all(row["seconds"] > 0 for row in result[name])
        assert all(side in text for side in sides)
    assert (tmp_path / "many_classes.png").stat().st_size > 0
