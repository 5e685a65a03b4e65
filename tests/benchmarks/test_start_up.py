import json

import pytest

from benchmarks import start_up


@pytest.mark.slow
def test_the_stages_make_up_the_start(tmp_path):
    with pytest.raises(SystemExit) as ended:
        start_up.main(["--dataset=shapes100", "--rounds=1", "--out", str(tmp_path)])
    assert ended.value.code == 0
    result = json.loads((tmp_path / "start_up.json").read_text())
    assert set(result["stages"]) == {*start_up.STAGES, "step 2"}
    assert all(seconds >= 0 for seconds in result["stages"].values())
    total = sum(result["stages"][name] for name in start_up.STAGES)
    assert result["seconds to the first step"] == pytest.approx(total)
    assert result["stages"]["step 1"] > result["stages"]["step 2"]
