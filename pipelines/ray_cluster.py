"""The runs of an experiment over machines, by Ray.

Every machine has the same checkout and environment, and the folder of the runs, all
under the same paths, as on a shared disk.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines import publishing, run_folder, running, training
from pipelines.config import Config
from pipelines.errors import InputError, brief, one_line, package

RETRIES = 10  # times that the machine of a run may be lost
PATIENCE = 180  # seconds until a lost machine's lock on a shared disk is free
FOLDERS = ("TFDS_DATA_DIR", "XDG_CACHE_HOME")  # of the environment, where set
PASSED_ON = ("TF_ENABLE_ONEDNN_OPTS", *FOLDERS)


def train_all(
    configs: Sequence[Config],
    saved_models: Path,
    address: str,
    jobs: int = 1,
    gpus: float = 0.0,
) -> dict[str, str]:
    """Trains every run that is not there, each as a task of a Ray cluster.

    A run whose machine is lost goes on from its last epoch, on another. On as many
    cores, it ends with the same numbers as one that was trained here.

    Args:
        configs: The runs.
        saved_models: The folder of the runs, on a disk that all machines share.
        address: The cluster's, as for `ray.init`; `local` starts one on this machine.
        jobs: How many runs to train at once on a machine with as many cores as this.
        gpus: The GPUs of a run, or the share of one.

    Returns:
        By the names of the runs that failed, why.

    Raises:
        InputError: If there is no such cluster, or no machine of it has as many cores
            and GPUs.
    """
    cores = len(running.share_cores(jobs)[-1])
    if not (gpus == 0 or 1e-4 <= gpus <= 1 or (gpus > 1 and gpus.is_integer())):
        raise InputError(
            f"gpus_per_run must be 0, a whole number, or from 0.0001 to 1. Received: "
            f"{gpus:g}"
        )
    saved_models = saved_models.resolve()
    saved_models.mkdir(parents=True, exist_ok=True)
    failures = {}
    with _connected(address, _variables(cores, gpus)) as ray:
        _check_size(ray, cores, gpus)
        # A process of its own for each run, as without Ray.
        task = ray.remote(
            num_cpus=cores, num_gpus=gpus, max_calls=1, max_retries=RETRIES
        )(train_one)
        names = {task.remote(c, saved_models): c.run_name for c in configs}
        waiting, ended = list(names), 0
        while waiting:
            (done,), waiting = ray.wait(waiting)
            ended += 1
            try:
                words, failed = ray.get(done)
            except ray.exceptions.RayError as error:
                words, failed = brief(one_line(error), 300), True
            name = names[done]
            print(f"[{ended}/{len(configs)}] {name}: {words}", flush=True)
            if failed:
                failures[name] = words
    return failures


def train_one(config: Config, saved_models: Path) -> tuple[str, bool]:
    """Trains a run if it is not there.

    Returns:
        What became of it in words, and whether it failed.
    """
    path, started = saved_models / config.run_name, time.monotonic()
    # What is left of this run's process on a lost machine may hold it for a while.
    while publishing.is_claimed(path):
        if time.monotonic() - started > PATIENCE:
            return running.CLAIMED, True
        time.sleep(1)
    standing = run_folder.standing(path, config)
    if standing == "there":
        return standing, False
    if standing == "other":
        return running.OTHER, True
    try:
        training.train(config, saved_models, resume=standing == "stopped")
    except (InputError, FloatingPointError, OSError) as error:
        return brief(one_line(error), 300), True
    minutes = (time.monotonic() - started) / 60
    return f"{minutes:.1f} min on {os.uname().nodename}", False


@contextmanager
def _connected(address: str, variables: dict[str, str]) -> Iterator[Any]:
    """Ray, connected to a cluster, with variables of its processes' environment."""
    ray = package("ray", "ray")
    _check_reachable(address)
    try:
        ray.init(
            address=address,
            runtime_env={"env_vars": variables},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, error) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _variables(cores: int, gpus: float) -> dict[str, str]:
    """Of the environment of a run's process: how much of a machine TensorFlow uses."""
    found = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    found |= {
        name: str(Path(found[name]).resolve()) for name in FOLDERS if name in found
    }
    for pool in ("INTRAOP", "INTEROP"):
        found[f"TF_NUM_{pool}_THREADS"] = str(cores)
    if gpus == 0:
        found["CUDA_VISIBLE_DEVICES"] = ""
    elif gpus < 1:
        found["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    return found


def _check_reachable(address: str):
    """Refuses an address that nobody listens at, where Ray would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> InputError:
    return InputError(
        f"There is no Ray cluster at {brief(address)} ({one_line(error)[:150]}); "
        "`ray start --head` starts one."
    )


def _check_size(ray: Any, cores: int, gpus: float):
    """Refuses what no machine of the cluster could ever run."""
    sizes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(s.get("CPU", 0) >= cores and s.get("GPU", 0) >= gpus for s in sizes):
        most = {kind: max((s.get(kind, 0) for s in sizes), default=0)
                for kind in ("CPU", "GPU")}  # fmt: skip
        raise InputError(
            f"A run is to have {cores} cores and {gpus:g} GPUs, but no machine of the "
            f"cluster has them (at most {most['CPU']:g} and {most['GPU']:g}); change "
            "--jobs or --gpus_per_run."
        )
