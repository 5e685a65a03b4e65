"""What the comparison says of itself in words, in Markdown and on the page."""

from __future__ import annotations

import re
import statistics
from collections import Counter

from pipelines.comparison import Group, Made, Row, Table
from pipelines.metrics import percent

WITHIN = " within their classes"
ON_ECE = "ECE has 15 bins, and no interval because resampling inflates it."
ON_ERRORS = (
    "ECE has 15 bins (of equal width or of equal mass), smooth ECE none. They have no "
    "interval, because resampling inflates them; beside them stands what they stay "
    "below in 95 % of cases if the probabilities are calibrated. AURC is the mean "
    "share of errors among the most confident images, over all shares of images. The "
    "sets are made to hold the true class in 90 % of cases, if the test images are "
    "like the validation images (split conformal, with the temperature from one half "
    "of these and the threshold from the other). Class-wise ECE is the mean over "
    "classes of the ECE of the probability of each, predicted or not."
)


def made_with(made: Made) -> str:
    """Commit, versions and machine."""
    versions = ", ".join(f"{k} {v}" for k, v in made.versions.items())
    device = made.device
    commit = re.sub(r"^(\w{12})\w+", r"\1", made.commit or "unknown")
    machine = f"{device.kind} {device.name}, {device.cores} cores"
    return f"Commit {commit}; {versions}; {machine}."


def heading(table: Table) -> str:
    return f"{table.dataset.name}, {len(table.class_names)} classes"


def findings(table: Table) -> str:
    """What came out, in two or three sentences."""
    rows = [rows for rows in table.configurations() if not rows[0].samples]

    def words(members: list[Row]) -> str:
        group = table.group_of(members)
        if group is None:
            return f"{members[0].title} with {percent(members[0].accuracy)}"
        spread = group.as_is["accuracy"]
        mean = percent(spread.mean).removesuffix(" %")
        seeds = len(members)
        return f"{group.title} with {mean} ± {percent(spread.std)} over {seeds} seeds"

    where = f"{table.dataset.test:,} test images of {heading(table)}"
    most, least = (
        statistics.fmean(row.accuracy for row in rows[end]) for end in (0, -1)
    )
    if len(rows) == 1:
        first = f"On {where} there is {words(rows[0])}."
    elif most == least:
        first = f"All {len(rows)} configurations have {percent(most)} right on {where}."
    else:
        first = (
            f"Of {len(rows)} configurations, the most accurate on {where} is "
            f"{words(rows[0])}; the least is {words(rows[-1])}."
        )
    spread = _spread_of_seeds([g for g in table.groups if not g.samples])
    return " ".join(filter(None, (first, spread, _verdicts(table))))


def _verdicts(table: Table) -> str:
    counts = Counter(found.verdict for found in table.contrasts)
    told = [f"{count} {verdict}" for verdict, count in sorted(counts.items())]
    return f"Pairs compared over seeds: {', '.join(told)}." if told else ""


def points(share: float) -> str:
    """A share of images in points, such as `2 points`."""
    number = f"{100 * share:g}"
    return f"{number} point" + "s" * (number != "1")


def on_contrasts(table: Table) -> str:
    """How to read the contrasts."""
    found = table.contrasts
    if not found:
        return ""
    tests = sum(one.p is not None for one in found)
    how = (
        "The accuracy of the first less that of the second, with its 95 % interval "
        "over seeds and test images (t-test of Welch; images within their classes). "
        "'Could be seen' is the smallest true difference that so many seeds find in "
        "80 % of cases; no smaller one is called a difference. 'Equivalent' means "
        f"surely less than {points(found[0].margin)} (TOST)."
    )
    if tests:
        how += (
            f" Tests are at 5 %, that of a difference corrected (Holm) for {tests} "
            "contrasts."
        )
    if found[0].declared:
        return how
    return (
        f"{how} No contrasts were declared, so all are against the most accurate, "
        "which was chosen by these results and so is flattered by chance."
    )


def _spread_of_seeds(groups: list[Group]) -> str:
    if not groups:
        return (
            "Each configuration was trained with one seed, so what a seed alone "
            "changes is not known, and small differences may be due to it."
        )
    variances = [group.as_is["accuracy"].std ** 2 for group in groups]
    typical = 100 * statistics.fmean(variances) ** 0.5
    return (
        f"Runs that differ by their seed alone have a standard deviation of "
        f"{typical:.2f} points, so differences of that size between configurations "
        "show nothing."
    )


def explanation(table: Table) -> str:
    """How to read the numbers."""
    dataset = table.dataset
    # Comparisons of before have no floors, and resampled over all the images.
    whole = all(row.as_is.floors for row in table.rows)
    within, errors = (WITHIN, ON_ERRORS) if whole else ("", ON_ECE)
    return (
        f"On {dataset.test:,} test images (SHA-256 of the data set "
        f"{dataset.checksum[:12]}). In brackets 95 % intervals, by bootstrap over "
        f"the test images{within}: they tell nothing of the spread between seeds. "
        f"Precision, recall and F1 are macro-averaged. {errors} 'Scaled' is after "
        "temperature scaling, at the temperature that fits the "
        "validation images best. '16 samples' "
        "averages the probabilities of 16 noisy draws."
        + (
            " 'superclasses' counts a prediction as right if its superclass is; "
            "'summed' takes the superclass whose classes are together most probable."
            if table.superclasses
            else ""
        )
    )
