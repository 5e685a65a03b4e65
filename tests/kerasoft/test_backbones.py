import keras
import numpy as np
import pytest
from references import numpy
from scipy import stats

from kerasoft import backbones, heads, losses, plain_cnn, resnet12
from kerasoft.backbones.dropblock import DropBlock

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), "uint8")

each_backbone = pytest.mark.parametrize("backbone", [resnet12, plain_cnn])


def size(weights):
    return sum(int(np.prod(w.shape)) for w in weights)


def resnet12_size(filters, classes):
    """Weights of the blocks and of the dense layer, block by block on paper."""
    total, inputs = 0, 3
    for f in filters:
        convolutions = 9 * inputs * f + 2 * 9 * f * f + inputs * f
        total += convolutions + 4 * 2 * f
        inputs = f
    return total + (inputs + 1) * classes


@pytest.mark.parametrize(
    ("width", "classes", "trainable"),
    [
        (64, 100, 8_048_100),
        ((64, 128, 256, 512), 100, 8_048_100),
        ((64, 160, 320, 640), 100, 12_488_420),
        (16, 100, resnet12_size((16, 32, 64, 128), 100)),
        (4, 20, resnet12_size((4, 8, 16, 32), 20)),
        ((8, 3, 5, 2), 7, resnet12_size((8, 3, 5, 2), 7)),
    ],
)
def test_parameters_of_resnet12(width, classes, trainable):
    model = resnet12(classes, width=width)
    filters = (
        (width, 2 * width, 4 * width, 8 * width) if width in (4, 16, 64) else width
    )
    assert size(model.trainable_weights) == trainable
    assert size(model.non_trainable_weights) == 4 * 2 * sum(filters)


@pytest.mark.parametrize("width", [64, 8, (5, 4, 3, 2)])
def test_parameters_of_the_plain_cnn(width):
    model = plain_cnn(10, width=width)
    w1, w2, w3, w4 = (
        (width, 2 * width, 4 * width, 8 * width) if width in (8, 64) else width
    )
    kernels = 9 * (3 * w1 + w1 * w2 + w2 * w3 + w3 * w4)
    assert size(model.trainable_weights) == kernels + w1 + w2 + w3 + w4 + 10 * (w4 + 1)
    assert size(model.non_trainable_weights) == 0


def test_resnet12_has_twelve_layers_and_four_halvings():
    model = resnet12(width=4)
    convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    assert [x.kernel_size for x in convolutions].count((3, 3)) == 12
    assert [x.kernel_size for x in convolutions].count((1, 1)) == 4
    assert not any(x.use_bias for x in convolutions)
    pooled = [model.get_layer(f"block{i}_pool").output.shape for i in (1, 2, 3, 4)]
    assert pooled == [
        (None, 16, 16, 4),
        (None, 8, 8, 8),
        (None, 4, 4, 16),
        (None, 2, 2, 32),
    ]
    slopes = [x for x in model.layers if isinstance(x, keras.layers.LeakyReLU)]
    assert {x.negative_slope for x in slopes} == {0.1}
    assert len(slopes) == 12


@each_backbone
def test_logits_come_out_where_no_head_is_asked_for(backbone):
    model = backbone(7, width=4)
    assert isinstance(model, keras.Model)
    assert model.output_shape == (None, 7)
    assert model.output is model.get_layer("logits").output


@each_backbone
def test_a_head_by_name_and_by_layer(backbone):
    keras.utils.set_random_seed(0)
    named = backbone(7, head="log_softmax", width=4)
    layer = heads.LogSoftmax(name="mine")
    given = backbone(7, head=layer, width=4)
    assert isinstance(named.get_layer("head"), heads.LogSoftmax)
    assert given.layers[-1] is layer
    given.set_weights(named.get_weights())
    np.testing.assert_array_equal(numpy(given(IMAGES)), numpy(named(IMAGES)))
    np.testing.assert_allclose(np.exp(numpy(named(IMAGES))).sum(axis=-1), 1, atol=1e-5)


@each_backbone
def test_raw_pixels_are_taken(backbone):
    model = backbone(7, width=4)
    outputs = numpy(model(IMAGES))
    assert outputs.shape == (4, 7)
    assert np.all(np.isfinite(outputs))
    as_floats = numpy(model(IMAGES.astype("float32")))
    np.testing.assert_allclose(as_floats, outputs, atol=1e-6)
    pixels = keras.Model(model.input, model.get_layer("pixels").output)
    np.testing.assert_allclose(
        numpy(pixels(IMAGES)), (IMAGES.astype("float32") - 128) / 64, atol=1e-6
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@each_backbone
def test_logits_are_float32_under_a_mixed_policy(backbone, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = backbone(7, head="softmax", width=4)
    finally:
        keras.config.set_dtype_policy(before)
    features = model.get_layer("features").output
    assert features.dtype == policy.removeprefix("mixed_")
    assert model.get_layer("logits").output.dtype == "float32"
    outputs = model(IMAGES, training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    assert np.all(np.isfinite(numpy(outputs)))


def test_convolutions_start_he_normal_over_the_fan_out():
    model = resnet12(width=16)
    deviation = np.sqrt(2 / (9 * 128))
    second, third = (
        np.ravel(numpy(model.get_layer(f"block4_conv{i}").kernel)) for i in (2, 3)
    )
    for kernel in (second, third):
        assert stats.kstest(kernel, stats.norm(0, deviation).cdf).pvalue > 1e-4
        assert np.std(kernel) == pytest.approx(deviation, rel=0.01)
    assert abs(np.corrcoef(second, third)[0, 1]) < 0.02
    first = np.ravel(numpy(model.get_layer("block4_conv1").kernel))
    assert np.std(first) == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize("shape", [(16, 16, 3), (84, 84, 3), (20, 33, 1)])
@each_backbone
def test_images_of_other_sizes(backbone, shape):
    model = backbone(5, width=2, input_shape=shape)
    assert model(np.zeros((2, *shape), "uint8")).shape == (2, 5)


@each_backbone
def test_channels_stay_last_whatever_keras_says(backbone):
    x = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 3), "uint8")
    keras.utils.set_random_seed(0)
    usual = backbone(5, width=4, input_shape=x.shape[1:])
    keras.config.set_image_data_format("channels_first")
    try:
        model = backbone(5, width=4, input_shape=x.shape[1:])
        model.set_weights(usual.get_weights())
        found = model(x)
    finally:
        keras.config.set_image_data_format("channels_last")
    np.testing.assert_allclose(numpy(found), numpy(usual(x)), atol=1e-5)


def test_dropblock_comes_after_each_block():
    model = resnet12(7, width=4, dropblock=0.1, block_size=3, seed=10)
    drops = [x for x in model.layers if isinstance(x, DropBlock)]
    assert [(x.rate, x.block_size, x.seed) for x in drops] == [
        (0.1, 3, seed) for seed in (11, 12, 13, 14)
    ]
    plain = resnet12(7, width=4)
    plain.set_weights(model.get_weights())
    np.testing.assert_array_equal(numpy(model(IMAGES)), numpy(plain(IMAGES)))
    dropped, whole = (numpy(m(IMAGES, training=True)) for m in (model, plain))
    assert not np.allclose(dropped, whole)


@each_backbone
def test_it_trains_and_survives_its_file(backbone, tmp_path):
    keras.utils.set_random_seed(0)
    model = backbone(2, head="log_softmax", width=4, input_shape=(16, 16, 3))
    model.compile(keras.optimizers.Adam(1e-2), losses.matched_loss(model.layers[-1]))
    labels = np.arange(32) % 2
    images = np.where(labels[:, None, None, None], 200, 50) * np.ones((1, 16, 16, 3))
    history = model.fit(images, labels, batch_size=8, epochs=5, verbose=0).history
    # How fast it gets there depends on the backend's initial weights.
    assert history["loss"][-1] < min(0.2, history["loss"][0] / 2)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(numpy(again(images)), numpy(model(images)))


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"width": 0}, r"positive integer or four of them. Received: width=0"),
        ({"width": (1, 2, 3)}, r"positive integer or four.*width=\(1, 2, 3\)"),
        ({"width": (1, 2, -3, 4)}, r"positive integer or four.*width=\(1, 2, -3, 4\)"),
        ({"input_shape": (None, 32, 3)}, r"must be known.*\(None, 32, 3\)"),
        ({"input_shape": (32, 15, 3)}, r"at least 16 pixels.*\(32, 15, 3\)"),
        ({"head": "sofmax"}, r"did you mean softmax.*Received: 'sofmax'"),
    ],
)
@each_backbone
def test_bad_arguments(backbone, kwargs, says):
    with pytest.raises(ValueError, match=says):
        backbone(**{"width": 2, **kwargs})


def test_a_bad_rate_of_dropblock():
    with pytest.raises(ValueError, match=r"`rate` must be.*Received: rate=1.5"):
        resnet12(width=2, dropblock=1.5)


OWN = """
import keras

def small(input_shape, width=8):
    inputs = keras.Input(input_shape)
    maps = keras.layers.Conv2D(width, 3)(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, maps, name="small")

def flat(input_shape):
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, keras.layers.Flatten()(inputs), name="flat")

def stack(input_shape):
    return keras.Sequential(
        [keras.Input(input_shape), keras.layers.Conv2D(8, 3), keras.layers.ReLU()]
    )

def nothing(input_shape):
    return None

def greedy(input_shape, depth):
    return None

def two(input_shape):
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, [inputs, inputs])

class Subclassed(keras.Model):
    pass

constant = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(OWN)
    (tmp_path / "broken_networks.py").write_text("def f(:")
    (tmp_path / "failing_networks.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("function", "parameters"), [("small", 224), ("flat", 0), ("stack", 224)]
)
def test_a_backbone_of_ones_own(own, function, parameters):
    name = f"own_networks:{function}"
    options = {"width": 8, "dropblock": 0.1, "seed": 0}
    model = backbones.build(name, 10, "softmax", (16, 16, 3), **options)
    size = model.get_layer("logits").input.shape[-1]
    assert model.count_params() == parameters + 10 * (size + 1)
    p = keras.ops.convert_to_numpy(model(np.zeros((2, 16, 16, 3), "uint8")))
    assert p.shape == (2, 10)
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-5)
    assert backbones.takes(name, "width") == (function == "small")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet13", "one of resnet12, plain_cnn, or your own as module:function"),
        ("no_such_module:f", "no_such_module:f cannot be imported"),
        ("own_networks:large", "own_networks:large cannot be imported"),
        (
            "own_networks:nothing",
            "must return a functional or Sequential.*Received: None",
        ),
        (":f", "cannot be imported"),
        ("os:sep", "cannot be imported.*not a callable"),
        (".x:f", "cannot be imported"),
        ("broken_networks:f", "cannot be imported: invalid syntax"),
        ("failing_networks:f", "cannot be imported: division by zero"),
        ("own_networks:greedy", "missing a required argument: 'depth'"),
        ("own_networks:two", "with one output"),
        ("own_networks:Subclassed", "with one output"),
    ],
)
def test_a_backbone_that_cannot_be_had(own, name, words):
    with pytest.raises(ValueError, match=words) as raised:
        backbones.build(name, 10)
    assert "\n" not in str(raised.value)


def test_options_that_a_backbone_does_not_have_are_left_out():
    model = backbones.build("plain_cnn", 10, None, width=4, dropblock=0.5, seed=1)
    assert model.count_params() == plain_cnn(num_classes=10, width=4).count_params()
    assert backbones.takes("resnet12", "dropblock")
    assert not backbones.takes("plain_cnn", "dropblock")
