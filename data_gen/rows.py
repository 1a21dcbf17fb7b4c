"""Examples of a block or a shard end to end, in the form they take between the workers: 3 bytes a token.

A token is its id and one byte of flags: bits 0-2 tell whether a word, a phrase, an entity begins there, bit 3 that it is a
special token, which is never masked, bits 4-5 are its sentence id. Span ids are counted out of the bits when a shard is
written.

Shapes: N examples, T tokens of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ernie2.shards import IGNORED, LEVELS, Example, task_fields
from ernie2.strict import ConfigError
from ernie2.tasks import Task

SPECIAL, SENTENCE_SHIFT = 8, 4
NO_LABEL = -1


@dataclass
class Rows:
    """Examples end to end.

    Attributes:
        lengths: int32 (N), tokens of each.
        labels: int32 (N), sentence label or NO_LABEL.
        ids: int32 or uint16 (T), with special tokens.
        flags: uint8 (T), see the module.
        token_labels: int8 (T), class or -100; None where there are none.
    """

    lengths: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    flags: np.ndarray
    token_labels: np.ndarray | None

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.lengths)

    def take(self, order: np.ndarray) -> Rows:
        """The examples of these numbers, int (M), in this order."""
        end = np.cumsum(self.lengths, dtype=np.int64)
        stretches = list(zip((end - self.lengths)[order].tolist(), end[order].tolist(), strict=True))

        def moved(column: np.ndarray) -> np.ndarray:
            # Examples are long enough that joining stretches beats gathering token by token.
            return np.concatenate([column[a:b] for a, b in stretches])

        labels = None if self.token_labels is None else moved(self.token_labels)
        both = moved(self.ids.astype(np.uint32) << 8 | self.flags)  # id and flags in one number: one pass for the two
        return Rows(self.lengths[order], self.labels[order], (both >> 8).astype(self.ids.dtype),
                    (both & 255).astype(np.uint8), labels)

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """Rows end to end. Token labels must be in all parts or in none."""
        if len(parts) == 1:
            return parts[0]
        has_labels = parts[0].token_labels is not None
        return cls(*(np.concatenate([getattr(part, name) for part in parts])
                     for name in ("lengths", "labels", "ids", "flags")),
                   np.concatenate([part.token_labels for part in parts]) if has_labels else None)

    def fields(self, task: Task, vocab_size: int) -> dict[str, np.ndarray]:
        """The arrays of a shard, field -> array, as `ernie2.shards.task_fields` names them."""
        edges = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        made = {"offsets": edges, "token_ids": self.ids, "sentence_ids": (self.flags >> SENTENCE_SHIFT & 3).view(np.int8),
                "token_labels": self.token_labels, "sentence_label": self.labels}
        if task.has_masked_lm:
            special = np.flatnonzero(self.flags & SPECIAL)
            made |= {f"span_ids_{level}": self._spans(bit, edges[:-1], special) for bit, level in enumerate(LEVELS)}
        return {name: made[name].astype(dtype, copy=False) for name, dtype in task_fields(task, vocab_size).items()}

    def _spans(self, bit: int, begin: np.ndarray, special: np.ndarray) -> np.ndarray:
        """int16 (T): units of a level, counted from 0 in each example; -1 at the special tokens, int (S) their places."""
        begins = self.flags >> bit & 1
        # The count may wrap around: the difference within an example, which is what is kept, is right all the same.
        units = np.cumsum(begins, dtype=np.int16)
        units -= np.repeat(units[begin] - begins[begin] + np.int16(1), self.lengths)
        units[special] = -1
        return units

    @classmethod
    def of_examples(cls, examples: Sequence[Example], task: Task) -> Rows:
        """Rows of examples that a generator made by hand, with all three levels of spans or none.

        Raises:
            ConfigError: spans that rows cannot hold: a unit that is not one unbroken stretch.
        """
        lengths = np.array([len(one.token_ids) for one in examples], np.int32)
        flags = np.zeros(int(lengths.sum()), np.uint8)
        begin = np.cumsum(lengths) - lengths
        for bit, level in enumerate(LEVELS):
            if examples[0].span_ids is None:
                break
            spans = np.concatenate([one.span_ids[level] for one in examples]).astype(np.int32)
            starts = np.ones(len(spans), bool)
            starts[1:] = spans[1:] != spans[:-1]
            starts[begin] = True
            starts &= spans >= 0
            units = sum(len(np.unique(one.span_ids[level][one.span_ids[level] >= 0])) for one in examples)
            if units != np.count_nonzero(starts):
                raise ConfigError(f"task {task.name}: generator {task.generator} made a wrong example: span_ids[{level}]: a "
                                  f"unit is not one unbroken stretch; build examples with packer.pack")
            flags |= starts.astype(np.uint8) << bit | np.where(spans < 0, SPECIAL, 0).astype(np.uint8)
        flags |= np.concatenate([one.sentence_ids for one in examples]).astype(np.uint8) << SENTENCE_SHIFT
        has_labels = examples[0].token_labels is not None
        return cls(lengths, np.array([NO_LABEL if e.sentence_label is None else e.sentence_label for e in examples], np.int32),
                   np.concatenate([one.token_ids for one in examples]).astype(np.int32), flags,
                   np.concatenate([one.token_labels for one in examples]).astype(np.int8) if has_labels else None)

    def examples(self) -> list[Example]:
        """The examples one by one, with every field that is there."""
        edges = np.cumsum(self.lengths, dtype=np.int64)
        special = np.flatnonzero(self.flags & SPECIAL)
        spans = {level: self._spans(bit, edges - self.lengths, special) for bit, level in enumerate(LEVELS)}
        made = []
        for a, b, label in zip((edges - self.lengths).tolist(), edges.tolist(), self.labels.tolist(), strict=True):
            made.append(Example(self.ids[a:b], (self.flags[a:b] >> SENTENCE_SHIFT & 3).view(np.int8),
                                {level: ids[a:b] for level, ids in spans.items()},
                                None if self.token_labels is None else self.token_labels[a:b],
                                None if label == NO_LABEL else label))
        return made


def check_rows(rows: Rows, task: Task, vocab_size: int) -> None:
    """Holds examples against their task's contract. Raises ConfigError naming task, field, got and expected."""

    def fail(name: str, got: object, expected: str) -> None:
        raise ConfigError(f"task {task.name}: generator {task.generator} made a wrong example: {name}: got {got}, "
                          f"expected {expected}")

    if rows.ids.min() < 0 or rows.ids.max() >= vocab_size:
        fail("token_ids", f"ids from {rows.ids.min()} to {rows.ids.max()}", f"0 to {vocab_size - 1}")
    if task.token_classes:
        labels = rows.token_labels
        if labels is None:
            fail("token_labels", "nothing", "a value for each token")
        wrong = (labels != IGNORED) & ((labels < 0) | (labels >= task.token_classes))
        if wrong.any():
            fail("token_labels", sorted(set(labels[wrong].tolist())), f"0 to {task.token_classes - 1}, or {IGNORED}")
    if task.sentence_classes:
        wrong = (rows.labels < 0) | (rows.labels >= task.sentence_classes)
        if wrong.any():
            got = int(rows.labels[wrong][0])
            fail("sentence_label", None if got == NO_LABEL else got, f"0 to {task.sentence_classes - 1}")
