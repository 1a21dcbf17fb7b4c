"""A fine-tuning that is ready to run: task, run, starting point and data, and which sequences each step takes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from ernie2 import precision
from ernie2.finetune_data import Data, FinetuneBatch, collate, micro_batches, plan_batches, prepare_data
from ernie2.finetune_log import FinetuneLog
from ernie2.finetune_model import Start, check_fit, read_start
from ernie2.finetune_run import FinetuneRun, load_finetune
from ernie2.finetune_task import FinetuneTask
from ernie2.logs import logger
from ernie2.strict import make_folder, to_mapping


@dataclass
class Job:
    """Everything that the runs of a repeat share."""

    task: FinetuneTask
    run: FinetuneRun
    start: Start
    data: Data
    rank: int = 0
    ranks: int = 1
    started: float = field(default_factory=time.monotonic)

    @property
    def out_dir(self) -> Path:
        """Folder of everything that is written."""
        return Path(self.run.out_dir)

    def seed(self, number: int) -> int:
        """Seed of run `number` (from 1)."""
        return self.run.seed + number - 1

    def folder(self, number: int) -> Path:
        """Folder of run `number`: out_dir itself where there is one run."""
        return self.out_dir if self.run.repeat == 1 else self.out_dir / f"run_{number}"

    def plan(self, seed: int) -> tuple[list[np.ndarray], set[int]]:
        """All optimizer steps of a run (arrays of sequence numbers), and after which of them dev is evaluated."""
        steps: list[np.ndarray] = []
        evaluations = []
        for epoch in range(self.task.epochs):
            steps += plan_batches(self.data.train.lengths, self.task, seed, epoch)
            evaluations.append(len(steps))
            if self.run.max_steps is not None and len(steps) >= self.run.max_steps:
                break
        steps = steps[: self.run.max_steps]
        if self.run.eval_every is not None:
            evaluations = range(self.run.eval_every, len(steps), self.run.eval_every)
        return steps, {step for step in evaluations if step < len(steps)} | {len(steps)}

    def batches(self, numbers: np.ndarray) -> tuple[list[FinetuneBatch], list[float]]:
        """The micro-batches of one step over all ranks, and the weight of each.

        Every rank needs a gradient to sum: where a step has fewer sequences than ranks, its first micro-batch comes
        again with weight 0.
        """
        train = self.data.train
        parts = micro_batches(numbers, train.lengths, self.run.micro_tokens, self.ranks)
        idle = max(0, self.ranks - len(parts))
        parts += parts[:1] * idle
        pad_id = self.start.tokenizer.vocab.pad_id
        width = {"precision": self.run.precision, "positions": self.start.config.max_position_embeddings}
        arrays = [
            collate([train.features[i] for i in part], self.task.kind, pad_id, **width) for part in parts
        ]
        return arrays, [1.0] * (len(parts) - idle) + [0.0] * idle

    def open_log(self) -> FinetuneLog:
        """Makes out_dir and starts its logs; an older result.json goes, so that it cannot be taken for this run's."""
        if self.rank == 0:
            make_folder(self.out_dir, "out_dir")
            (self.out_dir / "result.json").unlink(missing_ok=True)
            text = yaml.safe_dump(to_mapping(self.task) | to_mapping(self.run), sort_keys=False, allow_unicode=True)
            (self.out_dir / "task.yaml").write_text(text, encoding="utf-8")
        return FinetuneLog(self.out_dir, self.run.repeat * len(self.plan(self.run.seed)[0]), active=self.rank == 0)


def prepare_job(path: str | Path, overrides: list[str], rank: int = 0, ranks: int = 1) -> Job:
    """Checks everything a user can get wrong and reads all data, before anything is written. Raises ConfigError."""
    _, run = load_finetune(path, overrides)
    precision.check_precision(run.precision, "precision")
    start = read_start(run)
    task, run = load_finetune(path, overrides, size=start.size)
    check_fit(task, start.config)
    logger.info(
        "task %s (%s), encoder %s from %s%s",
        task.name,
        task.kind,
        start.size or "of its own size",
        start.weights or "random weights",
        f", with the settings of sizes.{start.size}" if start.size in task.sizes else "",
    )
    data = prepare_data(task, run, start.tokenizer)
    for note in data.notes:
        logger.info("note: %s", note)
    return Job(task, run, start, data, rank, ranks)
