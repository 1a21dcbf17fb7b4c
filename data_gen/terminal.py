"""Text on a terminal: colour where it is wanted, lines as wide as the screen, Chinese characters two columns wide."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

COLOURS = {"head": "1", "soft": "2", "special": "2", "label": "1;32", "entity": "1;35", "phrase": "4;36", "masked": "1;31",
           "random": "1;33", "kept": "1;34", "good": "32", "odd": "33", "bad": "1;31", "": ""}
WHEN = ("auto", "always", "never")
PIPED_WIDTH = 120
"""Columns of a line where the output is no terminal."""


class Painter:
    """Puts text in colour, or leaves it as it is."""

    def __init__(self, colour: bool) -> None:
        self.colour = colour

    @classmethod
    def of(cls, when: str) -> Painter:
        """For standard output. `when`: "always", "never", or "auto": on a terminal, unless NO_COLOR is set."""
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
        return cls(when == "always" or when == "auto" and not plain)

    def __call__(self, text: str, role: str) -> str:
        """`text` in the colour of `role`."""
        return f"\x1b[{COLOURS[role]}m{text}\x1b[0m" if self.colour and COLOURS[role] and text else text


@dataclass(frozen=True)
class Cell:
    """Text that is not broken: parts (text, role), and whether a space stands before it."""

    parts: tuple[tuple[str, str], ...]
    spaced: bool = False


def terminal_width(asked: int | None = None) -> int:
    """Columns to fill: as asked, else those of the terminal, else PIPED_WIDTH; at least 40."""
    if asked is None:
        asked = shutil.get_terminal_size((PIPED_WIDTH, 24)).columns if sys.stdout.isatty() else PIPED_WIDTH
    return max(asked, 40)


def columns(text: str) -> int:
    """Columns that a text takes: two for a wide (CJK) character, none for a combining one."""
    return len(text) if text.isascii() else sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, width: int) -> str:
    """The text, or as much of its beginning as fits into `width` columns with a sign that something is missing."""
    if columns(text) <= width:
        return text
    while columns(text) >= width:
        text = text[:-1]
    return text + "…"


def printable(text: str) -> str:
    """The text with what could move the cursor or cannot be written replaced."""
    return text if text.isprintable() else "".join(
        c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def wrapped(cells: Iterable[Cell], width: int, paint: Painter) -> Iterator[str]:
    """Lines of at most `width` columns, broken between cells; a cell wider than a line is broken between its parts."""
    line, used = "", 0
    for cell in cells:
        texts = [(printable(text), role) for text, role in cell.parts]
        size = sum(columns(text) for text, _ in texts)
        if used and used + cell.spaced + size > width:
            yield line
            line, used = "", 0
        if used and cell.spaced:
            line, used = line + " ", used + 1
        for text, role in texts:
            if used and used + columns(text) > width:
                yield line
                line, used = "", 0
            line, used = line + paint(text, role), used + columns(text)
    if used:
        yield line


def two_rows(cells: Sequence[tuple[str, str, str, bool]], width: int, paint: Painter) -> Iterator[tuple[str, str]]:
    """Pairs of lines whose cells stand under each other.

    Args:
        cells: (upper text, lower text, role of both, whether a space stands before) of each.
        width: Columns of a line.
        paint: Colours.
    """
    upper = lower = ""
    used = 0
    for top, bottom, role, spaced in cells:
        top, bottom = printable(top), printable(bottom)
        size = max(columns(top), columns(bottom))
        if used and used + spaced + size > width:
            yield upper, lower
            upper, lower, used = "", "", 0
        gap = " " * (spaced and used > 0)
        upper += gap + paint(top, role) + " " * (size - columns(top))
        lower += gap + paint(bottom, role) + " " * (size - columns(bottom))
        used += len(gap) + size
    if used:
        yield upper, lower


def table(rows: Sequence[Sequence[object]], left: int = 1) -> Iterator[str]:
    """Rows as aligned columns: the first `left` of them to the left, the others to the right; the first row is the head."""
    texts = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(columns(row[i]) for row in texts) for i in range(len(texts[0]))]
    for row in texts:
        pads = [" " * (width - columns(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [cell + pad if i < left else pad + cell for i, (cell, pad) in enumerate(zip(row, pads, strict=True))]
        yield "  ".join(cells).rstrip()
