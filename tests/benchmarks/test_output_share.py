import json

import pytest

from benchmarks import output_share


def test_a_share_is_what_the_network_leaves():
    times = {"network to it": 0.75, "network to it, from": 0.5, "network to it, to": 1}
    assert output_share.share(times) == "25% (0% to 50%)"


@pytest.mark.slow
def test_every_output_layer_is_timed(tmp_path):
    argv = ["--classes=[300]", "--rounds=1", "--steps=1", "--batch=8"]
    with pytest.raises(SystemExit) as ended:
        output_share.main([*argv, "--width=4", "--out", str(tmp_path)])
    assert ended.value.code == 0
    rows = json.loads((tmp_path / "output_share.json").read_text())["rows"]
    assert [row["side"] for row in rows] == list(output_share.SIDES)
    assert all(row["seconds"] > 0 and row["bytes"] > 0 for row in rows)
    text = (tmp_path / "output_share.md").read_text()
    assert all(side in text for side in output_share.SIDES)
