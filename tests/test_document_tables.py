"""Every table of measured numbers in the documents is made from results/."""

import importlib
import re

import pytest

from pipelines.keeping import read

WORDS = {  # tables that measure nothing, by their headers
    "| `--head` | layer | output | value | source |",
    "| output layer | computed for each training row | model |",
    "| experiment | what it is |",
    "| you want to | page |",
    "| layer | computed for each training row | what it gives up | optimiser | use it "
    "if |",
    "| what | command | results |",
    "| format | file in `exported/RUN-FORMAT` | read by | Python package |",
}


@pytest.fixture(scope="module")
def made(pytestconfig):
    root = pytestconfig.rootpath
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "experiments"))
        yield importlib.import_module("document_tables")


def headers(text):
    """The first lines of a document's tables."""
    lines = text.splitlines()
    before = ["", *lines]
    return [
        line
        for line, above in zip(lines, before, strict=False)
        if line.startswith("|") and line.endswith("|") and not above.startswith("|")
    ]


def test_every_table_is_that_of_the_results(made):
    for path in made.documents():
        text = path.read_text("utf-8")
        marked = made.MARKED.findall(text)
        assert made.renew(text) == text, path.name
        known = {table.splitlines()[0] for _, _, table in marked} | WORDS
        assert not set(headers(text)) - known, path.name


def test_a_changed_number_is_noticed(made):
    path = made.ROOT / "docs" / "many-classes.md"
    text = path.read_text("utf-8")
    changed = re.sub(r"(\| Z-loss \| )\d", r"\g<1>99", text)
    assert changed != text
    assert made.renew(changed) == text


def test_what_is_said_of_the_next_word_is_what_its_contrasts_show(made):
    lines = made.next_word_contrasts().splitlines()[2:]
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    verdicts = {(a, b.split(",")[0]): end for _, a, b, *_, end, _ in cells}
    for minutes, other, verdict in (
        (1, "sampled", "different"),
        (5, "sampled", "equivalent within 1 point"),
        (1, "adaptive", "equivalent within 1 point"),
        (5, "adaptive", "different"),
    ):
        name = f"z_loss, top-10 after {minutes} min"
        assert verdicts[name, other] == verdict


def test_every_table_is_shown(made):
    text = "".join(path.read_text("utf-8") for path in made.documents())
    assert {name for _, name, _ in made.MARKED.findall(text)} == set(made.TABLES)


def test_contrasts_say_what_could_have_been_seen(made):
    """Those of every comparison that declares any are in a document."""
    found = 0
    for path in sorted(made.RESULTS.glob("*/comparison.json")):
        tables = read(path.parent).comparison.tables
        for table in tables:
            name = path.parent.name.replace("writeup", "write-up")
            if len(tables) > 1:
                name += f", {len(table.class_names):,} classes"
            for contrast in table.contrasts:
                if not contrast.declared:
                    continue
                found += 1
                (line,) = (
                    line
                    for line in made.TABLES[f"{name}, contrasts"]().splitlines()
                    if line.startswith(f"| {contrast.a} | {contrast.b} |")
                )
                cells = [cell.strip() for cell in line.split("|")[3:-1]]
                seeds, difference, visible, verdict = cells
                assert seeds == f"{len(contrast.runs_a)} and {len(contrast.runs_b)}"
                if min(len(contrast.runs_a), len(contrast.runs_b)) == 1:
                    assert visible == ""
                    assert verdict == "cannot tell (one seed)"
                    continue
                assert re.fullmatch(r"[+-]\S+ \(\S+ to \S+\)", difference), line
                assert float(visible) > 0
                points = 100 * abs(contrast.difference)
                if verdict == "different":
                    assert points >= float(visible) - 0.01
    assert found > 15


def test_the_same_function_is_never_called_different(made):
    """Softmax and log-softmax with their matched losses, five seeds each."""
    (first, *_) = made.compared("writeup").contrasts
    assert {first.a.split(",")[0], first.b.split(",")[0]} == {"softmax", "log_softmax"}
    assert len(first.runs_a) == len(first.runs_b) == 5
    assert first.verdict in ("equivalent", "cannot tell")
