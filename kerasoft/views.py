"""A model that returns the probabilities of another model's head."""

import keras

from kerasoft import heads
from kerasoft.output_layers import Classifier


def probabilities(model: keras.Model) -> keras.Model:
    """Returns a model with the same weights that outputs probabilities.

    Use it if your model returns log-probabilities or scores and you need probabilities,
    for example for AUC, precision, recall, thresholds or an export. (Of scores, it
    returns the softmax.) It shares the layers and weights of the model, so training
    either one changes both.

    Args:
        model: A model whose output comes from a head.

    Returns:
        A new `keras.Model`, not compiled.

    Raises:
        ValueError: If the model does not end in one head, or is a `Classifier`.

    Example:

    >>> head = heads.LogSoftmax()
    >>> model = keras.Sequential([keras.Input((2,)), head])
    >>> x = np.zeros((1, 2))
    >>> print(probabilities(model).predict(x, verbose=0))
    [[0.5 0.5]]
    """
    if isinstance(model, Classifier):
        raise ValueError(
            "A Classifier returns the most likely classes; for the log-probabilities "
            "of all classes, put `kerasoft.output_layers.AllClasses(layer)` after its "
            f"backbone. Received: model={model!r}"
        )
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
    # A model that is not built yet, or a subclass of `keras.Model`.
    return keras.Sequential([model, layer], name=name)
