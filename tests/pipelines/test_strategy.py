"""Training on several devices, which the CPU is split into in a process of its own."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from pipelines import runs
from pipelines.config import Annealing
from pipelines.train import train

ON_TWO_DEVICES = """
import sys
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
from pipelines import train

assert train.STRATEGIES["mirrored"]().num_replicas_in_sync == 2
train.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def config(tiny):
    return dataclasses.replace(
        tiny,
        head="log_gumbel_softmax",
        temperature=Annealing("cosine", 3.0, 0.5),
        noise="never",  # replicas draw apart, so the noise is not that of one device
        backbone="resnet12",
        learning_rate=1e-3,  # so that a rounding stays one
        epochs=3,
    )


@pytest.fixture(scope="module")
def single(config, tmp_path_factory):
    return runs.read([train(config, tmp_path_factory.mktemp("single"))])[0]


@pytest.fixture(scope="module")
def mirrored(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirrored")
    file = folder / "config.yaml"
    file.write_text(dataclasses.replace(config, strategy="mirrored").to_yaml())
    argv = ["--config", str(file), "--saved_models", str(folder)]
    done = subprocess.run(
        [sys.executable, "-c", ON_TWO_DEVICES, *argv], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return runs.read(path for path in folder.iterdir() if path.is_dir())[0]


def test_two_devices_train_as_one_does(single, mirrored):
    one, two = (runs.read_history(run.path) for run in (single, mirrored))
    np.testing.assert_allclose(two["temperature"], one["temperature"], rtol=1e-6)
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-3)
    np.testing.assert_allclose(two["val_loss"], one["val_loss"], rtol=1e-3)
