"""Packed examples, which are stretches of a block's table of tokens, and the rows that all of a block become at once.

Shapes: N examples, S segments and T tokens of all of them, end to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import TYPE_CHECKING

import numpy as np

from data_gen.rows import ID_SHIFT, NO_LABEL, SENTENCE_SHIFT, SPECIAL, Rows
from data_gen.text.hash_table import ranges
from data_gen.text.tokens import ALL_LEVELS, Tokens
from ernie2.shards import IGNORED, Example

if TYPE_CHECKING:
    from data_gen.packing import Packer

MAX_SENTENCE_ID = 3
"""sentence_type_vocab_size - 1 of the released configurations; segments beyond the fourth share it."""


@dataclass(slots=True)
class Packed:
    """An example as stretches of the block's table; becomes rows in `assemble`.

    Attributes:
        tokens: The table.
        stretches: (first, last) of each segment.
        sentence_label: Class of the whole example, or None.
        token_labels: One array for each segment, or None where none has any.
    """

    tokens: Tokens
    stretches: list[tuple[int, int]]
    sentence_label: int | None
    token_labels: list[np.ndarray | None] | None

    def __len__(self) -> int:
        """Number of tokens with special tokens."""
        return 1 + sum(last - first + 1 for first, last in self.stretches)

    def example(self, packer: Packer) -> Example:
        """The example by itself."""
        return self.examples(packer)[0]

    def examples(self, packer: Packer) -> list[Example]:
        """The example by itself, in a list."""
        return assemble([self], packer).examples()


@dataclass(slots=True)
class PackedMany:
    """Many examples of as many segments each, without token labels, as stretches of the block's table.

    Attributes:
        tokens: The table.
        stretches: int64 (N, segments, 2), first and last of each segment.
        labels: int (N), classes of the examples.
    """

    tokens: Tokens
    stretches: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.labels)

    def examples(self, packer: Packer) -> list[Example]:
        """The examples by themselves."""
        return assemble([self], packer).examples()


def assemble(packed: Sequence[Packed | PackedMany], packer: Packer, order: np.ndarray | None = None) -> Rows:
    """Rows of examples, all of one table, none empty.

    Args:
        packed: What the packer made.
        packer: The packer.
        order: int (N), numbers of the examples in the order wanted. Default: as given.
    """
    tokens = packed[0].tokens
    assert all(one.tokens is tokens for one in packed), "examples of one block belong to one table of tokens"
    edges, segments, labels = map(np.concatenate, zip(*_stretches(packed)))
    token_labels = _token_labels(packed)
    if order is not None:
        opening, labels = np.cumsum(segments) - segments, labels[order]
        segments = segments[order]
        places = ranges(opening[order], segments)
        edges, token_labels = edges[places], token_labels and [token_labels[i] for i in places.tolist()]
    first, sizes = edges[:, 0], edges[:, 1] - edges[:, 0]
    assert sizes.min() > 0, "a segment is empty"
    opening = np.cumsum(segments) - segments  # the first segment of each example
    widths = sizes + 1  # with the [SEP] that closes a segment
    widths[opening] += 1  # and the [CLS] before the first
    ends = np.cumsum(widths)
    at = ends - sizes - 1  # where each segment begins
    # Rows of the table for each token; two rows more, at its end, stand for [CLS] and [SEP].
    source = ranges(first - (at - ends + widths), widths)
    source[at[opening] - 1], source[ends - 1] = len(tokens), len(tokens) + 1
    special = np.array([packer.cls_id << ID_SHIFT | SPECIAL, packer.sep_id << ID_SHIFT | SPECIAL], np.uint32)
    codes = np.append(_table(tokens, packer.unk_id), special).take(source)
    codes[at] |= ALL_LEVELS
    number = np.minimum(np.arange(len(sizes)) - np.repeat(opening, segments), MAX_SENTENCE_ID)
    codes |= np.repeat((number << SENTENCE_SHIFT).astype(np.uint32), widths)
    lengths = np.add.reduceat(widths, opening).astype(np.int32)
    made = None if token_labels is None else _joined_labels(token_labels, sizes, at, len(codes))
    return Rows(lengths, labels.astype(np.int32), codes, made)


def _stretches(packed: Sequence[Packed | PackedMany]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Edges of segments, int64 (S, 2), segments of each example, labels, of what was packed together and what alone."""
    for together, group in groupby(packed, lambda one: isinstance(one, PackedMany)):
        some = list(group)
        for one in some if together else ():
            count, segments, _ = one.stretches.shape
            yield one.stretches.reshape(-1, 2), np.full(count, segments), one.labels
        if not together:
            segments = np.array([len(one.stretches) for one in some])
            edges = chain.from_iterable(chain.from_iterable(one.stretches for one in some))
            yield (np.fromiter(edges, np.int64, 2 * int(segments.sum())).reshape(-1, 2), segments,
                   np.array([NO_LABEL if one.sentence_label is None else one.sentence_label for one in some]))


def _table(tokens: Tokens, unk_id: int | None) -> np.ndarray:
    """uint32 (T): codes of the tokens of a table, see `data_gen.rows`; [UNK] is special."""
    if tokens.codes is None:
        codes = tokens.ids.astype(np.uint32)
        codes <<= ID_SHIFT
        codes |= tokens.begins
        if unk_id is not None:
            codes[np.flatnonzero(tokens.ids == unk_id)] |= SPECIAL
        tokens.codes = codes
    return tokens.codes


def _token_labels(packed: Sequence[Packed | PackedMany]) -> list[np.ndarray | None] | None:
    """Labels of each segment; None where no example has any."""
    if all(isinstance(one, PackedMany) or one.token_labels is None for one in packed):
        return None
    made: list[np.ndarray | None] = []
    for one in packed:
        together = isinstance(one, PackedMany)
        made += [None] * (one.stretches.size // 2) if together else one.token_labels or [None] * len(one.stretches)
    return made


def _joined_labels(labels: Sequence[np.ndarray | None], sizes: np.ndarray, at: np.ndarray, total: int) -> np.ndarray:
    """int8 (total), IGNORED on special tokens and where a segment has no labels."""
    made = np.full(total, IGNORED, np.int8)
    for some, begin, size in zip(labels, at.tolist(), sizes.tolist(), strict=True):
        if some is not None:
            made[begin:begin + size] = some
    return made
