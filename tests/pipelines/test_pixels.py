import io
import random
import warnings

import numpy as np
import PIL.Image
import PIL.ImageFile
import pytest

from pipelines.errors import InputError
from pipelines.pixels import MAX_PIXELS, read_image

FORMATS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "DDS", "PPM", "TGA", "ICO"]
FORMATS += ["PCX", "AVIF"]


def saved(image, form):
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


@pytest.fixture(scope="module")
def files():
    """A small image in every format that Pillow writes here."""
    PIL.Image.init()
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype="uint8")
    image = PIL.Image.fromarray(noise)
    return [saved(image, form) for form in FORMATS if form in PIL.Image.SAVE]


def check(content):
    """Reads an image, or is told that it is none; nothing else."""
    words = ""
    with warnings.catch_warnings(action="ignore"):
        try:
            image = read_image(io.BytesIO(content))
        except InputError as error:
            words = str(error)
            image = None
    if image is None:
        assert len(words.splitlines()) == 1
        assert len(words) <= 300
        assert "BytesIO" not in words
        return
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    assert 0 < image.size <= 3 * MAX_PIXELS


def break_some(files, count):
    draws = random.Random(0)
    for _ in range(count):
        content = bytearray(draws.choice(files))
        if draws.random() < 0.2:
            del content[draws.randrange(len(content)) :]
        for _ in range(min(len(content), draws.choice([1, 3, 10]))):
            place = draws.randrange(min(len(content), 160))
            content[place] = draws.choice([0, 1, 127, 255, draws.randrange(256)])
        check(bytes(content))


def test_broken_images_are_bad_input(files):
    break_some(files, 500)


@pytest.mark.slow
def test_many_broken_images_are_bad_input(files):
    break_some(files, 10_000)


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, IndexError, KeyError])
def test_whatever_a_decoder_raises_is_bad_input(files, error, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", fail)
    with pytest.raises(InputError, match=f"be read .{error.__name__}"):
        read_image(io.BytesIO(files[0]))


def test_what_is_no_image_is_not_named_after_its_buffer():
    with pytest.raises(InputError, match=r"can be read \(no format fits\)"):
        read_image(io.BytesIO(b"text"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_images_of_other_modes_are_read_as_colours(mode):
    image = PIL.Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode)
    form = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    read = read_image(io.BytesIO(saved(image, form)))
    np.testing.assert_array_equal(read, np.full((4, 5, 3), 255))


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
def test_more_than_8_bits_are_refused(dtype):
    deep = PIL.Image.fromarray(np.full((4, 5), 300, dtype))
    with pytest.raises(InputError, match="more than 8 bits"):
        read_image(io.BytesIO(saved(deep, "TIFF")))


def test_a_bomb_is_refused():
    bomb = PIL.Image.new("1", (20_000, 10_000))
    with pytest.raises(InputError, match="bomb"):
        read_image(io.BytesIO(saved(bomb, "PNG")))
