"""Tries the wheel by itself: `python tests/wheel.py WHEEL` where it is installed.

In an environment with the wheel, JAX, and nothing else: what the wheel holds and asks
for, and whether every head trains, saves and loads there.
"""

import importlib.metadata
import os
import sys
import tempfile
import zipfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

import kerasoft
from kerasoft import heads, losses


def main() -> None:
    wheel = zipfile.ZipFile(sys.argv[1])
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"kerasoft"}, tops
    needed = [r for r in importlib.metadata.requires("kerasoft") or [] if ";" not in r]
    assert [r.split(">")[0] for r in needed] == ["keras", "numpy"], needed
    assert "site-packages" in kerasoft.__file__, kerasoft.__file__
    others = {"tensorflow", "torch", "pipelines"}
    assert not others & importlib.metadata.packages_distributions().keys()

    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    y = np.argmax(x, axis=-1)
    for name in heads.HEADS:
        head = heads.get(name)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), head])
        model.compile("adam", losses.matched_loss(model), metrics=["accuracy"])
        model.fit(x, y, epochs=2, verbose=0)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            model.save(path)
            again = keras.saving.load_model(path)
        np.testing.assert_allclose(
            again.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6
        )
    print(f"{len(heads.HEADS)} heads passed, 0 failed, on {keras.backend.backend()}")


if __name__ == "__main__":
    main()
