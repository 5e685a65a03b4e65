"""Classifies images with a run: `python -m pipelines.predict RUN IMAGE...`."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from pipelines.commands import command
from pipelines.errors import InputError, brief
from pipelines.options import parse, parser
from pipelines.quiet import import_tensorflow


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = parser(
        "predict",
        "Prints the five most probable classes of each image.",
        "saved_models/RUN photo.jpg",
    )
    options.add_argument(
        "run",
        type=Path,
        help="A folder that pipelines.train or pipelines.export wrote.",
    )
    options.add_argument("images", type=str, nargs="+", help="Image files.")
    options.add_argument("--json", action="store_true", help="Print JSON.")
    given = parse(options, argv)
    import_tensorflow()
    from pipelines import formats, saved_model
    from pipelines.pixels import read_image

    serve, names = formats.load(given.run)
    answers, status = {}, 0
    for path in map(Path, given.images):
        try:
            with warnings.catch_warnings(action="ignore"):
                image = read_image(path)
            answers[str(path)] = saved_model.likeliest(serve, names, image)
        except InputError as error:
            print(f"{brief(path, 300)}: {error}", file=sys.stderr)
            status = 1
    if given.json:
        print(json.dumps(answers, indent=2))
    else:
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore
        for path, best in answers.items():
            print(path)
            for answer in best:
                print(f"  {answer['probability']:7.2%}  {answer['class']}")
    return status


if __name__ == "__main__":
    main()
