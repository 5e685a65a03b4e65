import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kerasoft

ROOT = Path(kerasoft.__file__).parents[1]
MODULES = sorted((ROOT / "kerasoft").rglob("*.py"))


def run(code, backend):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_only_functions_import_a_backend(module):
    body = ast.parse(module.read_text()).body
    for statement in body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            names = {alias.name.split(".")[0] for alias in statement.names}
            names.add((getattr(statement, "module", None) or "").split(".")[0])
            assert not names & {"tensorflow", "jax", "torch"}


def test_jax_needs_no_tensorflow():
    run(
        "import sys, kerasoft\n"
        "kerasoft.resnet12(width=(4, 4, 4, 4), head='gumbel_softmax')\n"
        "assert 'tensorflow' not in sys.modules",
        "jax",
    )


def test_numpy_serves_every_head():
    run(
        "import numpy as np\n"
        "from kerasoft import heads, losses\n"
        "from references import expected\n"
        "x = np.random.default_rng(0).normal(size=(4, 5)).astype('float32')\n"
        "for name in heads.HEADS:\n"
        "    outputs = heads.get(name)(x)\n"
        "    np.testing.assert_allclose(outputs, expected(name, x), atol=1e-6)\n"
        "    # To NumPy's arrays, which are copied, no logits can be attached.\n"
        "    if heads.get(name).outputs != 'sparse_probabilities':\n"
        "        losses.matched_loss(heads.get(name))(np.arange(4), outputs)\n",
        "numpy",
    )
