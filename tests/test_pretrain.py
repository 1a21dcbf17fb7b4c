"""The main loop: losses fall, logs and checkpoints are there, a resume is exact, ranks and accumulation do not matter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ernie2 import pretrain
from ernie2.config import build, Recipe
from ernie2.setup_run import prepare_run
from ernie2.strict import apply_overrides


def run(mapping: dict, *overrides: str) -> tuple[dict, list[dict]]:
    recipe = build(Recipe, apply_overrides(mapping, overrides), "test")
    result = pretrain.train(prepare_run(recipe, "test"))
    lines = (Path(recipe.out_dir) / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return result, [json.loads(line) for line in lines]


def test_every_task_learns_and_outputs_are_there(tiny_recipe, tmp_path):
    result, records = run(tiny_recipe)
    assert result["steps"] == 24 + 18 - 18 + 48 and result["finished"]
    for task in ("cover", "order", "label"):
        losses = [record["loss"] for record in records if record["task"] == task]
        assert len(losses) == 24
        assert np.mean(losses[-4:]) < np.mean(losses[:4])
    evaluations = [json.loads(line) for line in (tmp_path / "out/eval.jsonl").read_text().splitlines()]
    assert [(e["stage"], e["task"]) for e in evaluations] == [
        (0, "cover"), (1, "cover"), (1, "order"), (2, "cover"), (2, "order"), (2, "label")]
    assert result["tasks"]["label"]["dev"]["accuracy"]["token"] > result["tasks"]["label"]["dev"]["chance"]["token"]
    folder = tmp_path / "out" / f"step_{result['steps']:07d}"
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors", "optimizer.safetensors", "config.json", "vocab.txt", "recipe.yaml", "trainer_state.json"}
