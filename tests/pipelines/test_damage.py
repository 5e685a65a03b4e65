"""What is damaged is named in one line, whatever its bytes are."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import ended, leave

from pipelines import run_folder, running, saved_model
from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.run_folder import EXTRA, HISTORY, RECORD

CONFIG = Config(dataset="folder:/photos")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2)
    ),
    max_leaves=3,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs, of which the first may be damaged."""
    root = tmp_path_factory.mktemp("runs")
    for name in (CONFIG.run_name, "whole"):
        leave(ended(CONFIG), root / name)
    return root


@st.composite
def damaged(draw, text: bytes) -> bytes:
    """A record that was cut, hit, or written by another version."""
    if draw(st.booleans()):
        place = draw(st.integers(0, len(text) - 1))
        return text[:place] + draw(st.binary(max_size=3))
    place = draw(st.integers(0, len(text) - 1))
    if draw(st.booleans()):
        return text[:place] + draw(st.binary(min_size=1)) + text[place + 1 :]
    record = json.loads(text)
    part = draw(st.sampled_from([record, record["config"], record["dataset"]]))
    key = draw(st.sampled_from([*part, "a\nnew one"]))
    if draw(st.booleans()):
        part.pop(key, None)
    else:
        part[key] = draw(VALUES)
    return json.dumps(record).encode()


@settings(max_examples=100)
@given(data=st.data())
def test_a_damaged_record_is_named_and_the_others_are_planned_with(runs, data):
    first, whole = runs / CONFIG.run_name, runs / "whole"
    text = (whole / EXTRA / RECORD).read_bytes()
    (first / EXTRA / RECORD).write_bytes(data.draw(damaged(text)))
    try:
        run_folder.find([first, whole])
    except InputError as error:
        (line,) = str(error).splitlines()
        assert str(first) in line
        assert run_folder.standing(first, CONFIG) == "other"
    assert running.seconds([CONFIG], runs)[0]


def test_a_line_break_in_a_name_stays_on_its_line(runs, tmp_path, capsys):
    for name in ("a\nforeign folder", "a\nbroken run"):
        (tmp_path / name / EXTRA).mkdir(parents=True)
    (tmp_path / "a\nbroken run" / EXTRA / RECORD).write_text("{}")
    run_folder.find([runs / "whole", tmp_path / "a\nforeign folder"])
    running.plan([CONFIG], tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["skipped"] * 3


@pytest.mark.parametrize(
    "text", [b"", b"epoch,loss\n", b"epoch,loss\n0,x\n", b"epoch,loss\n0\n", b"\xff\0"]
)
def test_a_damaged_history_is_named(text, tmp_path):
    (tmp_path / EXTRA).mkdir()
    (tmp_path / EXTRA / HISTORY).write_bytes(text)
    with pytest.raises(InputError, match="history of the run"):
        run_folder.read_history(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("saved_model.pb", b""),
        ("saved_model.pb", b"\xff" * 99),
        ("assets/class_names.txt", b"red\n"),
        ("assets/class_names.txt", b"\xff\n\n\n"),
        ("variables/variables.index", b""),
    ],
)
def test_a_damaged_model_is_named(file, content, run, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(run, path)
    (path / file).write_bytes(content)
    with pytest.raises(InputError, match=f"The run {path} is damaged"):
        saved_model.load(path)


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1))
def test_names_of_classes_are_read_as_they_were_written(tmp_path_factory, names):
    path = tmp_path_factory.getbasetemp() / saved_model.CLASS_NAMES
    saved_model.write_names(path, names)
    assert saved_model.read_names(path) == names
