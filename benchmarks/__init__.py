"""Speed, as ratios taken in one run; each module is a command."""

import pipelines as pipelines  # before Keras: it sets TensorFlow up
