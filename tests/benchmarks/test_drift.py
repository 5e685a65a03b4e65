import json

import pytest

from benchmarks import drift


@pytest.mark.slow
def test_what_is_kept_is_held_to_float64(tmp_path, monkeypatch):
    monkeypatch.setattr(drift, "CHECKS", 4)
    with pytest.raises(SystemExit) as ended:
        drift.main(["--steps=80", "--every=[20]", "--out", str(tmp_path)])
    assert ended.value.code == 0
    result = json.loads((tmp_path / "drift.json").read_text())
    assert [run["head"] for run in result["runs"]] == list(drift.RATES)
    for run in result["runs"]:
        for key in drift.MEASURED:
            assert len(run["errors"][key]) == 4
            assert 0 < max(run["errors"][key]) < 1e-4
    text = (tmp_path / "drift.md").read_text()
    assert "| z_loss | 20 |" in text
    assert (tmp_path / "drift.png").stat().st_size > 0
