"""A fine-tuning that is ready to run: task, run, starting point and data, and which sequences each step takes."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ernie2 import cpu, distributed, out_dir, precision
from ernie2.batching import padded_width
from ernie2.checkpoint import checkpoints, newest_whole
from ernie2.disk import file_digest, write_json
from ernie2.finetune.data import Data, FinetuneBatch, collate, micro_batches, plan_batches, prepare_data
from ernie2.finetune.log import FinetuneLog
from ernie2.finetune.model import Start, check_fit, read_start
from ernie2.finetune.readers import find_file
from ernie2.finetune.run import FinetuneRun, load_finetune
from ernie2.finetune.task import FinetuneTask
from ernie2.logs import logger
from ernie2.strict import ConfigError, differences, make_folder, to_mapping
from ernie2.warm_start import WEIGHTS

ORIGIN, ENDED = "origin.json", "runs.json"
RESULTS = (
    ENDED,
    "result.json",
    *(f"{run}{name}" for run in ("", "run_*/") for name in ("best", "predictions", "step_*")),
)
"""What a run leaves in its folder that another must not find there."""
FREE = (
    "out_dir",
    "data_dir",
    "init_from",
    "init_min_match",
    "config_from",
    "vocab_file",
    "log_every",
    "save_every",
    "micro_tokens",
    "sizes",
    "paper",
)
"""Settings that the numbers of a run do not depend on; files and weights are compared by content."""


@dataclass
class Job:
    """Everything that the runs of a repeat share."""

    task: FinetuneTask
    run: FinetuneRun
    start: Start
    data: Data
    rank: int = 0
    ranks: int = 1
    ended: list[dict[str, Any]] = field(default_factory=list)
    """Entries of result.json of the runs that have ended; what earlier starts left is known to rank 0 alone."""
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

    def batches(self, numbers: np.ndarray) -> tuple[list[np.ndarray], list[FinetuneBatch], list[float]]:
        """The micro-batches of one step over all ranks: sequence numbers, arrays and the weight of each.

        Every rank needs a gradient to sum: where there are fewer of them than ranks, the first comes again with weight
        0. A CPU draws dropout for each sequence, so there the batch is cut for all ranks; on a GPU dropout follows the
        micro-batches, which must not depend on the ranks then.
        """
        train = self.data.train
        at_least = self.ranks if cpu.switch.enabled else 1
        parts = micro_batches(numbers, train.lengths, self.run.micro_tokens, at_least)
        idle = max(0, self.ranks - len(parts))
        parts += parts[:1] * idle
        pad_id = self.start.tokenizer.vocab.pad_id
        width = padded_width(
            int(train.lengths[numbers].max()), self.run.precision, self.start.config.max_position_embeddings
        )
        arrays = [
            collate([train.features[i] for i in part], self.task.kind, pad_id, width=width) for part in parts
        ]
        return parts, arrays, [1.0] * (len(parts) - idle) + [0.0] * idle

    @property
    def settings(self) -> str:
        """Everything that was set, as YAML."""
        return yaml.safe_dump(
            to_mapping(self.task) | to_mapping(self.run), sort_keys=False, allow_unicode=True
        )

    def open(self) -> int:
        """Takes hold of out_dir. Returns how many runs of this very job have ended there before.

        Raises:
            ConfigError: another process is at work there, or the folder holds another job's results.
        """
        if self.rank == 0:
            make_folder(self.out_dir, "out_dir")
            out_dir.hold(self.out_dir, "out_dir")
            self._take_over()
            (self.out_dir / "task.yaml").write_text(self.settings, encoding="utf-8")
        ended = int(distributed.sum_over_ranks(np.array([len(self.ended)], np.int64))[0])
        if ended:
            logger.info("%d of %d runs have ended before", ended, self.run.repeat)
        return ended

    def _take_over(self) -> None:
        """Goes on in a folder that this job has begun, refuses one with anything else's results, begins in any other."""
        origin, path = self._origin(), self.out_dir / ORIGIN
        if any(path.exists() for name in RESULTS for path in self.out_dir.glob(name)):
            try:
                before = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                before = {ORIGIN: "none"}
            if changed := differences(before, origin):
                words = "; ".join(
                    f"{key}: {str(old)[:60]} there, {str(new)[:60]} here"
                    for key, (old, new) in changed.items()
                )
                raise ConfigError(
                    f"out_dir: {self.out_dir} holds the results of another run ({words[:600]}); "
                    f"name another out_dir, or remove that folder"
                )
            if (self.out_dir / ENDED).is_file():
                self.ended = json.loads((self.out_dir / ENDED).read_text(encoding="utf-8"))
        for folder in (self.folder(number) for number in range(1, self.run.repeat + 1)):
            folder.mkdir(exist_ok=True)
            out_dir.clean(folder)
        write_json(path, origin)

    def _origin(self) -> dict[str, Any]:
        """What the numbers of a run depend on: settings, and digests of data, weights and vocabulary."""
        settings = {key: value for key, value in yaml.safe_load(self.settings).items() if key not in FREE}
        names = [
            name
            for role in vars(self.task.files).values()
            for name in ([role] if isinstance(role, str) else role or [])
        ]
        found = {name: find_file(self.run.data_dir, name) for name in names}
        weights = self.start.weights and file_digest(self.start.weights / WEIGHTS)
        return {
            "settings": settings,
            "weights": weights,
            "vocabulary": self.start.tokenizer.vocab.digest,
            "encoder": self.start.config.to_json(),
            "files": {name: path and file_digest(path) for name, path in found.items()},
        }

    def newest_checkpoint(self, number: int) -> Path | None:
        """Where run `number` goes on, the same on every rank; None where it begins."""
        found = newest_whole(self.folder(number)) if self.rank == 0 else None
        step = int(distributed.sum_over_ranks(np.array([found[0] if found else 0], np.int64))[0])
        return self.folder(number) / f"step_{step:07d}" if step else None

    def open_log(self, number: int, step: int, sums: dict[str, float] | None) -> FinetuneLog:
        """The log of run `number`, from optimizer step `step` on."""
        steps = len(self.plan(self.seed(number))[0])
        done = (number - 1) * steps + step
        return FinetuneLog(
            self.out_dir, number, step, done, self.run.repeat * steps, sums, active=self.rank == 0
        )

    def end_run(self, entry: dict[str, Any]) -> None:
        """Notes the result of a run: it is not trained again, so its checkpoints go."""
        self.ended.append(entry)
        if self.rank == 0:
            write_json(self.out_dir / ENDED, self.ended)
            for _, folder in checkpoints(self.folder(len(self.ended))):
                out_dir.remove(folder)


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
