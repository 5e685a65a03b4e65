"""Trains one run."""

from __future__ import annotations

import dataclasses
import math
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from kerasoft import backbones, heads
from kerasoft.callbacks import TemperatureLogger
from kerasoft.losses import matched_loss
from kerasoft.output_layers import Classifier, OutputLayer
from kerasoft.schedules import FlooredExponentialDecay
from pipelines import (
    batching,
    checks,
    datasets,
    losses,
    outputs,
    publishing,
    run_folder,
    saved_model,
    typed_json,
)
from pipelines.classes_predicted import ClassesPredicted
from pipelines.config import Annealing, Config
from pipelines.errors import InputError, one_line
from pipelines.metrics import classification
from pipelines.optimizers import learning_rate, make_optimizer
from pipelines.progress import Progress, last_loss, trim
from pipelines.provenance import provenance

STRATEGIES = {
    "single": tf.distribute.get_strategy,
    "mirrored": tf.distribute.MirroredStrategy,
}


def train(
    config: Config,
    saved_models: Path = Path("saved_models"),
    resume: bool = False,
    overwrite: bool = False,
) -> Path:
    """Trains a run, evaluates it on the test split and publishes it as a SavedModel.

    Args:
        config: Describes the run.
        saved_models: The folder in which the run's own folder is made.
        resume: Go on from the last epoch of the run if it was stopped.
        overwrite: Replace the run if it is there.

    Returns:
        The folder of the run.

    Raises:
        InputError: If the run is there already, or its data cannot serve.
        FloatingPointError: If the loss is not finite.
    """
    checks.check_backbone(config)
    config = dataclasses.replace(config, dataset=datasets.resolve(config.dataset))
    path = saved_models / config.run_name
    if publishing.tidy(path) and resume:
        return path
    run_folder.check_free(path, config, resume, overwrite)
    dataset = load_data(config)
    with publishing.claim(path):
        # Again, for another process may have come in between.
        run_folder.check_free(path, config, resume, overwrite)
        _train(config, dataset, path, overwrite)
    return path


def _train(config: Config, dataset: datasets.Data, path: Path, overwrite: bool):
    """Trains a run whose folder is claimed."""
    work = publishing.partial(path)
    if overwrite or not run_folder.is_stopped(path):
        shutil.rmtree(work, ignore_errors=True)
    started = time.monotonic()
    try:
        verbose = 1 if sys.stdout.isatty() else 2
        model, first_epoch = fit(config, dataset, work, verbose)
    except FloatingPointError:
        shutil.rmtree(work)
        raise
    served = serving_copy(config, dataset, model)
    new = work / "new"
    shutil.rmtree(new, ignore_errors=True)  # of an export that was stopped
    saved_model.export(served, dataset.class_names, new, scratch=work)
    serve, _ = saved_model.load(new)
    (predicted,) = saved_model.ask(serve, dataset.test.images, "class")
    (new / run_folder.EXTRA).mkdir()
    served.save(new / run_folder.EXTRA / run_folder.MODEL)
    source = provenance()
    record = run_folder.Record(
        config=config,
        metrics=classification(predicted, dataset.test.labels),
        dataset=run_folder.TrainedOn(
            name=dataset.name,
            checksum=dataset.checksum,
            train=len(dataset.train.labels),
            validation=len(dataset.validation.labels),
            test=len(dataset.test.labels),
            classes=len(dataset.class_names),
        ),
        parameters=served.count_params(),
        outputs=heads.find(served).outputs,
        policy=model.dtype_policy.name,
        wall_seconds=round(time.monotonic() - started, 1),
        resumed_at_epoch=first_epoch,
        versions=source["versions"],
        commit=source["commit"],
        device=run_folder.Device(**source["device"]),
    )
    run_folder.collect(path, record)


def load_data(config: Config) -> datasets.Data:
    """The data of a config, of which some training labels may be wrong."""
    data = datasets.load(
        config.dataset,
        config.label,
        config.image_size,
        config.seed,
        config.classes,
        config.validation_share,
    )
    labels = batching.with_wrong_labels(
        data.train.labels, len(data.class_names), config.label_noise, config.seed
    )
    return dataclasses.replace(data, train=data.train._replace(labels=labels))


def fit(
    config: Config, dataset: datasets.Data, work: Path, verbose: int
) -> tuple[keras.Model, int]:
    """Trains a config's model, from the last epoch that is kept in a folder.

    Args:
        config: Describes the run.
        dataset: Its data.
        work: Keeps the state of the last epoch, the history and the logs.
        verbose: As for Keras's `fit`.

    Returns:
        The trained model, and the number of epochs that were there already.

    Raises:
        FloatingPointError: If the loss is not finite.
    """
    keras.utils.set_random_seed(config.seed)
    tf.config.experimental.enable_op_determinism()
    with STRATEGIES[config.strategy]().scope():
        model = build(config, dataset, dtype_policy(config.precision))
    if verbose:
        print(summary(config, dataset, model), flush=True)
    work.mkdir(parents=True, exist_ok=True)
    typed_json.write_text(work / run_folder.CONFIG, config.to_yaml())
    progress = Progress(work / run_folder.STATE, model)
    first_epoch = progress.restore()
    history = work / run_folder.HISTORY
    trim(history, first_epoch)
    logs = work / run_folder.TENSORBOARD
    with tf.summary.create_file_writer(str(logs / "hparams")).as_default():
        hparams.hparams({k: _plain(v) for k, v in dataclasses.asdict(config).items()})
    # An output layer takes the labels as integers.
    num_classes = None if config.output else len(dataset.class_names)
    model.fit(
        batching.training_batches(
            dataset.train, num_classes, config, first_epoch, dataset.augment
        ),
        validation_data=batching.batches(dataset.validation, num_classes),
        steps_per_epoch=batching.steps_per_epoch(dataset.train, config),
        initial_epoch=first_epoch,
        epochs=config.epochs,
        shuffle=False,
        verbose=verbose,
        callbacks=[
            keras.callbacks.TerminateOnNaN(),
            TemperatureLogger(),
            keras.callbacks.CSVLogger(str(history), append=True),
            keras.callbacks.TensorBoard(str(logs), write_graph=False),
            progress,
        ],
    )
    if not math.isfinite(last_loss(history)):
        rate = batching.pace(dataset.train, config).learning_rate
        raise FloatingPointError(
            "The training loss is not finite any more, and nothing was kept; the usual "
            f"way out is a lower --learning_rate (now {rate:g})."
        )
    return model, first_epoch


def summary(config: Config, dataset: datasets.Data, model: keras.Model) -> str:
    """What is about to be trained, in a line."""
    device = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    output = f" with the output layer {config.output}" if config.output else ""
    return (
        f"{config.head}{output} on {config.backbone}, {model.count_params():,} "
        f"parameters; {dataset.name}, {len(dataset.class_names):,} classes, "
        f"{len(dataset.train.labels):,} training images; {device}, "
        f"{model.dtype_policy.name}"
    )


def build(config: Config, dataset: datasets.Data, policy: str) -> keras.Model:
    """Builds and compiles the config's network, head and loss under a dtype policy."""
    pace = batching.pace(dataset.train, config)
    config = dataclasses.replace(config, learning_rate=pace.learning_rate)
    steps, num_classes = pace.steps_per_epoch, len(dataset.class_names)
    ambient = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        head = make_head(config, config.epochs * steps)
        shape = (*dataset.test.images.shape[1:3], 3)
        try:
            model = backbones.build(
                config.backbone,
                1 if config.output else num_classes,
                None if config.output else head,
                shape,
                width=config.width,
                dropblock=config.dropblock,
                seed=config.seed,
                synchronized=config.strategy == "mirrored",
                momentum=pace.momentum,
            )
        except ValueError as error:
            raise InputError(one_line(error)) from error
        optimizer = make_optimizer(config, steps)
        optimizer.exclude_from_weight_decay(
            var_names=["bias", "gamma", "beta", "raw_temperature"]
        )
        options: dict = {
            "steps_per_execution": config.steps_per_execution,
            # XLA slows a CPU down here (see docs), and speeds a GPU up.
            "jit_compile": bool(tf.config.list_physical_devices("GPU")),
        }
        if config.output:
            layer = make_output(config.output, config, dataset, head, steps)
            model = Classifier(outputs.features_of(model), layer)
            model(np.zeros((1, *shape)))  # which builds it
        else:
            loss = losses.make(
                config.loss,
                head,
                config.label_smoothing,
                lambda: optimizer.iterations,
                steps,
            )
            # Objects, not names, of which Keras makes metrics in the first step: then
            # TensorFlow would trace that step twice.
            accuracy = keras.metrics.CategoricalAccuracy("accuracy")
            metrics = [accuracy, ClassesPredicted(num_classes)]
            options |= {"loss": loss, "metrics": metrics}
        model.compile(optimizer, **options)
        # The model's, which in mixed_float16 scales the loss, by variables of its own.
        model.optimizer.build(model.trainable_variables)
    finally:
        keras.config.set_dtype_policy(ambient)
    return model


def make_output(
    name: str, config: Config, dataset: datasets.Data, head: heads.Head, steps: int
) -> OutputLayer:
    """Makes an output layer by its name, with the config's head and rates."""
    output, number = outputs.find(name)

    def rate(times: int):
        peak = times * (config.learning_rate or 0)
        return learning_rate(dataclasses.replace(config, learning_rate=peak), steps)

    return output.make(
        outputs.Request(
            data=dataset,
            head=head,
            label_smoothing=config.label_smoothing,
            learning_rate=rate,
            weight_decay=config.weight_decay,
            seed=config.seed,
            number=number,
        )
    )


def make_head(config: Config, total_steps: int) -> heads.Head:
    """Makes the config's head, its temperature annealed over `total_steps`."""
    options: dict = {"name": "head"}
    if heads.takes(config.head, "temperature"):
        temperature = config.temperature
        if isinstance(temperature, Annealing):
            temperature = temperature_schedule(temperature, total_steps)
        options |= {
            "temperature": 1.0 if temperature is None else temperature,
            "noise": config.noise,
            "seed": config.seed,
        }
    if config.hard:
        options["hard"] = True
    if config.epsilon is not None:
        options["epsilon"] = config.epsilon
    return heads.get(config.head, **options)


def temperature_schedule(annealing: Annealing, total_steps: int):
    """The schedule that moves from start to end over `total_steps`."""
    start, end = annealing.start, annealing.end
    schedules = keras.optimizers.schedules
    match annealing.kind:
        case "linear":
            return schedules.PolynomialDecay(start, total_steps, end)
        case "exponential":
            return schedules.ExponentialDecay(start, total_steps, end / start)
        case "cosine":
            return schedules.CosineDecay(start, total_steps, alpha=end / start)
        case "jang":
            rate = math.log(start / end) / total_steps
            return FlooredExponentialDecay(start, rate, annealing.update_every, end)


def dtype_policy(precision: str) -> str:
    """Chooses the fastest dtype policy that the device has instructions for."""
    if precision != "auto":
        return precision
    if gpus := tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpus[0])
        tensor_cores = details.get("compute_capability", (0, 0)) >= (7, 0)
        return "mixed_float16" if tensor_cores else "float32"
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "float32"
    bfloat16 = "avx512_bf16" in flags or "amx_bf16" in flags
    return "mixed_bfloat16" if bfloat16 else "float32"


def serving_copy(
    config: Config, dataset: datasets.Data, model: keras.Model
) -> keras.Model:
    """The trained model in float32 and on one device, which every machine has.

    Whatever it was trained with, it ends in a head and has the matched loss, so that
    Keras and kerasoft alone can load it.
    """
    alone = dataclasses.replace(config, strategy="single", output=None)
    copy = build(alone, dataset, "float32")
    optimizer: Any = copy.optimizer
    if isinstance(model, Classifier):
        copy, head = outputs.all_classes(copy, model), model.output_layer
        head = getattr(head, "head", None)
    else:
        copy.set_weights(model.get_weights())
        head = heads.find(model)
    if isinstance(head, heads.GumbelHead):
        heads.find(copy).step.assign(head.step)
    optimizer = type(optimizer).from_config(optimizer.get_config())  # of no model yet
    copy.compile(optimizer, matched_loss(copy), metrics=["accuracy"])
    optimizer.build(copy.trainable_variables)
    return copy


def _plain(value):
    return value if isinstance(value, bool | int | float | str) else str(value)
