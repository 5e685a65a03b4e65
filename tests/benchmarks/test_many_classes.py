import json

import pytest

from benchmarks import many_classes

torch = pytest.importorskip("torch", reason="PyTorch comes with the extra `bench`")


@pytest.mark.slow
def test_every_side_is_timed_and_its_memory_taken(tmp_path):
    argv = ["--batches=[16]", "--classes=[4096]", "--rounds=1", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        many_classes.main(argv)
    assert ended.value.code == 0
    rows = json.loads((tmp_path / "many_classes.json").read_text())["rows"]
    assert [row["side"] for row in rows] == list(many_classes.SIDES)
    assert all(row["seconds"] > 0 for row in rows)
    assert (tmp_path / "many_classes.png").stat().st_size > 0
    text = (tmp_path / "many_classes.md").read_text()
    assert all(name in text for name in many_classes.SIDES)
