"""What is measured: sums between two log lines of training, and held-out evaluation beside chance.

Chance is the accuracy of the best guess that has learned nothing but frequencies in the training shards: the
most frequent token (masked_lm), the most frequent class (token), and for a sentence head the most frequent
class among samples with as many segments, because the number of segments can be seen."""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from ernie2 import distributed
from ernie2.batching import Batch, Collator, dev_batches
from ernie2.config import Recipe
from ernie2.heads import HeadResult
from ernie2.model import ErnieForPretraining
from ernie2.shards import ShardReader
from ernie2.tasks import Task

CHANCE_SHARDS = 2  # training shards that frequencies are counted on


@dataclass
class DevSet:
    """A task's fixed dev batches; head -> accuracy and cross-entropy of the frequency guess on them."""

    task: Task
    batches: list[Batch]
    chance: dict[str, float]
    chance_loss: dict[str, float]


def load_dev_set(
    train: ShardReader, dev: ShardReader, task: Task, collate: Collator, recipe: Recipe
) -> DevSet:
    """Builds a task's dev batches, with masks at every level the recipe uses, and their chance level."""
    levels = sorted({level for stage in recipe.masking.by_stage() for level in stage})
    limits = recipe.runtime.eval_tokens, recipe.batch.micro_tokens
    batches = dev_batches(dev, task, collate, levels, recipe.seed, *limits)
    labels = _labels(train, task, batches, len(collate.vocab))
    guesses = {head: _frequency_guess(*arrays) for head, arrays in labels.items()}
    chance, chance_loss = ({head: guess[i] for head, guess in guesses.items()} for i in (0, 1))
    return DevSet(task, batches, chance, chance_loss)


def evaluate(model: ErnieForPretraining, dev_set: DevSet) -> dict[str, dict[str, float]]:
    """Mean loss and accuracy by head on a dev set. Every rank does its share and gets the whole result."""
    heads = [loss.head for loss in dev_set.task.losses]
    sums = np.zeros((len(heads), 3))
    model.eval()
    with paddle.no_grad():
        for batch in dev_set.batches[distributed.rank() :: distributed.world_size()]:
            for head, result in model(batch).items():
                sums[heads.index(head)] += [float(result.loss_sum), float(result.correct), result.count]
    model.train()
    losses, correct, counts = distributed.sum_over_ranks(sums).T
    counts = np.maximum(counts, 1)
    return {
        "losses": dict(zip(heads, (losses / counts).tolist(), strict=True)),
        "accuracy": dict(zip(heads, (correct / counts).tolist(), strict=True)),
        "chance": dev_set.chance,
        "chance_loss": dev_set.chance_loss,
    }


def _labels(train: ShardReader, task: Task, batches: list[Batch], vocab_size: int) -> dict[str, tuple]:
    """Head -> (groups, labels) of the dev set and of the training shards, and the number of classes."""
    shards = range(min(CHANCE_SHARDS, len(train.shard_samples)))
    found = {}

    def add(head: str, dev: list[np.ndarray], seen: list[np.ndarray], classes: int, *groups: Any) -> None:
        dev, seen = np.concatenate(dev), np.concatenate(seen)
        dev_groups, seen_groups = map(np.concatenate, groups) if groups else map(np.zeros_like, (dev, seen))
        found[head] = (dev_groups, dev, seen_groups[seen >= 0], seen[seen >= 0], classes)

    if task.has_masked_lm:
        # Special tokens are never predicted (span -1), so they are not counted either.
        seen = [train.array(i, "token_ids")[train.array(i, "span_ids_word") >= 0] for i in shards]
        add("masked_lm", [batch.mlm_labels for batch in batches], seen, vocab_size)
    if task.token_classes:
        seen = [train.array(i, "token_labels") for i in shards]
        add("token", [batch.token_labels for batch in batches], seen, task.token_classes)
    if task.sentence_classes:
        dev = [batch.sentence_labels for batch in batches]
        segments = [batch.sentence_ids[np.arange(len(batch.lengths)), batch.lengths - 1] for batch in batches]
        seen_segments = [train.array(i, "sentence_ids")[train.array(i, "offsets")[1:] - 1] for i in shards]
        seen = [train.array(i, "sentence_label") for i in shards]
        add("sentence", dev, seen, task.sentence_classes, segments, seen_segments)
    return found


def _frequency_guess(
    groups: np.ndarray, labels: np.ndarray, seen_groups: np.ndarray, seen: np.ndarray, classes: int
) -> tuple[float, float]:
    """(accuracy of the most frequent training label of each group, cross-entropy of the frequencies)."""
    correct = loss = 0.0
    for group in np.unique(groups):
        mine = labels[groups == group].astype(np.int64)
        # Add-one: an unseen label costs, but not infinity.
        counts = np.bincount(seen[seen_groups == group].astype(np.int64), minlength=classes) + 1.0
        correct += float((mine == counts.argmax()).sum())
        loss -= float(np.log(counts / counts.sum())[mine].sum())
    return correct / max(len(labels), 1), loss / max(len(labels), 1)


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
        self.waited = 0.0
        """Seconds spent waiting for data."""
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves the time since the last call (an evaluation, a save) out of the throughput."""
        self._clock = time.monotonic()

    def global_counts(self, batches: list[Batch]) -> dict[tuple[str, str], int]:
        """(task, head) -> predictions of the step over all ranks, at least 1: its losses' denominators."""
        counts, tokens = Counter(), defaultdict(lambda: np.zeros(2, np.int64))
        for batch in batches:
            counts.update({(batch.task.name, head): count for head, count in batch.counts().items()})
            tokens[batch.task.name] += [batch.tokens, batch.padded_tokens]
        keys, tasks = sorted(counts), sorted(tokens)  # the same on every rank
        local = [[counts[key] for key in keys], *(tokens[task] for task in tasks)]
        values = distributed.sum_over_ranks(np.concatenate(local, dtype=np.int64))
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
            loss = sum(mean[0] * self._weights[task, head] for head, mean in heads.items())
            record = {
                "step": step,
                "stage": stage,
                "task": task,
                "loss": float(loss),
                "losses": {head: mean[0] for head, mean in heads.items()},
                "accuracy": {head: mean[1] for head, mean in heads.items()},
                "lr": lr,
                "tokens": int(tokens),
                "padded_tokens": int(padded),
                "tokens_per_s": all_tokens / seconds,
                "data_wait_share": self.waited / seconds,
                "grad_norm": grad_norm,
                "loss_scale": loss_scale,
            }
            records.append(record)
        self.restart()
        return records
