# %% [markdown]
# # Attention with sparsemax and 1.5-entmax
#
# This tutorial builds a network with attention that looks up a value in a sequence, and
# makes the attention weights with softmax, 1.5-entmax and sparsemax in turn. You will
# learn how to use a head of kerasoft for attention weights, how to mask padding, where
# weights become exactly 0, and what this changes for sequences that are longer than
# those of the training.

# %%
import functools
import math

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers, ops
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from kerasoft import heads, losses

KEYS, VALUES, UNITS = 256, 10, 32
SEEDS = (0, 1, 2)
BATCH, EPOCHS = 128, 8

# %% [markdown]
# ## The task
#
# A sequence is a list of pairs of a key and a value, in which no key occurs twice. With
# it comes a query, which is one of its keys. The label is the value in the same pair.
# So the network has to attend to a single position, which we call the right position.
#
# The sequences have different lengths. To put them in one array, the shorter ones are
# padded at the end. Here the padding holds random keys and values, and so the queried
# key may occur in it, with a wrong value. The array `present` is the mask: it is `True`
# at the positions of the sequence and `False` at the padding.


# %%
def make_data(size, longest, seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(longest // 4, longest, size=size, endpoint=True)
    present = np.arange(longest) < lengths[:, None]
    keys = np.argsort(rng.random((size, KEYS)), axis=-1)[:, :longest]
    values = rng.integers(VALUES, size=(size, longest))
    right = rng.integers(lengths)
    rows = np.arange(size)
    queries, labels = keys[rows, right], values[rows, right]
    keys = np.where(present, keys, rng.integers(KEYS, size=keys.shape))
    inputs = {"query": queries, "keys": keys, "values": values, "present": present}
    return inputs, labels, right


train_inputs, train_labels, _ = make_data(8192, longest=16, seed=0)
TESTS = {longest: make_data(1024, longest, seed=longest) for longest in (16, 64, 256)}

# %% [markdown]
# ## The model
#
# Attention gives each position a score, here the dot product of two vectors, one for
# the query and one for the key at this position. A head turns the scores into weights
# that are not negative and sum to 1. The output is the weighted mean of the vectors of
# the values. The three heads differ in how they treat low scores:
#
# - `Softmax`: every position that is not masked gets a weight above 0.
# - `Sparsemax`: the weight is max(score - threshold, 0), with the threshold at which
#   the weights sum to 1. Positions whose score is below the threshold get exactly 0.
# - `Entmax15`: the weight is max(score / 2 - threshold, 0)², again with the threshold
#   at which the weights sum to 1. It lies between the other two: it gives exact zeros,
#   but never more of them than sparsemax for the same scores.
#
# The mask is passed to the head in the call, as `mask=`. It must have as many
# dimensions as the scores. Here both have the shape (batch, positions). With several
# queries for each sequence, the scores have the shape (batch, queries, positions) and
# the mask must have the shape (batch, 1, positions). A head takes a mask with fewer
# dimensions than the scores for a mask of time steps, and does not apply it to the
# weights.


# %%
class Attention(layers.Layer):
    """Dot-product attention whose weights are made by a head."""

    def __init__(self, head, **kwargs):
        super().__init__(**kwargs)
        self.head = head

    def call(self, query, keys, values, present):
        scores = ops.einsum("bu,bpu->bp", query, keys) / math.sqrt(query.shape[-1])
        weights = self.head(scores, mask=present)
        return ops.einsum("bp,bpu->bu", weights, values), weights


def new_models(head):
    """The classifier, and a model that returns its attention weights."""
    query = keras.Input((), name="query", dtype="int32")
    keys = keras.Input((None,), name="keys", dtype="int32")
    values = keras.Input((None,), name="values", dtype="int32")
    present = keras.Input((None,), name="present", dtype="bool")
    context, weights = Attention(head)(
        layers.Embedding(KEYS, UNITS)(query),
        layers.Embedding(KEYS, UNITS)(keys),
        layers.Embedding(VALUES, UNITS)(values),
        present,
    )
    outputs = heads.LogSoftmax()(layers.Dense(VALUES)(context))
    inputs = {"query": query, "keys": keys, "values": values, "present": present}
    return keras.Model(inputs, outputs), keras.Model(inputs, weights)


# %% [markdown]
# The last layer of the classifier is a head as well, `LogSoftmax`, and
# `losses.matched_loss` finds the loss that fits it. The matched loss of sparsemax and
# entmax is not needed, since here they are in the middle of the network, not at its
# end. Gradients pass through all three heads, but a score whose weight is 0 gets none.
# At the start of the training no weight is 0, because all scores are nearly equal.
#
# ## Training
#
# Each model is trained on sequences of at most 16 positions, with three seeds.

# %%
HEADS = {
    "softmax": heads.Softmax,
    "1.5-entmax": heads.Entmax15,
    "sparsemax": heads.Sparsemax,
}


@functools.cache  # each is trained once, although it is used several times
def train(name, seed):
    keras.utils.set_random_seed(seed)
    model, attention = new_models(HEADS[name]())
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=losses.matched_loss(model),
        metrics=["accuracy"],
    )
    log = model.fit(
        train_inputs, train_labels, batch_size=BATCH, epochs=EPOCHS, verbose=0
    )
    return model, attention, log.history["accuracy"]


print("accuracy on the training sequences, first seed")
print("epoch      " + "".join(f"{epoch:6}" for epoch in range(1, EPOCHS + 1)))
for name in HEADS:
    history = train(name, SEEDS[0])[2]
    print(f"{name:11}" + "".join(f"{accuracy:6.2f}" for accuracy in history))


# %% [markdown]
# ## The attention weights
#
# Each row of the plots is one test sequence, the same one in all three plots, and each
# column is a position. The darker a cell is, the larger is its weight; white is a
# weight of exactly 0. Grey is padding. A red frame marks the right position.


# %%
def outputs_of(model, inputs):
    return ops.convert_to_numpy(model(inputs, training=False))


inputs, _, right = TESTS[16]
shown = slice(0, 12)
colours = LinearSegmentedColormap.from_list("weights", ["#c6dbef", "#08306b"])
colours = colours.with_extremes(under="white", bad="lightgrey")
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
for ax, name in zip(axes, HEADS, strict=True):
    weights = outputs_of(train(name, SEEDS[0])[1], inputs)[shown]
    visible = np.where(inputs["present"][shown], weights, np.nan)
    image = ax.imshow(visible, colours, vmin=1e-9, vmax=1)
    for row, column in enumerate(right[shown]):
        frame = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, color="red")
        ax.add_patch(frame)
    ax.set_title(name)
    ax.set_xlabel("position")
axes[0].set_ylabel("sequence")
figure.colorbar(image, label="weight")
plt.show()

# %% [markdown]
# ## Padding
#
# With all three heads, padding gets a weight of exactly 0. So what stands in it makes
# no difference to the output: we replace it, and compare the outputs. In the second
# table every position is padding. All weights are then 0, not NaN.

# %%
replaced = {
    **inputs,
    "keys": np.where(inputs["present"], inputs["keys"], 0),
    "values": np.where(inputs["present"], inputs["values"], 0),
}
print("head        largest weight of padding  largest change of the output")
for name in HEADS:
    model, attention, _ = train(name, SEEDS[0])
    largest = outputs_of(attention, inputs)[~inputs["present"]].max()
    change = np.abs(outputs_of(model, replaced) - outputs_of(model, inputs)).max()
    print(f"{name:11} {largest:26g} {change:29g}")

print("\nhead        weights of three positions that are all padding")
for name, head in HEADS.items():
    weights = head()(np.zeros((1, 3)), mask=np.zeros((1, 3), bool))
    print(f"{name:11}", ops.convert_to_numpy(weights)[0])


# %% [markdown]
# ## Longer sequences
#
# The networks have seen sequences of at most 16 positions. How do they do with
# sequences of up to 64 and 256? For each head and length, the tables show
#
# - the accuracy;
# - the attention mass, the mean weight of the right position;
# - the share of the weights that are exactly 0, without those of padding.
#
# Each number is the mean over three seeds, with the range from the lowest to the
# highest.


# %%
def measure(model, attention, longest):
    inputs, labels, right = TESTS[longest]
    weights = outputs_of(attention, inputs)
    accuracy = np.mean(outputs_of(model, inputs).argmax(axis=-1) == labels)
    mass = np.mean(weights[np.arange(len(right)), right])
    zeros = np.mean(weights[inputs["present"]] == 0)
    return accuracy, mass, zeros


def print_tables(trained):
    measured = {
        name: np.array(
            [
                [measure(model, attention, longest) for longest in TESTS]
                for model, attention in runs
            ]
        )
        for name, runs in trained.items()
    }
    for index, title in enumerate(("accuracy", "attention mass", "share of zeros")):
        print(f"{title:16}" + "".join(f"{f'up to {n}':>24}" for n in TESTS))
        for name, results in measured.items():
            cells = (
                f"{runs.mean():.3f} ({runs.min():.3f} to {runs.max():.3f})"
                for runs in results[:, :, index].T
            )
            print(f"{name:16}" + "".join(f"{cell:>24}" for cell in cells))
        print()


print_tables({name: [train(name, seed)[:2] for seed in SEEDS] for name in HEADS})

# %% [markdown]
# On sequences as long as those of the training, all three heads answer nearly every
# query. On the longest ones, softmax loses far more accuracy than the spread over
# seeds, and the other two lose hardly any.
#
# The reason is in the other tables. The softmax weight of a wrong position is small,
# but there are many wrong positions, and the sum of their weights grows with the
# length. Less and less weight is left for the right position. Sparsemax and 1.5-entmax
# give many of the wrong positions exactly 0, and a larger share of them in longer
# sequences. So the right position keeps more of the weight.
#
# ## A lower temperature helps softmax too
#
# The result above is for scores as they come from this training. Softmax with a
# temperature, softmax(scores / temperature), has larger weights at the right position
# if the temperature is low. `heads.GumbelSoftmax(temperature, noise="never")` is this
# function. We put it in the place of softmax, with the weights of the trained networks.


# %%
def with_temperature(temperature):
    cooled = []
    for seed in SEEDS:
        head = heads.GumbelSoftmax(temperature, noise="never")
        model, attention = new_models(head)
        model.set_weights(train("softmax", seed)[0].get_weights())
        cooled.append((model, attention))
    return cooled


print_tables({f"temperature {t}": with_temperature(t) for t in (1, 0.5, 0.25)})

# %% [markdown]
# At the temperatures 0.5 and 0.25, softmax answers nearly every query too, also in the
# longest sequences. So exact zeros are not the only solution. But here the sparse heads
# needed no temperature chosen for the length. Their weights are also easier to read: a
# position with weight 0 has no effect on the output, so there is no need to choose how
# small a weight must be to count as none.
#
# For your own model, replace the head in `Attention`. If your layer makes its weights
# without a head, the functions `kerasoft.ops.sparsemax(scores)` and
# `kerasoft.ops.entmax15(scores)` do the same. To mask a position for them, set its
# score to -inf.
