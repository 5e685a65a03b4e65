"""A model seen otherwise: the probabilities of one that ends in a head."""

import keras

from kerasoft import heads


def probabilities(model: keras.Model) -> keras.Model:
    """A view of a model that ends in a head, which puts out probabilities.

    What reads probabilities (AUC, precision, recall, thresholds, an exported model) can
    be given the view, where the model itself puts out log-probabilities or scores (of
    which it takes the softmax). It shares the
    model's layers and weights, so it needs no training of its own, and sees that of the
    model.

    Args:
        model: A model whose output comes from a head.

    Returns:
        A new `keras.Model`, not compiled.

    Raises:
        ValueError: If the model does not end in one head.

    Example:

    >>> head = heads.LogSoftmax()
    >>> model = keras.Sequential([keras.Input((2,)), head])
    >>> x = np.zeros((1, 2))
    >>> print(probabilities(model).predict(x, verbose=0))
    [[0.5 0.5]]
    """
    name = f"{model.name}_probabilities"
    head = heads.find(model)
    if head.outputs == "log_probabilities":
        layer = keras.layers.Activation("exponential", dtype="float32")
    elif head.outputs == "scores":
        layer = heads.Softmax(axis=head.axis)
    else:
        layer = keras.layers.Identity(dtype="float32")
    if getattr(model, "inputs", None):
        return keras.Model(model.inputs, layer(model.outputs[0]), name=name)
    # A model that is not built yet, or that is a subclass of `keras.Model`.
    return keras.Sequential([model, layer], name=name)
