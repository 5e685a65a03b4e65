"""What stands for a run that was trained."""

import dataclasses
import shutil

import kerasoft
from pipelines import run_folder, saved_model, training, typed_json
from pipelines.run_folder import EXTRA, RECORD, Device, Record, TrainedOn

HEADS = {
    "softmax": {"loss": "as_logits"},
    "log_softmax": {},
    "gumbel_softmax": {"temperature": 0.5},
    "z_loss": {},
}


def ended(config, **changes):
    """The record of a run of a config."""
    record = Record(
        config=config,
        metrics={"accuracy": 0.5},
        dataset=TrainedOn(config.dataset, "0" * 64, 96, 12, 18, 3),
        parameters=1000,
        policy="float32",
        wall_seconds=8.0,
        resumed_at_epoch=0,
        versions={"keras": "3.15"},
        commit=None,
        device=Device("CPU", "a processor", 2),
    )
    return dataclasses.replace(record, **changes)


def leave(record, run):
    """Writes a record where a run keeps it."""
    (run / EXTRA).mkdir(parents=True, exist_ok=True)
    typed_json.write(run / EXTRA / RECORD, record)


def pretend(config, dataset, folder):
    """A run as train leaves it, of a network that has learnt nothing."""
    path = folder / config.run_name
    model = training.build(config, dataset, "float32")
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    saved_model.export(model, dataset.class_names, path, scratch=scratch)
    shutil.rmtree(scratch)
    extra = path / run_folder.EXTRA
    extra.mkdir()
    extra.joinpath("history.csv").write_text("epoch,val_accuracy\n0,0.25\n1,0.5\n")
    trained_on = dataclasses.replace(
        ended(config).dataset, name=dataset.name, checksum=dataset.checksum
    )
    record = ended(
        config,
        dataset=trained_on,
        parameters=model.count_params(),
        outputs=kerasoft.heads.find(model).outputs,
    )
    leave(record, path)
    return path


def with_more(table, rows, runs):
    """A comparison's table with more rows and runs."""
    return dataclasses.replace(table, rows=[*table.rows, *rows], runs=table.runs | runs)
