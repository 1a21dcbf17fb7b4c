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
WIDER_LEVELS = ("phrase", "entity")
"""Levels whose units may span several words."""


@dataclass(frozen=True)
class Word:
    """A word of an example: tokens [start, stop); a special token is one as well."""

    start: int
    stop: int
    special: bool
    opens: tuple[str, ...] = ()
    """Levels of the units of several words that begin here, the longest first."""
    closes: tuple[str, ...] = ()
    """Levels of those that end here, the shortest first."""
    inside: frozenset[str] = frozenset()
    """Levels of those that this word is in."""


@dataclass(frozen=True)
class Predicted:
    """A token that a draw of masks makes a target: what the model sees in its place (with ##), its text."""

    seen: str
    truth: str
    kind: str
    """masked ([MASK] is seen), random (another token is), or kept (the truth is)."""


class Readable:
    """An example with the text of its tokens.

    Attributes:
        example: As the shards have it.
        texts: Text of each token, without the ## of pieces; T of them.
        spaced: Whether a space stands before each token, as `Tokenizer.decode` sets them; T of them."""

    def __init__(self, example: Example, tokenizer: Tokenizer) -> None:
        self.example, self.tokenizer = example, tokenizer
        ids = example.token_ids.tolist()
        self.texts = [self._text(row) for row in ids]
        self.spaced = [False, *(self._space(a, b) for a, b in zip(ids, ids[1:]))]

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.texts)

    def text(self, start: int, stop: int) -> str:
        """Readable text of tokens [start, stop)."""
        return "".join(" " * self.spaced[i] + self.texts[i] for i in range(start, stop)).strip()

    def segments(self) -> list[tuple[int, int]]:
        """[start, stop) of each segment, closed by a [SEP]; the first has [CLS], the last what may follow."""
        ends = np.flatnonzero(self.example.token_ids == self.tokenizer.vocab.sep_id) + 1
        edges = [0, *ends.tolist()]
        edges += [len(self)] if edges[-1] < len(self) else []
        return list(zip(edges, edges[1:]))

    def words(self) -> list[Word]:
        """The words in order, each token in one; without span ids a word is a token with its pieces (##)."""
        vocab, ids, spans = self.tokenizer.vocab, self.example.token_ids, self.example.span_ids
        if spans is None:
            units, special = np.cumsum(~vocab.continuation[ids]), vocab.special[ids]
        else:
            units, special = spans["word"], spans["word"] < 0
        wider = {level: self.units(level) for level in WIDER_LEVELS} if spans is not None else {}
        longest = sorted(
            ((stop - start, level, start, stop) for level, found in wider.items() for start, stop in found),
            reverse=True,
        )
        words = []
        for start, stop in runs(np.where(special, -2 - np.arange(len(self)), units)):
            opens = tuple(level for _, level, first, _ in longest if first == start)
            closes = tuple(level for _, level, _, last in reversed(longest) if last == stop)
            inside = frozenset(level for _, level, first, last in longest if first <= start and stop <= last)
            words.append(Word(start, stop, bool(special[start]), opens, closes, inside))
        return words

    def units(self, level: str) -> list[tuple[int, int]]:
        """[start, stop) of the units of a level that hold several words; "phrase" or "entity"."""
        words, ids = self.example.span_ids["word"], self.example.span_ids[level]
        return [(a, b) for a, b in runs(ids) if ids[a] >= 0 and words[a] != words[b - 1]]

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

    def labelled(self, label: int) -> list[str]:
        """Words whose first token has a token label, each once, in order."""
        labels = self.example.token_labels
        found = [self.text(word.start, word.stop) for word in self.words() if labels[word.start] == label]
        return list(dict.fromkeys(found))

    def token_classes(self) -> list[int]:
        """The token labels that occur, in order."""
        labels = self.example.token_labels
        return np.unique(labels[labels != IGNORED]).tolist()

    def _text(self, row: int) -> str:
        token = self.tokenizer.vocab.id_to_token[row]
        return token[2:] if self.tokenizer.vocab.continuation[row] else token

    def _space(self, before: int, row: int) -> bool:
        decode = self.tokenizer.decode
        return decode([before, row])[len(decode([before])) :].startswith(" ")


def runs(ids: np.ndarray) -> Iterator[tuple[int, int]]:
    """(start, stop) of every run of equal ids; ids int (T)."""
    edges = (np.flatnonzero(np.diff(ids)) + 1).tolist()
    yield from zip([0, *edges], [*edges, len(ids)], strict=True)


def original_positions(generator: Generator, decoded: Readable) -> list[int] | None:
    """Where each segment stood before the generator shuffled them, from 0; None where it does not shuffle."""
    label, segments = decoded.example.sentence_label, len(decoded.segments())
    order = None if label is None else generator.order(label)
    return list(order) if order is not None and len(order) == segments > 1 else None


def named_segments(decoded: Readable, origins: list[int] | None) -> Iterator[tuple[str, list[Word]]]:
    """(name, words) of each segment; `origins`: where each stood before they were shuffled."""
    words = decoded.words()
    for number, (start, stop) in enumerate(decoded.segments()):
        name = f"segment {number + 1}" + (f" ← {origins[number] + 1}" if origins else "")
        yield name, [word for word in words if start <= word.start < stop]


def reading_order(origins: list[int]) -> str:
    """The segments, from 1, in the order of the original text."""
    return " ".join(str(origins.index(place) + 1) for place in range(len(origins)))


def introduction(generator: Generator) -> str:
    """What the task is: the first paragraph of its generator's docstring, or its name."""
    text = inspect.getdoc(generator.module) or generator.task.name
    return " ".join(text.partition("\n\n")[0].split())


def printable(text: str) -> str:
    """The text with what could move the cursor or cannot be written replaced."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def cut(text: str, width: int) -> str:
    """The printable text, or its beginning and an ellipsis in `width` columns (two for 中)."""
    text = printable(text)
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"
