"""What stands for a run that was trained."""

import dataclasses

from pipelines import typed_json
from pipelines.run_folder import EXTRA, RECORD, Device, Record, TrainedOn


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
