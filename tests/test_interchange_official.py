"""Baidu's 16,000 released lines: all are imported, they come out the same, and training on them lowers the
loss."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED

from data_gen.interchange.__main__ import main
from ernie2 import pretrain
from ernie2.config import Recipe, build
from ernie2.run import prepare_run
from ernie2.shards import ShardReader

OFFICIAL = SHARED / "data/official"
TRAIN, VALID = (OFFICIAL / f"data/demo_{name}_set.gz" for name in ("train", "valid"))
pytestmark = pytest.mark.skipif(not TRAIN.exists(), reason="the shared data is not here")


def call(*arguments: object) -> None:
    """Runs the command, which must succeed."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert left.value.code == 0


def imported(folder: Path, task: str, *more: str) -> dict:
    """Imports both files as a task's train and dev split; returns the index."""
    call(
        "import-baidu",
        TRAIN,
        "--dev",
        VALID,
        "--to",
        folder,
        "--task",
        task,
        "--vocab",
        OFFICIAL / "vocab.txt",
        *more,
    )
    index = ShardReader(folder / task, "train").index
    assert index["samples"] == {"train": 10_000, "dev": 6_000} and index["statistics"]["rejected"] == {}
    assert not (folder / f"{task}.rejects.jsonl").exists()
    return index


def test_all_lines_are_imported_and_come_out_the_same(tmp_path: Path) -> None:
    index = imported(tmp_path, "sentence_distance", "--keep-order")
    assert index["statistics"]["labels"]["train"] == [3779, 0, 6221]
    for split, file in (("train", TRAIN), ("dev", VALID)):
        call("export-baidu", tmp_path / "sentence_distance", "--to", tmp_path / "out.gz", "--split", split)
        with (
            gzip.open(tmp_path / "out.gz", "rt", encoding="utf-8") as made,
            gzip.open(file, "rt", encoding="utf-8") as wanted,
        ):
            assert made.read() == wanted.read()


@pytest.mark.slow
def test_two_hundred_steps_of_training_lower_the_loss(tmp_path: Path) -> None:
    assert imported(tmp_path, "knowledge_masking")["statistics"]["notes"] == {"pair label dropped": 16_000}
    recipe = build(
        Recipe,
        {
            "name": "official",
            "out_dir": str(tmp_path / "out"),
            "seed": 1,
            "model": {
                "size": "tiny",
                "vocab_file": str(OFFICIAL / "vocab.txt"),
                "max_position_embeddings": 160,
            },
            "data": {"shards_dir": str(tmp_path), "max_seq_len": 160},
            "batch": {"tokens": 1024, "micro_tokens": 1024, "pool_batches": 8},
            "masking": {"level": "word"},
            "curriculum": {"stages": [["knowledge_masking"]], "steps_per_task": 200},
            "lr": {"peak": 2e-3, "warmup_steps": 40},
            "runtime": {"log_every": 1, "eval_every": 200, "eval_tokens": 4096, "save_every": 200},
        },
        "test",
    )
    result = pretrain.train(prepare_run(recipe, "test"))
    losses = [
        json.loads(line)["loss"]
        for line in (tmp_path / "out/train.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert result["steps"] == 200 and len(losses) == 200
    assert abs(losses[0] - np.log(17_964)) < 0.5, "begins at chance"
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 1.5
    dev = result["tasks"]["knowledge_masking"]["dev"]
    assert dev["losses"]["masked_lm"] < np.log(17_964) - 2
