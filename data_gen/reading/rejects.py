"""What was left out or changed on the way from files to shards: counted by reason, with examples that name
file and line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

TEXT_CHARS = 80  # kept of the text of an example


@dataclass
class RejectCounter:
    """Rejects (input that is left out) and notes (input that is changed, or set aside through no fault of its
    own), counted by reason, with examples: pairs of source (`file:line`, or a file alone) and beginning of
    the text, in order of arrival."""

    keep: int = 100  # examples of each reason
    counts: Counter[str] = field(default_factory=Counter)  # rejected documents, rows, sentences or files
    notes: Counter[str] = field(default_factory=Counter)  # how often something was changed or set aside
    files: Counter[str] = field(default_factory=Counter)  # file -> its rejected documents or rows
    examples: dict[str, list[list[str]]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Number of rejected items."""
        return self.counts.total()

    def add(self, source: str, reason: str, text: str = "") -> None:
        """Counts a rejected item."""
        self.counts[reason] += 1
        self.files[_writable(split_source(source)[0])] += 1
        self._example(source, reason, text)

    def note(self, source: str, reason: str, text: str = "", count: int = 1) -> None:
        """Counts `count` things worth knowing that are no rejection, with one example of them."""
        self.notes[reason] += count
        self._example(source, reason, text)

    def merge(self, other: RejectCounter) -> None:
        """Adds what was counted elsewhere; in the order of the corpus, for the same examples."""
        self.counts.update(other.counts)
        self.notes.update(other.notes)
        self.files.update(other.files)
        for reason, examples in other.examples.items():
            mine = self.examples.setdefault(reason, [])
            mine.extend(examples[: max(self.keep - len(mine), 0)])

    def rows(self) -> Iterator[dict[str, str | int | None]]:
        """The examples of rejects, not of notes; `line` is None for a whole file."""
        for reason in self.counts:
            for source, text in self.examples.get(reason, ()):
                file, line = split_source(source)
                yield {"file": file, "line": line, "reason": reason, "text": text}

    def to_json(self) -> dict:
        """As plain data; `from_json` makes it a counter again."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, data: dict) -> RejectCounter:
        """The counter that `to_json` described."""
        counter = cls(data["keep"])
        counter.merge(cls(**data))
        return counter

    def _example(self, source: str, reason: str, text: str) -> None:
        examples = self.examples.setdefault(reason, [])
        if len(examples) < self.keep:
            # A file name or a text can hold a lone surrogate, which no UTF-8 file takes.
            examples.append([_writable(source), _writable(text[:TEXT_CHARS])])


def split_source(source: str) -> tuple[str, int | None]:
    """`file:line` as (file, line); a source without a line number as (source, None)."""
    file, colon, line = source.rpartition(":")
    return (file, int(line)) if colon and line.isascii() and line.isdigit() else (source, None)


def _writable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
