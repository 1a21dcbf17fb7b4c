"""An example as text: tokens, segments, units of several words, a draw of masks. For a terminal and a page.

Shapes: T tokens of an example."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from rich.cells import cell_len, set_cell_size

from data_gen.generators import Generator
from ernie2.masking import draw_masks
from ernie2.shards import IGNORED, Example
from ernie2.tokenizer import Tokenizer

MASK_LEVELS = ("basic", "phrase", "entity")
"""Masking levels that are shown; "word" is left out, as both others fall back on words."""


@dataclass(frozen=True)
class Word:
    """A word of an example, tokens [start, stop), and the levels of the units of several words that begin
    with it, end with it and hold it; a special token is a word as well."""

    start: int
    stop: int
    special: bool
    opens: tuple[str, ...]
    closes: tuple[str, ...]
    inside: frozenset[str]


@dataclass(frozen=True)
class Predicted:
    """A token that a draw of masks makes a target: what the model sees in its place (with ##), its text, and
    how: masked ([MASK] is seen), random (another token is) or kept (the truth is)."""

    seen: str
    truth: str
    kind: str


class Readable:
    """An example with the text of its tokens.

    Attributes:
        example: As the shards have it.
        texts: Text of each token, without the ## of pieces; T of them.
        spaced: Whether a space stands before each token, as `Tokenizer.decode` sets them; T of them."""

    def __init__(self, example: Example, tokenizer: Tokenizer) -> None:
        self.example, self.tokenizer = example, tokenizer
        ids, vocab, decode = example.token_ids.tolist(), tokenizer.vocab, tokenizer.decode
        self.texts = [vocab.id_to_token[row][2 * vocab.continuation[row] :] for row in ids]
        pairs = zip(ids, ids[1:])
        self.spaced = [False, *(decode([a, b])[len(decode([a])) :].startswith(" ") for a, b in pairs)]

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.texts)

    def text(self, start: int, stop: int) -> str:
        """Readable text of tokens [start, stop)."""
        return "".join(" " * self.spaced[i] + self.texts[i] for i in range(start, stop)).strip()

    def words(self) -> list[Word]:
        """The words in order, each token in one; without span ids a word is a token with its pieces (##)."""
        vocab, ids, spans = self.tokenizer.vocab, self.example.token_ids, self.example.span_ids
        words = np.cumsum(~vocab.continuation[ids]) if spans is None else spans["word"]
        special = vocab.special[ids] if spans is None else words < 0
        levels = MASK_LEVELS[1:] if spans is not None else ()
        units = sorted((b - a, level, a, b) for level in levels for a, b in self.units(level))
        return [
            Word(
                start,
                stop,
                bool(special[start]),
                tuple(level for _, level, a, _ in reversed(units) if a == start),
                tuple(level for _, level, _, b in units if b == stop),
                frozenset(level for _, level, a, b in units if a <= start and stop <= b),
            )
            for start, stop in runs(np.where(special, -2 - np.arange(len(self)), words))
        ]

    def units(self, level: str) -> list[tuple[int, int]]:
        """[start, stop) of the units of level "phrase" or "entity" that hold several words."""
        words, ids = self.example.span_ids["word"], self.example.span_ids[level]
        return [(a, b) for a, b in runs(ids) if ids[a] >= 0 and words[a] != words[b - 1]]

    def named_segments(self, origins: list[int] | None) -> Iterator[tuple[str, list[Word]]]:
        """(name, words) of each segment, up to its [SEP]; `origins`: as of `original_positions`."""
        number, words = 0, []
        for word in self.words():
            words.append(word)
            if self.example.token_ids[word.stop - 1] == self.tokenizer.vocab.sep_id or word.stop == len(self):
                yield f"segment {number + 1}" + (f" ← {origins[number] + 1}" if origins else ""), words
                number, words = number + 1, []

    def draw(self, level: str, rng: np.random.Generator, mask_prob: float = 0.15) -> dict[int, Predicted]:
        """A draw of masks as the trainer draws them: place of each token to predict -> what is seen."""
        vocab = self.tokenizer.vocab
        ordinary = np.flatnonzero(~vocab.special)
        shown, places = draw_masks(
            self.example, level, vocab.continuation, vocab.mask_id, ordinary, mask_prob, rng
        )
        found = {}
        for place in places.tolist():
            seen, truth = int(shown[place]), int(self.example.token_ids[place])
            kind = "masked" if seen == vocab.mask_id else "kept" if seen == truth else "random"
            found[place] = Predicted(vocab.id_to_token[seen], self.texts[place], kind)
        return found

    def labelled(self) -> dict[int, list[str]]:
        """Token label -> words whose first token has it, each once."""
        labels, words = self.example.token_labels, self.words()
        return {
            label: list(
                dict.fromkeys(self.text(one.start, one.stop) for one in words if labels[one.start] == label)
            )
            for label in np.unique(labels[labels != IGNORED]).tolist()
        }


def runs(ids: np.ndarray) -> Iterator[tuple[int, int]]:
    """(start, stop) of every run of equal ids; ids int (T)."""
    edges = (np.flatnonzero(np.diff(ids)) + 1).tolist()
    yield from zip([0, *edges], [*edges, len(ids)], strict=True)


def original_positions(generator: Generator, decoded: Readable) -> list[int] | None:
    """Where each segment stood before the generator shuffled them, from 0; None where it does not shuffle."""
    label, vocab = decoded.example.sentence_label, decoded.tokenizer.vocab
    segments = int((decoded.example.token_ids == vocab.sep_id).sum())
    order = None if label is None else generator.order(label)
    return list(order) if order is not None and len(order) == segments > 1 else None


def reading_order(origins: list[int]) -> str:
    """The segments, from 1, in the order of the original text."""
    return " ".join(str(origins.index(place) + 1) for place in range(len(origins)))


def introduction(generator: Generator) -> str:
    """What the task is: the first paragraph of its generator's docstring, or its name."""
    text = inspect.getdoc(generator.module) or generator.task.name
    return " ".join(text.partition("\n\n")[0].split())


def printable(text: str) -> str:
    """The text with what could move the cursor or cannot be written replaced."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def cut(text: str, width: int) -> str:
    """The printable text, or its beginning and an ellipsis in `width` columns (two for 中)."""
    text = printable(text)
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"
