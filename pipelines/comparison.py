"""What a comparison of runs came to, as data. `keeping` writes and reads it."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from scipy.sparse import csr_array

from pipelines.config import Config
from pipelines.metrics import Outcomes
from pipelines.run_folder import Device
from pipelines.typed_json import record

FORMAT = 3  # of what is kept on disk


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
        runs_a: The runs of the first, one a seed.
        runs_b: Those of the second.
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
    runs_a: list[str]
    runs_b: list[str]
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
class Shifted:
    """A row's answers to test images that a corruption changed.

    Attributes:
        row: The id of the row.
        corruption: One of `corruptions.CORRUPTIONS`.
        metrics: By the names of metrics, a number for each severity.
    """

    row: str
    corruption: str
    metrics: dict[str, list[float]]


@record
class Unfamiliar:
    """How well a score of a row tells test images from those of another data set.

    Attributes:
        row: The id of the row.
        dataset: The other data set.
        images: How many of its images there were.
        score: `maximum probability` or `energy`.
        auroc: The probability that a test image has the higher score of the two.
        fpr95: The share of the other images above a threshold that 95 % of the test
            images are above.
    """

    row: str
    dataset: str
    images: int
    score: str
    auroc: float
    fpr95: float


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
    shifted: list[Shifted] = dataclasses.field(default_factory=list)
    unfamiliar: list[Unfamiliar] = dataclasses.field(default_factory=list)
    pairs: list[Pair] = dataclasses.field(default_factory=list)
    groups: list[Group] = dataclasses.field(default_factory=list)
    contrasts: list[Contrast] = dataclasses.field(default_factory=list)

    @property
    def configs(self) -> dict[str, Config]:
        """The configs of the runs, by their names."""
        return {name: run.config for name, run in self.runs.items()}

    def configurations(self) -> list[list[Row]]:
        """The rows, those side by side that differ by their seed alone: best first."""

        def mean(rows):
            return sum(row.accuracy for row in rows) / len(rows)

        members = by_configuration(self.rows, self.configs).values()
        return sorted(members, key=lambda rows: -mean(rows))

    def group_of(self, rows: Sequence[Row]) -> Group | None:
        """The means of rows that differ by their seed alone; none of a single one."""
        key = [row.run for row in rows], rows[0].samples
        return next((g for g in self.groups if (g.runs, g.samples) == key), None)


class Configuration(NamedTuple):
    """What rows that differ by their seed alone have in common.

    Attributes:
        config: With seed 0.
        samples: As of `Row`.
        copy: The run's name, if another of the same config stands before it.
    """

    config: Config
    samples: int
    copy: str = ""


def by_configuration(
    rows: Iterable[Row], configs: Mapping[str, Config]
) -> dict[Configuration, list[Row]]:
    """The rows by their config without its seed, and their number of samples.

    Of runs that have the seed in common too, as a run and its exports, the first counts
    as one of the seeds; each of the others is a configuration by itself.
    """
    members, first = defaultdict(list), first_of_each(configs)
    for row in rows:
        config = dataclasses.replace(configs[row.run], seed=0)
        copy = "" if row.run in first else row.run
        members[Configuration(config, row.samples, copy)].append(row)
    return members


def first_of_each(configs: Mapping[str, Config]) -> set[str]:
    """The names of the first runs of each config: not of their exports."""
    first: dict[Config, str] = {}
    for name, config in configs.items():
        first.setdefault(config, name)
    return set(first.values())


@record
class Made:
    """How rows were made: the command, the code and the machine."""

    command: str
    commit: str | None
    device: Device
    versions: dict[str, str]


@record
class Comparison:
    """Runs beside each other, a table for each set of test images.

    Attributes:
        made: How; several if it was merged from parts.
    """

    format: int
    made: list[Made]
    tables: list[Table]


@record
class Timing:
    """Median times of a run, or an export: one image, and images by 256."""

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
        timings: Of the runs that were timed.
        confusions: Confusion matrices by the ids of the rows.
        outcomes: What became of each image, by the ids of the rows; none if `read`
            left them out.
    """

    comparison: Comparison
    timings: Timings
    confusions: Mapping[str, csr_array]
    outcomes: Mapping[str, Outcomes]
