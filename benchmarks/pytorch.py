"""The other side: PyTorch's ResNet-12, with the same layers, loss and optimiser."""

from __future__ import annotations

import collections
import functools
import itertools
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

from benchmarks import measure
from benchmarks.sides import Calls, repeated
from pipelines import batching, optimizers
from pipelines.config import Config
from pipelines.training import dtype_policy, load_data


class Block(nn.Module):
    """Three 3x3 convolutions beside a 1x1 one, as in `kerasoft.resnet12`."""

    def __init__(self, inputs: int, filters: int):
        super().__init__()
        widths = (inputs, filters, filters, filters)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False)
            for a, b in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(filters, eps=1e-3) for _ in range(3))
        self.shortcut_conv = nn.Conv2d(inputs, filters, 1, bias=False)
        self.shortcut_norm = nn.BatchNorm2d(filters, eps=1e-3)

    def forward(self, x):
        shortcut = self.shortcut_norm(self.shortcut_conv(x))
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(x))
            if i < 2:
                x = functional.leaky_relu(x, 0.1)
        return functional.max_pool2d(functional.leaky_relu(x + shortcut, 0.1), 2)


class ResNet12(nn.Module):
    """From uint8 images, channels last, to logits."""

    def __init__(self, width: int, classes: int = 100):
        super().__init__()
        filters = (3, width, 2 * width, 4 * width, 8 * width)
        self.blocks = nn.ModuleList(Block(a, b) for a, b in itertools.pairwise(filters))
        self.logits = nn.Linear(filters[-1], classes)

    def forward(self, images):
        x = images.permute(0, 3, 1, 2).float() / 64 - 2
        for block in self.blocks:
            x = block(x)
        return self.logits(x.mean((2, 3)))


def training(width: int, precision: str, batch_size: int, compiled: bool) -> Calls:
    """Makes a function that takes training steps on one batch."""
    torch.manual_seed(0)
    model = ResNet12(width).to(memory_format=torch.channels_last)  # pyright: ignore
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": kernels, "weight_decay": 5e-4}, {"params": others}],
        lr=0.1,
        momentum=0.9,
        nesterov=True,
    )
    forward = torch.compile(model) if compiled else model
    images, labels = map(torch.from_numpy, measure.pixels(batch_size))
    labels = labels.long()
    half = precision == "mixed_bfloat16"

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = forward(images)
        functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return repeated(step)


def step_op_times(width: int, precision: str, count: int) -> Callable[[str, int], None]:
    """Makes a function that profiles training steps, eager, on `count` images."""
    from benchmarks.op_times import kept

    def ops(steps: Calls, number: int) -> dict[str, float]:
        with torch.profiler.profile() as profile:
            steps(number)
        return {
            op.key: op.self_cpu_time_total / 1000 / number
            for op in profile.key_averages()
        }

    return kept(training(width, precision, count, compiled=False), ops)


def onnx_runtime(width: int, **options) -> Callable[[int, int], None]:
    """Makes a function that asks ONNX Runtime about some images a number of times.

    Args:
        width: Of ResNet-12.
        **options: Of the session, which the function has as its attribute `session`.
    """
    import onnxruntime  # pyright: ignore[reportMissingImports]

    network = nn.Sequential(ResNet12(width), nn.LogSoftmax(-1)).eval()
    two = torch.zeros((2, 32, 32, 3), dtype=torch.uint8)
    settings = onnxruntime.SessionOptions()
    for name, value in options.items():
        setattr(settings, name, value)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/network.onnx"
        torch.onnx.export(
            network,
            (two,),
            path,
            dynamo=True,
            input_names=["images"],
            dynamic_shapes=({0: torch.export.Dim("count")},),
        )
        session = onnxruntime.InferenceSession(path, settings)

    def ask(count: int, calls: int):
        images = measure.pixels(count).images
        for _ in range(calls):
            session.run(None, {"images": images})

    ask.session = session
    return ask


def call_op_times(width: int, count: int) -> Callable[[str, int], None]:
    """Makes a function that profiles calls of ONNX Runtime with `count` images."""
    from benchmarks.op_times import kept

    ask = onnx_runtime(width)

    def ops(_, number: int) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            profiled: Any = onnx_runtime(
                width, enable_profiling=True, profile_file_prefix=f"{folder}/profile"
            )
            profiled(count, number + 1)
            events = json.loads(Path(profiled.session.end_profiling()).read_text())
        nodes = [e for e in events if e["name"].endswith("_kernel_time")]
        taken = collections.Counter()
        for node in nodes[len(nodes) // (number + 1) :]:  # without the first call
            taken[node["args"]["op_name"]] += node["dur"] / 1000 / number
        return dict(taken)

    return kept(functools.partial(ask, count), ops)


def crop_and_flip(images, padding: int):
    """Reflects pixels around each image, crops it back at random, flips half."""
    count, height, width, _ = images.shape
    top, left = torch.randint(-padding, padding + 1, (2, count, 1))
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    flipped = torch.rand(count, 1) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns)
    rows, columns = (
        (size - 1) - ((size - 1) - index.abs()).abs()
        for size, index in ((height, rows), (width, columns))
    )
    image = torch.arange(count)[:, None, None]
    return images[image, rows[:, :, None], columns[:, None, :]]


def batches(images, labels, batch_size: int, padding: int = 4):
    """Shuffled, augmented batches without end."""
    while True:
        for rows in torch.randperm(len(images)).split(batch_size):
            if len(rows) == batch_size:
                yield crop_and_flip(images[rows], padding), labels[rows]


def input_pipeline(batch_size: int) -> Calls:
    """Makes a function that draws batches on one core."""
    from benchmarks.input_pipeline import batches_of, one_core

    one_core()
    torch.set_num_threads(1)
    images, labels = map(torch.from_numpy, measure.pixels(measure.IMAGES))
    return batches_of(batches(images, labels, batch_size))


class Muon(torch.optim.Optimizer):
    """Muon on kernels as matrices, scaled as in Keras and `kerasoft.optimizers`."""

    def __init__(self, kernels, lr: float, weight_decay: float):
        super().__init__(kernels, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for kernel in group["params"]:
                momentum = self.state[kernel].setdefault(
                    "momentum", torch.zeros_like(kernel)
                )
                momentum.mul_(0.95).add_(kernel.grad)
                update = (kernel.grad + 0.95 * momentum).flatten(1)
                scale = 0.2 * max(update.shape) ** 0.5
                kernel.mul_(1 - group["lr"] * group["weight_decay"])
                step = orthogonal(update).view_as(kernel)
                kernel.sub_(step, alpha=group["lr"] * scale)


def orthogonal(matrix):
    """Five Newton-Schulz steps to the nearest orthogonal matrix."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if tall else x


def speedrun(config: dict) -> Callable[[str], None]:
    """Makes a function that trains the speedrun's recipe, as `speedrun.ours` does."""
    from benchmarks.speedrun import keep

    recipe = Config(**config)
    read = load_data(recipe)
    (images, labels), validation, test = (
        (torch.tensor(split.images), torch.tensor(split.labels).long())
        for split in (read.train, read.validation, read.test)
    )
    half = dtype_policy(recipe.precision) == "mixed_bfloat16"

    def trained(out: str):
        started = time.perf_counter()
        torch.manual_seed(recipe.seed)
        model = initialised(recipe.width)
        model = model.to(memory_format=torch.channels_last)  # pyright: ignore
        optimizers = optimizers_of(model, recipe)
        pace = batching.pace(read.train, recipe)
        steps = pace.steps_per_epoch
        drawn = batches(images, labels, pace.batch_size, recipe.padding)
        history = {"accuracy": [], "val_accuracy": []}
        for epoch in range(recipe.epochs):
            right = 0
            for step in range(steps):
                x, y = next(drawn)
                rate = rate_of(epoch * steps + step, steps, recipe)
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    logits = model(x)
                functional.cross_entropy(
                    logits.float(), y, label_smoothing=recipe.label_smoothing
                ).backward()
                for optimizer, share in optimizers:
                    for group in optimizer.param_groups:
                        group["lr"] = rate * share
                    optimizer.step()
                    optimizer.zero_grad()
                right += int((logits.argmax(1) == y).sum())
            history["accuracy"].append(right / (steps * pace.batch_size))
            history["val_accuracy"].append(accuracy(model, validation, half))
        seconds = time.perf_counter() - started
        keep(Path(out), seconds, accuracy(model, test, False), history)

    return trained


def initialised(width: int) -> ResNet12:
    """The network with the initial weights of `kerasoft.resnet12`."""
    model = ResNet12(width)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    nn.init.xavier_uniform_(model.logits.weight)
    nn.init.zeros_(model.logits.bias)
    return model


def optimizers_of(model: ResNet12, recipe):
    """Muon for the convolutions and AdamW for the rest, with their learning rates.

    Returns:
        Pairs of an optimiser and its share of the recipe's learning rate.
    """
    kernels = [p for p in model.parameters() if p.ndim == 4]
    others = [p for p in model.parameters() if p.ndim == 1]
    decay, share = recipe.weight_decay, optimizers.ADAM_SHARE
    muon = Muon(kernels, recipe.learning_rate, decay)
    adamw = torch.optim.AdamW(
        [
            # Keras takes the decay by the whole learning rate, PyTorch by the share.
            {"params": [model.logits.weight], "weight_decay": decay / share},
            {"params": others, "weight_decay": 0.0},
        ],
        eps=1e-7,
    )
    return (muon, 1.0), (adamw, share)


def rate_of(step: int, steps: int, recipe) -> float:
    """Linear warm-up to the peak, then decay to 0 at the last step."""
    warmup = round(recipe.warmup_epochs * steps)
    if step < warmup:
        return recipe.learning_rate * step / warmup
    share = (step - warmup) / (recipe.epochs * steps - warmup)
    if recipe.schedule == "linear_decay":
        return recipe.learning_rate * (1 - share)
    return recipe.learning_rate * (1 + math.cos(math.pi * share)) / 2


@torch.no_grad()
def accuracy(model: ResNet12, split: tuple, half: bool) -> float:
    """The share of images that a network is right about."""
    images, labels = split
    model.eval()
    right = 0
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        for x, y in zip(images.split(250), labels.split(250), strict=True):
            right += int((model(x).argmax(1) == y).sum())
    model.train()
    return right / len(labels)


def gumbel_softmax(classes: int, rows: int) -> Calls:
    """Makes a function that draws relaxed samples, forward and backward."""
    draws = np.random.default_rng(0)
    drawn = torch.from_numpy(draws.normal(size=(2, rows, classes)).astype("float32"))
    logits, slope = drawn[0].requires_grad_(), drawn[1]

    def call():
        logits.grad = None
        functional.gumbel_softmax(logits, tau=1.0).backward(slope)

    return repeated(call)
