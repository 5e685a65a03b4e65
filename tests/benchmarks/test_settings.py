import json

import pytest

from benchmarks import settings
from benchmarks.sides import side


def test_a_side_sees_its_variables(tmp_path):
    (tmp_path / "only_there.py").write_text("def made():\n    return lambda: None\n")
    with side("only_there:made", {"PYTHONPATH": str(tmp_path)}) as done:
        assert done() >= 0


@pytest.mark.slow
def test_all_settings_train(tmp_path):
    argv = ["--width=4", "--precision=float32", "--batch_size=8"]
    with pytest.raises(SystemExit) as ended:
        settings.main([*argv, "--steps=10", "--rounds=2", "--out", str(tmp_path)])
    assert ended.value.code == 0
    rows = json.loads((tmp_path / "settings.json").read_text())["rows"]
    assert [row["settings"] for row in rows] == list(settings.SETTINGS)
    assert rows[0]["to none"] == 1
    assert all(row["milliseconds a step"] > 0 for row in rows)
    told = (tmp_path / "settings.md").read_text()
    assert "--width 4 --precision float32 --batch_size 8" in told
    assert "`--steps_per_execution=10`" in told
    assert "`TF_NUM_INTEROP_THREADS=1`" in told
