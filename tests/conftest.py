"""Fixtures: a small vocabulary, tasks of every kind, shards of random but learnable text, and a recipe for
them."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import yaml

from ernie2 import tasks as tasks_module
from ernie2.shards import LEVELS, Example, ShardWriter
from ernie2.tasks import load_tasks
from ernie2.tokenizer import SPECIAL_TOKENS, Vocab

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("ERNIE2_SHARED", ROOT.parent / "shared"))
TINY_TASKS = {
    "cover": {"task_id": 0, "losses": [{"head": "masked_lm"}]},
    "order": {"task_id": 3, "losses": [{"head": "sentence", "num_classes": 3}, {"head": "masked_lm"}]},
    "plain": {"task_id": 4, "losses": [{"head": "sentence", "num_classes": 3}]},
    "label": {
        "task_id": 5,
        "losses": [{"head": "token", "num_classes": 2}, {"head": "masked_lm", "weight": 0.5}],
    },
}
# Pre-training, resuming and fine-tuning: what has to work with every paddle in the tested range
# (ernie2/paddle_version.py).
CORE = {
    f"test_{name}"
    for name in (
        "batching",
        "checkpoint",
        "default_run",
        "encoder",
        "evaluate",
        "faults",
        "finetune",
        "golden",
        "masking",
        "moments",
        "optim",
        "paddle_version",
        "precision",
        "predict",
        "pretrain",
        "ranks",
        "resume",
        "tasks",
        "watchdog",
    )
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "slow: takes more than about ten seconds; bash tests/run.sh -m 'not slow' leaves it out"
    )
    config.addinivalue_line(
        "markers", "core: CI runs it with paddle 2.6 too: ERNIE2_PADDLE_VERSION=2.6 bash tests/run.sh -m core"
    )


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.path.stem in CORE:
        item.add_marker("core")


@pytest.fixture()
def tiny_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Tasks that cover every head, in place of tasks/pretrain."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, task in TINY_TASKS.items():
        text = yaml.safe_dump(
            {"name": name, "source": "documents", "generator": "data_gen.generators.none", **task}
        )
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(tasks_module, "TASKS_DIR", folder)
    return load_tasks()


@pytest.fixture()
def tiny_vocab(tmp_path: Path) -> Path:
    """64 tokens: the special ones, 40 letters-like tokens and some ## pieces."""
    path = tmp_path / "vocab.txt"
    tokens = [*SPECIAL_TOKENS, *(f"t{i}" for i in range(49)), *(f"##p{i}" for i in range(10))]
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return path


def tiny_example(task: tasks_module.Task, vocab: Vocab, rng: np.random.Generator) -> Example:
    """Two segments of tokens that follow each other in the vocabulary (so the masked LM has something to
    learn); the sentence label says which third of the vocabulary they start in, a token label whether the id
    is odd."""
    length = int(rng.integers(8, 24))
    start = int(rng.integers(0, 40))
    body = len(SPECIAL_TOKENS) + (start + np.arange(length)) % 49
    half = length // 2
    ids = np.concatenate([[vocab.cls_id], body[:half], [vocab.sep_id], body[half:], [vocab.sep_id]])
    segments = np.repeat([0, 1], [half + 2, length - half + 1]).astype(np.int8)
    words = np.concatenate([[-1], np.arange(half), [-1], np.arange(half, length), [-1]]).astype(np.int16)
    spans = {
        level: np.where(words < 0, -1, words // width).astype(np.int16)
        for level, width in zip(LEVELS, (1, 2, 3))
    }
    labels = np.where(words < 0, -100, ids % 2).astype(np.int8) if task.token_classes else None
    return Example(ids, segments, spans, labels, min(start // 14, 2) if task.sentence_classes else None)


def write_tiny_shards(folder: Path, tasks: dict, vocab: Vocab, samples: int = 120) -> None:
    """Shards of every task: `samples` for training, a fifth of that for dev."""
    for task in tasks.values():
        rng = np.random.default_rng(task.task_id)
        writer = ShardWriter(folder / task.name, task, len(vocab), samples_per_shard=50)
        for split, count in (("train", samples), ("dev", samples // 5)):
            for _ in range(count):
                writer.write(split, tiny_example(task, vocab, rng))
        writer.close({"vocab_digest": vocab.digest})


@pytest.fixture()
def tiny_recipe(tmp_path: Path, tiny_tasks: dict, tiny_vocab: Path) -> dict:
    """A recipe mapping for the tiny tasks: three stages, 24 + 24 + 24 steps, two micro-batches a step."""
    write_tiny_shards(tmp_path / "shards", tiny_tasks, Vocab.load(tiny_vocab))
    return {
        "name": "tiny",
        "out_dir": str(tmp_path / "out"),
        "seed": 3,
        "model": {"size": "tiny", "vocab_file": str(tiny_vocab), "max_position_embeddings": 32},
        "data": {"shards_dir": str(tmp_path / "shards"), "max_seq_len": 32},
        "batch": {"tokens": 256, "micro_tokens": 128, "pool_batches": 4},
        "curriculum": {"stages": [["cover"], ["order"], ["label"]], "steps_per_task": 24},
        "lr": {"peak": 2e-3, "warmup_steps": 5},
        "runtime": {"log_every": 1, "eval_every": 100, "save_every": 100},
    }


@pytest.fixture()
def tiny_recipe_file(tmp_path: Path, tiny_recipe: dict) -> Path:
    """The tiny recipe as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe), encoding="utf-8")
    return path


@pytest.fixture()
def half_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models become half-precision ones on a CPU too, where Paddle's decorate() does nothing."""
    from paddle.amp.auto_cast import amp_initialize

    monkeypatch.setattr("ernie2.precision.check_precision", lambda *_: None)
    monkeypatch.setattr(
        "paddle.amp.decorate",
        lambda model, optimizer, level, dtype, master_weight: (
            amp_initialize([model], dtype, None)[0],
            optimizer,
        ),
    )
