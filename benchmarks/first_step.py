"""A run to its second step, with the time of each stage: for `benchmarks.start_up`."""

import time

entered = time.time()

import json  # noqa: E402
import sys  # noqa: E402

stages = {}
last = entered


def done(stage: str):
    """Notes the seconds since the last stage was done."""
    global last
    now = time.time()
    stages[stage], last = now - last, now


from pipelines.quiet import import_tensorflow  # noqa: E402

import_tensorflow()

done("import TensorFlow")
import keras  # noqa: E402

done("import Keras")
from pipelines import batching, training  # noqa: E402
from pipelines.config import Config  # noqa: E402

done("import the rest")


class Steps(keras.callbacks.Callback):
    """Notes the steps."""

    def on_train_batch_end(self, batch, logs=None):
        done(f"step {batch + 1}")


def main(spawned: str, options: str):
    stages["start Python"] = entered - float(spawned)
    config = Config(**json.loads(options))
    dataset = training.load_data(config)
    done("load the data")
    keras.utils.set_random_seed(config.seed)
    model = training.build(config, dataset, training.dtype_policy(config.precision))
    done("build the model")
    classes = len(dataset.class_names)
    model.fit(
        batching.training_batches(dataset.train, classes, config),
        steps_per_epoch=2,
        shuffle=False,
        verbose=0,
        callbacks=[Steps()],
    )
    print(json.dumps(stages))


main(*sys.argv[1:])
