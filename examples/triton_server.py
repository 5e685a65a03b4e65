"""Serves an exported run with NVIDIA's Triton Inference Server, without Docker.

PyTriton brings the server's program, but not its own reader of ONNX files, so ONNX
Runtime answers the requests that Triton receives and gathers to batches:

    python -m pipelines.export saved_models/RUN --format onnx
    python3.13 -m venv .venv-triton
    .venv-triton/bin/pip install nvidia-pytriton onnxruntime
    .venv-triton/bin/python examples/triton_server.py exported/RUN-onnx

It needs an environment of its own, with Python 3.13: PyTriton 0.7 brings the library of
that version alone, and its server did not start with 3.11 and 3.12. It wants NumPy 1,
which pip compiles for 3.13. A request has at most `--max_batch_size` images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnxruntime  # pyright: ignore[reportMissingImports]
from pytriton.decorators import batch  # pyright: ignore[reportMissingImports]
from pytriton.model_config import (  # pyright: ignore[reportMissingImports]
    DynamicBatcher,
    ModelConfig,
    Tensor,
)
from pytriton.triton import (  # pyright: ignore[reportMissingImports]
    Triton,
    TritonConfig,
)

parser = argparse.ArgumentParser(description="Serves an export with Triton.")
parser.add_argument("export", type=Path, help="a folder with model.onnx")
parser.add_argument(
    "--host", default="127.0.0.1", help="0.0.0.0 answers other machines"
)
parser.add_argument("--port", type=int, default=8000)
parser.add_argument("--max_batch_size", type=int, default=256)
parser.add_argument("--wait", type=int, default=100, help="for more requests, in µs")


def main():
    options = parser.parse_args()
    file = options.export / "model.onnx"
    if not file.is_file():
        parser.error(f"There is no {file}; python -m pipelines.export writes it.")
    session = onnxruntime.InferenceSession(file)
    names = [output.name for output in session.get_outputs()]

    @batch
    def ask(images):
        found = dict(zip(names, session.run(names, {"images": images}), strict=True))
        # Triton wants at least one axis beside that of the batch.
        return {k: v[:, None] if v.ndim == 1 else v for k, v in found.items()}

    shape = session.get_inputs()[0].shape[1:]
    kinds = {name: np.int64 if name == "class" else np.float32 for name in names}
    config = TritonConfig(
        http_address=options.host,
        http_port=options.port,
        allow_grpc=False,
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="run",
            infer_func=ask,
            inputs=[Tensor(name="images", dtype=np.uint8, shape=tuple(shape))],
            outputs=[Tensor(name=k, dtype=v, shape=(-1,)) for k, v in kinds.items()],
            config=ModelConfig(
                max_batch_size=options.max_batch_size,
                batcher=DynamicBatcher(max_queue_delay_microseconds=options.wait),
            ),
        )
        triton.serve()


if __name__ == "__main__":
    main()
