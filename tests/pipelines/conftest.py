import dataclasses
import os

import pytest
import tensorflow_datasets as tfds
from records import HEADS, pretend

from pipelines import draw_png, judging
from pipelines.config import Config
from pipelines.training import load_data, train


@pytest.fixture(scope="session")
def tiny(photos):
    """A config that trains in seconds."""
    return Config(
        dataset=f"folder:{photos}",
        backbone="plain_cnn",
        width=4,
        image_size=16,
        batch_size=8,
        epochs=2,
        learning_rate=0.05,
        precision="float32",
    )


@pytest.fixture(scope="session")
def cifar100():
    """The real CIFAR-100, where TFDS has it."""
    if not tfds.builder("cifar100").is_prepared():
        reason = "TFDS has no CIFAR-100; point TFDS_DATA_DIR at a folder that does"
        if os.environ.get("KERASOFT_REQUIRE_CIFAR100"):
            pytest.fail(reason)
        pytest.skip(reason)
    return load_data(Config(dataset="cifar100"))


@pytest.fixture(scope="session")
def run(tiny, tmp_path_factory):
    """A run that ended."""
    return train(tiny, tmp_path_factory.mktemp("saved_models"))


@pytest.fixture(scope="session")
def loaded(tiny):
    return load_data(tiny)


@pytest.fixture(scope="session")
def runs(tiny, loaded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    configs = [dataclasses.replace(tiny, head=head, **o) for head, o in HEADS.items()]
    configs.append(dataclasses.replace(tiny, head="log_softmax", seed=1))
    return [pretend(config, loaded, folder) for config in configs]


@pytest.fixture(scope="module")
def without_plots():
    """Comparisons without their PNGs, which take half of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw_png, "save_all", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def few_resamples():
    """Intervals from a twenty-fifth of the resamples, in as much less time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "RESAMPLES", 40)
        yield
