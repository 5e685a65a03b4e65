"""Exports a run to another format: `python -m pipelines.export RUN --format onnx`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pipelines.commands import command
from pipelines.options import parse, parser
from pipelines.quiet import import_tensorflow

Kind = Literal["onnx", "litert", "tf_saved_model"]  # those of `formats.FORMATS`


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = parser(
        "export",
        "Writes the network of a run for another runtime.",
        "saved_models/RUN --format onnx",
    )
    options.add_argument("run", type=Path, help="A folder that pipelines.train wrote.")
    options.add_argument(
        "--format",
        type=Kind,
        default="onnx",
        help="For ONNX Runtime, for LiteRT (once TensorFlow Lite), or a SavedModel of "
        "one image size.",
    )
    options.add_argument(
        "--out", type=Path | None, help="The folder, exported/RUN-FORMAT if none."
    )
    options.add_argument(
        "--overwrite", action="store_true", help="Replace the folder, if it is there."
    )
    given = parse(options, argv)
    import_tensorflow()
    from pipelines import formats

    run = given.run.resolve()
    out = given.out or Path("exported") / f"{run.name}-{given.format}"
    difference = formats.export(run, given.format, out, given.overwrite)
    file = out / formats.FORMATS[given.format].file
    print(f"{file}: probabilities differ from the run's by at most {difference:.1e}")
    print(f"next: python -m pipelines.predict {out} IMAGE...")
    return 0


if __name__ == "__main__":
    main()
