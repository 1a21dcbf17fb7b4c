"""Examples of a block or a shard end to end, in the form they take between the workers: 4 bytes a token.

A token is one number, its code: its id, and in the lowest byte its flags. Flag bits 0-2 tell whether a word,
a phrase, an entity begins there, bit 3 that it is a special token, which is never masked, bits 4-5 are its
sentence id. So id and flags are moved in one go; span ids are counted out of the bits when a shard is
written.

Shapes: N examples, T tokens of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ernie2.shards import IGNORED, LEVELS, Example, task_fields
from ernie2.strict import ConfigError
from ernie2.tasks import Task

SPECIAL, SENTENCE_SHIFT, ID_SHIFT = 8, 4, 8
NO_LABEL = -1

_CHUNK = 1 << 16  # tokens whose spans are counted at a time: what this takes stays in the processor's cache


@dataclass
class Rows:
    """Examples end to end.

    Attributes:
        lengths: int32 (N), tokens of each.
        labels: int32 (N), sentence label or NO_LABEL.
        codes: uint32 (T), with special tokens, see the module.
        token_labels: int8 (T), class or -100; None where there are none."""

    lengths: np.ndarray
    labels: np.ndarray
    codes: np.ndarray
    token_labels: np.ndarray | None

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.lengths)

    @property
    def ids(self) -> np.ndarray:
        """uint32 (T): the token ids alone."""
        return self.codes >> ID_SHIFT

    @property
    def flags(self) -> np.ndarray:
        """uint8 (T): the flags alone."""
        return self.codes.astype(np.uint8)

    def take(self, order: np.ndarray) -> Rows:
        """The examples of these numbers, int (M), in this order."""
        end = np.cumsum(self.lengths, dtype=np.int64)
        first, last = (end - self.lengths)[order], end[order]

        def moved(column: np.ndarray) -> np.ndarray:
            # Joining stretches of bytes takes a half of the time of joining arrays, or of gathering token by
            # token.
            size, view = column.itemsize, memoryview(column).cast("B")
            stretches = map(slice, (size * first).tolist(), (size * last).tolist())
            return np.frombuffer(b"".join(map(view.__getitem__, stretches)), column.dtype)

        return Rows(
            self.lengths[order],
            self.labels[order],
            moved(self.codes),
            None if self.token_labels is None else moved(self.token_labels),
        )

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """Rows end to end. Token labels must be in all parts or in none."""
        if len(parts) == 1:
            return parts[0]
        has_labels = parts[0].token_labels is not None
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("lengths", "labels", "codes")
            ),
            np.concatenate([part.token_labels for part in parts]) if has_labels else None,
        )

    def fields(self, task: Task, vocab_size: int) -> dict[str, np.ndarray]:
        """The arrays of a shard, field -> array, as `ernie2.shards.task_fields` names them."""
        wanted, flags = task_fields(task, vocab_size), self.flags
        edges = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        made = {
            "offsets": edges,
            "token_ids": self.ids,
            "sentence_ids": (flags >> SENTENCE_SHIFT & 3).view(np.int8),
            "token_labels": self.token_labels,
            "sentence_label": self.labels,
        }
        if task.has_masked_lm:
            made |= {
                f"span_ids_{level}": spans
                for level, spans in zip(LEVELS, self._spans(flags, edges), strict=True)
            }
        return {name: made[name].astype(dtype, copy=False) for name, dtype in wanted.items()}

    def _spans(self, flags: np.ndarray, edges: np.ndarray) -> np.ndarray:
        """int16 (levels, T): units of each level, counted from 0 in each example; -1 at the special tokens.

        Args:
            flags: uint8 (T).
            edges: int64 (N + 1), where each example begins, and where the last ends."""
        spans = np.empty((len(LEVELS), len(flags)), np.int16)
        first = 0
        while first < len(self):
            last = max(int(np.searchsorted(edges, edges[first] + _CHUNK, "right")) - 1, first + 1)
            begin, end = int(edges[first]), int(edges[last])
            some, at = flags[begin:end], edges[first:last] - begin
            special = np.flatnonzero(some & SPECIAL)
            for bit, row in enumerate(spans[:, begin:end]):
                row[:] = some >> bit & 1
                totals = np.add.reduceat(row, at)
                row[0] -= 1  # counted from 0
                row[at[1:]] -= totals[:-1]  # and anew in each example
                np.cumsum(row, out=row)
                row[special] = -1
            first = last
        return spans

    def examples(self) -> list[Example]:
        """The examples one by one, with every field that is there."""
        edges, flags = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)]), self.flags
        ids, sentence_ids, spans = (
            self.ids,
            (flags >> SENTENCE_SHIFT & 3).view(np.int8),
            self._spans(flags, edges),
        )
        return [
            Example(
                ids[a:b],
                sentence_ids[a:b],
                {level: spans[row, a:b] for row, level in enumerate(LEVELS)},
                None if self.token_labels is None else self.token_labels[a:b],
                None if label == NO_LABEL else label,
            )
            for a, b, label in zip(edges[:-1].tolist(), edges[1:].tolist(), self.labels.tolist(), strict=True)
        ]


def check_rows(rows: Rows, task: Task, vocab_size: int) -> None:
    """Holds examples against their task's contract. Raises ConfigError naming task, field, got and
    expected."""

    def fail(name: str, got: object, expected: str) -> None:
        raise ConfigError(
            f"task {task.name}: generator {task.generator} made a wrong example: {name}: got {got}, "
            f"expected {expected}"
        )

    if rows.codes.max() >> ID_SHIFT >= vocab_size:
        fail("token_ids", f"ids from {rows.ids.min()} to {rows.ids.max()}", f"0 to {vocab_size - 1}")
    if task.token_classes:
        labels = rows.token_labels
        if labels is None:
            fail("token_labels", "nothing", "a value for each token")
        wrong = (labels != IGNORED) & ((labels < 0) | (labels >= task.token_classes))
        if wrong.any():
            fail(
                "token_labels",
                sorted(set(labels[wrong].tolist())),
                f"0 to {task.token_classes - 1}, or {IGNORED}",
            )
    if task.sentence_classes:
        wrong = (rows.labels < 0) | (rows.labels >= task.sentence_classes)
        if wrong.any():
            got = int(rows.labels[wrong][0])
            fail("sentence_label", None if got == NO_LABEL else got, f"0 to {task.sentence_classes - 1}")
