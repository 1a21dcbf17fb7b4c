"""Held-out evaluation of every task seen so far, beside the level that chance reaches.

Chance is the accuracy of the best guess that has learned nothing but frequencies in the training shards: the
most frequent token (masked_lm), the most frequent class (token), and for a sentence head the most frequent
class among samples with as many segments, because the number of segments can be seen."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import paddle

from ernie2 import distributed
from ernie2.batching import Batch, Collator, dev_batches
from ernie2.config import Recipe
from ernie2.model import ErnieForPretraining
from ernie2.shards import ShardReader
from ernie2.tasks import Task

CHANCE_SHARDS = 2  # training shards that frequencies are counted on


@dataclass
class DevSet:
    """A task's fixed dev batches and the chance level on them."""

    task: Task
    batches: list[Batch]
    chance: dict[str, float]
    """Head -> accuracy of the frequency guess."""
    chance_loss: dict[str, float]
    """Head -> cross-entropy of the training frequencies."""


def load_dev_set(
    train: ShardReader, dev: ShardReader, task: Task, collate: Collator, recipe: Recipe
) -> DevSet:
    """Builds a task's dev batches, with masks at every level the recipe uses, and their chance level."""
    levels = sorted({level for stage in recipe.masking.by_stage() for level in stage})
    batches = dev_batches(
        dev, task, collate, levels, recipe.seed, recipe.runtime.eval_tokens, recipe.batch.micro_tokens
    )
    chance, chance_loss = {}, {}
    for head, (groups, labels, train_groups, train_labels, classes) in _labels(
        train, task, batches, len(collate.vocab)
    ).items():
        chance[head], chance_loss[head] = _frequency_guess(
            groups, labels, train_groups, train_labels, classes
        )
    return DevSet(task, batches, chance, chance_loss)


def evaluate(model: ErnieForPretraining, dev_set: DevSet) -> dict[str, dict[str, float]]:
    """Mean loss and accuracy by head on a dev set. Every rank does its share and gets the whole result."""
    rank, ranks = distributed.rank(), distributed.world_size()
    heads = [loss.head for loss in dev_set.task.losses]
    sums = np.zeros((len(heads), 3))
    model.eval()
    with paddle.no_grad():
        for batch in dev_set.batches[rank::ranks]:
            for head, result in model(batch).items():
                sums[heads.index(head)] += [float(result.loss_sum), float(result.correct), result.count]
    model.train()
    sums = distributed.sum_over_ranks(sums)
    counts = np.maximum(sums[:, 2], 1)
    return {
        "losses": dict(zip(heads, (sums[:, 0] / counts).tolist(), strict=True)),
        "accuracy": dict(zip(heads, (sums[:, 1] / counts).tolist(), strict=True)),
        "chance": dev_set.chance,
        "chance_loss": dev_set.chance_loss,
    }


def _labels(train: ShardReader, task: Task, batches: list[Batch], vocab_size: int) -> dict[str, tuple]:
    """Head -> (groups, labels) of the dev set and of the training shards, and the number of classes."""
    shards = range(min(CHANCE_SHARDS, len(train.shard_samples)))
    found = {}
    if task.has_masked_lm:
        dev = np.concatenate([batch.mlm_labels for batch in batches])
        # Special tokens are never predicted (span -1), so they are not counted either.
        seen = np.concatenate(
            [train.array(i, "token_ids")[train.array(i, "span_ids_word") >= 0] for i in shards]
        )
        found["masked_lm"] = (np.zeros_like(dev), dev, np.zeros_like(seen), seen, vocab_size)
    if task.token_classes:
        dev = np.concatenate([batch.token_labels for batch in batches])
        seen = np.concatenate([train.array(i, "token_labels") for i in shards])
        seen = seen[seen >= 0]
        found["token"] = (np.zeros_like(dev), dev, np.zeros_like(seen), seen, task.token_classes)
    if task.sentence_classes:
        segments = [batch.sentence_ids[np.arange(len(batch.lengths)), batch.lengths - 1] for batch in batches]
        seen_segments = [train.array(i, "sentence_ids")[train.array(i, "offsets")[1:] - 1] for i in shards]
        found["sentence"] = (
            np.concatenate(segments),
            np.concatenate([batch.sentence_labels for batch in batches]),
            np.concatenate(seen_segments),
            np.concatenate([train.array(i, "sentence_label") for i in shards]),
            task.sentence_classes,
        )
    return found


def _frequency_guess(
    groups: np.ndarray, labels: np.ndarray, train_groups: np.ndarray, train_labels: np.ndarray, classes: int
) -> tuple[float, float]:
    """(accuracy of the most frequent training label of each group, cross-entropy of the training
    frequencies)."""
    counts: dict[int, np.ndarray] = defaultdict(
        lambda: np.ones(classes)
    )  # add-one: an unseen label costs, but not infinity
    for group in np.unique(train_groups):
        counts[int(group)] = (
            np.bincount(train_labels[train_groups == group].astype(np.int64), minlength=classes) + 1.0
        )
    correct = loss = 0.0
    for group in np.unique(groups):
        mine, count = labels[groups == group].astype(np.int64), counts[int(group)]
        correct += float((mine == count.argmax()).sum())
        loss -= float(np.log(count / count.sum())[mine].sum())
    return correct / max(len(labels), 1), loss / max(len(labels), 1)
