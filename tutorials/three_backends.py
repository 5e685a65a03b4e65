# %% [markdown]
# # One model on TensorFlow, JAX and PyTorch
#
# This tutorial runs the same program on the three backends of Keras: it trains a
# classifier with a head of kerasoft, saves it on one backend and loads it on the
# others. You learn what is the same on all backends, what is not, and how to write code
# of your own that runs on all three.

# %%
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

# %% [markdown]
# ## The program
#
# Keras chooses its backend when it is imported, by the environment variable
# `KERAS_BACKEND`, and keeps it until the process ends. So each backend needs a process
# of its own, and the program is written to a file. It does one of two things:
#
# - `python digits.py train FILE` trains a classifier of scikit-learn's digits, images
#   of 8 x 8 pixels, and saves it to a file;
# - `python digits.py load FILE` loads it, and then draws from a Gumbel-softmax head.
#
# The classifier ends in the head `Entmax15`, a relative of softmax that gives some
# classes a probability of exactly 0. `matched_loss` returns the loss that belongs to a
# head. The program also has a layer and a function of its own.

# %%
PROGRAM = '''
import sys

import keras
import numpy as np
from keras import ops
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from kerasoft import heads, losses


@keras.saving.register_keras_serializable("digits")
class Standardize(keras.layers.Layer):
    """Gives the pixels of each image a mean of 0 and a standard deviation of 1."""

    def call(self, inputs):
        mean = ops.mean(inputs, axis=-1, keepdims=True)
        deviation = ops.std(inputs, axis=-1, keepdims=True)
        return (inputs - mean) / (deviation + 1e-3)


def possible_classes(probabilities):
    """How many classes have a probability above 0, as a mean over the images."""
    above = ops.cast(ops.greater(probabilities, 0), "float32")
    return ops.mean(ops.sum(above, axis=-1))


def trained(x, y):
    keras.utils.set_random_seed(0)
    head = heads.Entmax15()
    model = keras.Sequential(
        [
            keras.Input((64,)),
            Standardize(),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dense(10),
            head,
        ]
    )
    model.compile("adam", loss=losses.matched_loss(head))
    model.fit(x, y, batch_size=32, epochs=10, verbose=0)
    return model


action, file = sys.argv[1:]
backend = keras.backend.backend()
images, labels = load_digits(return_X_y=True)
images = images.astype("float32")
x_train, x_test, y_train, y_test = train_test_split(
    images, labels, test_size=500, random_state=0
)
if action == "train":
    model = trained(x_train, y_train)
    model.save(file)
else:
    model = keras.saving.load_model(file)
    logits = np.log(np.tile([0.5, 0.3, 0.2], (10_000, 1))).astype("float32")
    for name in ("draws", "again"):
        noisy = heads.GumbelSoftmax(temperature=0.5, noise="always", seed=0)
        np.save(f"{name}-{backend}.npy", ops.convert_to_numpy(noisy(logits)))

probabilities = model.predict(x_test, verbose=0)
np.save(f"{action}-{backend}.npy", probabilities)
accuracy = np.mean(probabilities.argmax(axis=-1) == y_test)
possible = float(ops.convert_to_numpy(possible_classes(probabilities)))
print(f"{backend:11} {accuracy:8.1%} {possible:17.2f}")
'''

# %% [markdown]
# `run` starts the program on a backend and prints what it prints. What it writes to its
# error output is shown only if it fails, because TensorFlow writes several lines about
# the machine there. A backend that is not installed is skipped.

# %%
Path("digits.py").write_text(PROGRAM)
backends = []
for name in ("tensorflow", "jax", "torch"):
    if importlib.util.find_spec(name):
        backends.append(name)
    else:
        print(f"{name} is not installed: skipped")
print("run on:", ", ".join(backends))


def run(backend, *arguments):
    done = subprocess.run(
        [sys.executable, "digits.py", *arguments],
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    print(done.stdout, end="")


# %% [markdown]
# ## Training on each backend
#
# The table has the accuracy on 500 test images, and the mean number of classes whose
# probability is above 0.

# %%
print(f"{'':11} {'accuracy':>8} {'possible classes':>17}")
for backend in backends:
    run(backend, "train", f"{backend}.keras")

# %% [markdown]
# The program and the seed are the same, but each backend has its own generator of
# random numbers. The initial weights differ, and so the trained models differ too. This
# is the largest difference between their probabilities for the test images:

# %%
first, *others = backends


def difference(one, other):
    """The largest absolute difference between two saved arrays."""
    return np.abs(np.load(one) - np.load(other)).max()


for backend in others:
    largest = difference(f"train-{first}.npy", f"train-{backend}.npy")
    print(f"trained on {first} and on {backend:5} {largest:.2f}")

# %% [markdown]
# ## One file on all backends
#
# A `.keras` file holds the layers, their settings and their weights, and nothing that
# only one backend can read. The program that loads it imports `kerasoft`, so that Keras
# knows the head. It also defines its own layer, which `register_keras_serializable`
# makes known to Keras. The last lines are the largest differences from the
# probabilities of the model before it was saved:

# %%
print(f"{'':11} {'accuracy':>8} {'possible classes':>17}")
for backend in backends:
    run(backend, "load", f"{first}.keras")
print()
for backend in backends:
    largest = difference(f"train-{first}.npy", f"load-{backend}.npy")
    print(f"saved on {first}, loaded on {backend:11} {largest:.0e}")

# %% [markdown]
# The probabilities of the loaded models are the same up to rounding. Each backend adds
# up the numbers of a sum in its own order, and float32 keeps about seven decimal
# digits.
#
# ## Gumbel noise
#
# `GumbelSoftmax` adds random noise to the logits. With the same seed, a backend draws
# the same noise again, but another backend draws other noise:

# %%
for backend in backends:
    draws, again = (np.load(f"{name}-{backend}.npy") for name in ("draws", "again"))
    same = np.array_equal(draws, again)
    print(f"{backend:11} {draws[0].round(3)!s:21} the same again: {same}")

# %% [markdown]
# What is the same is the distribution of the noise. The most probable class of a noisy
# output is a random class, drawn with the probabilities that softmax gives without
# noise, here 0.5, 0.3 and 0.2. Over 10,000 draws, the shares of the classes are close
# to them on each backend:

# %%
for backend in backends:
    chosen = np.load(f"draws-{backend}.npy").argmax(axis=-1)
    print(f"{backend:11} {np.bincount(chosen, minlength=3) / len(chosen)}")

# %% [markdown]
# ## Code of your own
#
# The layer `Standardize` and the function `possible_classes` run on all three backends,
# because they follow these rules:
#
# - Compute with `keras.ops`, which has most functions of NumPy by the same names, and
#   not with `tf`, `jnp`, `torch` or, in a layer or a loss, `np`.
# - Turn a tensor into a NumPy array with `keras.ops.convert_to_numpy`. Only TensorFlow
#   and PyTorch have `tensor.numpy()`, and PyTorch's fails on a tensor that gradients
#   are computed for.
# - Draw random numbers with `keras.random` and a `keras.random.SeedGenerator` that the
#   layer makes in its `__init__`.
# - Keep what changes during training in weights (`self.add_weight`), and change them
#   with `assign`. TensorFlow and JAX compile a training step, and a plain attribute
#   would change only once, when it is compiled.
# - In a test, compare backends with a tolerance, and random results by their
#   distribution.
