"""data_gen on a ray cluster of two nodes, in processes of this machine: the same bytes as without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from test_pipeline import contents
from test_restart import recipe  # noqa: F401 - a fixture

from data_gen.pipeline import build_shards
from ernie2.config import load_recipe
from ernie2.tasks import select_tasks

TASKS = ["sentence_distance", "ir_relevance"]


@pytest.fixture()
def two_nodes() -> Iterator[object]:
    """A cluster of two nodes with one CPU each; nothing of it outlives the test."""
    ray = pytest.importorskip("ray")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    cluster = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        yield ray
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
def test_two_nodes_make_the_same_bytes(recipe: Path, tmp_path: Path, two_nodes: object) -> None:  # noqa: F811
    assert sum(node["Alive"] for node in two_nodes.nodes()) == 2
    tasks = select_tasks(TASKS, "test")
    build_shards(load_recipe(recipe), tasks, 1)
    on_ray = load_recipe(recipe, [f"data.shards_dir={tmp_path / 'ray'}"])
    build_shards(on_ray, tasks, 2, engine="ray")
    assert contents(tmp_path / "ray") == contents(tmp_path / "shards")
