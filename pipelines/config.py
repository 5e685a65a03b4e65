"""The typed description of a run."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Literal

import yaml

from pipelines.errors import InputError
from pipelines.quiet import import_tensorflow
from pipelines.typed_json import record

MAX_INTEGER = 2**31
UPDATE_EVERY = 100  # steps for which a temperature holds, as in Jang et al.
MAX_TEXT = 1000

# What the built-in data sets are trained with, where it is not given.
USUAL = {"batch_size": 128, "learning_rate": 0.2}
BUILT_IN = ("auto", "cifar100", "shapes100")


@record
class Annealing:
    """A temperature that moves from `start` to `end` over the whole run.

    Attributes:
        kind: The curve: `linear`, `exponential`, `cosine`, or `jang`, exponential in
            steps (Jang et al., 2017).
        start: The temperature of the first step, not 0.
        end: The temperature at the end, of the same sign as `start`.
        update_every: For `jang`, the steps for which a temperature holds.
    """

    kind: Literal["linear", "exponential", "cosine", "jang"]
    start: float
    end: float
    update_every: int = UPDATE_EVERY

    def __str__(self) -> str:
        words = f"{digits(self.start)} to {digits(self.end)} {self.kind}"
        usual = self.update_every == UPDATE_EVERY
        return words if usual else f"{words} every {self.update_every}"

    @property
    def possible(self) -> bool:
        """Whether every temperature on the way is finite and not 0."""
        falls = self.start >= self.end > 0
        return (
            self.start * self.end > 0
            and math.isfinite(self.start * self.end)
            and (falls or self.kind != "jang")
            and (self.kind == "jang" or self.update_every == UPDATE_EVERY)
            and 1 <= self.update_every < MAX_INTEGER
        )


@record
class Switch:
    """One loss, and from an epoch on another.

    Attributes:
        first: The name of the loss of the first epochs.
        then: The name of the loss after them.
        after: How many epochs have the first loss.
    """

    first: str
    then: str
    after: int

    def __str__(self) -> str:
        return f"{self.first} for {self.after} epochs, then {self.then}"


# The options as `--help` shows them.
GROUPS = {
    "The head and its loss": "head temperature noise hard epsilon output loss",
    "The data": "dataset label classes image_size validation_share label_noise",
    "The network": "backbone width dropblock",
    "Training": "epochs steps_per_epoch batch_size optimizer learning_rate "
    "warmup_epochs schedule weight_decay label_smoothing seed",
    "Changes of the training images": "padding cutout mixup",
    "The machine": "precision steps_per_execution strategy",
}


@record
class Config:
    """A run: everything that its numbers depend on, with the machine.

    Attributes:
        head: The output head: `softmax`, `log_softmax`, `softmax2`, `log_softmax2`,
            `gumbel_softmax`, `log_gumbel_softmax`, `taylor_softmax`,
            `spherical_softmax`, `z_loss`, `sin_softmax`, `sparsemax` or `entmax15`.
        temperature: For a Gumbel head: a number other than 0, an annealing with kind,
            start and end, or `learned`, which begins at 1. 1 if not given.
        noise: For a Gumbel head, when Gumbel noise is added.
        hard: For `gumbel_softmax`: straight-through, one-hot forward.
        epsilon: For `spherical_softmax`: what is added to each square. 1e-3 if not
            given.
        output: An output layer for many classes in place of the dense layer of logits:
            `chunked` (the same loss without all logits at once), `sampled` (or
            `sampled:1000`, so many classes a step), `adaptive`, `two_level` (by
            superclasses, where there are any; `two_level:50` by 50 groups of
            consecutive classes), or `factored` (of z_loss, spherical_softmax and
            taylor_softmax; `factored:100` trains the weights of the classes at 100
            times the learning rate). None if not given.
        loss: `matched` takes the head's output for what it is; `as_logits` takes it
            for logits, the mistake of softmax before a cross-entropy on logits
            (`as_logits:20` multiplies it by 20 first); `generalized:0.7` is generalised
            cross-entropy, between cross-entropy (near 0) and mean absolute error (1).
            Or two of these, `first` and `then`, and `after` how many epochs to change.
        dataset: `cifar100`, `shapes100` (built in), `tfds:NAME` (an image
            classification set of TensorFlow Datasets, TFDS), `folder:PATH`
            (PATH/CLASS/*, or PATH/train/CLASS/* and PATH/test/CLASS/*), `glyphs` (Han
            characters in the installed fonts) or `glyphs:FOLDER`, or `auto`: CIFAR-100
            where TFDS has it or can get it, shapes100 otherwise.
        classes: How many of the data set's classes to keep, the same ones for every
            seed; all if not given.
        label: The classes, where the data set has both: fine (of CIFAR-100, 100) or
            coarse (20; of glyphs, the 214 radicals).
        image_size: The side to which images of a folder or of `tfds:NAME` are resized.
        backbone: The network under the head: `resnet12`, `plain_cnn`, or your own as
            `module:function`, from `input_shape` to a model that ends in features.
        width: The filters of its first block; the next three double it each.
        dropblock: The rate of DropBlock, for resnet12.
        epochs: Passes over the training images, or rounds of `steps_per_epoch`.
        steps_per_epoch: Steps after which an epoch ends, whatever the number of images,
            so that runs on few images and on many can be of one length; a pass over the
            training images if not given.
        batch_size: Images in a step. If not given, 128, and less where the training
            images of a folder, `tfds:NAME` or `glyphs` are fewer than 2,048: see
            README.
        optimizer: `sgd`, with Nesterov momentum 0.9, or `muon` or `adam`, which want
            another learning_rate and weight_decay. The output `factored` always trains
            the weights of the classes by plain SGD.
        learning_rate: The peak between warm-up and decay. If not given, 0.2; on a
            folder, `tfds:NAME` or `glyphs`, less in proportion to a batch of fewer than
            128.
        warmup_epochs: Epochs of linear warm-up, below `epochs`; of a run of one epoch,
            half of it.
        schedule: How the learning rate falls to 0 after the warm-up: as half a cosine,
            or in a straight line.
        weight_decay: Decoupled, multiplied by the learning rate; on kernels alone.
        label_smoothing: Share of each target that is spread over the classes.
        validation_share: Share of the images to train on that is held out, for `tune`
            to choose by and `evaluate` to calibrate on; at least as many images as
            there are classes. Not of glyphs, which have a typeface for that.
        label_noise: Share of the training images that get the label of another class,
            drawn by the seed.
        padding: Pixels that are reflected around each training image before it is
            cropped back at random; 0 only flips. Characters are moved by up to half as
            many, and never flipped.
        cutout: Side of a grey square laid over each training image, in pixels.
        mixup: Alpha of MixUp's Beta distribution; 0 turns it off.
        precision: Dtype policy. `auto` takes mixed_float16 on a GPU with tensor cores,
            mixed_bfloat16 on a CPU with bfloat16 instructions, float32 elsewhere.
        steps_per_execution: Training steps in one call of the compiled loop.
        strategy: `mirrored` shares each batch among the GPUs of the machine.
        seed: Of the weights, the split, the order, the augmentation and the noise.
    """

    head: str = "log_softmax"
    temperature: float | Annealing | Literal["learned"] | None = None
    noise: Literal["training", "always", "never"] = "training"
    hard: bool = False
    epsilon: float | None = None
    output: str | None = None
    loss: str | Switch = "matched"
    dataset: str = "auto"
    label: Literal["fine", "coarse"] = "fine"
    classes: int | None = None
    image_size: int = 32
    validation_share: float = 0.1
    backbone: str = "resnet12"
    width: int = 16
    dropblock: float = 0.0
    epochs: int = 15
    steps_per_epoch: int | None = None
    batch_size: int | None = None
    optimizer: Literal["sgd", "muon", "adam"] = "sgd"
    learning_rate: float | None = None
    warmup_epochs: float = 1.0
    schedule: Literal["cosine_decay", "linear_decay"] = "cosine_decay"
    weight_decay: float = 5e-3
    label_smoothing: float = 0.0
    label_noise: float = 0.0
    padding: int = 4
    cutout: int = 0
    mixup: float = 0.0
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    steps_per_execution: int = 1
    strategy: Literal["single", "mirrored"] = "single"
    seed: int = 0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                self.require(
                    len(value) <= MAX_TEXT
                    and not re.search(r"[\0\ud800-\udfff]", value),
                    field.name,
                    f"must be text of at most {MAX_TEXT:,} characters",
                )
            if isinstance(value, int | float):
                most = math.inf if isinstance(value, float) else MAX_INTEGER
                self.require(
                    abs(value) < most,
                    field.name,
                    "must be finite, if whole below 2**31",
                )
        if self.dataset in BUILT_IN:
            for name, value in USUAL.items():
                if getattr(self, name) is None:
                    object.__setattr__(self, name, value)
        if isinstance(self.temperature, float | int):
            self.require(
                self.temperature != 0,
                "temperature",
                "must be finite and not 0, because the logits are divided by it",
            )
        if isinstance(self.temperature, Annealing):
            self.require(
                self.temperature.possible,
                "temperature",
                "must anneal between two finite numbers of one sign, neither 0 (for "
                "jang, downwards and above 0), with update_every at least 1 (and only "
                "for jang)",
            )
        self.require(
            self.epsilon is None or self.epsilon > 0, "epsilon", "must be above 0"
        )
        if isinstance(self.loss, Switch):
            self.require(
                1 <= self.loss.after < self.epochs,
                "loss",
                f"must change after at least 1 of the {self.epochs} epochs, and before "
                "their end",
            )
        self.require(
            self.classes is None or self.classes >= 2, "classes", "must be at least 2"
        )
        self.require(self.image_size >= 16, "image_size", "must be at least 16 pixels")
        self.require(
            self.image_size == Config.image_size
            or self.dataset.partition(":")[0] not in (*BUILT_IN, "glyphs"),
            "image_size",
            f"belongs to folder:PATH and tfds:NAME; {self.dataset} has a size of its "
            "own",
        )
        for name in ("width", "epochs", "steps_per_execution"):
            self.require(getattr(self, name) >= 1, name, "must be at least 1")
        self.require(
            self.batch_size is None or self.batch_size >= 1,
            "batch_size",
            "must be at least 1",
        )
        self.require(
            self.steps_per_epoch is None
            or (
                self.steps_per_epoch >= 1
                and self.steps_per_epoch % self.steps_per_execution == 0
            ),
            "steps_per_epoch",
            f"must be at least 1, and a multiple of steps_per_execution "
            f"({self.steps_per_execution})",
        )
        self.require(
            self.learning_rate is None or self.learning_rate > 0,
            "learning_rate",
            "must be above 0",
        )
        self.require(
            self.warmup_epochs in (Config.warmup_epochs, 0)
            or self.warmup_epochs < self.epochs,
            "warmup_epochs",
            f"must be below the {self.epochs} epochs of the run",
        )
        for name in ("warmup_epochs", "weight_decay", "padding", "cutout", "mixup"):
            self.require(getattr(self, name) >= 0, name, "must not be negative")
        self.require(self.padding < 16, "padding", "must be below 16 pixels")
        self.require(
            0 < self.validation_share <= 0.5,
            "validation_share",
            "must be above 0 and at most 0.5",
        )
        for name in ("dropblock", "label_smoothing", "label_noise"):
            self.require(
                0 <= getattr(self, name) < 1, name, "must be at least 0 and below 1"
            )
        self.require(self.seed >= 0, "seed", "must be at least 0 and below 2**31")
        # What its names stand for is known to TensorFlow's side alone, whose import
        # takes seconds: so it is checked after what numbers alone tell.
        import_tensorflow()
        from pipelines import checks

        checks.check(self)

    @property
    def defaults(self) -> Config:
        """The config of the data set in which nothing else is given."""
        return Config(dataset=self.dataset)

    def require(self, holds: bool, name: str, rule: str):
        """Refuses the value of a field that does not keep its rule.

        Raises:
            InputError: If it does not.
        """
        if not holds:
            raise InputError(f"{name} {rule}. Received: {getattr(self, name)}")

    @property
    def run_name(self) -> str:
        """The name of the run's folder: what it is, and what differs from defaults."""
        kind, colon, place = self.dataset.partition(":")
        of_folder = kind in ("folder", "glyphs") and colon
        dataset = Path(place if of_folder else self.dataset).name.replace(":", ".")
        if kind == "glyphs" and colon:
            dataset = f"glyphs.{dataset}"
        parts = [dataset, self.backbone.replace(":", "."), self.head]
        match self.temperature:
            case Annealing(kind, start, end, every):
                parts.append(f"t{kind}-{digits(start)}-{digits(end)}")
                parts += [f"every{every}"] if every != UPDATE_EVERY else []
            case float() | int():
                parts.append(f"t{digits(self.temperature)}")
            case str():
                parts.append(f"t{self.temperature}")
        named = {"head", "temperature", "dataset", "backbone", "seed"}
        defaults = self.defaults
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in named or value == getattr(defaults, field.name):
                continue
            match value:
                case str():
                    parts.append(value.replace(":", "."))
                case Switch(first, then, after):
                    parts.append(f"{first}-{after}-{then}".replace(":", "."))
                case _:
                    parts.append(f"{field.name}{digits(value)}")
        return "-".join([*parts, f"s{self.seed}"])

    def to_yaml(self) -> str:
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False)


def digits(number: float) -> str:
    """A number in as few digits as tell it from others."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)
