# %% [markdown]
# # A mixture of experts with hard Gumbel-softmax
#
# This tutorial builds a mixture of experts: several small networks, the experts, and a
# router, a network that sends each example to one of them. You will learn how
# `kerasoft.heads.GumbelSoftmax(hard=True)` trains such a choice, how to lower its
# temperature during training, what it does at prediction, and how to keep all experts
# in use.

# %%
import functools

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers, ops
from matplotlib.colors import ListedColormap

from kerasoft import callbacks, heads

EXPERTS = 4
SEEDS = (0, 1, 2)
BATCH, EPOCHS = 128, 20

# %% [markdown]
# ## The task
#
# An example is a point in a square, and the network predicts one number for it. The
# square has four regions, and each has a linear rule of its own for that number. At
# the borders between regions the number jumps. The network is never told which region
# a point is in.


# %%
def region_of(points):
    return 2 * (points[:, 0] > 0) + (points[:, 1] > 0)


def make_data(size, seed):
    slopes = np.array([[2, 1], [-1, 2], [1, -2], [-2, -1]])
    offsets = np.array([1, -1, -1, 1])
    points = np.random.default_rng(seed).uniform(-1, 1, size=(size, 2))
    region = region_of(points)
    targets = np.sum(slopes[region] * points, axis=1) + offsets[region]
    return points.astype("float32"), targets[:, None].astype("float32")


points, targets = make_data(4096, seed=0)
test_points, test_targets = make_data(4096, seed=1)

# %% [markdown]
# ## The model
#
# The router returns logits, one number per expert. The head turns them into weights:
#
# - `heads.Softmax()` gives every expert a weight above 0. The output of the model is
#   the weighted mean of all experts. This is a soft mixture.
# - `heads.GumbelSoftmax(hard=True)` draws one expert at random, with the probabilities
#   softmax(logits), and gives it the weight 1 and all others 0. This is a hard mixture.
#   The head adds random numbers, called Gumbel noise, to the logits and takes the
#   largest sum, which is a draw with exactly these probabilities.
#
# Such a draw has no useful gradient, because a small change of the logits mostly leaves
# it as it is. The head therefore uses the *straight-through* estimator: the output is
# the draw, and the gradient is that of softmax((logits + noise) / temperature). The
# gradient is biased, but the router can be trained with it.
#
# The temperature does not change which expert is drawn, since division by a positive
# number keeps the order. It changes the gradient only. At a high temperature, the
# softmax is close to uniform, and the gradient varies little from draw to draw. At a
# low temperature, the softmax is closer to the draw itself, so the gradient has less
# bias, but it varies more. Therefore the temperature usually starts high and falls. Any
# Keras learning rate schedule can be the temperature. Below,
# `CosineDecay(2.0, steps, alpha=0.25)` lowers it from 2 to a quarter of that.
#
# The layer `LoadBalance` adds a loss which is explained and used further below. With
# weight 0 it does nothing.


# %%
class LoadBalance(layers.Layer):
    """Adds a loss that is 0 if a batch is spread evenly over the experts.

    It is the squared coefficient of variation, the variance divided by the squared
    mean, of the mean probability of each expert.
    """

    def __init__(self, weight, **kwargs):
        super().__init__(**kwargs)
        self.weight = weight

    def call(self, logits, training=None):
        if training and self.weight:
            load = ops.mean(ops.softmax(logits), axis=0)
            self.add_loss(self.weight * ops.var(load) / ops.square(ops.mean(load)))
        return logits


def network(units, outputs=1):
    return keras.Sequential([layers.Dense(units, "relu"), layers.Dense(outputs)])


def mixture(head, balance=0.0):
    inputs = keras.Input((2,))
    logits = network(32, outputs=EXPERTS)(inputs)
    weights = head(LoadBalance(balance)(logits))
    outputs = layers.Concatenate()([network(8)(inputs) for _ in range(EXPERTS)])
    return keras.Model(inputs, layers.Dot(axes=1)([weights, outputs]))


def gumbel_softmax():
    steps = EPOCHS * len(points) // BATCH
    cooling = keras.optimizers.schedules.CosineDecay(2.0, steps, alpha=0.25)
    return heads.GumbelSoftmax(temperature=cooling, hard=True, name="choice")


# %% [markdown]
# Every expert computes every example here, and the weights then discard all but one.
# That is simple, and saves no time. In a large mixture, only the chosen expert computes
# an example.
#
# ## Training
#
# Five models are compared: the hard mixture with and without the load-balancing loss,
# the soft mixture, one network that is as large as one expert, and one that has about
# as many weights as the whole mixture.

# %%
MODELS = {
    "network of one expert's size": lambda: network(8),
    "network of the mixture's size": lambda: network(90),
    "soft mixture": lambda: mixture(heads.Softmax(name="choice")),
    "hard mixture": lambda: mixture(gumbel_softmax()),
    "hard mixture, balanced": lambda: mixture(gumbel_softmax(), balance=0.1),
}


def new_model(name, seed):
    keras.utils.set_random_seed(seed)
    return MODELS[name]()


@functools.cache  # a model that is used twice is trained once
def train(name, seed):
    model = new_model(name, seed)
    model.compile(
        keras.optimizers.Adam(0.02),
        loss="mean_squared_error",
        metrics=[keras.metrics.RootMeanSquaredError(name="error")],
    )
    log = model.fit(
        points,
        targets,
        batch_size=BATCH,
        epochs=EPOCHS,
        callbacks=[callbacks.TemperatureLogger()],
        verbose=0,
    )
    return model, log.history


# %% [markdown]
# `TemperatureLogger` adds the temperature to the training logs. The error is the root
# of the mean squared error. Here it is measured during training, so with noise.

# %%
NAME = "hard mixture, balanced"
model, history = train(NAME, SEEDS[0])
print("epoch  temperature  error")
for epoch in (1, *range(5, EPOCHS + 1, 5)):
    temperature, error = (history[key][epoch - 1] for key in ("temperature", "error"))
    print(f"{epoch:5}  {temperature:11.2f}  {error:5.2f}")

# %% [markdown]
# ## Where the router sends each point
#
# The left plot shows the regions, the others the expert that the router chooses for
# each point: before training, and after it. The colours of the experts are arbitrary,
# because no expert is assigned to a region beforehand.


# %%
def router(model):
    return keras.Model(model.input, model.get_layer("choice").output)


def chosen(model, points, training=False):
    weights = router(model)(points, training=training)
    return np.argmax(ops.convert_to_numpy(weights), axis=-1)


axis = np.linspace(-1, 1, 200, dtype="float32")
grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
colours = ListedColormap(["#4477aa", "#ee6677", "#ccbb44", "#66ccee"])


def show(ax, values, title):
    image = values.reshape(len(axis), len(axis))
    ax.imshow(image, colours, vmin=0, vmax=3, origin="lower", extent=(-1, 1, -1, 1))
    ax.set_title(title)


untrained = new_model(NAME, SEEDS[0])
figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
show(axes[0], region_of(grid), "regions")
show(axes[1], chosen(untrained, grid), "experts before training")
show(axes[2], chosen(model, grid), "experts after training")
plt.show()

# %% [markdown]
# The table shows how many test points of each region go to each expert. If each row has
# nearly all of its points in a column of its own, every region has its own expert.

# %%
table = np.zeros((4, EXPERTS), int)
np.add.at(table, (region_of(test_points), chosen(model, test_points)), 1)
print("         " + "".join(f"  expert {expert}" for expert in range(EXPERTS)))
for region, counts in enumerate(table):
    print(f"region {region} " + "".join(f"{count:10}" for count in counts))

# %% [markdown]
# ## At prediction there is no noise
#
# In training, the head draws. At prediction it adds no noise, and chooses the most
# likely expert, so the same input always gives the same choice. In training mode, two
# draws for the same point can differ. After training they seldom do, because the router
# has become almost certain, except near the borders.

# %%
predictor = router(model)
first = predictor.predict(test_points, verbose=0)
second = predictor.predict(test_points, verbose=0)
print("weights are only 0 and 1:        ", bool(np.isin(first, (0, 1)).all()))
print("one expert for each point:       ", bool((first.sum(axis=-1) == 1).all()))
print("two predictions are identical:   ", bool((first == second).all()))

for when, which in (("before training", untrained), ("after training", model)):
    draws = [chosen(which, test_points, training=True) for _ in range(2)]
    different = np.mean(draws[0] != draws[1])
    print(f"two draws differ {when + ':':17}{different:.1%} of the points")

# %% [markdown]
# ## The load of the experts
#
# The gradient of an expert that was not drawn is 0, so an expert that is rarely drawn
# learns slowly, and the router has no reason to draw it more often. In the worst case
# one expert takes all examples. The table shows the share of the test points that each
# expert gets, the largest first, in three runs that differ in their random seed only.


# %%
def load(model):
    counts = np.bincount(chosen(model, test_points), minlength=EXPERTS)
    return np.sort(counts)[::-1] / len(test_points)


def print_loads(name):
    print(f"{name}:")
    for seed in SEEDS:
        shares = "".join(f"{share:7.1%}" for share in load(train(name, seed)[0]))
        print(f"  seed {seed} {shares}")


print_loads("hard mixture")

# %% [markdown]
# Experts that get next to nothing are idle. How many are idle depends on the seed; with
# some seeds, all four are used. Here one expert can learn more than one of the rules,
# so the error can be low although some experts are idle. Where an expert can learn only
# one rule, every idle expert is a rule that is not learned.
#
# The remedy is a load-balancing loss ([Shazeer et al.,
# 2017](https://arxiv.org/abs/1701.06538)). For each batch, take the mean probability of
# each expert. Their squared coefficient of variation, the variance divided by the
# squared mean, is 0 if all are equal, and 3 if one of four experts takes all. The layer
# `LoadBalance` adds 0.1 times this number to the loss, in training only.

# %%
print_loads("hard mixture, balanced")

figure, axes = plt.subplots(2, 3, figsize=(8.5, 6), layout="constrained")
for row, name in zip(axes, ("hard mixture", "hard mixture, balanced"), strict=True):
    for ax, seed in zip(row, SEEDS, strict=True):
        show(ax, chosen(train(name, seed)[0], grid), f"{name}\nseed {seed}")
plt.show()

# %% [markdown]
# With the loss, all four experts are in use. The four regions are equally large here,
# so equal shares fit the task. If the best shares are not equal, this loss pulls the
# router away from them, and its weight has to be small.
#
# ## The error on test points
#
# Each model is trained three times, with different seeds. The table shows the mean of
# the error, and its range from the lowest to the highest.


# %%
def error_of(model):
    predictions = ops.convert_to_numpy(model(test_points, training=False))
    return float(np.sqrt(np.mean((predictions - test_targets) ** 2)))


print(f"{'model':30} {'weights':>7}  error")
for name in MODELS:
    trained = [train(name, seed)[0] for seed in SEEDS]
    errors = [error_of(model) for model in trained]
    print(
        f"{name:30} {trained[0].count_params():7}  "
        f"{np.mean(errors):.3f} ({min(errors):.3f} to {max(errors):.3f})"
    )

# %% [markdown]
# Every mixture has a lower error than the network of one expert's size, in every run.
# Where the ranges of two rows overlap, three runs cannot tell which model is better.
# With other seeds and data, the order of the soft and the hard mixture changed. So this
# table is no reason to prefer a hard mixture to a soft one. The reason is what the hard
# mixture does: each example needs one expert only, and you can read off which one it
# was.
#
# To use this in your own model, replace the experts by larger networks, and the task by
# yours. Look at the shares of the experts first. If some are idle, add the
# load-balancing loss, and raise its weight until they are not.
