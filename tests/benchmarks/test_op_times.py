import json

import pytest
import tensorflow as tf
from extra import needed

from benchmarks import op_times


def test_ops_of_every_library_find_their_kind():
    found = op_times.by_kind(
        {
            "_MklNativeFusedConv2D": 1,
            "aten::mkldnn_convolution": 2,
            "FusedConv": 4,
            "_MklNativeConv2DBackpropFilter": 8,
            "aten::convolution_backward": 16,
            "_MklNativeFusedBatchNormGradV3": 32,
            "aten::native_batch_norm_backward": 64,
            "aten::leaky_relu_backward": 128,
            "ResourceApplyKerasMomentum": 256,
        }
    )
    assert {kind: taken for kind, taken in found.items() if taken} == {
        "convolutions": 7,
        "convolutions, gradient": 24,
        "batch normalisation, gradient": 96,
        "LeakyReLU, gradient": 128,
        "all else": 256,
    }


def test_tensorflow_ops_hold_what_ran():
    a = tf.ones((600, 600))

    @tf.function
    def product():
        return tf.reduce_sum(tf.nn.leaky_relu(a @ a))

    def calls(count: int):
        for _ in range(count):
            product().numpy()

    calls(1)
    found = op_times.tensorflow_ops(calls, 3)
    products = [op for op in found if "MatMul" in op]
    assert len(products) == 1
    assert found[products[0]] > found["LeakyRelu"] > 0
    assert not any("inference" in op for op in found)  # what calls ops is none


@pytest.mark.slow
def test_every_side_is_profiled(tmp_path):
    needed("onnxscript")
    with pytest.raises(SystemExit) as ended:
        op_times.main(
            ["--width=4", "--images=[8, 8]", "--calls=2", "--out", str(tmp_path)]
        )
    assert ended.value.code == 0
    tasks = json.loads((tmp_path / "op_times.json").read_text())["tasks"]
    assert tasks.keys() == op_times.TASKS.keys()
    for task, sides in tasks.items():
        assert sides.keys() == op_times.TASKS[task].keys()
        for side in sides.values():
            assert side["wall"] > 0
            trained = task == op_times.STEP
            assert side["kinds"]["convolutions"] > 0
            assert (side["kinds"]["convolutions, gradient"] > 0) == trained
