"""What the audit measures in the shards of a task: counts over all examples, and a sample looked into.

Lengths and sentence labels are counted over all. What needs the tokens (masking units, unknown tokens, token
labels, repeats) is counted over the first examples of shards spread evenly over the split; shards are
shuffled when they are made, so that these are a random draw."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_gen.generators import Generator
from data_gen.readable import Readable
from ernie2.batching import TaskStream
from ernie2.config import ConfigError, CurriculumConfig, DataConfig, LrConfig, ModelConfig, Recipe
from ernie2.masking import units_of
from ernie2.shards import IGNORED, SPLITS, Example, ShardReader
from ernie2.tasks import Task
from ernie2.tokenizer import Tokenizer, Vocab

LEVELS = ("basic", "word", "phrase", "entity")
"""Masking levels, of ernie2.masking."""
KINDS = ("single tokens", "longer words", "phrases", "entities")
"""What a unit can be; phrases and entities are those of several words."""
SAMPLE_TOKENS = 4_000_000
SAMPLED_SHARDS = 64
EXAMPLES = 3


@dataclass
class SplitMeasure:
    """What one split of one task holds."""

    samples: int
    tokens: int
    bytes: int
    lengths: np.ndarray
    """int64 (longest + 1): examples of each length."""
    labels: dict[str, np.ndarray]
    """Head -> int64 (classes): examples of each class; sampled tokens of each for head "token"."""
    sampled: int = 0
    """Examples of the sample."""
    ordinary: int = 0
    """Tokens of the sample but for [CLS] and [SEP]."""
    unknown: int = 0
    units: dict[str, np.ndarray] = field(default_factory=dict)
    """Masking level -> int64 (2, KINDS): units of the sample by kind, and their tokens."""
    digests: Counter[bytes] = field(default_factory=Counter)
    """Digest of an example's tokens -> how often it occurs in the sample."""

    def percentile(self, share: float) -> int:
        """The length that `share` of the examples do not exceed."""
        return int(np.searchsorted(np.cumsum(self.lengths), share * self.samples)) if self.samples else 0

    @property
    def unknown_share(self) -> float:
        """[UNK] among the ordinary tokens."""
        return self.unknown / max(self.ordinary, 1)

    @property
    def repeated_share(self) -> float:
        """Share of the sample's examples that are copies of another of them."""
        return 1 - len(self.digests) / self.sampled if self.sampled else 0.0

    def masked_shares(self, level: str) -> np.ndarray:
        """float (KINDS): share of each kind among the tokens that draws at a level mask."""
        tokens = self.units[level][1]
        return tokens / max(int(tokens.sum()), 1)


def measure(
    reader: ShardReader, task: Task, vocab: Vocab, sample_tokens: int = SAMPLE_TOKENS
) -> SplitMeasure:
    """Measures a split, its tokens in a sample of about `sample_tokens`.

    Raises ConfigError where it holds what the task cannot have."""
    lengths = reader.lengths()
    if lengths.min(initial=1) < 1:
        raise ConfigError(f"{reader.folder / reader.split}: offsets do not rise; make these shards again")
    size = sum(path.stat().st_size for path in (reader.folder / reader.split).glob("*.npy"))
    labels = {one.head: np.zeros(one.num_classes, np.int64) for one in task.losses if one.num_classes}
    found = SplitMeasure(len(reader), reader.tokens, size, np.bincount(lengths, minlength=1), labels)
    count = len(reader.shard_samples)
    if "sentence" in labels:
        for shard in range(count):
            _count_labels(found, "sentence", reader.array(shard, "sentence_label"), reader)
    shards = np.unique(np.linspace(0, count - 1, min(count, SAMPLED_SHARDS)).round().astype(int))
    for shard in shards.tolist() if count else ():
        stop = np.searchsorted(reader.array(shard, "offsets"), -(-sample_tokens // len(shards)))
        _look_into(found, reader, shard, int(min(stop, reader.shard_samples[shard])), vocab)
    return found


def _count_labels(found: SplitMeasure, head: str, labels: np.ndarray, reader: ShardReader) -> None:
    classes = len(found.labels[head])
    outside = np.unique(labels[(labels < 0) | (labels >= classes)])
    if len(outside):
        raise ConfigError(
            f"{reader.folder / reader.split}: {head} labels {', '.join(map(str, outside[:5]))} are none of "
            f"the {classes} classes; make these shards again"
        )
    found.labels[head] += np.bincount(labels, minlength=classes)


def _look_into(found: SplitMeasure, reader: ShardReader, shard: int, stop: int, vocab: Vocab) -> None:
    """Counts the first `stop` examples of a shard."""
    offsets = reader.array(shard, "offsets")[: stop + 1]
    fields = {name: reader.array(shard, name)[: offsets[-1]] for name in reader.index["fields"]}
    ids = fields["token_ids"].astype(np.int64)
    if ids.max(initial=0) >= len(vocab) or ids.min(initial=0) < 0:
        raise ConfigError(
            f"{reader.folder / reader.split}: token id {ids.max()} is beyond the vocabulary of "
            f"{len(vocab):,} tokens; make these shards again"
        )
    found.sampled += stop
    found.ordinary += int((~np.isin(ids, (vocab.cls_id, vocab.sep_id))).sum())
    found.unknown += int((ids == vocab.unk_id).sum())
    for a, b in zip(offsets.tolist(), offsets[1:].tolist()):
        found.digests[hashlib.blake2b(ids[a:b].tobytes(), digest_size=8).digest()] += 1
    if "span_ids_word" in fields:
        spans = {level: fields[f"span_ids_{level}"] for level in LEVELS[1:]}
        example = Example(ids, np.zeros(len(ids), np.int8), spans)
        for level in LEVELS:
            units = count_units(units_of(example, level, vocab.continuation), spans["word"], level, offsets)
            found.units[level] = found.units.get(level, 0) + units
    if "token" in found.labels:
        labels = fields["token_labels"]
        _count_labels(found, "token", labels[labels != IGNORED], reader)


def count_units(units: np.ndarray, words: np.ndarray, level: str, offsets: np.ndarray) -> np.ndarray:
    """Counts the units that a draw at one masking level chooses from.

    Args:
        units: int (T), units of the level in examples one after the other, -1 = never masked.
        words: int (T), units of level word.
        level: One of LEVELS.
        offsets: int (N + 1), where the examples begin and end; none is empty.

    Returns:
        int64 (2, KINDS): units by kind, and their tokens."""
    begins = np.diff(units, prepend=-2) != 0
    begins[offsets[:-1]] = True
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(units)) - 1
    first, last = first[units[first] >= 0], last[units[first] >= 0]
    kinds = np.where(first == last, 0, 1)
    if level in ("phrase", "entity"):
        kinds[words[first] != words[last]] = LEVELS.index(level)
    counts = np.bincount(kinds, minlength=len(KINDS)), np.bincount(kinds, last - first + 1, len(KINDS))
    return np.stack(counts).astype(np.int64)


@dataclass(frozen=True)
class Padding:
    """Padding as shares of the tokens that the encoder computes: in the planned micro-batches, and if every
    sample were padded to max_seq_len."""

    planned: float
    longest: float
    micro_tokens: int


def padding(reader: ShardReader, task: Task, recipe: Recipe, max_seq_len: int) -> Padding | None:
    """Padding of the first pool of batches that the recipe's run would see, at most 8 epochs; None without
    samples."""
    if not len(reader):
        return None
    pool = min(recipe.batch.pool_batches, -(-8 * reader.tokens // recipe.batch.tokens))
    stream = TaskStream(reader, task, replace(recipe, batch=replace(recipe.batch, pool_batches=pool)))
    _, planned = stream.imbalance(1, pool)
    return Padding(planned, 1 - reader.tokens / (len(reader) * max_seq_len), recipe.batch.micro_tokens)


def default_recipe(tasks: Sequence[str]) -> Recipe:
    """A recipe of default figures, for shards whose own is not named."""
    stages = CurriculumConfig([[name] for name in tasks], 1)
    return Recipe("defaults", "", ModelConfig(""), DataConfig(""), stages, LrConfig(1e-4))


@dataclass(frozen=True)
class ClassCount:
    """A class of a head: its examples (or tokens) and their shares, of train and dev."""

    label: int
    name: str
    counts: tuple[int, int]
    shares: tuple[float, float]


@dataclass
class TaskAudit:
    """What is known of one task's shards; where they cannot be measured, nothing but `bad`.

    Attributes:
        rejects: (task or None, reason) -> examples, of rejects.jsonl.
        examples: Some examples, decoded.
        bad, odd, small: What makes the audit fail, what to look at, what comes of little text."""

    name: str
    index: dict[str, Any] = field(default_factory=dict)
    generator: Generator | None = None
    tokenizer: Tokenizer | None = None
    splits: dict[str, SplitMeasure] = field(default_factory=dict)
    padding: Padding | None = None
    rejects: dict[tuple[str | None, str], list[str]] = field(default_factory=dict)
    examples: list[Readable] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    small: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """bad, odd or good."""
        return "bad" if self.bad else "odd" if self.odd else "good"

    @property
    def statistics(self) -> dict[str, Any]:
        """What the generation counted; empty for shards from elsewhere."""
        return self.index.get("statistics") or {}

    def classes(self, head: str) -> list[ClassCount]:
        """The classes of a head in order, without those that a generator calls "not used"."""
        both = [self.splits[split].labels[head] for split in SPLITS]
        totals, found = [max(int(counts.sum()), 1) for counts in both], []
        for label, counts in enumerate(np.stack(both, 1).tolist()):
            if "not used" not in (name := self.generator.describe(label)):
                shares = tuple(count / total for count, total in zip(counts, totals))
                found.append(ClassCount(label, name, tuple(counts), shares))
        return found

    def histogram(self, bars: int = 32) -> list[tuple[str, float, float]]:
        """(lengths, share of train, share of dev) of each bar."""
        lengths = [self.splits[split].lengths for split in SPLITS]
        most = max(self.index.get("max_seq_len") or 1, *(len(one) - 1 for one in lengths))
        edges = np.unique(np.linspace(0, most, bars + 1).round().astype(int))
        shares = []
        for one in lengths:
            counts = np.pad(one, (0, most + 1 - len(one)))
            shares.append(np.add.reduceat(counts, edges[:-1] + 1) / max(one.sum(), 1))
        return [(f"{a + 1} to {b}", *pair) for a, b, *pair in zip(edges, edges[1:], *shares)]

    def expectation(self, head: str) -> tuple[float | None, float | None]:
        """Share of each class if all were equal, and the largest that the task's YAML allows; None where
        nothing evens the classes out."""
        if head == "token" or "imported" in self.index:
            return None, None
        task, counts = self.generator.task, np.array([one.counts[0] for one in self.classes(head)])
        total, limits = max(int(counts.sum()), 1), []
        if task.balance is not None and counts.any():
            limits.append(task.balance * float(np.median(counts[counts > 0])) / total)
        if task.max_per_class is not None:
            limits.append(task.max_per_class / total)
        return 1 / max(len(counts), 1), min(limits, default=None)


def examine(found: TaskAudit, folder: Path, recipe: Recipe, digests: bool = False) -> None:
    """Measures the shards in <shards_dir>/<task>, whose index, generator and tokenizer are known.

    The recipe's batch settings plan the batches; `digests`: every byte is compared with index.json. Raises
    ConfigError where files are missing or damaged, or hold what the task cannot have."""
    task, vocab = found.generator.task, found.tokenizer.vocab
    readers = {split: ShardReader(folder, split, task) for split in SPLITS}
    if digests:
        _compare_digests(folder, found.index)
    splits = {split: measure(reader, task, vocab) for split, reader in readers.items()}
    longest = found.index.get("max_seq_len") or len(splits["train"].lengths) - 1
    found.padding = padding(readers["train"], task, recipe, longest)
    shards, own = folder.absolute().parent, f"{found.name}.rejects.jsonl"
    found.rejects = read_rejects(shards / (own if "imported" in found.index else "rejects.jsonl"))
    found.examples = [Readable(one, found.tokenizer) for one in telling_examples(readers["train"])]
    found.splits = splits


def _compare_digests(folder: Path, index: dict[str, Any]) -> None:
    for split, shards in index["shards"].items():
        for shard in shards:
            digest = hashlib.sha256()
            for name in index["fields"]:
                digest.update((folder / split / f"{shard['name']}.{name}.npy").read_bytes())
            if digest.hexdigest() != shard["digest"]:
                raise ConfigError(
                    f"{folder / split / shard['name']}.*.npy: not the bytes that were written (sha256 is "
                    "another than in index.json); copy or make them again"
                )


def read_rejects(path: Path) -> dict[tuple[str | None, str], list[str]]:
    """(task, or None for the reading of the input; reason) -> `file:line: text` of the first few, from rows
    {task, file, line, reason, text}. Other lines are passed over: nothing depends on this file."""
    found: dict[tuple[str | None, str], list[str]] = {}
    for line in path.open(encoding="utf-8", errors="replace") if path.is_file() else ():
        try:
            row = json.loads(line)
            examples = found.setdefault((row.get("task"), row["reason"]), [])
        except (ValueError, RecursionError, AttributeError, LookupError, TypeError):
            continue
        place = ":".join(str(row[key]) for key in ("file", "line") if row.get(key) is not None)
        text = ": ".join(filter(None, (place, str(row.get("text") or ""))))
        if len(examples) < 3 and text not in examples:
            examples.append(text)
    return found


def telling_examples(reader: ShardReader) -> list[Example]:
    """EXAMPLES of the first 400: of different classes, with a phrase or an entity, not too long."""

    def dull(example: Example) -> int:
        spans = example.span_ids or {}
        plain = all(np.array_equal(spans["word"], units) for units in spans.values())
        return 2 * (len(example.token_ids) > 160) + plain

    examples = sorted((reader[i] for i in range(min(len(reader), 400))), key=dull)
    by_class: dict[int | None, Example] = {}
    for example in examples:
        by_class.setdefault(example.sentence_label, example)
    chosen = list(by_class.values())[:EXAMPLES]
    rest = [example for example in examples if not any(example is one for one in chosen)]
    return chosen + rest[: EXAMPLES - len(chosen)]
