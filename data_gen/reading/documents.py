"""Raw input as documents and pairs: what a piece of a file holds, decoded, cleaned, and judged fit or not.

Runs in the workers. What cannot be used is left out and counted by reason, with file and line."""

from __future__ import annotations

import bisect
import contextlib
import functools
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from data_gen.reading.cleaning import TextOptions, clean_lines, clean_noted, strip_html
from data_gen.reading.cutting import LONG_DOCUMENT
from data_gen.reading.formats import DOCUMENT_ENDS
from data_gen.reading.pieces import Piece, read_pieces
from data_gen.reading.rejects import RejectCounter
from data_gen.reading.streams import check_encoding, is_utf8
from data_gen.reading.streams import expand_paths as expand_paths

NUL_SHARE = 0.1  # as many zero bytes make a document binary junk though it can be decoded
# Query log: column name -> what its values mean as a class. Relevance 0 is judged irrelevant: neither strong
# nor weak. Class 2 of the paper is a random title, which the generator draws.
LABELS = {"clicked": {"1": 0, "0": 1}, "relevance": {"2": 0, "1": 1, "0": None}}

_LINE_END = re.compile(rb"\n")
_DOC_LINE = re.compile(r"^</?doc\b[^\n]*>$", re.MULTILINE)
_FIELDS = {"pairs": ("query", "title"), "marked_pairs": ("sentence", "sentence", "marker")}

_decode_json = json.JSONDecoder(strict=False).decode
_encoding = functools.lru_cache(check_encoding)


@dataclass(slots=True)
class RawDocument:
    """A document as read. No paragraph is empty or begins or ends with a space."""

    source: str  # file:line, of the first line
    text: str  # paragraphs with a line feed between them


@dataclass(slots=True)
class RawPair:
    """A row of a query log."""

    source: str  # file:line
    query: str
    title: str
    label: int  # 0: strong, 1: weak relevance


@dataclass(slots=True)
class RawMarkedPair:
    """A row of a file of marked pairs."""

    source: str  # file:line
    first: str
    second: str
    marker: str  # the connective that joined the sentences


Raw = RawDocument | RawPair | RawMarkedPair
Parts = list[tuple[int, str]]  # text, behind the number of its first line


def is_dev(item: Raw, dev_share: float) -> bool:
    """Whether an item belongs to the dev split: a hash of its content (of the query alone for a pair, of the
    first sentence for a marked pair) falls below `dev_share`. It is the same in every task and run, and
    copies of a text fall together."""
    field = {RawDocument: "text", RawPair: "query", RawMarkedPair: "first"}[type(item)]
    content = getattr(item, field).encode("utf-8")
    digest = hashlib.blake2b(content, digest_size=8, person=b"ernie2 dev").digest()
    return int.from_bytes(digest, "big") < dev_share * 2.0**64


def parse(piece: Piece, options: TextOptions, rejects: RejectCounter) -> list[Any]:
    """The documents or rows of a piece, in order: a list of RawDocument, RawPair or RawMarkedPair.

    Rejects: `not_<encoding>`, `binary`; of documents `bad_json` (not a JSON object), `no_text` (no field that
    holds text), `empty_document`, `too_short`, `too_long`; of rows `wrong_columns`, `bad_label`,
    `empty_query` and so on. Notes: what cleaning changed (see `cleaning.Note`, and `html`),
    `long_document`, `relevance_0` (judged irrelevant: set aside). Raises ConfigError for an unknown encoding
    or a missing package."""
    parts = _decoded(piece, options.encoding, rejects)
    if piece.kind in ("pairs", "marked_pairs"):
        return _parse_rows(piece, parts, options, rejects)
    if piece.kind == "jsonl":
        return _parse_json(piece, parts, options, rejects)
    return _parse_text(piece, parts, options, rejects)


def read_all(
    paths: Iterable[Any], source: str, options: TextOptions, rejects: RejectCounter
) -> Iterator[Any]:
    """Documents or rows of all files, in the order of the pieces, in this process; see `read_pieces`."""
    for piece in read_pieces(paths, source, options, rejects):
        yield from parse(piece, options, rejects)


def _decoded(piece: Piece, encoding: str, rejects: RejectCounter) -> Parts:
    """The text of a piece; in several parts where some documents are left out."""
    name, data = _encoding(encoding), piece.data
    if name != "utf-8" and is_utf8(data):
        name = "utf-8"  # data.encoding is that of the files that are not UTF-8
    if b"\0" not in data:
        try:
            return [(piece.first_line, data.decode(name))]
        except UnicodeDecodeError:
            pass
    parts, line, start = [], piece.first_line, 0
    ends = DOCUMENT_ENDS.get(piece.kind, _LINE_END).finditer(data)
    for end in itertools.chain((match.end() for match in ends), [len(data)]):
        document = data[start:end]
        problem = _undecodable(document, piece.offset + start, name)
        if problem:
            reason, lines, text = problem
            rejects.add(f"{piece.path}:{line + lines}", reason, text)
        elif document:
            parts.append((line, document.decode(name)))
        line += document.count(b"\n")
        start = end
    return parts


def _undecodable(document: bytes, offset: int, encoding: str) -> tuple[str, int, str] | None:
    """Why a document cannot be used, how many lines before the place, and what is there."""
    try:
        document.decode(encoding)
    except UnicodeDecodeError as error:
        start = error.start
    else:
        junk = document.count(b"\0") > NUL_SHARE * len(document)
        return ("binary", 0, f"zero bytes from byte {offset} on") if junk else None
    lines = document.count(b"\n", 0, start)
    found = f"byte {offset + start} ({document[start : start + 4].hex(' ')})"
    if b"\0" in document:
        return "binary", lines, found
    for other in ("utf-8", "gb18030", "big5"):
        with contextlib.suppress(UnicodeDecodeError):
            document.decode(other)
            return f"not_{encoding}", lines, f"{found}; if the file is {other}, set data.encoding={other}"
    return f"not_{encoding}", lines, found


def _parse_text(
    piece: Piece, parts: Parts, options: TextOptions, rejects: RejectCounter
) -> list[RawDocument]:
    """Documents between blank lines, or between the lines <doc ...> and </doc> (text outside of these too,
    where a long document was cut)."""
    documents, is_wiki = [], piece.kind == "wiki"
    for line, raw in parts:
        text = clean_noted(raw, options, rejects, lambda row, line=line: f"{piece.path}:{line + row}")
        for block in _DOC_LINE.split(text) if is_wiki else text.split("\n\n"):
            if document := block.lstrip("\n"):
                source = f"{piece.path}:{line + len(block) - len(document)}"
                document = _without_blank_lines(document) if is_wiki else document.rstrip("\n")
                documents += _finish(source, document, options, rejects)
            line += block.count("\n") + (0 if is_wiki else 2)
    return documents


def _parse_json(
    piece: Piece, parts: Parts, options: TextOptions, rejects: RejectCounter
) -> list[RawDocument]:
    """Documents of JSON objects, one a line; an empty line is no document. All are cleaned in one go."""
    sources, texts = [], []
    for source, line in _lines(piece, parts):
        try:
            record = _decode_json(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            rejects.add(source, "bad_json", line)
        elif (text := record_text(record)) is None:
            fields = ", ".join(f"{name} ({type(of).__name__})" for name, of in record.items())
            rejects.add(source, "no_text", f"text, or title and content, wanted; the fields are {fields}")
        else:
            sources.append(source)
            texts.append(text)
    firsts = list(itertools.accumulate((text.count("\n") + 1 for text in texts), initial=0))
    text = clean_noted(
        "\n".join(texts), options, rejects, lambda row: sources[bisect.bisect(firsts, row) - 1]
    )
    lines, documents = text.split("\n"), []
    for source, (first, end) in zip(sources, itertools.pairwise(firsts)):
        documents += _finish(source, "\n".join(filter(None, lines[first:end])), options, rejects)
    return documents


def _lines(piece: Piece, parts: Parts) -> Iterator[tuple[str, str]]:
    """Lines that hold anything, behind the source of each."""
    for first_line, text in parts:
        for number, line in enumerate(text.split("\n"), first_line):
            if line and not line.isspace():
                yield f"{piece.path}:{number}", line


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
    return "\n".join(filter(None, (title, description, body)))


def _paragraphs(value: Any) -> str | None:
    """A string, or a list of strings as lines; None for anything else."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = "\n".join(value)
    return value.replace("\r\n", "\n").replace("\r", "\n") if isinstance(value, str) else None


def _finish(source: str, text: str, options: TextOptions, rejects: RejectCounter) -> Iterator[RawDocument]:
    """The last steps on one document; it becomes several where it is very long."""
    if options.strip_html and ("<" in text or "&" in text):
        stripped, count = strip_html(text)
        if count:
            place = min(text.index(mark) for mark in "<&" if mark in text)
            rejects.note(source, "html", text[max(place - 10, 0) :], count)
            text = _without_blank_lines(clean_lines(stripped, options))
    if not text:
        rejects.add(source, "empty_document")
    elif len(text) < options.min_chars:
        rejects.add(source, "too_short", text)
    elif options.max_chars is not None and len(text) > options.max_chars:
        rejects.add(source, "too_long", text)
    else:
        limit = LONG_DOCUMENT if text.isascii() else LONG_DOCUMENT // 3
        while len(text) > limit:
            rejects.note(source, "long_document", text)
            end = next((end for mark in "\n。 " if (end := text.rfind(mark, 1, limit) + 1)), limit)
            yield RawDocument(source, text[:end].strip())
            text = text[end:].lstrip()
        yield RawDocument(source, text)


def _without_blank_lines(text: str) -> str:
    return "\n".join(filter(None, text.split("\n")))


def _parse_rows(piece: Piece, parts: Parts, options: TextOptions, rejects: RejectCounter) -> list[Raw]:
    """The usable rows of a .tsv file. A fourth column `count` is not looked at: rows stay single."""
    columns, names = piece.header.split("\t"), _FIELDS[piece.kind]
    labels, width = LABELS[columns[2]] if piece.kind == "pairs" else {}, len(names)
    sources, found, fields = [], [], []
    for source, line in _lines(piece, parts):
        row = line.split("\t")
        label = row[2].strip() if len(row) > 2 else ""
        if len(row) != len(columns):
            rejects.add(source, "wrong_columns", f"{len(row)} for {len(columns)}: {line}")
        elif labels and label not in labels:
            rejects.add(source, "bad_label", f"{label!r}; use one of {', '.join(sorted(labels))}")
        else:
            sources.append(source)
            found.append(labels.get(label))
            fields += row[:width]
    texts = iter(_clean_fields(fields, options, rejects, lambda field: sources[field // width]))
    rows = []
    for source, label, *row in zip(sources, found, *[texts] * width):
        if not all(row):
            rejects.add(source, f"empty_{names[row.index('')]}", " | ".join(row))
        elif not labels:
            rows.append(RawMarkedPair(source, *row))
        elif label is None:
            rejects.note(source, "relevance_0", " | ".join(row))
        else:
            rows.append(RawPair(source, *row, label))
    return rows


def _clean_fields(
    fields: Sequence[str], options: TextOptions, rejects: RejectCounter, source: Callable[[int], str]
) -> list[str]:
    texts = clean_noted("\n".join(fields), options, rejects, source).split("\n")
    for number, text in enumerate(texts) if options.strip_html else ():
        if "<" in text or "&" in text:
            stripped, count = strip_html(text, " ")
            if count:
                rejects.note(source(number), "html", text, count)
                texts[number] = clean_lines(stripped, options).replace("\n", " ")
    return texts
