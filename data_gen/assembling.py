"""The rows that all packed examples of a block become at once.

Shapes: N examples, S segments and T tokens of all of them, end to end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_gen.packing import Packed, Packer
from data_gen.rows import ID_SHIFT, SENTENCE_SHIFT, SPECIAL, Rows
from data_gen.text.hash_table import ranges
from data_gen.text.tokens import ALL_LEVELS, Tokens
from ernie2.shards import IGNORED

MAX_SENTENCE_ID = 3
"""sentence_type_vocab_size - 1 of the released configurations; segments beyond the fourth share it."""


def assemble(packed: Sequence[Packed], packer: Packer, order: np.ndarray | None = None) -> Rows:
    """Rows of examples, all of one table, none empty.

    Args:
        packed: What the packer made.
        packer: The packer.
        order: int (N), numbers of the examples in the order wanted. Default: as given.
    """
    tokens = packed[0].tokens
    assert all(one.tokens is tokens for one in packed), "examples of one block belong to one table of tokens"
    edges = np.concatenate([one.stretches.reshape(-1, 2) for one in packed])
    segments = np.repeat([one.stretches.shape[1] for one in packed], [len(one) for one in packed])
    labels = np.concatenate([one.labels for one in packed])
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


def _token_labels(packed: Sequence[Packed]) -> list[np.ndarray | None] | None:
    """Labels of each segment; None where no example has any."""
    if all(one.token_labels is None for one in packed):
        return None
    return [some for one in packed for some in one.token_labels or [None] * (one.stretches.size // 2)]


def _joined_labels(labels: Sequence[np.ndarray | None], sizes: np.ndarray, at: np.ndarray, total: int) -> np.ndarray:
    """int8 (total), IGNORED on special tokens and where a segment has no labels."""
    made = np.full(total, IGNORED, np.int8)
    for some, begin, size in zip(labels, at.tolist(), sizes.tolist(), strict=True):
        if some is not None:
            made[begin:begin + size] = some
    return made
