"""Raw input as documents and pairs: what a piece of a file holds, decoded, cleaned, and judged fit or not.

Runs in the workers. What cannot be used is left out and counted by reason, with file and line."""

from __future__ import annotations

import bisect
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from data_gen.reading.cleaning import clean_lines, clean_noted, clean_text, strip_html
from data_gen.reading.cutting import LONG_DOCUMENT
from data_gen.reading.decoded import decoded
from data_gen.reading.pieces import Piece, read_pieces
from data_gen.reading.raw import Raw, RawDocument, RawMarkedPair, RawPair, TextOptions, is_dev
from data_gen.reading.rejects import RejectCounter
from data_gen.reading.streams import expand_paths, read_lines
from data_gen.reading.tsv_rows import LABEL_COLUMNS, parse_rows

__all__ = [
    "LABEL_COLUMNS",
    "Raw",
    "RawDocument",
    "RawMarkedPair",
    "RawPair",
    "RejectCounter",
    "TextOptions",
    "clean_text",
    "expand_paths",
    "is_dev",
    "parse",
    "read_all",
    "read_lines",
]

_DOC_LINE = re.compile(r"^</?doc\b[^\n]*>$", re.MULTILINE)


class _Doubled(dict):
    """An object in which a key stands twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    return record if len(record) == len(pairs) else _Doubled(record)


_DECODE_JSON = json.JSONDecoder(strict=False, object_pairs_hook=_object).decode


def parse(piece: Piece, options: TextOptions, rejects: RejectCounter) -> list[Any]:
    """The documents or rows of a piece, in order: a list of RawDocument, RawPair or RawMarkedPair.

    Rejects: `not_<encoding>`, `binary`; of documents `bad_json` (not a JSON object), `doubled_key`, `no_text`
    (no field that holds text), `empty_document`, `too_short`, `too_long`; of rows `wrong_columns`,
    `bad_label`, `empty_query`, `empty_title`, `empty_sentence`, `empty_marker`. Notes: what cleaning changed
    (see `cleaning.Change`, and `html`), `long_document`, `odd_title`, `relevance_0` (judged irrelevant: set
    aside).

    Raises:
        ConfigError: unknown encoding, missing package."""
    parts = decoded(piece, options.encoding, rejects)
    if piece.kind in ("pairs", "marked_pairs"):
        return parse_rows(piece, parts, options, rejects)
    if piece.kind == "jsonl":
        return _parse_json(piece, parts, options, rejects)
    return _parse_text(piece, parts, options, rejects)


def read_all(
    paths: Iterable[Any], source: str, options: TextOptions, rejects: RejectCounter
) -> Iterator[Any]:
    """Documents or rows of all files, in the order of the pieces, in this process. Raises as
    `read_pieces`."""
    for piece in read_pieces(paths, source, options, rejects):
        yield from parse(piece, options, rejects)


def _parse_text(
    piece: Piece, parts: Sequence[tuple[int, str]], options: TextOptions, rejects: RejectCounter
) -> list[RawDocument]:
    """Documents between blank lines, or between the lines <doc ...> and </doc>."""
    documents: list[RawDocument] = []
    split = _at_doc_lines if piece.kind == "wiki" else _at_blank_lines
    for line, raw in parts:
        text = clean_noted(raw, options, rejects, lambda row, line=line: f"{piece.path}:{line + row}")
        for row, document in split(text):
            _finish(f"{piece.path}:{line + row}", document, options, rejects, documents)
    return documents


def _at_blank_lines(text: str) -> Iterator[tuple[int, str]]:
    """Documents, and the index of the first line of each."""
    line = 0
    for block in text.split("\n\n"):
        document = block.lstrip("\n")
        if document:
            yield line + len(block) - len(document), document.rstrip("\n")
        line += block.count("\n") + 2


def _at_doc_lines(text: str) -> Iterator[tuple[int, str]]:
    """Documents (text outside of <doc> too, where a long document was cut), and the index of the first line
    of each."""
    line, start = 0, 0
    for match in itertools.chain(_DOC_LINE.finditer(text), [None]):
        block = text[start : match.start() if match else len(text)]
        document = block.lstrip("\n")
        if document:
            yield line + len(block) - len(document), _without_blank_lines(document)
        line += block.count("\n")
        start = match.end() if match else start


def _parse_json(
    piece: Piece, parts: Sequence[tuple[int, str]], options: TextOptions, rejects: RejectCounter
) -> list[RawDocument]:
    """Documents of JSON objects, one a line; an empty line is no document. All are cleaned in one go."""
    sources, texts, firsts, rows = [], [], [], 0
    for first_line, raw in parts:
        for number, line in enumerate(raw.split("\n"), first_line):
            if not line or line.isspace():
                continue
            source = f"{piece.path}:{number}"
            try:
                record = _DECODE_JSON(line)
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict):
                rejects.add(source, "bad_json", line)
            elif isinstance(record, _Doubled):
                rejects.add(source, "doubled_key", line)
            elif (text := record_text(record)) is None:
                fields = [
                    name + (f" ({type(of).__name__})" if not isinstance(of, str) else "")
                    for name, of in record.items()
                ]
                rejects.add(
                    source,
                    "no_text",
                    f"text, or title and content, wanted; the fields are {', '.join(fields)}",
                )
            else:
                titles = [record.get(name) or "" for name in ("title", "desc")]
                if record.get("text") is None and None in map(_paragraphs, titles):
                    rejects.note(source, "odd_title", line)
                sources.append(source)
                texts.append(text)
                firsts.append(rows)
                rows += text.count("\n") + 1
    if not texts:
        return []
    cleaned = clean_noted(
        "\n".join(texts), options, rejects, lambda row: sources[bisect.bisect(firsts, row) - 1]
    )
    lines, documents = cleaned.split("\n"), []
    for source, first, end in zip(sources, firsts, [*firsts[1:], rows]):
        _finish(source, "\n".join(filter(None, lines[first:end])), options, rejects, documents)
    return documents


def record_text(record: dict[str, Any]) -> str | None:
    """The text of a JSON record, paragraphs between line feeds; None where it has none.

    `text` stands for itself (wiki2019zh, where it begins with the title; WikiExtractor --json). Otherwise
    `title`, `desc` and `content` or `answer` follow each other (WuDao, news2016zh, webtext2019zh,
    baike2018qa), without a `desc` that is a beginning or part of the rest. Each can be a list of paragraphs.
    Other fields do not count."""
    if record.get("text") is not None:
        return _paragraphs(record["text"])
    body = _paragraphs(record.get("content", record.get("answer")))
    if body is None:
        return None
    title, description = (_paragraphs(record.get(name)) or "" for name in ("title", "desc"))
    if description and description.strip().rstrip(".…。")[:40] in f"{title}\n{body}":
        description = ""
    if title and body.split("\n", 1)[0].strip() == title.strip():
        title = ""
    return "\n".join(part for part in (title, description, body) if part)


def _paragraphs(value: Any) -> str | None:
    """A string, or a list of strings as lines; None for anything else."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = "\n".join(value)
    if not isinstance(value, str):
        return None
    return value.replace("\r\n", "\n").replace("\r", "\n") if "\r" in value else value


def _finish(
    source: str, text: str, options: TextOptions, rejects: RejectCounter, documents: list[RawDocument]
) -> None:
    """The last steps on one document, which then joins `documents`, in several parts where it is very
    long."""
    if options.strip_html and ("<" in text or "&" in text):
        stripped, count = strip_html(text)
        if count:
            place = min(text.index(mark) for mark in "<&" if mark in text)
            rejects.note(source, "html", text[max(place - 10, 0) :], count)
            text = _without_blank_lines(clean_lines(stripped, options)[0])
    if not text:
        rejects.add(source, "empty_document")
    elif len(text) < options.min_chars:
        rejects.add(source, "too_short", text)
    elif options.max_chars is not None and len(text) > options.max_chars:
        rejects.add(source, "too_long", text)
    else:
        documents += [RawDocument(source, part) for part in _parts(source, text, rejects)]


def _parts(source: str, text: str, rejects: RejectCounter) -> Iterator[str]:
    """The text, or parts of it of at most LONG_DOCUMENT bytes, cut at line ends where there are any."""
    limit = LONG_DOCUMENT if text.isascii() else LONG_DOCUMENT // 3
    while len(text) > limit:
        rejects.note(source, "long_document", text)
        end = next((end for mark in "\n。 " if (end := text.rfind(mark, 1, limit) + 1)), limit)
        part, text = text[:end].strip(), text[end:].lstrip()
        yield part
    yield text


def _without_blank_lines(text: str) -> str:
    return "\n".join(filter(None, text.split("\n")))
