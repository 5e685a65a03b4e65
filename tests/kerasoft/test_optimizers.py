import keras
import numpy as np
import pytest

from kerasoft.optimizers import SGD, Muon

STEPS = 6
SHAPES = {"kernel": (3, 3, 2, 4), "matrix": (5, 4), "bias": (4,)}


def trained(optimizer, steps=STEPS):
    """Variables, and momentums, after steps along random gradients."""
    draws = np.random.default_rng(0)

    def drawn():
        return [draws.normal(size=s).astype("float32") for s in SHAPES.values()]

    variables = [
        keras.Variable(value, name=name)
        for name, value in zip(SHAPES, drawn(), strict=True)
    ]
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(variables)
    for _ in range(steps):
        gradients = [keras.ops.convert_to_tensor(g) for g in drawn()]
        optimizer.apply(gradients, variables)
    return [keras.ops.convert_to_numpy(v) for v in (*variables, *optimizer.momentums)]


def rate():
    return keras.optimizers.schedules.CosineDecay(
        0.0, STEPS, warmup_target=0.3, warmup_steps=2
    )


@pytest.mark.parametrize("weight_decay", [None, 0.05])
@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9},
        {"momentum": 0.0},
        {"momentum": 0.9, "use_ema": True, "ema_overwrite_frequency": 2},
        {"momentum": 0.9, "gradient_accumulation_steps": 2},
        {"momentum": 0.9, "global_clipnorm": 1.0},
    ],
)
def test_sgd_takes_the_steps_of_keras(options, weight_decay):
    options = options | {"weight_decay": weight_decay}
    found = trained(SGD(rate(), **options))
    for one, other in zip(
        found, trained(keras.optimizers.SGD(rate(), **options)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert not np.allclose(found[0], trained(SGD(rate(), **options), steps=0)[0])


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the fused op is TensorFlow's"
)
def test_sgd_is_one_op_a_variable_on_tensorflow():
    import tensorflow as tf

    def operations(optimizer):
        kernels = [keras.Variable(np.ones((2, 2), "float32")) for _ in range(3)]
        optimizer.build(kernels)

        @tf.function
        def step():
            optimizer.apply([tf.ones((2, 2))] * 3, kernels)

        graph = step.get_concrete_function().graph
        return [operation.type for operation in graph.get_operations()]

    options = {
        "learning_rate": keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5),
        "momentum": 0.9,
        "weight_decay": 0.1,
    }
    ours = operations(SGD(**options))
    assert ours.count("ResourceApplyKerasMomentum") == 3
    assert ours.count("Pow") == 1  # the schedule, once
    assert operations(keras.optimizers.SGD(**options)).count("Pow") == 4


def test_muon_steps_along_the_nearest_orthogonal_matrix():
    # Jordan et al. (2024): U V^T of the momentum's singular value decomposition, here
    # to within the Newton-Schulz iteration's known slack, singular values in 0.7..1.2.
    draws = np.random.default_rng(0)
    gradient = draws.normal(size=(3, 3, 2, 4)).astype("float32")
    kernel = keras.Variable(np.zeros_like(gradient))
    optimizer = Muon(1.0, weight_decay=None, rms_rate=None)
    optimizer.build([kernel])
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], [kernel])
    step = -keras.ops.convert_to_numpy(kernel).reshape(18, 4)
    u, _, v = np.linalg.svd(gradient.reshape(18, 4), full_matrices=False)
    along = u.T @ step @ v.T
    assert np.all((np.diag(along) > 0.65) & (np.diag(along) < 1.25))
    np.testing.assert_allclose(along - np.diag(np.diag(along)), 0, atol=1e-2)


@pytest.mark.parametrize("shape", [(18, 4), (4, 18), (6, 6), (200, 64)])
def test_muons_steps_on_the_smaller_side_are_those_of_keras(shape):
    matrix = np.random.default_rng(0).normal(size=shape).astype("float32")
    ours, keras_own = (
        make(1.0).zeropower_via_newtonschulz5(keras.ops.convert_to_tensor(matrix), 5)
        for make in (Muon, keras.optimizers.Muon)
    )
    np.testing.assert_allclose(ours, keras_own, atol=2e-4)


def test_muons_decay_is_that_of_keras():
    def decayed(make):
        optimizer = make(rate(), weight_decay=0.3, adam_weight_decay=0.1)
        matrix = keras.Variable(np.ones((2, 3), "float32"), name="matrix")
        bias = keras.Variable(np.ones(3, "float32"), name="offset")
        optimizer.build([matrix, bias])
        for _ in range(3):
            slopes = [keras.ops.zeros((2, 3)), keras.ops.zeros(3)]
            optimizer.apply(slopes, [matrix, bias])
        return [keras.ops.convert_to_numpy(v) for v in (matrix, bias)]

    for one, other in zip(decayed(Muon), decayed(keras.optimizers.Muon), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
        assert np.all(one < 1)


def test_muon_scales_its_step_by_the_larger_side():
    # Liu et al. (2025), equation 4: 0.2 * sqrt(max(A, B)) for a matrix A x B.
    def step(**options):
        kernel = keras.Variable(np.zeros((3, 3, 2, 4), "float32"))
        optimizer = Muon(1.0, weight_decay=None, **options)
        optimizer.build([kernel])
        gradient = np.random.default_rng(0).normal(size=kernel.shape)
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [kernel])
        return keras.ops.convert_to_numpy(kernel)

    np.testing.assert_allclose(
        step(), step(rms_rate=None) * 0.2 * np.sqrt(18), rtol=1e-5
    )


def test_muon_leaves_vectors_and_excluded_layers_to_adamw():
    adamw = keras.optimizers.AdamW(0.1, weight_decay=0.004)
    muon = Muon(0.1, exclude_layers=["kernel", "matrix"], adam_weight_decay=0.004)
    for one, other in zip(trained(muon)[:3], trained_adamw(adamw), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def trained_adamw(optimizer):
    optimizer.momentums = []
    return trained(optimizer)[:3]


@pytest.mark.parametrize("make", [SGD, Muon])
def test_they_come_back_from_their_config(make):
    optimizer = make(rate(), momentum=0.8, nesterov=True)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is make
    for one, other in zip(trained(optimizer), trained(again), strict=True):
        np.testing.assert_array_equal(one, other)
