import json

import pytest
from extra import needed

from benchmarks import input_pipeline


@pytest.fixture
def torch():
    return needed("torch")


def test_pytorchs_crops_are_windows_of_the_reflected_image(torch):
    import numpy as np

    from benchmarks import pytorch

    image = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype="uint8")
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    windows = {
        np.ascontiguousarray(view).tobytes()
        for top in range(9)
        for left in range(9)
        for window in [padded[top : top + 12, left : left + 10]]
        for view in (window, window[:, ::-1])
    }
    crops = pytorch.crop_and_flip(torch.from_numpy(np.stack([image] * 300)), 4).numpy()
    found = {np.ascontiguousarray(crop).tobytes() for crop in crops}
    assert found <= windows
    assert len(found) > 80  # of 162, in 300 draws about 136


@pytest.mark.slow
def test_every_pipeline_and_feed_is_timed(torch, tmp_path):
    argv = [
        "--width=4",
        "--precision=float32",
        "--batch_size=16",
        "--batches=4",
        "--ends=4",
    ]
    with pytest.raises(SystemExit) as ended:
        input_pipeline.main([*argv, "--steps=10", "--rounds=2", "--out", str(tmp_path)])
    assert ended.value.code == 0
    result = json.loads((tmp_path / "input_pipeline.json").read_text())
    assert [r["pipeline"] for r in result["pipelines"]] == list(
        input_pipeline.PIPELINES
    )
    assert all(row["images a second"] > 0 for row in result["pipelines"])
    assert set(result["training"]["images a second"]) == set(input_pipeline.FEEDS)
    assert result["training"]["to one batch"] > 0
