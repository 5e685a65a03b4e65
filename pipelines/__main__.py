"""The console script: `kerasoft COMMAND ...` is `python -m pipelines.COMMAND ...`."""

import importlib
import sys

COMMANDS = ("train", "run", "evaluate", "tune", "predict")


def main(argv: list[str] | None = None):
    """Runs the command that the first argument names."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: kerasoft {{{','.join(COMMANDS)}}} ...")
        sys.exit(0 if argv else 2)
    if argv[0] not in COMMANDS:
        print(
            f"error: There is no command {argv[0]}; there are {', '.join(COMMANDS)}.",
            file=sys.stderr,
        )
        sys.exit(2)
    importlib.import_module(f"pipelines.{argv[0]}").main(argv[1:])


if __name__ == "__main__":
    main()
