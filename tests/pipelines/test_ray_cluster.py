"""Experiments on Ray: two nodes on this machine, each with a share of its cores."""

import json
import os
import subprocess
import sys
import time

import pytest

from pipelines import experiment, publishing, run_folder, running

if "KERASOFT_REQUIRE_RAY" in os.environ:
    import ray.cluster_utils as ray  # pyright: ignore[reportMissingImports]
else:
    ray = pytest.importorskip(
        "ray.cluster_utils", reason="Ray comes with the extra `ray`"
    )
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(len(running.all_cores()) < 2, reason="takes two cores"),
    # Ray's own, in this process.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def cluster():
    started = ray.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    yield started
    started.shutdown()


def command(words):
    return [sys.executable, "-m", "pipelines.run", *map(str, words)]


def weights(run):
    (data,) = (run / "variables").glob("variables.data*")
    return data.read_bytes()


@pytest.fixture
def described(tiny, tmp_path):
    """An experiment of three runs, two of which take a while."""
    lines = {
        "dataset": tiny.dataset,
        "backbone": "plain_cnn",
        "width": 4,
        "image_size": 16,
        "batch_size": 8,
        "learning_rate": 0.05,
        "precision": "float32",
        "head": "log_gumbel_softmax",
    }
    path = tmp_path / "experiment.yaml"
    runs = [{"epochs": 120, "seed": 0}, {"epochs": 120, "seed": 1}, {"epochs": 2}]
    # JSON is YAML.
    path.write_text(json.dumps({"defaults": lines, "runs": runs}))
    return path


def test_runs_of_a_lost_machine_end_on_another_with_the_same_weights(
    cluster, described, tmp_path
):
    here, there = tmp_path / "here", tmp_path / "there"
    alone = command([described, "--saved_models", here, "--out", tmp_path / "a"])
    subprocess.run([*alone, "--jobs", "2"], check=True)

    cores = len(running.share_cores(2)[-1])
    nodes = [cluster.add_node(num_cpus=cores) for _ in range(2)]
    cluster.wait_for_nodes()
    words = [described, "--saved_models", there, "--out", tmp_path / "b", "--jobs", "2"]
    driver = subprocess.Popen(
        command([*words, "--ray", cluster.address]), stdout=subprocess.PIPE, text=True
    )
    configs = [one.config for one in experiment.read(described).runs]
    long = [there / config.run_name for config in configs[:2]]
    give_up = time.monotonic() + 200
    while not all(
        (publishing.partial(path) / run_folder.STATE).exists() for path in long
    ):
        assert driver.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.05)
    cluster.remove_node(nodes[0], allow_graceful=False)
    out, _ = driver.communicate(timeout=500)
    assert driver.returncode == 0, out
    assert "[3/3]" in out
    records = [run_folder.read_record(there / c.run_name) for c in configs]
    assert any(record.resumed_at_epoch for record in records)
    for config in configs:
        assert weights(here / config.run_name) == weights(there / config.run_name)


def test_what_a_cluster_cannot_run_is_refused(cluster, described, tmp_path):
    def said(*words):
        given = [described, "--saved_models", tmp_path / "runs", *words]
        ended = subprocess.run(
            command(given), capture_output=True, text=True, check=False, timeout=100
        )
        assert ended.returncode == 2
        return ended.stderr

    assert "no machine of the cluster has them" in said("--ray", cluster.address)
    assert "There is no Ray cluster at" in said("--ray", "127.0.0.1:1")
    assert "--gpus_per_run goes with --ray" in said("--gpus_per_run", "1")
