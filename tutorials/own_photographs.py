# %% [markdown]
# # Your own photographs, from a folder to a served model
#
# This tutorial trains a network on a folder of images, classifies new images with it,
# tests it, and exports it for ONNX Runtime, which runs it without kerasoft, Keras or
# TensorFlow. You learn the four commands that this takes, and where to put your own
# photographs.

# %%
import csv
import json
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
from PIL import Image, ImageDraw

# %% [markdown]
# The commands are those of the laboratory, `pipelines/`. You would type them in a
# terminal, in a checkout of the repository after `pip install -e '.[export]'`. Here a
# function runs them, and prints each command and the end of its output.


# %%
def run(command, last=25):
    """Runs a command, and prints it and the last lines of its output."""
    print(f"$ {command}")
    done = subprocess.run(
        [sys.executable, *shlex.split(command)[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = done.stdout.splitlines()
    print("\n".join(["..."] * (len(lines) > last) + lines[-last:]))
    done.check_returncode()


# %% [markdown]
# ## A folder of images
#
# The folder has a subfolder for each class, and the name of the subfolder is the name
# of the class:
#
# ```
# photos/circle/000.png
# photos/circle/001.png
# photos/square/000.png
# ```
#
# Put your own photographs in the same places, as `.jpg`, `.png`, `.webp`, `.bmp` or
# `.gif`. They may have any size, and different sizes. A fifth of each class is held out
# for the test; to choose the test images yourself, use `photos/train/CLASS/` and
# `photos/test/CLASS/`.
#
# This tutorial has no photographs, so it draws 100 images of each of three shapes, in
# random colours, sizes and positions. It also draws six images into another folder, to
# classify later.

# %%
SIDES = {"circle": 60, "square": 4, "triangle": 3}  # 60 sides look like a circle


def drawn(shape, rng):
    """An image of a shape."""
    width, height = rng.integers(64, 129, 2).tolist()
    background = rng.integers(0, 256, 3)
    colour = (background + rng.integers(64, 193, 3)) % 256
    image = Image.new("RGB", (width, height), tuple(background.tolist()))
    x, y = np.array([width, height]) / 2 + rng.uniform(-6, 6, 2)
    circle = x, y, min(width, height) * rng.uniform(0.25, 0.45)
    ImageDraw.Draw(image).regular_polygon(
        circle, SIDES[shape], rng.uniform(-20, 20), tuple(colour.tolist())
    )
    return image


rng = np.random.default_rng(0)
for shape in SIDES:
    folder = Path("photos", shape)
    folder.mkdir(parents=True)
    for i in range(100):
        drawn(shape, rng).save(folder / f"{i:03}.png")
Path("new").mkdir()
for shape in SIDES:
    for i in range(2):
        drawn(shape, rng).save(f"new/{shape}-{i}.png")

figure, axes = plt.subplots(1, 9, figsize=(9, 1.4))
for i, axis in enumerate(axes):
    shape = list(SIDES)[i // 3]
    axis.imshow(Image.open(f"photos/{shape}/{i:03}.png"))
    axis.set_title(shape, fontsize=9)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Training
#
# `pipelines.train` resizes the images to 32 x 32 pixels and trains a ResNet-12, a
# convolutional network. `--width` is the number of filters in its first block. It is
# half of the default here, so that the training takes less time. `--epochs` is the
# number of passes over the training images: the fewer images there are, the more passes
# are needed. Details of photographs are lost at 32 x 32 pixels; `--image_size 64` keeps
# more of them.

# %%
run("python -m pipelines.train --dataset folder:photos --width 8 --epochs 20", last=8)

# %% [markdown]
# Each epoch ends with the accuracy and the loss on the training images and, after
# `val_`, on the validation images, a tenth of the training images that the network is
# not trained on. `classes_predicted` is the number of classes that it predicts at least
# once. Below the epochs are the results on the test images, and the command to go on
# with.
#
# The trained network is in a folder whose name says what was trained:

# %%
(trained,) = Path("saved_models").iterdir()
print(trained)

# %% [markdown]
# ## Classifying images
#
# `pipelines.predict` prints the most probable classes of images, and with `--json` it
# prints them as JSON, a format that other programs can read. The true class of the new
# images is in the names of their files, which the network does not see.

# %%
run(f"python -m pipelines.predict {trained} new/circle-0.png new/square-0.png")

# %%
images = sorted(map(str, Path("new").glob("*.png")))
command = [sys.executable, "-m", "pipelines.predict", str(trained), *images, "--json"]
answers = json.loads(subprocess.check_output(command))

figure, axes = plt.subplots(1, len(images), figsize=(9, 2))
for axis, path in zip(axes, images, strict=True):
    best = answers[path][0]
    axis.imshow(Image.open(path))
    axis.set_title(f"{best['class']}\n{best['probability']:.0%}", fontsize=9)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## The test
#
# `pipelines.evaluate` tests the network on the test images once more, in detail, and
# writes tables, plots and a page for the browser to `results/comparison/`. With the
# folders of several runs, it compares them.

# %%
run(f"python -m pipelines.evaluate {trained}")

# %% [markdown]
# Some of the numbers, from its tables: the accuracy on all test images, in brackets its
# 95 % interval, and for each class how many of its test images are recognised (the
# *recall*) and which class the others are most often taken for. With so few test
# images, the interval is wide.


# %%
def table(name):
    with Path("results/comparison", name).open(newline="") as file:
        return list(csv.DictReader(file))


(whole,) = table("comparison.csv")
accuracy, low, high = (
    float(whole[name]) for name in ("accuracy", "accuracy_low", "accuracy_high")
)
print(f"accuracy: {accuracy:.1%} ({low:.1%} to {high:.1%})\n")
print(f"{'class':10} {'images':>6} {'recall':>7}  taken for")
for row in table("classes.csv"):
    recall = float(row["recall"])
    print(f"{row['class']:10} {row['support']:>6} {recall:7.0%}  {row['taken_for']}")

# %% [markdown]
# ## Export
#
# ONNX is a file format for networks that many programs read. `pipelines.export` writes
# it, and compares the exported network's probabilities with the trained network's.

# %%
run(f"python -m pipelines.export {trained} --format onnx")

# %% [markdown]
# The exported network needs only ONNX Runtime, the package `onnxruntime`. It takes
# `images`, whole numbers from 0 to 255, of the size that the network was trained on.
# Resizing is left to you.

# %%
exported = Path("exported", f"{trained.name}-onnx")
session = onnxruntime.InferenceSession(exported / "model.onnx")
class_names = (exported / "assets/class_names.txt").read_text().splitlines()
size = session.get_inputs()[0].shape[1]


def pixels(path):
    """An image file as an array that the network takes."""
    with Image.open(path) as image:
        small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(small)


batch = np.stack([pixels(path) for path in images])
(probabilities,) = session.run(["probabilities"], {"images": batch})
differences = []
for path, row in zip(images, probabilities, strict=True):
    best = row.argmax()
    before = {answer["class"]: answer["probability"] for answer in answers[path]}
    differences += [abs(before[n] - p) for n, p in zip(class_names, row, strict=True)]
    print(f"{path:20} {class_names[best]:10} {row[best]:4.0%}")
print(f"largest difference from `pipelines.predict`: {max(differences):.0e}")

# %% [markdown]
# The difference comes from resizing: `pipelines.predict` uses TensorFlow, this cell
# uses Pillow, and the two do not round alike.
#
# ## On a server
#
# [Serving](../docs/serving.md) has the other formats, LiteRT and TensorFlow's
# SavedModel, how fast each one is, and the commands of two servers that read the
# exported files.
