"""What the audit measures in the shards of one task, shard by shard, holding counts and a sample alone.

Lengths, sentence labels and sizes are counted over all examples. What needs the tokens (masking units,
unknown tokens, token labels, repeats) is counted over a sample: the first examples of shards spread
evenly over the split. Shards are shuffled when they are made, so that these are a random draw."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from ernie2.batching import TaskStream
from ernie2.config import Recipe
from ernie2.masking import units_of
from ernie2.shards import IGNORED, Example, ShardReader
from ernie2.tasks import Task
from ernie2.tokenizer import Vocab

LEVELS = ("basic", "word", "phrase", "entity")
"""Masking levels, of ernie2.masking."""
KINDS = ("single tokens", "longer words", "phrases of several words", "entities of several words")
"""What a unit can be."""
FIELDS = {"sentence": "sentence_label", "token": "token_labels"}
"""Field of the shards with the labels of a head."""
SAMPLE_TOKENS = 4_000_000
CHUNK_TOKENS = 250_000
SAMPLED_SHARDS = 64
EPOCHS = 8
CONTEXTS = 100_000
"""Most unknown tokens whose neighbours are counted."""


@dataclass
class Units:
    """Units that a draw at one masking level chooses from, and their tokens, by KINDS."""

    units: np.ndarray = field(default_factory=lambda: np.zeros(len(KINDS), np.int64))
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(len(KINDS), np.int64))
    longest_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Token ids of the longest unit."""

    def add(
        self, ids: np.ndarray, words: np.ndarray, level: str, offsets: np.ndarray, token_ids: np.ndarray
    ) -> None:
        """Counts examples in a row.

        Args:
            ids: int (T), units of the level, -1 = never masked.
            words: int (T), units of level word.
            level: One of LEVELS.
            offsets: int (N + 1), where the examples begin and end.
            token_ids: int (T)."""
        begins = np.diff(ids, prepend=-2) != 0
        begins[offsets[:-1][np.diff(offsets) > 0]] = True
        first = np.flatnonzero(begins)
        last = np.append(first[1:], len(ids)) - 1
        first, last = first[ids[first] >= 0], last[ids[first] >= 0]
        lengths = last - first + 1
        kinds = np.where(lengths == 1, 0, 1)
        if level in ("phrase", "entity"):
            kinds[words[first] != words[last]] = LEVELS.index(level)
        self.units += np.bincount(kinds, minlength=len(KINDS))
        self.tokens += np.bincount(kinds, lengths, len(KINDS)).astype(np.int64)
        if len(lengths) and lengths.max() > self.longest:
            longest = int(lengths.argmax())
            self.longest_ids = token_ids[first[longest] : last[longest] + 1].copy()

    @property
    def longest(self) -> int:
        """Tokens of the longest unit."""
        return len(self.longest_ids)

    @property
    def shares(self) -> np.ndarray:
        """float (kinds): share of the masked tokens of each kind that a draw gives in the long run."""
        return self.tokens / max(int(self.tokens.sum()), 1)

    @property
    def mean_length(self) -> float:
        """Tokens of a unit."""
        return float(self.tokens.sum()) / max(int(self.units.sum()), 1)


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
    sampled_tokens: int = 0
    ordinary: int = 0
    """Tokens of the sample but for [CLS] and [SEP]."""
    unknown: int = 0
    contexts: Counter = field(default_factory=Counter)
    """(token id before, token id after) of unknown tokens of the sample -> how often."""
    units: dict[str, Units] = field(default_factory=dict)
    digests: Counter = field(default_factory=Counter)
    """Short digest of an example's tokens -> how often it occurs in the sample."""
    faults: list[str] = field(default_factory=list)
    """What breaks the task's contract."""

    def percentile(self, share: float) -> int:
        """The length that `share` of the examples do not exceed."""
        return int(np.searchsorted(np.cumsum(self.lengths), share * self.samples)) if self.samples else 0

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return len(self.lengths) - 1

    @property
    def unknown_share(self) -> float:
        """Unknown tokens over ordinary tokens."""
        return self.unknown / max(self.ordinary, 1)

    @property
    def repeated_share(self) -> float:
        """Share of the sample's examples that are copies of another of them."""
        return 1 - len(self.digests) / self.sampled if self.sampled else 0.0


def measure(
    reader: ShardReader, task: Task, vocab: Vocab, sample_tokens: int = SAMPLE_TOKENS
) -> SplitMeasure:
    """Measures a split.

    Args:
        reader: The split.
        task: Its task.
        vocab: The vocabulary of the shards.
        sample_tokens: Tokens looked into one by one; the rest is counted by labels and lengths alone."""
    sizes = sum(path.stat().st_size for path in (reader.folder / reader.split).glob("*.npy"))
    labels = {
        loss.head: np.zeros(loss.num_classes, np.int64)
        for loss in task.losses
        if FIELDS.get(loss.head) in reader.index["fields"]
    }
    found = SplitMeasure(len(reader), reader.tokens, sizes, _lengths(reader), labels)
    for shard in range(len(reader.shard_samples) if "sentence" in labels else 0):
        _count_labels(found, "sentence", reader.array(shard, FIELDS["sentence"]), reader.split)
    for shard, start, stop in _sample(reader, sample_tokens):
        _look_into(found, reader, shard, start, stop, vocab)
    return found


def _lengths(reader: ShardReader) -> np.ndarray:
    counts = np.zeros(1, np.int64)
    for shard in range(len(reader.shard_samples)):
        found = np.bincount(np.maximum(np.diff(reader.array(shard, "offsets")), 0))
        counts = np.pad(counts, (0, max(len(found) - len(counts), 0)))
        counts[: len(found)] += found
    return counts


def _count_labels(found: SplitMeasure, head: str, labels: np.ndarray, split: str) -> None:
    classes = len(found.labels[head])
    inside = (labels >= 0) & (labels < classes)
    outside = np.unique(labels[~inside]).tolist()
    if outside:
        found.faults.append(
            f"{split}: {head} labels {', '.join(map(str, outside[:5]))} are none of the {classes} classes"
        )
    found.labels[head] += np.bincount(labels[inside], minlength=classes)


def _sample(reader: ShardReader, tokens: int) -> Iterator[tuple[int, int, int]]:
    """(shard, start, stop): stretches of examples of about CHUNK_TOKENS, of shards spread over the split."""
    count = len(reader.shard_samples)
    shards = (
        np.unique(np.linspace(0, count - 1, min(count, SAMPLED_SHARDS)).round().astype(int)) if count else []
    )
    for left, shard in zip(range(len(shards), 0, -1), shards, strict=True):
        offsets = reader.array(int(shard), "offsets")
        budget, start = -(-tokens // left), 0
        while start < len(offsets) - 1 and offsets[start] < budget:
            reach = min(int(offsets[start]) + CHUNK_TOKENS, budget)
            stop = min(max(int(np.searchsorted(offsets, reach)), start + 1), len(offsets) - 1)
            yield int(shard), start, stop
            start = stop
        tokens -= int(offsets[start])


def _look_into(
    found: SplitMeasure, reader: ShardReader, shard: int, start: int, stop: int, vocab: Vocab
) -> None:
    """Counts examples [start, stop) of a shard."""
    offsets = np.array(reader.array(shard, "offsets")[start : stop + 1])
    first, last, offsets = int(offsets[0]), int(offsets[-1]), offsets - offsets[0]
    ids = np.array(reader.array(shard, "token_ids")[first:last], np.int64)
    if ids.max(initial=0) >= len(vocab) or ids.min(initial=0) < 0:
        found.faults.append(
            f"{reader.split}: token id {ids.max()} is beyond the vocabulary of {len(vocab):,} tokens"
        )
        return
    found.sampled += stop - start
    found.sampled_tokens += len(ids)
    found.ordinary += len(ids) - int(np.isin(ids, (vocab.cls_id, vocab.sep_id)).sum())
    unknown = np.flatnonzero(ids == vocab.unk_id)
    found.unknown += len(unknown)
    if found.contexts.total() < CONTEXTS:
        near = ids[np.clip(unknown - 1, 0, None)], ids[np.clip(unknown + 1, None, len(ids) - 1)]
        found.contexts.update(zip(*(side.tolist() for side in near), strict=True))
    for a, b in zip(offsets.tolist(), offsets[1:].tolist()):
        found.digests[hashlib.blake2b(ids[a:b].tobytes(), digest_size=8).digest()] += 1
    fields = reader.index["fields"]
    if "span_ids_word" in fields:
        spans = {
            level: np.asarray(reader.array(shard, f"span_ids_{level}")[first:last]) for level in LEVELS[1:]
        }
        example = Example(ids, np.zeros(len(ids), np.int8), spans)
        for level in LEVELS:
            units = units_of(example, level, vocab.continuation)
            found.units.setdefault(level, Units()).add(units, spans["word"], level, offsets, ids)
    if "token" in found.labels:
        labels = reader.array(shard, FIELDS["token"])[first:last]
        _count_labels(found, "token", labels[labels != IGNORED], reader.split)


@dataclass(frozen=True)
class Padding:
    """Padding of the trainer's micro-batches, as shares of the tokens that the encoder computes.

    Attributes:
        planned: With samples of like length together, as ernie2.batching plans them.
        longest: If every sample were padded to max_seq_len.
        batches: Micro-batches it was measured on.
        samples: Mean number of samples in one."""

    planned: float
    longest: float
    batches: int
    samples: float


def padding(reader: ShardReader, task: Task, recipe: Recipe, max_seq_len: int) -> Padding | None:
    """Padding of the first pool of batches that the recipe's run would see; None without samples.

    Where a pool would go over the same few samples again and again, EPOCHS times over them tell enough."""
    if not len(reader) or not reader.tokens:
        return None
    pool = min(recipe.batch.pool_batches, -(-EPOCHS * reader.tokens // recipe.batch.tokens))
    recipe = replace(recipe, batch=replace(recipe.batch, pool_batches=pool))
    stream = TaskStream(reader, task, recipe)
    real = computed = samples = batches = 0
    for number in range(pool):
        for group in stream.batch(number):
            lengths = _lengths_of(reader, group)
            real += int(lengths.sum())
            computed += int(lengths.max()) * len(lengths)
            samples, batches = samples + len(lengths), batches + 1
    return Padding(1 - real / computed, 1 - real / (samples * max_seq_len), batches, samples / batches)


def _lengths_of(reader: ShardReader, numbers: np.ndarray) -> np.ndarray:
    """int64 (len(numbers)): tokens of these samples; looks only at their own places in the offsets."""
    shards = np.searchsorted(reader.first_sample, numbers, side="right") - 1
    lengths = np.zeros(len(numbers), np.int64)
    for shard in np.unique(shards):
        mine = shards == shard
        places = numbers[mine] - reader.first_sample[shard]
        offsets = reader.array(int(shard), "offsets")
        lengths[mine] = offsets[places + 1] - offsets[places]
    return lengths
