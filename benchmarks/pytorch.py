"""The other side: PyTorch's ResNet-12, with the same layers, loss and optimiser."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]


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


def training(
    width: int, precision: str, batch_size: int, compiled: bool
) -> Callable[[int], None]:
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
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, (batch_size, 32, 32, 3), dtype="uint8")
    images = torch.from_numpy(pixels)
    labels = torch.from_numpy(draws.integers(0, 100, batch_size))
    half = precision == "mixed_bfloat16"

    def steps(count: int):
        for _ in range(count):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                logits = forward(images)
            functional.cross_entropy(logits.float(), labels).backward()
            optimizer.step()

    return steps


def gumbel_softmax(classes: int, rows: int) -> Callable[[int], None]:
    """Makes a function that draws relaxed samples, forward and backward."""
    draws = np.random.default_rng(0)
    drawn = torch.from_numpy(draws.normal(size=(2, rows, classes)).astype("float32"))
    logits, slope = drawn[0].requires_grad_(), drawn[1]

    def calls(count: int):
        for _ in range(count):
            logits.grad = None
            functional.gumbel_softmax(logits, tau=1.0).backward(slope)

    return calls
