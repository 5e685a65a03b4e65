# %% [markdown]
# # Predict the next word out of thousands
#
# This tutorial builds models that read five words and predict the next one, with every
# word of a text as a class. You learn how to train such a model with an output layer
# for many classes, what the three layers used here compute in a training step, and how
# to compare the models on text that they have not seen.

# %%
import ast
import collections
import itertools
import re
import sys
import sysconfig
from pathlib import Path
from pydoc_data.topics import topics

import keras
import numpy as np

from kerasoft.output_layers import (
    AdaptiveOutput,
    ChunkedOutput,
    Classifier,
    SampledOutput,
)

# %% [markdown]
# ## A text
#
# Python comes with English text: its language reference, in the module
# `pydoc_data.topics`, and the docstrings of its standard library (both by the Python
# Software Foundation). Some paragraphs occur more than once. Only the first copy
# is kept, because a model would otherwise be tested on paragraphs that it was trained
# on.

# %%
library = Path(sysconfig.get_path("stdlib"))
documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
pages = list(topics.values())
for name in sorted(sys.stdlib_module_names):
    path = library / f"{name}.py"
    if path.is_file():
        nodes = ast.walk(ast.parse(path.read_bytes()))
        found = (ast.get_docstring(n) for n in nodes if isinstance(n, documented))
        pages += filter(None, found)
paragraphs = dict.fromkeys(p for page in pages for p in re.split(r"\n\s*\n", page))
text = re.findall(r"[^\W\d_]+", "\n".join(paragraphs).lower())
print(f"{len(text):,} words, the first: {' '.join(text[:12])}")

# %% [markdown]
# Every 20th block of 1,000 words is test text, which no model is trained on. The
# vocabulary holds the words that occur at least twice in the training text. They are
# numbered by falling frequency, from 1. Number 0 stands for every other word.

# %%
is_test = np.arange(len(text)) // 1000 % 20 == 19
occurrences = collections.Counter(itertools.compress(text, ~is_test))
frequent = [word for word, count in occurrences.most_common() if count > 1]
vocabulary = ["<other>", *frequent]
number_of = {word: number for number, word in enumerate(vocabulary)}
numbers = np.array([number_of.get(word, 0) for word in text], "int32")
train, test = numbers[~is_test], numbers[is_test]
counts = np.bincount(train, minlength=len(vocabulary))

print(f"words in the vocabulary:  {len(vocabulary):7,}")
print(f"words of training text:   {len(train):7,}")
print(f"words of test text:       {len(test):7,}")
print(f"<other> in the test text: {np.mean(test == 0):7.1%}")

# %% [markdown]
# An example is five consecutive words, the *context*, and the word that follows them.

# %%
CONTEXT = 5


def examples(numbers):
    """The contexts in a text, and the words that follow them."""
    windows = np.lib.stride_tricks.sliding_window_view(numbers, CONTEXT + 1)
    return windows[:, :CONTEXT], windows[:, CONTEXT]


x_train, y_train = examples(train)
x_test, y_test = examples(test)

# %% [markdown]
# ## Three output layers
#
# A *softmax* turns one number per class, the class's *logit*, into probabilities. An
# output layer holds the weights of the classes, and computes the loss from the features
# that the rest of the network gives it. Three of them are compared:
#
# - `ChunkedOutput` computes the logits of all words: the full softmax.
# - `SampledOutput` computes, in training, the logit of the right word and those of 512
#   words that are drawn at random, frequent words more often. Its training loss is an
#   estimate of the full softmax's.
# - `AdaptiveOutput` computes the logits of the most frequent words for every example.
#   It puts the other words into clusters, by frequency, and computes the logits of a
#   cluster only for the examples whose right word is in it. Words in clusters have
#   fewer weights.
#
# All three predict with exact probabilities of all words: sampling is for training
# only.

# %%
keras.utils.set_random_seed(0)
SAMPLED = 512
size = len(vocabulary)
layers = {
    "full": ChunkedOutput(size, top_k=10),
    "sampled": SampledOutput(size, SAMPLED, counts, top_k=10, seed=0),
    "adaptive": AdaptiveOutput(size, counts, top_k=10),
}

# %% [markdown]
# The network before the output layer is a small one (Bengio et al., 2003). An
# *embedding* turns each of the five words into 64 numbers, and a dense layer turns
# these 320 numbers into 128 features.
#
# `Classifier` joins the network and the output layer. It is compiled with an optimiser
# only, because the output layer has its own loss and metrics. The optimiser here is
# Adagrad, which gives each weight a learning rate of its own. On TensorFlow, it updates
# only the rows of the sampled softmax that were drawn.


# %%
def classifier(layer):
    backbone = keras.Sequential(
        [
            keras.Input((CONTEXT,), dtype="int32"),
            keras.layers.Embedding(size, 64),
            keras.layers.Flatten(),
            keras.layers.Dense(128, "relu"),
        ]
    )
    model = Classifier(backbone, layer)
    # The default initial value, 0.1, is far above the squared gradients of rare words.
    model.compile(
        keras.optimizers.Adagrad(0.03, initial_accumulator_value=1e-8, epsilon=1e-10)
    )
    return model


# %% [markdown]
# ## Training and test
#
# Each model reads the training text twice. Two numbers are measured on the test text:
#
# - *Perplexity* is the exponential of the mean of -log(p), where p is the probability
#   that the model gave to the right word. A model that gives all words the same
#   probability has the size of the vocabulary as its perplexity. Lower is better.
# - *Top-10* is how often the right word is among the ten most probable ones.
#
# The first row is for comparison: it predicts each word's share of the training text,
# without reading the context.

# %%
shares = counts / counts.sum()
perplexity = np.exp(-np.log(shares[y_test]).mean())
top_10 = np.isin(y_test, np.argsort(-shares)[:10]).mean()
print(f"{'':16} {'perplexity':>10} {'top-10':>7}")
print(f"{'without context':16} {perplexity:10.0f} {top_10:7.1%}")

models = {}
for name, layer in layers.items():
    model = models[name] = classifier(layer)
    model.fit(x_train, y_train, batch_size=512, epochs=2, verbose=0)
    measured = model.evaluate(x_test, y_test, 512, verbose=0, return_dict=True)
    classes = model.predict(x_test, 512, verbose=0)["classes"]
    perplexity = np.exp(measured["nll"])
    top_10 = np.mean((classes == y_test[:, None]).any(axis=-1))
    print(f"{name:16} {perplexity:10.0f} {top_10:7.1%}")

# %% [markdown]
# All three models use the context: their perplexity is far below that of the first row.
# With so short a training and one seed (the number from which all random numbers
# follow), small differences between the three show nothing.
#
# ## What a training step computes
#
# The costs of the layers differ much more. The next table has the logits that a
# training step computes for an example, on average, and the memory of the logits of
# 2,048 examples, at four bytes each. For `AdaptiveOutput`, these are the logits of the
# frequent words, one for each cluster, and those of the right word's cluster; the layer
# rounds the number of examples in a cluster up to whole blocks, which is not counted
# here.

# %%
edges = [*layers["adaptive"].cutoffs, size]
ranked = np.sort(counts)[::-1] / counts.sum()
in_cluster = sum(ranked[a:b].sum() * (b - a) for a, b in itertools.pairwise(edges))
logits = {
    "full": size,
    "sampled": SAMPLED + 1,
    "adaptive": edges[0] + len(edges) - 1 + in_cluster,
}
print(f"{'':9} {'logits':>7} {'MiB of 2,048':>13} {'weights':>9}")
for name, layer in layers.items():
    mib = 4 * 2048 * logits[name] / 2**20
    print(f"{name:9} {logits[name]:7,.0f} {mib:13.1f} {layer.count_params():9,}")
print(f"\nFrequent words: {edges[0]}, then clusters up to word {edges[1:]}")

# %% [markdown]
# The logits of the full softmax grow with the number of words. With 250,000 words,
# those of 2,048 examples take 1.9 GiB, and a dense layer with a softmax holds several
# copies of them. `ChunkedOutput` processes the batch in chunks of examples, so that it
# holds at most 256 MiB of logits at a time (its argument `chunk_bytes`).
#
# ## The next words
#
# Called on contexts, a model returns the most probable words and the logarithms of
# their probabilities.

# %%
contexts = [
    "an error if the file",
    "true if and only if",
    "it is an error to",
    "can be used as a",
    "has the same type as",
]
x = np.array([[number_of.get(word, 0) for word in c.split()] for c in contexts])
for name, model in models.items():
    print(f"{name}:")
    predicted = model(x)
    classes = keras.ops.convert_to_numpy(predicted["classes"])
    chances = np.exp(keras.ops.convert_to_numpy(predicted["log_probabilities"]))
    for i, context in enumerate(contexts):
        likely = zip(classes[i, :4], chances[i, :4], strict=True)
        following = ", ".join(f"{vocabulary[word]} {p:.0%}" for word, p in likely)
        print(f"  {context:21} {following}")

# %% [markdown]
# ## The whole size
#
# [`examples/next_word.py`](../examples/next_word.py) does the same with the 104,883
# words of a dictionary. It tries two learning rates for a minute each, and then trains
# each model for ten minutes:
#
# ```console
# $ apt install dict-gcide
# $ python examples/next_word.py --text /usr/share/dictd/gcide.dict.dz \
#     --outputs full sampled adaptive --out next-word
# ```
#
# In ten minutes on two processor cores, the full softmax reached a test perplexity of
# 429, the sampled softmax 278 and the adaptive softmax 248, as means over three seeds.
# There the time of a step matters: the last two train on many times as many examples.
# [Many classes](../docs/many-classes.md#the-next-word) has these results with their
# spread, and says [which layer to use](../docs/many-classes.md#which-one) for how many
# classes.
