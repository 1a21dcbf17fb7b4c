"""Logs of a small made-up pre-training run for tests of the report."""

from __future__ import annotations

import json
from pathlib import Path

TASKS = [
    "knowledge_masking",
    "sentence_reordering",
    "sentence_distance",
    "discourse_relation",
    "ir_relevance",
]
STEPS = 100
RECIPE = """
name: synthetic_zh
model: {size: mini}
lr: {peak: 1.28e-4}
curriculum:
  mode: continual
  steps_per_task: 100
  stages: [[knowledge_masking], [sentence_reordering], [sentence_distance], [discourse_relation], [ir_relevance]]
"""


def jsonl(records: list[dict]) -> str:
    """The text of a log."""
    return "".join(json.dumps(record) + "\n" for record in records)


def train_line(step: int, stage: int, task: str, **changes: object) -> dict:
    """A line of train.jsonl."""
    own = {} if task == TASKS[0] else {"sentence": 1.0 + 1 / step}
    return {
        "step": step,
        "stage": stage,
        "task": task,
        "loss": 5.0,
        "losses": {"masked_lm": 4.0 + 10 / step} | own,
        "accuracy": {"masked_lm": 0.2} | dict.fromkeys(own, 0.5),
        "lr": 1e-4,
        "tokens": 8000,
        "padded_tokens": 10_000,
        "tokens_per_s": 4000.0,
        "data_wait_share": 0.01,
        "grad_norm": 1.5,
        "loss_scale": 1.0,
    } | changes


def dev_line(step: int, stage: int, task: str, loss: float, accuracy: float) -> dict:
    """A line of eval.jsonl."""
    head = "masked_lm" if task == TASKS[0] else "sentence"
    return {
        "step": step,
        "stage": stage,
        "task": task,
        "losses": {head: loss},
        "accuracy": {head: accuracy},
        "chance": {head: 0.25},
        "chance_loss": {head: 1.386},
    }


def write_run(folder: Path, **changes: object) -> Path:
    """A finished run of five stages; sentence_reordering ends its own stage at loss 0.611 and training at
    0.933.

    Args:
        folder: where to; made here.
        changes: what each line of train.jsonl has besides."""
    train, evals = [], []
    for stage in range(len(TASKS)):
        for step in range(stage * STEPS + 10, (stage + 1) * STEPS + 1, 10):
            train += [train_line(step, stage, name, **changes) for name in TASKS[: stage + 1]]
        for seen, name in enumerate(TASKS[: stage + 1]):
            forgotten = 0.611 + (0.322 if stage == 4 else 0.0) if name == "sentence_reordering" else 0.5
            evals.append(dev_line((stage + 1) * STEPS, stage, name, forgotten, 0.777 if seen < 4 else 0.251))
    (folder / "step_0000500").mkdir(parents=True)
    (folder / "train.jsonl").write_text(jsonl(train))
    (folder / "eval.jsonl").write_text(jsonl(evals))
    (folder / "result.json").write_text(
        json.dumps({"steps": 500, "tokens": 1_200_000, "seconds": 3 * 3600 + 120})
    )
    (folder / "step_0000500" / "recipe.yaml").write_text(RECIPE)
    return folder
