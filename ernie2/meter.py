"""Sums between two log lines: losses and accuracies by task and head, tokens, time."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from typing import Any

import numpy as np

from ernie2 import distributed
from ernie2.batching import Batch
from ernie2.heads import HeadResult


class Meter:
    """Adds up what train.jsonl reports. `tokens`: real tokens trained before this start, over all ranks."""

    def __init__(self, tokens: int = 0) -> None:
        self.tokens = tokens
        self.restart()

    def restart(self) -> None:
        """Forgets everything since the last log line."""
        self._sums = {}  # (task, head) -> [loss, correct], on the device
        self._counts, self._weights = Counter(), {}  # of the same keys
        self._tokens = defaultdict(lambda: np.zeros(2, np.int64))  # task -> real and padded ones
        self._waited = 0.0
        self._clock = time.monotonic()

    def restart_clock(self) -> None:
        """Leaves the time since the last call (an evaluation, a save) out of the throughput."""
        self._clock = time.monotonic()

    def waited(self, seconds: float) -> None:
        """Time spent waiting for data."""
        self._waited += seconds

    def global_counts(self, batches: list[Batch]) -> dict[tuple[str, str], int]:
        """(task, head) -> predictions of the step over all ranks, at least 1: its losses' denominators."""
        keys = sorted({(batch.task.name, head) for batch in batches for head in batch.counts()})
        tasks = sorted({batch.task.name for batch in batches})
        heads, tokens = np.zeros(len(keys), np.int64), np.zeros((len(tasks), 2), np.int64)
        for batch in batches:
            for head, count in batch.counts().items():
                heads[keys.index((batch.task.name, head))] += count
            tokens[tasks.index(batch.task.name)] += [batch.tokens, batch.padded_tokens]
        values = distributed.sum_over_ranks(np.concatenate([heads, tokens.ravel()]))
        counts = dict(zip(keys, values[: len(keys)].tolist(), strict=True))
        for task, pair in zip(tasks, values[len(keys) :].reshape(-1, 2), strict=True):
            self._tokens[task] += pair
            self.tokens += int(pair[0])
        self._counts.update(counts)
        return {key: max(count, 1) for key, count in counts.items()}

    def add(self, batch: Batch, heads: dict[str, HeadResult]) -> None:
        """Adds a micro-batch's sums; they stay on the device until the next log line."""
        for loss in batch.task.losses:
            key = (batch.task.name, loss.head)
            self._weights[key] = loss.weight
            if loss.head in heads:
                old, new = self._sums.get(key, (0.0, 0.0)), heads[loss.head]
                self._sums[key] = (old[0] + new.loss_sum.detach(), old[1] + new.correct)

    def records(
        self, step: int, stage: int, lr: float, grad_norm: float, loss_scale: float
    ) -> list[dict[str, Any]]:
        """Objects for train.jsonl: one for each task trained since the last log line. Starts a new count."""
        seconds = max(time.monotonic() - self._clock, 1e-9)
        keys = sorted(self._counts)
        local = np.array([[float(value) for value in self._sums.get(key, (0.0, 0.0))] for key in keys])
        counts = np.array([[max(self._counts[key], 1)] for key in keys])
        means = dict(zip(keys, (distributed.sum_over_ranks(local) / counts).tolist(), strict=True))
        all_tokens = sum(int(tokens) for tokens, _ in self._tokens.values())
        records = []
        for task, (tokens, padded) in self._tokens.items():
            heads = {head: means[name, head] for name, head in keys if name == task}
            record = {
                "step": step,
                "stage": stage,
                "task": task,
                "loss": float(sum(mean[0] * self._weights[task, head] for head, mean in heads.items())),
                "losses": {head: mean[0] for head, mean in heads.items()},
                "accuracy": {head: mean[1] for head, mean in heads.items()},
                "lr": lr,
                "tokens": int(tokens),
                "padded_tokens": int(padded),
                "tokens_per_s": all_tokens / seconds,
                "data_wait_share": self._waited / seconds,
                "grad_norm": grad_norm,
                "loss_scale": loss_scale,
            }
            records.append(record)
        self.restart()
        return records
