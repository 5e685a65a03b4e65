import json
from typing import Any

import keras
import numpy as np
import pytest
from extra import needed

import kerasoft
from benchmarks import measure, train_step
from benchmarks.sides import side
from pipelines import datasets
from pipelines.config import Config
from pipelines.training import build

torch = needed("torch")
from benchmarks import pytorch  # noqa: E402


@pytest.fixture
def both():
    """The network in Keras, and in PyTorch with the same weights."""
    ours = kerasoft.resnet12(num_classes=10, width=4)
    theirs: Any = pytorch.ResNet12(4, classes=10)

    def put(parameter, name):
        value = ours.get_layer(name[0]).get_weights()[name[1]]
        if value.ndim > 1:
            value = np.moveaxis(value, (-1, -2), (0, 1))
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))

    draws = np.random.default_rng(0)
    for layer in ours.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            sizes = [weight.shape for weight in layer.get_weights()]
            layer.set_weights([draws.uniform(0.5, 1.5, size) for size in sizes])
    for i, block in enumerate(theirs.blocks, start=1):
        parts = {"shortcut": (block.shortcut_conv, block.shortcut_norm)}
        for j, (conv, norm) in enumerate(
            zip(block.convs, block.norms, strict=True), start=1
        ):
            parts[str(j)] = conv, norm
        for part, (conv, norm) in parts.items():
            word = "shortcut_{}" if part == "shortcut" else f"{{}}{part}"
            put(conv.weight, (f"block{i}_{word.format('conv')}", 0))
            named = f"block{i}_{word.format('norm')}"
            moments = norm.weight, norm.bias, norm.running_mean, norm.running_var
            for k, tensor in enumerate(moments):
                put(tensor, (named, k))
    put(theirs.logits.weight, ("logits", 0))
    put(theirs.logits.bias, ("logits", 1))
    return ours, theirs


@pytest.mark.parametrize("training", [False, True])
def test_the_networks_are_the_same(both, training):
    ours, theirs = both
    draws = np.random.default_rng(1)
    images = draws.integers(0, 256, (8, 32, 32, 3), dtype="uint8")
    theirs.train(training)
    expected = ours(images, training=training).numpy()
    found = theirs(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert sum(p.numel() for p in theirs.parameters()) == sum(
        weight.size for v in ours.trainable_variables for weight in [v.numpy()]
    )


@pytest.mark.parametrize("plain", [False, True])
def test_the_plain_side_has_nothing_of_kerasoft(plain, monkeypatch):
    if plain:
        train_step.use_keras_own(monkeypatch.setattr)
    split = measure.pixels(200)
    names = [str(i) for i in range(100)]
    data = datasets.Data("random", split, split, split, names, None, None, "")
    model = build(Config(dataset="cifar100", width=2, epochs=2), data, "float32")
    parts = [model.optimizer]
    parts += [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert len(parts) == 17
    assert all(type(x).__module__.startswith("keras.") is plain for x in parts)


@pytest.mark.slow
def test_both_sides_are_timed(tmp_path):
    argv = ["--widths=[4]", "--precisions=[float32]", "--batch_size=4", "--steps=2"]
    with pytest.raises(SystemExit) as ended:
        train_step.main([*argv, "--rounds=2", "--out", str(tmp_path)])
    assert ended.value.code == 0
    rows = json.loads((tmp_path / "train_step.json").read_text())["rows"]
    assert [row["side"] for row in rows] == [
        *train_step.SIDES,
        train_step.WITHOUT_ONEDNN,
    ]
    assert all(row["images a second"] > 0 for row in rows)
    assert 1.0 in [r["to the better"] for r in rows if r["side"].startswith("PyTorch")]


@pytest.mark.slow
def test_a_side_that_fails_is_noticed():
    with (
        side("benchmarks.pytorch:gumbel_softmax", classes=-1, rows=2) as seconds,
        pytest.raises(RuntimeError, match="ended"),
    ):
        seconds(1)


def test_operations_are_those_of_the_convolutions():
    # By hand, width 1: 3x3 convolutions of 3, then 1, 2, 4 and 8 channels, on maps of
    # 32, 16, 8 and 4 pixels, each with its 1x1 shortcut, and 8 x 100 for the logits.
    forward, inputs = 8 * 100, 3
    for filters, side_ in ((1, 32), (2, 16), (4, 8), (8, 4)):
        kernels = 9 * (inputs + 2 * filters) * filters + inputs * filters
        forward += side_**2 * kernels
        inputs = filters
    assert train_step.operations(1) == 3 * 2 * forward
