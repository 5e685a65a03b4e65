"""shapes100 as a TensorFlow Datasets builder."""

import numpy as np
import tensorflow_datasets as tfds

from pipelines.datasets.shapes100.drawing import FILLS, SHAPES, SIZE, draw

SPLITS = {"train": 100, "test": 20}  # images of each class
SEED = 100


class Shapes100(tfds.core.GeneratorBasedBuilder):
    """20 shapes in 5 fills, drawn at random poses, colours and light."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012

    def _info(self):
        fine = [f"{shape}-{fill}" for shape in SHAPES for fill in FILLS]
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "Procedural pictures of 20 shapes in 5 fills: 100 fine classes, and "
                "the shapes as 20 coarse ones. Drawn with NumPy, always the same."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIZE, SIZE, 3)),
                    "label": tfds.features.ClassLabel(names=fine),
                    "coarse_label": tfds.features.ClassLabel(names=list(SHAPES)),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split):
        labels = np.arange(len(SHAPES) * len(FILLS))
        shapes, fills = np.divmod(labels, len(FILLS))
        for batch in range(SPLITS[split]):
            rng = np.random.default_rng([SEED, list(SPLITS).index(split), batch])
            images = draw(shapes, fills, rng)
            for label, shape, image in zip(labels, shapes, images, strict=True):
                yield (
                    int(batch * len(labels) + label),
                    {
                        "image": image,
                        "label": int(label),
                        "coarse_label": int(shape),
                    },
                )
