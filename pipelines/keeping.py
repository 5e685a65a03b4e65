"""A comparison on disk.

Kept are `comparison.json`, the same for the same runs, `timings.json`, which is not,
`confusion.npz`, and `outcomes/`, what became of each image.
"""

from __future__ import annotations

import json
import lzma
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array, csr_array

from pipelines import typed_json
from pipelines.comparison import FORMAT, Comparison, Results, Row, Timings
from pipelines.errors import InputError

DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError,
          lzma.LZMAError, zipfile.BadZipFile, zlib.error)  # fmt: skip


def keep(results: Results, folder: Path):
    """Writes what a comparison is made of into a folder."""
    comparison = results.comparison
    typed_json.write(folder / "comparison.json", comparison, indent=None)
    typed_json.write(folder / "timings.json", results.timings)
    cells = {}
    for number, table in enumerate(comparison.tables):
        found = [results.confusions[row.id].tocoo() for row in table.rows]
        columns = {
            "row": np.repeat(np.arange(len(found)), [matrix.nnz for matrix in found]),
            "true": np.concatenate([matrix.row for matrix in found]),
            "predicted": np.concatenate([matrix.col for matrix in found]),
            "count": np.concatenate([matrix.data for matrix in found]),
        }
        cells |= {f"table{number}-{name}": column for name, column in columns.items()}
    _write_arrays(folder / "confusion.npz", cells)
    for name, facts in results.outcomes.items():
        _write_arrays(folder / "outcomes" / f"{name}.npz", facts)


def read(folder: Path, outcomes: bool = False) -> Results:
    """Reads what a comparison is made of.

    Args:
        folder: Where it is kept.
        outcomes: Whether to read the outcomes too.

    Raises:
        InputError: If it is not there, damaged or of another version.
    """
    try:
        kept = (folder / "comparison.json").read_bytes()
        found = json.loads(kept).get("format")
        if found != FORMAT:
            raise InputError(
                f"The comparison in {folder} is of another version (its format is "
                f"{found}, this one's {FORMAT}); `python -m pipelines.evaluate` makes "
                "it anew from its runs."
            )
        comparison = typed_json.parse(Comparison, kept)
        timings = typed_json.parse(Timings, (folder / "timings.json").read_bytes())
        confusions = _read_confusions(folder / "confusion.npz", comparison)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"There is no comparison in {folder} ({Path(error.filename).name} is "
            "missing); `python -m pipelines.evaluate` makes one."
        ) from error
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"The comparison in {folder} is damaged: {error}") from error
    rows = [row for table in comparison.tables for row in table.rows] * outcomes
    facts = {row.id: _outcomes_of(row, folder) for row in rows}
    return Results(comparison, timings, confusions, facts)


def _outcomes_of(row: Row, folder: Path) -> dict[str, np.ndarray]:
    try:
        return read_outcomes(folder / "outcomes" / f"{row.id}.npz")
    except DAMAGE as error:
        raise InputError(
            f"The outcomes of {row.id} in {folder / 'outcomes'} are missing or damaged "
            f"({type(error).__name__}); `python -m pipelines.evaluate` makes them."
        ) from error


def _read_confusions(path: Path, comparison: Comparison) -> dict[str, csr_array]:
    confusions = {}
    # Opened here, for np.load leaves a damaged file open.
    with path.open("rb") as file, np.load(file) as cells:
        for number, table in enumerate(comparison.tables):
            kept = [
                cells[f"table{number}-{name}"].astype("int64")
                for name in ("row", "true", "predicted", "count")
            ]
            shape = 2 * (len(table.class_names),)
            for place, row in enumerate(table.rows):
                true, predicted, count = (x[kept[0] == place] for x in kept[1:])
                matrix = coo_array((count, (true, predicted)), shape=shape).tocsr()
                share = matrix.diagonal().sum() / max(matrix.sum(), 1)
                if not np.isclose(share, row.accuracy):
                    raise ValueError(f"{path.name} is of another comparison")
                confusions[row.id] = matrix
    return confusions


def read_outcomes(file: Path) -> dict[str, np.ndarray]:
    """What became of each image in a row of a table, as `metrics.outcomes` has it."""
    with np.load(file) as kept:
        return {
            name: kept[name].astype("float64" if kept[name].dtype.kind == "f" else int)
            for name in kept.files
        }


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]):
    """Writes arrays compressed, each in a type no larger than its numbers need."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def small(array):
        kind = "float32" if array.dtype.kind == "f" else np.min_scalar_type(array.max())
        return array.astype(kind)

    # As `np.savez_compressed`, whose files are larger; `np.load` reads both.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as kept:
        for name, array in arrays.items():
            with kept.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, small(array))
