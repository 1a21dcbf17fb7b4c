"""Rows of .tsv files: query logs and marked pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from data_gen.reading.cleaning import clean_lines, clean_noted, strip_html
from data_gen.reading.cutting import Piece
from data_gen.reading.raw import RawMarkedPair, RawPair, TextOptions
from data_gen.reading.rejects import RejectCounter

__all__ = ["LABEL_COLUMNS", "parse_rows"]

LABEL_COLUMNS = {"clicked": {"1": 0, "0": 1}, "relevance": {"2": 0, "1": 1, "0": None}}
"""Query log: column name -> what its values mean as a class. Relevance 0 is judged irrelevant: neither strong
nor weak. Class 2 of the paper is a random title, which the generator draws."""

_EMPTY_FIELDS = {
    "pairs": ("empty_query", "empty_title"),
    "marked_pairs": ("empty_sentence", "empty_sentence", "empty_marker"),
}


def parse_rows(
    piece: Piece, parts: Sequence[tuple[int, str]], options: TextOptions, rejects: RejectCounter
) -> list[RawPair] | list[RawMarkedPair]:
    """The usable rows of a piece of a .tsv file.

    Args:
        piece: Kind "pairs" or "marked_pairs". parts: Its text with line numbers (`decoded`). A fourth column
        `count` is not looked at: rows stay single. options: For the cleaning. rejects: Counts
        `wrong_columns`, `bad_label`, `empty_query`, `empty_title`, `empty_sentence`, `empty_marker`, and the
            note `relevance_0`."""
    columns = piece.header.split("\t")
    labels = LABEL_COLUMNS[columns[2]] if piece.kind == "pairs" else {}
    width = 2 if piece.kind == "pairs" else 3
    sources, found, fields = [], [], []
    for first_line, raw in parts:
        for number, line in enumerate(raw.split("\n"), first_line):
            if not line or line.isspace():
                continue
            source, row = f"{piece.path}:{number}", line.split("\t")
            label = row[2].strip() if len(row) > 2 else ""
            if len(row) != len(columns):
                rejects.add(source, "wrong_columns", f"{len(row)} for {len(columns)}: {line}")
            elif piece.kind == "pairs" and label not in labels:
                rejects.add(source, "bad_label", f"{label!r}; use one of {', '.join(sorted(labels))}")
            else:
                sources.append(source)
                found.append(labels.get(label))
                fields += row[:width]
    if not sources:
        return []
    texts = _clean_rows(fields, options, rejects, lambda row: sources[row // width])
    rows = []
    for number, (source, label) in enumerate(zip(sources, found)):
        row = texts[number * width : (number + 1) * width]
        if not all(row):
            rejects.add(source, _EMPTY_FIELDS[piece.kind][row.index("")], " | ".join(row))
        elif piece.kind == "marked_pairs":
            rows.append(RawMarkedPair(source, *row))
        elif label is None:
            rejects.note(source, "relevance_0", " | ".join(row))
        else:
            rows.append(RawPair(source, *row, label))
    return rows


def _clean_rows(
    fields: Sequence[str], options: TextOptions, rejects: RejectCounter, source: Callable[[int], str]
) -> list[str]:
    texts = clean_noted("\n".join(fields), options, rejects, source).split("\n")
    for row, text in enumerate(texts) if options.strip_html else ():
        if "<" in text or "&" in text:
            stripped, count = strip_html(text, " ")
            if count:
                rejects.note(source(row), "html", text, count)
                texts[row] = clean_lines(stripped, options)[0].replace("\n", " ")
    return texts
