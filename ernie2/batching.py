"""Token-budget batches: which samples travel together, and how they become arrays. No tensors here.

Letters: B samples of a micro-batch, T tokens of its longest sample, M predicted positions, A labelled tokens.

A task's training samples form one endless stream: epoch after epoch of its shards, each epoch with the shards
in another order. The stream is cut into pools of `pool_batches * tokens` tokens; a pool's samples are sorted
by length and cut into micro-batches of like cost, padding and attention included; those of a batch are drawn
at random among the likest, so that padding is small and ranks do not wait. Global batch n of a task is
therefore a pure function of (recipe, shards, n), whatever the number of ranks or the accumulation."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from queue import Queue
from threading import Thread
from typing import TypeVar

import numpy as np

from ernie2.config import SIZES, Recipe
from ernie2.masking import draw_masks
from ernie2.shards import IGNORED, Example, ShardReader
from ernie2.strict import ConfigError
from ernie2.tasks import Task
from ernie2.tokenizer import Vocab

T = TypeVar("T")

ORDER_STREAM, POOL_STREAM, MASK_STREAM, DEV_STREAM = range(4)  # keep the random streams of a seed apart


@dataclass
class Batch:
    """One micro-batch as arrays."""

    task: Task
    token_ids: np.ndarray
    """int64 (B, T), masked, padded with [PAD]; T as of `padded_width`."""
    sentence_ids: np.ndarray
    """int64 (B, T)."""
    lengths: np.ndarray
    """int64 (B): real tokens of each sample."""
    mlm_positions: np.ndarray
    """int64 (M): predicted positions in the flattened (B * T) tokens."""
    mlm_labels: np.ndarray
    """int64 (M): original token ids there."""
    token_positions: np.ndarray
    """int64 (A): labelled positions in the flattened tokens, for the token head."""
    token_labels: np.ndarray
    """int64 (A)."""
    sentence_labels: np.ndarray
    """int64 (B), or (0) without a sentence head."""

    @property
    def tokens(self) -> int:
        """Real tokens."""
        return int(self.lengths.sum())

    @property
    def padded_tokens(self) -> int:
        """Tokens the encoder computes, padding included."""
        return self.token_ids.size

    def counts(self) -> dict[str, int]:
        """Head -> number of predictions: the denominator of its mean loss."""
        sizes = {"masked_lm": self.mlm_labels, "token": self.token_labels, "sentence": self.sentence_labels}
        return {loss.head: len(sizes[loss.head]) for loss in self.task.losses}


def padded_width(longest: int, precision: str, positions: int) -> int:
    """Tokens that a micro-batch is padded to: those of its longest sample; in half precision a multiple of 8.

    Tensor cores and the attention kernel of a V100 want it so. Never more than the encoder has positions."""
    return longest if precision == "fp32" else max(longest, min(-(-longest // 8) * 8, positions))


def padded(rows: Sequence[np.ndarray], width: int, fill: int = 0) -> np.ndarray:
    """int64 (B, T = width): rows of at most T numbers, each filled up."""
    made = np.full((len(rows), width), fill, np.int64)
    for row, numbers in enumerate(rows):
        made[row, : len(numbers)] = numbers
    return made


def cut_by_tokens(numbers: np.ndarray, lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Cuts sequences, in their order, into runs of at most `tokens` tokens, padding included; at least one
    sequence each.

    Args:
        numbers: sequence numbers.
        lengths: tokens of every sequence there is.
        tokens: limit of a run."""
    runs, first, longest = [], 0, 0
    for i, number in enumerate(numbers):
        longest = max(longest, int(lengths[number]))
        if i > first and (i - first + 1) * longest > tokens:
            runs.append(numbers[first:i])
            first, longest = i, int(lengths[number])
    return [*runs, numbers[first:]] if len(numbers) else []


class Collator:
    """Draws masks and pads. One for a run.

    Args:
        vocab: its special tokens are never drawn.
        mask_prob: share of tokens that are predicted.
        precision, positions: as of `padded_width`."""

    def __init__(self, vocab: Vocab, mask_prob: float, precision: str = "fp32", positions: int = 0) -> None:
        self.vocab, self.mask_prob, self.precision, self.positions = vocab, mask_prob, precision, positions
        self._ordinary_ids = np.flatnonzero(~vocab.special)

    def __call__(
        self, task: Task, examples: list[Example], levels: list[str], rng: np.random.Generator
    ) -> Batch:
        """Masks and pads samples. `levels`: masking levels to draw from, one for each sample."""
        lengths = np.array([len(example.token_ids) for example in examples])
        width = padded_width(int(lengths.max()), self.precision, self.positions)
        token_ids = [example.token_ids for example in examples]
        positions, labels, token_positions, token_labels = [], [], [], []
        for row, example in enumerate(examples):
            if task.has_masked_lm:
                level = levels[int(rng.integers(len(levels)))]
                token_ids[row], chosen = draw_masks(
                    example,
                    level,
                    self.vocab.continuation,
                    self.vocab.mask_id,
                    self._ordinary_ids,
                    self.mask_prob,
                    rng,
                )
                positions.append(chosen + row * width)
                labels.append(example.token_ids[chosen])
            if task.token_classes:
                labelled = np.flatnonzero(example.token_labels != IGNORED)
                token_positions.append(labelled + row * width)
                token_labels.append(example.token_labels[labelled])
        sentence_labels = [example.sentence_label for example in examples] if task.sentence_classes else []
        return Batch(
            task,
            padded(token_ids, width, self.vocab.pad_id),
            padded([e.sentence_ids for e in examples], width),
            lengths,
            _join(positions),
            _join(labels),
            _join(token_positions),
            _join(token_labels),
            np.array(sentence_labels, np.int64),
        )


class TaskStream:
    """Global batches of one task: `batch(n)` -> its micro-batches, each a list of sample numbers."""

    def __init__(self, reader: ShardReader, task: Task, recipe: Recipe) -> None:
        if not len(reader):
            raise ConfigError(
                f"{reader.folder}: no training samples for task {task.name}; give data_gen more text"
            )
        self.reader, self.task = reader, task
        self.seed, self.config, self.size = recipe.seed, recipe.batch, recipe.model.size
        self.precision, self.positions = recipe.runtime.precision, recipe.model.max_position_embeddings
        self._pool = lru_cache(maxsize=2)(self._make_pool)

    def batch(self, number: int) -> list[np.ndarray]:
        """The micro-batches of global batch `number`: arrays of sample numbers."""
        pool, slot = divmod(number, self.config.pool_batches)
        count = self.config.micro_batches
        return self._pool(pool)[slot * count : (slot + 1) * count]

    def micro_batch(
        self, number: int, micro: int, samples: np.ndarray, levels: list[str], collate: Collator
    ) -> Batch:
        """Micro-batch `micro` of global batch `number`, masked anew each time its samples come round."""
        rng = np.random.default_rng([self.seed, MASK_STREAM, self.task.task_id, number, micro])
        return collate(self.task, [self.reader[int(i)] for i in samples], levels, rng)

    def imbalance(self, ranks: int, batches: int) -> tuple[float, float]:
        """Of the first `batches` global batches: cost of the costliest of `ranks` over the mean one's, on
        average, and share of padding."""
        ratios, lengths, real, computed = [], self.reader.lengths(), 0, 0
        for number in range(batches):
            costs = np.zeros(ranks)
            for micro, samples in enumerate(self.batch(number)):
                width = padded_width(int(lengths[samples].max()), self.precision, self.positions)
                costs[micro % ranks] += len(samples) * sample_costs(np.array(width), self.size)
                real, computed = real + lengths[samples].sum(), computed + len(samples) * width
            ratios.append(costs.max() / costs.mean())
        return float(np.mean(ratios)), float(1 - real / computed)

    def _make_pool(self, number: int) -> list[np.ndarray]:
        """All micro-batches of a pool, dealt out at random among those of like cost."""
        size = self.config.pool_batches * self.config.tokens
        samples, lengths = self._stream(number * size, size)
        rng = np.random.default_rng([self.seed, POOL_STREAM, self.task.task_id, number])
        # Random order among equals, so that a pool that spans several epochs does not pair a sample with
        # itself.
        shuffled = rng.permutation(len(samples))
        order = shuffled[np.argsort(lengths[shuffled], kind="stable")]
        # As half precision pads; which samples travel together does not depend on the precision.
        costs = sample_costs(-(-lengths[order] // 8) * 8, self.size)
        edges = even_cuts(costs, self.config.pool_batches * self.config.micro_batches)
        # A sample longer than a micro-batch leaves none for others, which take the longest once more.
        parts = [order[a:b] if b > a else order[-1:] for a, b in zip(edges[:-1], edges[1:], strict=True)]
        whole = np.diff(edges) * costs[np.maximum(edges[1:] - 1, 0)]
        return [samples[parts[i]] for i in self._deal(whole, rng)]

    def _deal(self, costs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The order of a pool's micro-batches: a batch's are drawn at random among those of like cost."""
        batches, count = self.config.pool_batches, self.config.micro_batches
        strata = np.array_split(
            np.argsort(costs, kind="stable").reshape(batches, count), max(batches // 8, 1)
        )
        dealt = np.concatenate([rng.permutation(stratum.ravel()) for stratum in strata])
        return dealt.reshape(batches, count)[rng.permutation(batches)].ravel()

    def _stream(self, start: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples whose first token lies in [start, start + size) of the endless stream; (numbers,
        lengths)."""
        per_epoch, reader = self.reader.tokens, self.reader
        numbers, lengths = [], []
        for epoch in range(start // per_epoch, (start + size - 1) // per_epoch + 1):
            rng = np.random.default_rng([self.seed, ORDER_STREAM, self.task.task_id, epoch])
            order = rng.permutation(len(reader.shard_tokens))
            first = epoch * per_epoch + np.concatenate([[0], np.cumsum(reader.shard_tokens[order])])
            for shard, at in zip(order, first[:-1], strict=True):
                offsets = reader.array(shard, "offsets")
                low, high = np.searchsorted(offsets[:-1], [start - at, start + size - at])
                numbers.append(np.arange(low, high) + reader.first_sample[shard])
                lengths.append(np.diff(offsets[low : high + 1]) if high > low else np.zeros(0, np.int64))
        return np.concatenate(numbers), np.concatenate(lengths)


def sample_costs(widths: np.ndarray, size: str) -> np.ndarray:
    """Operations of samples padded to `widths`, of any shape, in those of a token without its attention.

    For each of its tokens a layer multiplies by 4 H H + 2 H F weights, F the feed-forward width, and twice
    with each token of the sample, H numbers a time."""
    _, hidden, _, inner = SIZES[size]
    return widths * (1 + widths / (2 * hidden + inner))


def even_cuts(costs: np.ndarray, groups: int) -> np.ndarray:
    """Cuts samples into `groups` runs of like cost; int (groups + 1), the edges.

    Args:
        costs: of each sample, the cheapest first. A run is padded: each of its samples costs what its last
            one does. Runs may be empty where a sample costs more than a run."""
    before, edges = np.concatenate([[0], np.cumsum(costs)]), [0]
    for left in range(groups, 0, -1):
        first = edges[-1]
        target = (before[-1] - before[first]) / left
        padded = partial(_padded_cost, costs, first)
        stop = bisect_right(range(len(costs) + 1), target, first + 1, key=padded)
        under, over = padded(stop - 1), padded(min(stop, len(costs)))
        edges.append(stop - 1 if target - under <= over - target else min(stop, len(costs)))
    edges[-1] = len(costs)
    return np.array(edges)


def _padded_cost(costs: np.ndarray, first: int, stop: int) -> float:
    return (stop - first) * costs[stop - 1]


def dev_batches(
    reader: ShardReader,
    task: Task,
    collate: Collator,
    levels: list[str],
    seed: int,
    max_tokens: int,
    micro_tokens: int,
) -> list[Batch]:
    """Fixed batches of a task's dev split, the same at every evaluation: first samples up to max_tokens,
    sorted by length."""
    lengths = reader.lengths()
    kept = int(np.searchsorted(np.cumsum(lengths), max_tokens, side="right")) or min(1, len(lengths))
    groups = cut_by_tokens(np.argsort(lengths[:kept], kind="stable"), lengths, micro_tokens)
    return [
        collate(
            task,
            [reader[int(i)] for i in group],
            levels,
            np.random.default_rng([seed, DEV_STREAM, task.task_id, n]),
        )
        for n, group in enumerate(groups)
    ]


def _join(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)


def prefetch(items: Iterator[T], depth: int = 2) -> Iterator[T]:
    """Runs an iterator in a thread, up to `depth` items ahead. Its exception is raised where the item was
    due."""
    queue: Queue = Queue(depth)
    end = object()

    def work() -> None:
        try:
            for item in items:
                queue.put((item, None))
            queue.put((end, None))
        except BaseException as error:  # noqa: BLE001 - handed to the reader, which raises it
            queue.put((end, error))

    Thread(target=work, daemon=True).start()
    while True:
        item, error = queue.get()
        if error is not None:
            raise error
        if item is end:
            return
        yield item
