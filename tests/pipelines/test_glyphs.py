"""Characters drawn from fonts: from fonts made here, and from those of the system."""

import dataclasses
import os
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from pipelines import augmentation, batching, datasets, run_folder, training
from pipelines.config import Config
from pipelines.datasets import glyphs
from pipelines.errors import InputError

SHAPES = 39  # of the made fonts, shared evenly among any characters in a row


def make(path, family, width, missing=(), style="Regular", first=100):
    """A font whose characters are bars: their place tells the class, roughly."""
    builder = FontBuilder(1000, isTTF=True)
    names = [".notdef", *(f"bar{i}" for i in range(SHAPES))]
    builder.setupGlyphOrder(names)
    characters = [c for c in glyphs.CHARACTERS if c not in missing]
    builder.setupCharacterMap(
        {ord(c): f"bar{ord(c) % SHAPES}" for c in characters}, allowFallback=True
    )
    outlines = {}
    for i, name in enumerate(names):
        pen = TTGlyphPen(None)
        left, low = first + 90 * (i % 8), 100 * (i // 8)
        pen.moveTo((left, low))
        for point in ((left, low + 90), (left + width, low + 90), (left + width, low)):
            pen.lineTo(point)
        pen.closePath()
        outlines[name] = pen.glyph()
    builder.setupGlyf(outlines)
    lefts = {name: outline.xMin for name, outline in outlines.items()}
    builder.setupHorizontalMetrics({name: (1000, lefts[name]) for name in names})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": style})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


@pytest.fixture(scope="module")
def fonts(tmp_path_factory):
    """Three designs in six files, and two that cannot serve."""
    folder = tmp_path_factory.mktemp("fonts")
    make(folder / "a-light.ttf", "A", 40)
    make(folder / "a-bold.ttf", "A", 90, style="Bold")
    make(folder / "b.ttf", "B", 60, first=110)
    make(folder / "c.ttf", "C", 70, first=130)
    make(folder / "copy.ttf", "Copy of C", 70, first=130)
    make(folder / "lacks.ttf", "D", 80, missing="一")
    (folder / "broken.otf").write_bytes(b"OTTO")
    (folder / "c-again.ttf").symlink_to(folder / "c.ttf")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache of its own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module", autouse=True)
def few_shapes():
    """The made fonts draw many characters alike."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glyphs, "DISTINCT", 0.05)
        yield


@pytest.fixture(scope="module")
def made(fonts, cache):
    return glyphs.read(str(fonts))


def test_a_font_serves_if_it_has_every_character(fonts, capsys):
    found = glyphs.find([fonts, fonts])
    assert [face.path.name for face in found] == [
        *("a-bold.ttf", "a-light.ttf", "b.ttf", "c.ttf", "copy.ttf"),
    ]
    assert [face.family for face in found] == ["A", "A", "B", "C", "Copy of C"]
    assert "broken.otf is no font" in capsys.readouterr().err


def test_whole_typefaces_are_held_out(made, fonts):
    n = len(glyphs.CHARACTERS)
    assert n == 20_902
    # Two faces of A to train; B and C, whose copy is one with it, for the rest.
    assert made.train.shape == (2 * n, 32, 32, 1)
    assert made.validation.shape == made.test.shape == made.harder().shape
    assert made.test.shape == (n, 32, 32, 1)
    for face, images in (("b", made.validation), ("c", made.test)):
        other = made.test if face == "b" else made.validation
        drawn = glyphs.draw(glyphs.Face(fonts / f"{face}.ttf", ""), glyphs.CHARACTERS)
        same = [np.array_equal(drawn[..., None], some) for some in (images, other)]
        assert sum(same) == 1
    labels = made.labels["fine"]
    assert labels.names[:2] == ["一", "丁"]
    np.testing.assert_array_equal(labels.train, np.tile(np.arange(n), 2))
    np.testing.assert_array_equal(labels.test, np.arange(n))
    np.testing.assert_array_equal(labels.validation, np.arange(n))


def test_the_ink_is_in_the_middle_on_average(made):
    ink = made.train[..., 0].astype("float64").mean(axis=0)
    for axis in (0, 1):
        profile = ink.sum(axis=axis)
        assert profile @ np.arange(32) / profile.sum() == pytest.approx(15.5, abs=1)
    assert made.train.any(axis=(1, 2, 3)).all()


def test_drawings_are_kept_and_the_same(made, fonts, cache, capsys):
    kept = sorted((cache / "kerasoft" / "arrays").glob("glyphs-*/drawings.npy"))
    assert len(kept) == 5
    capsys.readouterr()
    again = glyphs.read(str(fonts))
    assert "drawing" not in capsys.readouterr().err
    np.testing.assert_array_equal(again.train, made.train)
    assert again.harder is not None
    np.testing.assert_array_equal(again.harder(), made.harder())
    kept[0].write_bytes(b"half")
    glyphs.read(str(fonts))
    assert "drawing" in capsys.readouterr().err
    assert kept[0].stat().st_size > 20_902 * 32 * 32


def test_too_few_typefaces_are_refused(fonts, tmp_path):
    (tmp_path / "a.ttf").symlink_to(fonts / "a-bold.ttf")
    with pytest.raises(InputError, match=r"needs 3 typefaces .*found 1 .*apt-get"):
        glyphs.read(str(tmp_path))
    with pytest.raises(InputError, match="no folder"):
        glyphs.read(str(tmp_path / "none"))


@pytest.mark.parametrize("count", [3, 4, 5, 9])
def test_typefaces_are_parted(count):
    faces = [glyphs.Typeface(str(i), [np.empty(0)] * (1 + i)) for i in range(count)]
    train, validation, test = glyphs.part(faces)
    assert len(validation) == 1
    assert len(test) == (2 if count >= 5 else 1)
    assert {t.name for t in train} == {str(i) for i in range(count)} - {
        t.name for t in validation + test
    }
    # Designs of many weights are for training.
    assert max(len(t.drawings) for t in validation + test) <= min(
        len(t.drawings) for t in train
    )


def test_radicals_are_those_that_unicode_names():
    radicals = glyphs.radicals_of(glyphs.CHARACTERS)
    assert len(set(radicals.tolist())) == len(glyphs.RADICALS) == 214
    for i, radical in enumerate(glyphs.RADICALS):
        assert unicodedata.name(chr(0x2F00 + i)).startswith("KANGXI RADICAL")
        assert radicals[glyphs.CHARACTERS.index(radical)] == i
    # Of Kangxi's dictionary: water 85, tree 75, metal 167.
    for character, number in {
        "海": 85,
        "林": 75,
        "鉄": 167,
        "一": 1,
        "龠": 214,
    }.items():
        assert glyphs.radicals_of([character])[0] + 1 == number


def drawn_with(generator, shared, of):
    """A drawing of all characters, of which some are those of another."""
    drawing = generator.integers(0, 2, (20_902, 32, 32)).astype("uint8")
    drawing[: int(shared * 20_902)] = of[: int(shared * 20_902)]
    return drawing


def test_faces_of_a_common_origin_are_one_typeface():
    generator = np.random.default_rng(0)
    nothing = np.zeros((20_902, 32, 32), "uint8")
    first = drawn_with(generator, 0, nothing)
    kin = drawn_with(generator, 0.05, first)
    other = drawn_with(generator, 0, nothing)
    faces = [glyphs.Face(glyphs.Path(name), name) for name in "ABC"]
    found = glyphs.group(faces, [first, other, kin])
    assert [typeface.name for typeface in found] == ["B", "A and C"]

    # A copy is left out, and still ties its family to what it is a copy of.
    bold = drawn_with(generator, 0, nothing)
    faces = [glyphs.Face(glyphs.Path(n), f) for n, f in (("a", "A"), ("b", "B"))]
    faces.append(glyphs.Face(glyphs.Path("c"), "B"))
    (found,) = glyphs.group(faces, [first, first, bold])
    assert found.name == "A and B"
    assert len(found.drawings) == 2


def test_a_font_of_boxes_is_left_out(fonts, cache, tmp_path, capsys, monkeypatch):
    for name in ("a-bold.ttf", "b.ttf", "c.ttf"):
        (tmp_path / name).symlink_to(fonts / name)
    make(tmp_path / "boxes.ttf", "Boxes", 77, first=150)
    assert len(glyphs.find([tmp_path])) == 4
    drawing = np.zeros((20_902, 32, 32), "uint8")
    kept = glyphs.drawing_of
    monkeypatch.setattr(
        glyphs, "drawing_of", lambda f: drawing if f.family == "Boxes" else kept(f)
    )
    read = glyphs.read(str(tmp_path))
    assert len(read.train) == len(read.test) == 20_902
    assert "boxes.ttf draws characters alike" in capsys.readouterr().err


def test_a_subset_of_the_classes(made, fonts, cache):
    few, more = (
        datasets.load(f"glyphs:{fonts}", classes=n, seed=seed)
        for n, seed in ((10, 0), (50, 3))
    )
    assert len(few.class_names) == 10
    assert set(few.class_names) < set(more.class_names)
    assert len(few.train.labels) == 20
    assert few.harder is not None
    assert few.harder().shape == few.test.images.shape == (10, 32, 32, 1)
    for label, name in enumerate(few.class_names):
        code = glyphs.CHARACTERS.index(name)
        np.testing.assert_array_equal(
            few.test.images[few.test.labels == label][0], made.test[code]
        )
        radical = glyphs.RADICALS[glyphs.radicals_of([name])[0]]
        superclass = (few.superclasses or [])[label]
        assert (few.superclass_names or [])[superclass] == radical
    assert len(few.superclass_names or []) == len(set(few.superclasses or []))
    assert few.checksum != more.checksum
    with pytest.raises(InputError, match=r"at most 20,902.*Received: 20903"):
        datasets.load(f"glyphs:{fonts}", classes=20_903)


def test_a_subset_of_any_data_set(tiny):
    every = training.load_data(tiny)
    two = training.load_data(dataclasses.replace(tiny, classes=2))
    assert len(two.class_names) == 2
    assert set(two.class_names) < set(every.class_names)
    for split, whole in ((two.train, every.train), (two.test, every.test)):
        names = [every.class_names[label] for label in whole.labels]
        expected = sum(name in two.class_names for name in names)
        assert len(split.labels) == expected
    with pytest.raises(InputError, match="classes must be at least 2"):
        dataclasses.replace(tiny, classes=1)
    assert "classes2" in dataclasses.replace(tiny, classes=2).run_name


def affine(image, matrix, shift):
    """SciPy's warp of one image, about its centre."""
    from scipy import ndimage

    centre = (np.array(image.shape) - 1) / 2
    return ndimage.affine_transform(
        image, matrix, centre - matrix @ (centre + shift), order=1, mode="constant"
    )


def test_characters_are_warped_as_they_should(made):
    images = made.train[:6]
    turn, slant = 0.2, 0.1
    size, move = np.array([0.8, 1.2], "float32"), np.array([2.0, -3.0], "float32")
    warped = augmentation.warp(
        images,
        turn=tf.fill((6,), turn),
        slant=tf.fill((6,), slant),
        size=tf.constant(np.tile(size, (6, 1))),
        move=tf.constant(np.tile(move, (6, 1))),
    ).numpy()
    c, s = np.cos(turn), np.sin(turn)
    forward = np.diag(size) @ [[c, -s], [s, c]] @ [[1, slant], [0, 1]]
    inverse = np.linalg.inv(forward)
    for image, found in zip(images, warped, strict=True):
        # SciPy counts rows first.
        expected = affine(
            image[..., 0].astype("float64"), inverse[::-1, ::-1], move[::-1]
        )
        assert np.abs(found[..., 0] - expected)[2:-2, 2:-2].max() < 2


def test_redrawn_characters_differ_by_their_seed_alone(made):
    images = tf.constant(made.train[:64])
    once, again, other = (
        augmentation.redraw(images, 4, seed).numpy()
        for seed in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)
    assert once.dtype == np.uint8
    assert once.shape == images.shape
    ink = once.sum((1, 2, 3)) / np.maximum(images.numpy().sum((1, 2, 3)), 1)
    assert 0.4 < np.median(ink) < 1.1


def test_one_channel_becomes_three_in_a_batch(made, fonts, cache):
    config = Config(dataset=f"glyphs:{fonts}", classes=16, batch_size=8)
    data = training.load_data(config)
    for batches in (
        batching.training_batches(data.train, 16, config, 0, data.augment),
        batching.batches(data.test, 16),
    ):
        images, targets = next(iter(batches))
        assert images.shape[1:] == (32, 32, 3)
        np.testing.assert_array_equal(images[..., 0], images[..., 2])
        assert targets.shape[1:] == (16,)


@pytest.fixture(scope="module")
def installed():
    """The fonts of the system."""
    faces = glyphs.find([glyphs.Path(p).expanduser() for p in glyphs.PLACES])
    if len({face.family for face in faces}) < glyphs.LEAST:
        reason = f"there are too few fonts; apt-get install {glyphs.PACKAGES}"
        if os.environ.get("KERASOFT_REQUIRE_FONTS"):
            pytest.fail(reason)
        pytest.skip(reason)
    return faces


@pytest.mark.slow
def test_a_network_learns_to_read(installed, tmp_path):
    """A hundred characters, in typefaces that training does not see."""
    config = Config(
        dataset="glyphs", classes=100, width=8, epochs=8, batch_size=32, image_size=32
    )
    path = training.train(config, tmp_path)
    record = run_folder.read_record(path)
    assert record.dataset.classes == 100
    assert record.metrics["accuracy"] > 0.9
