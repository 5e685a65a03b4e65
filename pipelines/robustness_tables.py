"""The tables on corrupted images and on images of another data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.comparison import Table
from pipelines.corruptions import SEVERITIES
from pipelines.metrics import percent
from pipelines.tables import Cell, Section, number, word


def shifted(table: Table) -> list[Section]:
    """Accuracy and calibration on corrupted test images, by severity and by kind."""
    rows = {row.id: row for row in table.rows}
    by_row: dict[str, dict[str, Mapping[str, Sequence[float]]]] = {}
    for found in table.shifted:
        by_row.setdefault(found.row, {})[found.corruption] = found.metrics
    by_severity, by_kind = [], []
    for name, kinds in by_row.items():
        columns = {
            metric: np.array([numbers[metric] for numbers in kinds.values()])
            for metric in ("accuracy", "ece")
        }
        clean = rows[name].as_is.metrics

        scores = rows[name].scores  # which nothing calibrated

        def cells(axis: int, columns=columns, scores=scores) -> list[Cell]:
            accuracies, eces = (columns[m].mean(axis).tolist() for m in columns)
            return [
                _with_ece(accuracy, ece, scores)
                for accuracy, ece in zip(accuracies, eces, strict=True)
            ]

        title = word(rows[name].title)
        unchanged = _with_ece(clean["accuracy"], clean["ece"], scores)
        by_severity.append([title, unchanged, *cells(axis=0)])
        by_kind.append([title, *cells(axis=1)])
    kinds = list(next(iter(by_row.values()), {}))
    severities = [f"severity {s}" for s in SEVERITIES]
    note = (
        f"Accuracy and ECE on the test images after {len(kinds)} corruptions of this "
        "project's own (they are not those of CIFAR-100-C), in the mean over them."
    )
    return [
        Section(
            "Corrupted images", note, ["run", "unchanged", *severities], by_severity
        ),
        Section(
            "Corrupted images, by corruption",
            "In the mean over the severities.",
            ["run", *kinds],
            by_kind,
            folded=True,
        ),
    ]


def _with_ece(accuracy: float, ece: float, scores: bool) -> Cell:
    return Cell(percent(accuracy), accuracy, "" if scores else f"ECE {ece:.3f}")


def unfamiliar(table: Table) -> Section:
    """How well scores tell the test images from those of another data set."""
    titles = {row.id: row.title for row in table.rows}
    body = [
        [
            word(titles[found.row]),
            word(f"{found.dataset}, {found.images:,}"),
            word(found.score),
            number(found.auroc, ".4f"),
            Cell(percent(found.fpr95), found.fpr95),
        ]
        for found in table.unfamiliar
    ]
    note = (
        "How well a score tells test images from others: AUROC is the probability that "
        "a test image has the higher one, and the last column the share of the others "
        "that are accepted if 95 % of the test images are. Energy is that of the "
        "logits."
    )
    head = ["run", "other images", "score", "AUROC", "others accepted"]
    return Section("Images of another data set", note, head, body)
