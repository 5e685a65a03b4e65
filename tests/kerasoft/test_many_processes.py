"""Data-parallel training over two processes, as over two machines: Keras on JAX."""

import json
import os
import socket
import subprocess
import sys

import keras
import pytest

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="Keras does this on JAX"
)
BATCH = 64
PROGRAM = f"""
import json, sys
import keras
import numpy as np

address, processes, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if processes > 1:
    keras.distribution.initialize(address, processes, number)
shares = keras.distribution.DataParallel(auto_shard_dataset=False)
keras.distribution.set_distribution(shares)

from kerasoft import heads, losses
from kerasoft.output_layers import ChunkedOutput, Classifier

draws = np.random.default_rng(0)
x = draws.normal(size=(256, 8)).astype("float32")
y = np.argmax(x @ draws.normal(size=(8, 5)), axis=-1)
# Of each batch, this process has its share.
x = x.reshape(-1, processes, {BATCH} // processes, 8)[:, number].reshape(-1, 8)
y = y.reshape(-1, processes, {BATCH} // processes)[:, number].reshape(-1)

def layers():
    return [keras.Input((8,)), keras.layers.Dense(16, "relu")]

found = {{}}
for name in ("log_softmax", "gumbel_softmax", "entmax15"):
    keras.utils.set_random_seed(0)
    head = heads.get(name, **({{"seed": 0}} if "gumbel" in name else {{}}))
    model = keras.Sequential([*layers(), keras.layers.Dense(5), head])
    model.compile(keras.optimizers.SGD(0.1), loss=losses.matched_loss(head))
    found[name] = model
keras.utils.set_random_seed(0)
model = Classifier(keras.Sequential(layers()), ChunkedOutput(5))
model.compile(keras.optimizers.SGD(0.1))
found["chunked"] = model
for name, model in found.items():
    history = model.fit(
        x, y, batch_size={BATCH} // processes, epochs=3, shuffle=False, verbose=0
    )
    found[name] = history.history["loss"]
print(json.dumps(found))
"""


def started(root, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )


def losses_of(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return json.loads(output.splitlines()[-1])


def test_two_processes_train_as_one(pytestconfig):
    """Noise too: JAX draws it for the whole batch."""
    root = pytestconfig.rootpath
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    pair = [started(root, address, 2, number) for number in (0, 1)]
    first, second = map(losses_of, pair)
    assert first == second
    alone = losses_of(started(root, address, 1, 0))
    for name, expected in alone.items():
        assert first[name] == pytest.approx(expected, rel=1e-5)
        assert expected[-1] < expected[0]
