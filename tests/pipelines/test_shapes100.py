import socket

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipelines.datasets import prepared
from pipelines.datasets.shapes100 import Shapes100, builder, drawing

FEW = {"train": 10, "test": 2}  # images of each class
LABELS = np.arange(100)
SHAPES, FILLS = np.divmod(LABELS, 5)

points = hnp.arrays("float64", (50, 2), elements=st.floats(-2.4, 2.4))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The data set with a tenth of its images, made where there is no network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", None)
        patch.setattr(builder, "SPLITS", FEW)
        made = Shapes100(data_dir=tmp_path_factory.mktemp("tfds"))
        made.download_and_prepare()
    return made


def images_of(made):
    splits = tfds.as_numpy(made.as_dataset(batch_size=-1))
    return np.concatenate([splits[split]["image"] for split in FEW])


def test_classes_and_counts(made):
    assert builder.SPLITS == {"train": 100, "test": 20}
    splits = tfds.as_numpy(made.as_dataset(batch_size=-1))
    fine, coarse = (made.info.features[key] for key in ("label", "coarse_label"))
    assert (fine.num_classes, coarse.num_classes) == (100, 20)
    for split, count in FEW.items():
        data = splits[split]
        assert data["image"].shape == (100 * count, 32, 32, 3)
        assert np.bincount(data["label"]).tolist() == [count] * 100
        for label, superclass in zip(data["label"], data["coarse_label"], strict=True):
            shape, _ = fine.int2str(label).split("-")
            assert shape == coarse.int2str(superclass)


def test_every_picture_is_another(made):
    assert len({image.tobytes() for image in images_of(made)}) == 1_200


@pytest.mark.slow
def test_drawn_twice_it_is_the_same(tmp_path):
    made, again = (Shapes100(data_dir=tmp_path / name) for name in "ab")
    for one in (made, again):
        one.download_and_prepare()
    for split in ("train", "test"):
        one, two = (
            tfds.as_numpy(some.as_dataset(split=split, batch_size=-1))
            for some in (made, again)
        )
        for key in ("image", "label"):
            np.testing.assert_array_equal(one[key], two[key])
    assert len({image.tobytes() for image in images_of(made)}) == 12_000


def test_two_processes_may_make_it_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(builder, "SPLITS", FEW)
    generators = Shapes100._split_generators
    calls = []

    def slower(self, dl_manager):
        calls.append(self)
        if len(calls) == 1:
            prepared.prepare("shapes100")  # the other one, meanwhile
        return generators(self, dl_manager)

    monkeypatch.setattr(Shapes100, "_split_generators", slower)
    assert len(images_of(prepared.prepare("shapes100"))) == 1_200
    assert len(calls) == 2


def test_a_made_data_set_is_not_made_again(made, monkeypatch):
    monkeypatch.setattr(Shapes100, "_generate_examples", None)
    Shapes100(data_dir=made._data_dir_root).download_and_prepare()


@given(points)
def test_the_distance_of_a_square_is_the_boxs(points):
    corners = np.array([(-1, -0.5), (1, -0.5), (1, 0.5), (-1, 0.5)])
    beyond = np.abs(points) - (1, 0.5)
    expected = np.hypot(*np.maximum(beyond, 0).T) + np.minimum(beyond.max(-1), 0)
    distance = drawing.signed_distance(points, corners)
    np.testing.assert_allclose(np.abs(distance), np.abs(expected), atol=1e-9)
    clear = np.abs(expected) > 1e-9
    np.testing.assert_array_equal(distance[clear] < 0, expected[clear] < 0)


@given(points, points, st.sampled_from(list(drawing.SHAPES)))
def test_a_distance_grows_no_faster_than_the_way(a, b, shape):
    distance = drawing.SHAPES[shape]
    way = np.hypot(*(a - b).T)
    assert np.all(np.abs(distance(a) - distance(b)) <= way + 1e-9)


@pytest.mark.parametrize("shape", drawing.SHAPES)
def test_a_shape_has_an_inside_and_fits_its_frame(shape):
    grid = drawing.distance_grids()[list(drawing.SHAPES).index(shape)]
    assert grid.min() < -0.2
    border = np.concatenate([grid[0], grid[-1], grid[:, 0], grid[:, -1]])
    assert border.min() > 0.9
    assert 0.03 < (grid < 0).mean() < 0.2


def test_edges_are_antialiased():
    edge = np.linspace(-2, 2, 9)
    np.testing.assert_allclose(drawing._cover(edge, 1.0), [1, 1, 1, 1, 0.5, 0, 0, 0, 0])
    np.testing.assert_allclose(drawing._cover(np.array([-0.25, 0.25]), 1), [0.75, 0.25])


def test_fills_differ_where_all_else_is_the_same():
    pictures = np.stack(
        [
            drawing.draw(np.arange(20), np.full(20, fill), np.random.default_rng(0))
            for fill in range(5)
        ]
    ).astype(float)
    for i in range(5):
        for j in range(i):
            assert np.abs(pictures[i] - pictures[j]).mean() > 1


def test_pictures_have_contrast():
    rng = np.random.default_rng(0)
    images = np.concatenate([drawing.draw(SHAPES, FILLS, rng) for _ in range(3)])
    assert images.std(axis=(1, 2, 3)).min() > 5
    assert 64 < images.mean() < 128  # dark ground, bright shapes
