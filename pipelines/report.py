"""Makes a comparison's files again: `python -m pipelines.report results/NAME`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.commands import command
from pipelines.errors import InputError
from pipelines.options import parse, parser
from pipelines.quiet import import_tensorflow


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = parser(
        "report",
        "Makes a comparison's CSV, Markdown, PNG and page again, or one "
        "comparison of several.",
        "results/z",
    )
    options.add_argument("folders", type=Path, nargs="+", help="Folders of results/.")
    options.add_argument(
        "--out", type=Path | None, help="The folder to write one comparison of all to."
    )
    options.add_argument(
        "--experiment",
        type=Path | None,
        help="A file of experiments/ with the contrasts and the margin of the whole; "
        "if none, they are those of the parts.",
    )
    given = parse(options, argv)
    folders = [folder.resolve() for folder in given.folders]
    if given.out is None and (len(folders) > 1 or given.experiment):
        raise InputError("--out must name the folder for one comparison of all.")
    import_tensorflow()
    from pipelines import experiment, files

    if given.out is None:
        files.remake(folders[0])
    else:
        described = given.experiment and experiment.read(given.experiment)
        files.merge(folders, given.out.resolve(), described)
    print(f"next: open {(given.out or given.folders[0]) / 'comparison.html'} in a "
          "browser")  # fmt: skip
    return 0


if __name__ == "__main__":
    main()
