"""What a comparison of runs came to, as data: kept on disk, and read again.

Kept are `comparison.json`, the same for the same runs, `timings.json`, which is not,
`confusion.npz`, and `outcomes/`, what became of each image.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines import typed_json
from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.metrics import Outcomes
from pipelines.run_folder import Device
from pipelines.typed_json import record

FORMAT = 2  # of what is kept
DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError,
          zipfile.BadZipFile, zlib.error)  # fmt: skip


@record
class Bins:
    """Images by confidence: of each bin its bounds, their number, and two means.

    An empty bin has no means.
    """

    low: list[float]
    high: list[float]
    count: list[int]
    confidence: list[float | None]
    accuracy: list[float | None]


@record
class Judgement:
    """The metrics of a row, their 95 % intervals, and its images by confidence.

    Attributes:
        floors: What calibration errors would stay below, in 95 % of cases, if the
            confidences were calibrated.
    """

    metrics: dict[str, float]
    intervals: dict[str, list[float]]
    reliability: Bins
    floors: dict[str, float] = dataclasses.field(default_factory=dict)


@record
class Row:
    """A run's answers to the test images, without noise or averaged over noisy samples.

    Attributes:
        id: Its name, that of its run with the number of samples.
        run: The name of its run.
        title: What to call it beside the others.
        samples: How many noisy draws were averaged; 0 for the answer without noise.
        scores: Whether the head puts out scores, which nothing has calibrated.
        as_is: The metrics of the answers as they are.
        temperature: What the logits are divided by to fit the validation images best.
        scaled: The metrics that this changes, after it.
    """

    id: str
    run: str
    title: str
    samples: int
    scores: bool
    as_is: Judgement
    temperature: float
    scaled: Judgement

    @property
    def accuracy(self) -> float:
        return self.as_is.metrics["accuracy"]


@record
class Spread:
    """Of several numbers, the mean and the standard deviation."""

    mean: float
    std: float


@record
class Group:
    """The rows of runs that differ by their seed alone.

    Attributes:
        as_is: By the names of the metrics, their spread.
        scaled: The same after temperature scaling.
        ensemble: The metrics of the mean of the runs' probabilities.
    """

    title: str
    samples: int
    scores: bool
    runs: list[str]
    as_is: dict[str, Spread]
    scaled: dict[str, Spread]
    ensemble: Judgement | None = None


@record
class Pair:
    """Two runs on the same images: McNemar's test, and Holm's correction of it.

    Attributes:
        difference: The accuracy of `a` less that of `b`.
        only_a: How many images `a` alone has right.
        only_b: How many images `b` alone has right.
        p: How probable a split at least as uneven is if both err equally.
        p_holm: The same, corrected for all pairs.
    """

    a: str
    b: str
    difference: float
    only_a: int
    only_b: int
    p: float
    p_holm: float


@record
class Contrast:
    """Two configurations against each other, over their seeds and the test images.

    Attributes:
        a: The title of the first.
        b: The title of the second.
        seeds_a: How many runs the first has.
        seeds_b: How many runs the second has.
        margin: The difference that is too small to matter.
        declared: Whether the experiment declares it. If not, the most accurate of all
            is the second, which is then better by chance too.
        difference: The mean accuracy of the first less that of the second.
        interval: Its 95 % interval; as all that follows, `None` with a single seed.
        p: How probable a difference at least as large is if there is none.
        p_holm: The same, corrected for all contrasts.
        p_equivalent: How probable one as small is if it were the margin or more.
        visible: The smallest true difference that is found in 80 % of cases.
        verdict: `different`, `equivalent` or `cannot tell`.
    """

    a: str
    b: str
    seeds_a: int
    seeds_b: int
    margin: float
    declared: bool
    difference: float
    interval: list[float] | None = None
    p: float | None = None
    p_holm: float | None = None
    p_equivalent: float | None = None
    visible: float | None = None
    verdict: str = "cannot tell"


@record
class Trained:
    """A run as the comparison shows it.

    Attributes:
        train_seconds: How long it took, if it was never stopped.
        history: By the name of a curve, a number an epoch.
        reported: Figures from elsewhere to show beside ours.
    """

    title: str
    config: Config
    parameters: int
    policy: str
    train_seconds: float | None
    device: Device
    history: dict[str, list[float]]
    reported: dict[str, Any] | None


@record
class Tested:
    """The data that the runs of a table share."""

    name: str
    label: str
    checksum: str
    test: int
    validation: int


@record
class Table:
    """Runs on the same test images with the same labels."""

    dataset: Tested
    class_names: list[str]
    superclasses: list[int] | None
    superclass_names: list[str] | None
    runs: dict[str, Trained]
    rows: list[Row]
    pairs: list[Pair]
    groups: list[Group]
    contrasts: list[Contrast] = dataclasses.field(default_factory=list)

    def configurations(self) -> list[list[Row]]:
        """The rows, those side by side that differ by their seed alone: best first."""
        configs = {name: run.config for name, run in self.runs.items()}

        def mean(rows):
            return sum(row.accuracy for row in rows) / len(rows)

        members = by_configuration(self.rows, configs).values()
        return sorted(members, key=lambda rows: -mean(rows))

    def group_of(self, rows: Sequence[Row]) -> Group | None:
        """The means of rows that differ by their seed alone; none of a single one."""
        key = [row.run for row in rows], rows[0].samples
        return next((g for g in self.groups if (g.runs, g.samples) == key), None)


def by_configuration(
    rows: Iterable[Row], configs: Mapping[str, Config]
) -> dict[tuple[Config, int], list[Row]]:
    """The rows by their config without its seed, and their number of samples."""
    members = defaultdict(list)
    for row in rows:
        config = dataclasses.replace(configs[row.run], seed=0)
        members[config, row.samples].append(row)
    return members


@record
class Comparison:
    """Runs beside each other, a table for each set of test images."""

    format: int
    command: str
    commit: str | None
    device: Device
    versions: dict[str, str]
    tables: list[Table]


@record
class Timing:
    """Median times of a run's SavedModel: one image, and images by 256."""

    latency_ms: float
    images_per_second: float


@record
class Timings:
    """Timings by the names of the runs, and the machine that they are of."""

    device: Device
    runs: dict[str, Timing]


class Results(NamedTuple):
    """A comparison with its arrays, which JSON does not hold.

    Attributes:
        comparison: The numbers.
        timings: Of the runs that were timed, by name.
        confusions: Confusion matrices by the ids of the rows.
        outcomes: What became of each image, by the ids of the rows; none if read again.
    """

    comparison: Comparison
    timings: Mapping[str, Timing]
    confusions: Mapping[str, np.ndarray]
    outcomes: Mapping[str, Outcomes]


def keep(results: Results, folder: Path):
    """Writes what a comparison is made of into a folder."""
    comparison = results.comparison
    typed_json.write(folder / "comparison.json", comparison)
    timings = Timings(comparison.device, dict(results.timings))
    typed_json.write(folder / "timings.json", timings)
    matrices = {
        f"table{number}": np.stack([results.confusions[row.id] for row in table.rows])
        for number, table in enumerate(comparison.tables)
    }
    _write_arrays(folder / "confusion.npz", matrices)
    for name, facts in results.outcomes.items():
        _write_arrays(folder / "outcomes" / f"{name}.npz", facts)


def read(folder: Path) -> Results:
    """Reads what a comparison is made of, but for the outcomes.

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
    return Results(comparison, timings.runs, confusions, {})


def _read_confusions(path: Path, comparison: Comparison) -> dict[str, np.ndarray]:
    confusions = {}
    # Opened here, for np.load leaves a damaged file open.
    with path.open("rb") as file, np.load(file) as matrices:
        for number, table in enumerate(comparison.tables):
            kept = matrices[f"table{number}"].astype("int64")
            for row, matrix in zip(table.rows, kept, strict=True):
                if not np.isclose(np.trace(matrix) / matrix.sum(), row.accuracy):
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

    given: Any = {name: small(array) for name, array in arrays.items()}
    np.savez_compressed(path, **given)
