"""From spill files to shards: a bucket of all blocks becomes one shard; all shards of a task get their
index."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_gen.engine import gc_paused
from data_gen.rows import Rows
from data_gen.spill import Thinning, class_limits, read_buckets, thin
from data_gen.work_folder import write_note
from ernie2.shards import IGNORED, SPLITS, finish_shards, write_shard
from ernie2.tasks import Task


@dataclass(frozen=True)
class Merged:
    """Buckets that have become shards."""

    task: Task
    shards: int


@gc_paused()
def merge_buckets(
    task: Task,
    split: str,
    numbers: range,
    spills: Sequence[Path],
    thinning: Thinning | None,
    folder: Path,
    vocab_size: int,
) -> Merged:
    """Writes the shards of some buckets, and beside each what it holds.

    Args:
        task: The task. split: "train" or "dev". numbers: The buckets, which follow each other. spills: Spill
        files of all blocks of the split that hold examples. thinning: What is left out of too frequent
        classes. folder: Folder of the task's shards, <split>/NNNNN.<field>.npy; beside it, in
        merge_notes(folder), <split>/NNNNN.json. vocab_size: Entries of the vocabulary."""
    for number, rows in zip(numbers, read_buckets(spills, numbers, thinning), strict=True):
        stem, entry = folder / split / f"{number:05d}", None
        if rows is not None:
            entry = write_shard(stem, rows.fields(task, vocab_size))
        write_note(
            merge_notes(folder) / split / f"{stem.name}.json",
            {"shard": entry, "labels": _label_counts(rows, task)},
        )
    return Merged(task, len(numbers))


def merge_notes(folder: Path) -> Path:
    """Where notes on the shards in a folder are: beside it, so that it can be given its name with all notes
    still there. A run that is killed then could not merge again, as the spill files are gone."""
    return folder.with_name("merged")


def _label_counts(rows: Rows | None, task: Task) -> list[int]:
    """Examples of each sentence class, or tokens of each token class."""
    classes = task.sentence_classes or task.token_classes or 0
    if rows is None or not classes:
        return [0] * classes
    labels = rows.labels if task.sentence_classes else rows.token_labels[rows.token_labels != IGNORED]
    return np.bincount(labels, minlength=classes).tolist()


def thinning_of(
    task: Task, labels: dict[str, Sequence[Sequence[int]]], split: str, spills: Sequence[Path]
) -> Thinning | None:
    """What the task's balance and max_per_class leave out of a split; None where it has neither.

    The limits are those of the training split; of the dev split each class keeps the same share, so that both
    are alike.

    Args:
        task: The task.
        labels: "train" and `split` -> counts of the classes in each block.
        split: "train" or "dev".
        spills: Its spill files."""
    if task.balance is None and task.max_per_class is None:
        return None
    counts = {
        split: np.sum([one for one in blocks if one] or [[0] * task.sentence_classes], axis=0, dtype=np.int64)
        for split, blocks in labels.items()
    }
    limits = class_limits(counts["train"], task.balance, task.max_per_class)
    shares = limits / np.maximum(counts["train"], 1)
    return thin(spills, limits if split == "train" else np.ceil(shares * counts[split]).astype(np.int64))


def finish_task(
    task: Task, made: Path, folder: Path, vocab_size: int, blocks: dict[str, Any], origin: dict[str, Any]
) -> dict[str, Any]:
    """Writes the index of a task whose shards are all there and gives the folder its name; returns the index.

    Args:
        task: The task.
        made: Folder of merge_buckets.
        folder: <shards_dir>/<task>.
        vocab_size: Entries of the vocabulary.
        blocks: What the blocks came to: accepted, rejected, notes, dictionary_hits, input_bytes, documents.
        origin: What the shards depend on."""
    shards: dict[str, list[dict]] = {split: [] for split in SPLITS}
    labels = {}
    for split in SPLITS:
        found = [
            json.loads(part.read_text(encoding="utf-8"))
            for part in sorted((merge_notes(made) / split).glob("*.json"))
        ]
        shards[split] = [one["shard"] for one in found if one["shard"] is not None]
        labels[split] = np.sum([one["labels"] for one in found], axis=0, dtype=np.int64).tolist()
    thinned = {
        split: blocks["accepted"][split] - sum(shard["samples"] for shard in shards[split])
        for split in SPLITS
    }
    return finish_shards(
        made,
        folder,
        task,
        vocab_size,
        shards,
        {
            **origin,
            "task_id": task.task_id,
            "generator": task.generator,
            "generator_args": task.generator_args,
            "balance": task.balance,
            "max_per_class": task.max_per_class,
            "statistics": {**blocks, "thinned": thinned, "labels": labels},
        },
    )


def summed(counters: Iterable[dict[str, int]]) -> dict[str, int]:
    """Counts by reason, summed, in alphabetical order."""
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return dict(sorted(total.items()))
