"""Sums between two log lines: losses and accuracies by task and head, tokens, time. Read only at log
steps."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import numpy as np
import paddle

from ernie2 import distributed
from ernie2.batching import Batch
from ernie2.heads import HeadResult

Key = tuple[str, str]


class Meter:
    """Adds up what train.jsonl reports. `tokens`: real tokens trained before this start, over all ranks."""

    def __init__(self, tokens: int = 0) -> None:
        self.tokens = tokens
        self.restart()

    def restart(self) -> None:
        """Forgets everything since the last log line."""
        self._sums: dict[Key, list[paddle.Tensor]] = {}
        self._counts: dict[Key, int] = defaultdict(int)
        self._weights: dict[Key, float] = {}
        self._tokens: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2, np.int64))
        self._seconds = self._waited = 0.0
        self._clock = time.monotonic()

    def restart_clock(self) -> None:
        """Leaves the time since the last call (an evaluation, a save) out of the throughput."""
        self._clock = time.monotonic()

    def waited(self, seconds: float) -> None:
        """Time spent waiting for data."""
        self._waited += seconds

    def global_counts(self, batches: list[Batch]) -> dict[Key, int]:
        """(task, head) -> predictions of the step over all ranks: the denominators of the step's losses, at
        least 1."""
        keys = sorted({(batch.task.name, head) for batch in batches for head in batch.counts()})
        tasks = sorted({batch.task.name for batch in batches})
        values = np.zeros(len(keys) + 2 * len(tasks), np.int64)
        for batch in batches:
            for head, count in batch.counts().items():
                values[keys.index((batch.task.name, head))] += count
            at = len(keys) + 2 * tasks.index(batch.task.name)
            values[at : at + 2] += [batch.tokens, batch.padded_tokens]
        values = distributed.sum_over_ranks(values)
        for i, task in enumerate(tasks):
            self._tokens[task] += values[len(keys) + 2 * i : len(keys) + 2 * i + 2]
            self.tokens += int(values[len(keys) + 2 * i])
        counts = dict(zip(keys, values[: len(keys)].tolist(), strict=True))
        for key, count in counts.items():
            self._counts[key] += count
        return {key: max(count, 1) for key, count in counts.items()}

    def add(self, batch: Batch, heads: dict[str, HeadResult]) -> None:
        """Adds a micro-batch's sums; they stay on the device until the next log line."""
        for loss in batch.task.losses:
            key = (batch.task.name, loss.head)
            self._weights[key] = loss.weight
            if loss.head in heads:
                result = heads[loss.head]
                pair = [result.loss_sum.detach(), result.correct]
                old = self._sums.get(key)
                self._sums[key] = pair if old is None else [old[0] + pair[0], old[1] + pair[1]]

    def records(
        self, step: int, stage: int, lr: float, grad_norm: float, loss_scale: float
    ) -> list[dict[str, Any]]:
        """Objects for train.jsonl: one for each task trained since the last log line. Starts a new count."""
        self._seconds += time.monotonic() - self._clock
        keys = sorted(self._counts)
        local = np.array(
            [[float(value) for value in self._sums.get(key, (0.0, 0.0))] for key in keys], np.float64
        )
        sums = distributed.sum_over_ranks(local)
        means = {key: sums[i] / max(self._counts[key], 1) for i, key in enumerate(keys)}
        all_tokens = sum(int(tokens[0]) for tokens in self._tokens.values())
        records = []
        for task, (tokens, padded) in self._tokens.items():
            heads = [key for key in keys if key[0] == task]
            records.append(
                {
                    "step": step,
                    "stage": stage,
                    "task": task,
                    "loss": float(sum(means[key][0] * self._weights[key] for key in heads)),
                    "losses": {head: float(means[task, head][0]) for _, head in heads},
                    "accuracy": {head: float(means[task, head][1]) for _, head in heads},
                    "lr": lr,
                    "tokens": int(tokens),
                    "padded_tokens": int(padded),
                    "tokens_per_s": all_tokens / max(self._seconds, 1e-9),
                    "data_wait_share": self._waited / max(self._seconds, 1e-9),
                    "grad_norm": grad_norm,
                    "loss_scale": loss_scale,
                }
            )
        self.restart()
        return records
