"""Comparisons that were made in parts say what one of all runs says."""

import dataclasses
import json
import shutil

import pytest
from records import with_more

from pipelines import evaluation, keeping, merging, report, tables
from pipelines.comparison import Results

pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture(scope="module")
def parts(runs, tmp_path_factory, without_plots):
    """All runs in one comparison, and in two."""
    folder = tmp_path_factory.mktemp("results")
    shares = {"all": runs, "first": runs[::2], "second": runs[1::2]}
    for name, some in shares.items():
        evaluation.evaluate(some, folder / name, timings=False, made_by=name)
    return folder


def merged(out, *folders, experiment=None):
    argv = [*map(str, folders), "--out", str(out)]
    argv += ["--experiment", str(experiment)] * bool(experiment)
    with pytest.raises(SystemExit, match=r"^0$"):
        report.main(argv)
    return keeping.read(out, outcomes=True)


def without_ensembles(results: Results):
    (table,) = results.comparison.tables
    groups = [dataclasses.replace(group, ensemble=None) for group in table.groups]
    rows = sorted(table.rows, key=lambda row: row.id)
    pairs = {frozenset((p.a, p.b)): (p.p, p.p_holm) for p in table.pairs}
    runs = dict(sorted(table.runs.items()))
    kept = dataclasses.replace(table, groups=groups, rows=rows, pairs=[], runs=runs)
    return kept, pairs


def test_parts_say_what_the_whole_says(parts, tmp_path):
    found = merged(tmp_path / "out", parts / "first", parts / "second")
    whole = keeping.read(parts / "all", outcomes=True)
    assert without_ensembles(found) == without_ensembles(whole)
    assert found.outcomes.keys() == whole.outcomes.keys()
    for name, facts in whole.outcomes.items():
        for column, values in facts.items():
            assert (found.outcomes[name][column] == values).all()
    assert [made.command for made in found.comparison.made] == ["first", "second"]
    text = (tmp_path / "out" / "comparison.md").read_text("utf-8")
    assert "`first`" in text
    assert "`second`" in text


def test_an_export_stays_behind_its_run(parts):
    """Though its name stands before that of its run."""
    part = keeping.read(parts / "second", outcomes=True)
    (table,) = part.comparison.tables
    row = next(row for row in table.rows if not row.samples)
    copy = dataclasses.replace(row, id="a-copy", run="a-copy")
    more = with_more(table, [copy], {"a-copy": table.runs[row.run]})
    exported = part._replace(
        comparison=dataclasses.replace(part.comparison, tables=[more]),
        outcomes={**part.outcomes, "a-copy": part.outcomes[row.id]},
    )
    (found,) = merging.merge([exported]).comparison.tables
    assert list(found.runs)[-1] == "a-copy"
    assert all("a-copy" not in (pair.a, pair.b) for pair in found.pairs)
    first = tables.pairs(found)
    assert first.body
    assert "a-copy" not in first.caption


def test_a_part_can_be_merged_into_its_own_place(parts, tmp_path):
    place = tmp_path / "place"
    shutil.copytree(parts / "first", place)
    (place / "notes.md").write_text("mine")
    merged(place, place, parts / "second")
    again = merged(place, place, parts / "second")  # what is there counts once
    whole = keeping.read(parts / "all")
    assert without_ensembles(again) == without_ensembles(whole)
    assert (place / "notes.md").read_text() == "mine"
    assert len(again.comparison.made) == 2


@pytest.fixture(scope="module")
def declaring(parts, runs, tmp_path_factory):
    """All runs in two comparisons, of which one declares what it compares."""
    folder = tmp_path_factory.mktemp("results")
    (table,) = keeping.read(parts / "all").comparison.tables
    configs = {run.config.head: run.config for run in table.runs.values()}
    configs = {h: dataclasses.replace(c, seed=0) for h, c in configs.items()}
    declared = [(configs["log_softmax"], configs["softmax"])]
    some = [run for run in runs if "softmax" in run.name and "gumbel" not in run.name]
    evaluation.evaluate(
        some, folder / "a", timings=False, contrasts=declared, margin=0.03
    )
    rest = [run for run in runs if run not in some]
    evaluation.evaluate(rest, folder / "b", timings=False)
    return folder


def test_an_ensemble_of_one_part_stays(parts, declaring, tmp_path):
    found = merged(tmp_path / "out", declaring / "a", declaring / "b")
    (whole,) = keeping.read(parts / "all").comparison.tables
    (table,) = found.comparison.tables
    (group,) = (group for group in table.groups if not group.samples)
    assert group.ensemble is not None
    assert group in whole.groups


def test_contrasts_are_those_of_the_parts_or_of_an_experiment(
    declaring, tiny, tmp_path, capsys
):
    found = merged(tmp_path / "out", declaring / "a", declaring / "b")
    (contrast,) = found.comparison.tables[0].contrasts
    assert contrast.declared
    assert contrast.margin == 0.03
    assert (len(contrast.runs_a), len(contrast.runs_b)) == (2, 1)

    experiment = tmp_path / "experiment.yaml"
    defaults = {
        name: getattr(tiny, name)
        for name in ("dataset", "backbone", "width", "image_size", "batch_size")
        + ("epochs", "learning_rate", "precision")
    }
    described = {
        "defaults": defaults,
        "runs": [{"head": ["log_softmax", "z_loss"]}],
        "contrasts": [[{"head": "z_loss"}, {"head": "log_softmax"}]],
        "margin": 7,
    }
    experiment.write_text(json.dumps(described))
    found = merged(
        tmp_path / "out", declaring / "a", declaring / "b", experiment=experiment
    )
    (contrast,) = found.comparison.tables[0].contrasts
    assert contrast.a.startswith("z_loss")
    assert contrast.margin == 0.07
    capsys.readouterr()
    merged(tmp_path / "some", declaring / "b", experiment=experiment)
    told = capsys.readouterr().err
    assert "left out: z_loss" in told
    assert "are not compared; runs are missing" in told


def test_times_of_several_machines_are_left_out(parts, runs, tmp_path, capsys):
    for name, cores in (("first", 2), ("second", 2), ("other", 9)):
        shutil.copytree(parts / name.replace("other", "second"), tmp_path / name)
        file = tmp_path / name / "timings.json"
        kept = json.loads(file.read_text())
        kept["device"]["cores"] = cores
        time = {"latency_ms": 1.0, "images_per_second": 9.0}
        kept["runs"] = {runs[name != "first"].name: time}
        file.write_text(json.dumps(kept))
    first, second, other = (tmp_path / n for n in ("first", "second", "other"))
    found = merged(tmp_path / "same", first, second)
    assert found.timings.runs.keys() == {runs[0].name, runs[1].name}
    found = merged(tmp_path / "apart", first, other)
    assert not found.timings.runs
    assert "of several machines" in capsys.readouterr().err


def test_runs_of_one_name_on_other_data_are_refused(parts, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(parts / "first", other)
    kept = (other / "comparison.json").read_text("utf-8")
    checksum = json.loads(kept)["tables"][0]["dataset"]["checksum"]
    (other / "comparison.json").write_text(kept.replace(checksum, "f" * 64), "utf-8")
    words = refusal(capsys, parts / "first", other, "--out", tmp_path / "out")
    assert "on different data" in words


def refusal(capsys, *argv):
    with pytest.raises(SystemExit, match=r"^2$"):
        report.main([str(word) for word in argv])
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_cannot_be_merged_is_refused(parts, tmp_path, capsys):
    first, second, out = parts / "first", parts / "second", tmp_path / "out"
    assert "--out must name" in refusal(capsys, first, second)
    changed = tmp_path / "changed"
    shutil.copytree(first, changed)
    kept = json.loads((changed / "comparison.json").read_text("utf-8"))
    kept["tables"][0]["rows"][0]["as_is"]["metrics"]["nll"] += 0.5
    (changed / "comparison.json").write_text(json.dumps(kept), "utf-8")
    words = refusal(capsys, first, changed, "--out", out)
    assert "different figures of" in words
    shutil.rmtree(changed / "outcomes")
    assert "outcomes" in refusal(capsys, changed, second, "--out", out)
    assert "There is no comparison" in refusal(
        capsys, first, tmp_path / "no", "--out", out
    )
    assert not out.exists()


def test_a_comparison_in_short_has_a_line_for_each_run(parts):
    (table,) = keeping.read(parts / "all").comparison.tables
    head, *lines = tables.in_short([table]).strip().splitlines()
    assert head.split()[-3:] == ["accuracy", "NLL", "ECE"]
    assert len(lines) == len(table.rows)
    for row in table.rows:
        (line,) = [line for line in lines if line.startswith(f"{row.title}  ")]
        assert f"{row.accuracy:.2%}".replace("%", " %") in line
