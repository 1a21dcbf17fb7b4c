"""Documents and pairs as they are read, before any annotation, and how they are to be read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

__all__ = ["Raw", "RawDocument", "RawMarkedPair", "RawPair", "TextOptions", "is_dev"]


@dataclass(slots=True)
class RawDocument:
    """A document as read: `source` is `file:line` of its first line, `text` its paragraphs with a line feed
    between them.

    No paragraph is empty or begins or ends with a space."""

    source: str
    text: str

    @property
    def paragraphs(self) -> list[str]:
        """The lines of the text."""
        return self.text.split("\n")


@dataclass(slots=True)
class RawPair:
    """A row of a query log: `source` is `file:line`; `label` is 0 (strong) or 1 (weak relevance)."""

    source: str
    query: str
    title: str
    label: int


@dataclass(slots=True)
class RawMarkedPair:
    """A row of a file of marked pairs: `source` is `file:line`; `marker` is the connective that joined the
    sentences."""

    source: str
    first: str
    second: str
    marker: str


Raw = RawDocument | RawPair | RawMarkedPair


@dataclass(frozen=True)
class TextOptions:
    """How text is read and cleaned; small and hashable. The fields are those of `data` in the recipe.

    Attributes:
        encoding: Of the input files.
        strip_html: Left-overs of HTML are taken out.
        normalise_width: Full-width letters and digits become half-width.
        simplify: Traditional characters become simplified ones.
        min_chars: Shorter documents are rejected as `too_short`; characters of the cleaned text.
        max_chars: Longer documents are rejected as `too_long`.
        seed: Decides the order in which many files are read."""

    encoding: str = "utf-8"
    strip_html: bool = True
    normalise_width: bool = False
    simplify: bool = False
    min_chars: int = 0
    max_chars: int | None = None
    seed: int = 0

    @classmethod
    def of(cls, data: Any, seed: int = 0) -> TextOptions:
        """The options that the `data` section of a recipe implies."""
        names = ("encoding", "strip_html", "normalise_width", "simplify", "min_chars", "max_chars")
        return cls(*(getattr(data, name) for name in names), seed)


def is_dev(item: Raw, dev_share: float) -> bool:
    """Whether an item belongs to the dev split: a hash of its content (of the query alone for a pair, of the
    first sentence for a marked pair) falls below `dev_share`. It is the same in every task and run, and
    copies of a text fall together."""
    text = (
        item.text
        if isinstance(item, RawDocument)
        else item.query
        if isinstance(item, RawPair)
        else item.first
    )
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8, person=b"ernie2 dev").digest()
    return int.from_bytes(digest, "big") < dev_share * 2.0**64
