"""Losses of a few steps of each family of recipes, as they were when this was written: a change that should
change nothing shows here, and one that should has to say so. Whatever the machine and the version of paddle,
to rounding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, write_tiny_shards

from ernie2 import pretrain
from ernie2.config import load_recipe
from ernie2.run import prepare_run
from ernie2.tasks import select_tasks
from ernie2.tokenizer import Vocab

SHORT = [
    "model.size=tiny",
    "model.max_position_embeddings=32",
    "data.max_seq_len=32",
    "batch.tokens=256",
    "batch.micro_tokens=128",
    "batch.pool_batches=2",
    "curriculum.steps_per_task=8",
    "curriculum.revisit_steps=1",
    "lr.peak=1e-4",
    "lr.warmup_steps=3",
    "runtime.precision=fp32",
    "runtime.log_every=1",
    "runtime.eval_every=1000",
]
GOLDEN = {
    "ernie2_zh_base": (4.173856, 5.259077, 5.216489),
    "ernie2_en_base": (4.176516, 4.843193, 9.210691),
    "all_seven": (4.173856, 7.559062, 5.194643),
    "table7": (4.176516, 4.811683, 7.57528),
    "ernie1": (4.173856, 4.13307, 4.19807),
    "bert": (4.128964, 4.153227, 4.152245),
    "mini_zh": (4.181367, 5.254132, 5.184533),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_losses_are_as_they_were(name: str, tiny_vocab: Path, tmp_path: Path):
    """The first, the middle and the last loss of the run."""
    recipe = load_recipe(
        ROOT / f"tasks/recipes/{name}.yaml",
        [
            *SHORT,
            f"out_dir={tmp_path / 'out'}",
            f"model.vocab_file={tiny_vocab}",
            f"data.shards_dir={tmp_path / 'shards'}",
            "model.vocab_rows=null",
        ],
    )
    tasks = select_tasks(recipe.task_names(), name)
    write_tiny_shards(tmp_path / "shards", {task.name: task for task in tasks}, Vocab.load(tiny_vocab))
    pretrain.train(prepare_run(recipe, name))
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out/train.jsonl").read_text().splitlines()]
    found = [losses[0], losses[len(losses) // 2], losses[-1]]
    np.testing.assert_allclose(
        found, GOLDEN[name], rtol=2e-5, err_msg=f"found {[round(loss, 6) for loss in found]}"
    )
