import json

import pytest
from extra import needed

from benchmarks import serving


@pytest.mark.slow
def test_every_side_serves(tmp_path):
    needed("onnxscript")
    with pytest.raises(SystemExit) as ended:
        serving.main(
            ["--width=4", "--images=[1, 3]", "--rounds=2", "--out", str(tmp_path)]
        )
    assert ended.value.code == 0
    result = json.loads((tmp_path / "serving.json").read_text())
    rows = result["times"]
    assert [(row["images"], row["side"]) for row in rows] == [
        (count, name) for count in (1, 3) for name in serving.SIDES
    ]
    for row in rows:
        assert row["images a second"] == pytest.approx(row["images"] / row["seconds"])
        assert row["side"] != serving.REFERENCE or row["to PyTorch's ONNX"] == 1
    assert all(10**4 < size < 10**7 for size in result["bytes"].values())
