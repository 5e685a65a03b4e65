import dataclasses
import json
from typing import Any

import keras
import numpy as np
import pytest
from extra import needed

from kerasoft.optimizers import Muon
from pipelines import optimizers
from pipelines.config import Config

torch = needed("torch")
from benchmarks import pytorch, speedrun  # noqa: E402

RECIPE = Config(
    dataset="cifar100",
    optimizer="muon",
    learning_rate=0.02,
    weight_decay=0.1,
    epochs=3,
    warmup_epochs=0.5,
)


@pytest.mark.parametrize("schedule", ["cosine_decay", "linear_decay"])
def test_learning_rates_are_the_same(schedule):
    recipe = dataclasses.replace(RECIPE, schedule=schedule)
    ours = optimizers.learning_rate(recipe, 10)
    for step in range(30):
        assert pytorch.rate_of(step, 10, recipe) == pytest.approx(
            float(ours(step)), abs=1e-8
        )


def test_both_sides_take_the_same_steps():
    draws = np.random.default_rng(0)
    network: Any = pytorch.initialised(2)
    parameters = dict(network.named_parameters())
    names = ("blocks.0.convs.1.weight", "blocks.0.norms.0.weight", "logits.weight")
    kept = ("block1/conv/kernel", "block1/norm/gamma", "logits/kernel")
    ours = [
        keras.Variable(to_keras(parameters[name]), name=path.split("/")[-1])
        for name, path in zip(names, kept, strict=True)
    ]
    optimizer = optimizers.make_optimizer(RECIPE, 10)
    assert isinstance(optimizer, Muon)
    optimizer.exclude_layers = ["^kernel_logits$"]
    ours[2] = keras.Variable(to_keras(parameters[names[2]]), name="kernel_logits")
    optimizer.exclude_from_weight_decay(var_names=["gamma"])
    optimizer.build(ours)
    theirs = pytorch.optimizers_of(network, RECIPE)
    for step in range(4):
        slopes = [draws.normal(size=v.shape).astype("float32") for v in ours]
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        for name, slope in zip(names, slopes, strict=True):
            parameters[name].grad = to_torch(slope)
        optimizer.apply([keras.ops.convert_to_tensor(s) for s in slopes], ours)
        for one, share in theirs:
            for group in one.param_groups:
                group["lr"] = pytorch.rate_of(step, 10, RECIPE) * share
            one.step()
    for name, variable in zip(names, ours, strict=True):
        found = to_keras(parameters[name])
        np.testing.assert_allclose(found, variable.numpy(), rtol=1e-3, atol=1e-5)


def to_keras(tensor):
    array = tensor.detach().numpy()
    return np.moveaxis(array, (0, 1), (-1, -2)) if array.ndim > 1 else array


def to_torch(array):
    moved = np.moveaxis(array, (-1, -2), (0, 1)) if array.ndim > 1 else array
    return torch.from_numpy(np.ascontiguousarray(moved))


def test_means_and_ratio():
    found = [
        {"side": side, "seed": seed, "seconds": seconds + seed, "test accuracy": 0.6}
        for side, seconds in (("Keras", 10.0), ("PyTorch", 21.0))
        for seed in (0, 1, 2)
    ]
    means = speedrun.means(found)
    assert [means[side]["seconds"] for side in speedrun.SIDES] == [11, 22]
    assert speedrun.ratio(found) == 0.5  # of 10 / 21, 11 / 22 and 12 / 23
    assert speedrun.ratio(found[:3]) is None


@pytest.mark.slow
def test_both_sides_learn(photos, tmp_path):
    recipe = dataclasses.asdict(
        Config(
            dataset=f"folder:{photos}",
            optimizer="muon",
            width=4,
            batch_size=8,
            epochs=6,
            learning_rate=0.01,
            precision="float32",
        )
    )
    for maker in (speedrun.ours, pytorch.speedrun):
        maker(recipe)(str(tmp_path / "run.json"))
        kept = json.loads((tmp_path / "run.json").read_text())
        assert kept["seconds"] > 0
        assert kept["history"]["accuracy"][-1] > 0.8
