import os

# Before Keras is imported, and TensorFlow with it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # see pipelines/__init__.py

import hypothesis
import keras
import numpy as np
import pytest

# The same examples on each run, and no clock: a failure is a defect, never luck.
hypothesis.settings.register_profile(
    "suite", derandomize=True, deadline=None, max_examples=30
)
hypothesis.settings.load_profile("suite")


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace):
    from kerasoft import backbones, heads, losses, output_layers

    doctest_namespace |= {
        "np": np,
        "keras": keras,
        "backbones": backbones,
        "heads": heads,
        "losses": losses,
        "output_layers": output_layers,
    }
