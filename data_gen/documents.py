"""Corpus readers: files of raw text to documents, query logs to pairs.

What a user can put right stops the run with file and line (ConfigError); what can be left out is left out, counted by
reason in a `RejectCounter` and reported.
"""

from __future__ import annotations

import codecs
import glob
import gzip
import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_gen.sentences import split_sentences
from ernie2.config import ConfigError

__all__ = ["RawDocument", "RawPair", "RejectCounter", "clean_text", "expand_paths", "is_dev", "read_documents",
           "read_lines", "read_pairs", "split_sentences"]

DOCUMENT_SUFFIXES = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz")
# Query log: column name -> what its values mean as a class. Relevance 0 is judged irrelevant: neither strong nor weak.
# Class 2 of the paper is a random title, which the generator draws.
LABEL_COLUMNS = {"clicked": {"1": 0, "0": 1}, "relevance": {"2": 0, "1": 1, "0": None}}

_BREAKS = re.compile("[\t\x0b\x0c\x1c-\x1f\x85\u2028\u2029]+")
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x9f\u200b\ufeff\ufffd\ud800-\udfff]+")
_UNCLEAN = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u2028\u2029\ufeff\ufffd\ud800-\udfff]")


@dataclass(slots=True)
class RawDocument:
    """A document as read: `source` is `file:line` of its first line, `paragraphs` are its lines; none is empty."""

    source: str
    paragraphs: list[str]


@dataclass(slots=True)
class RawPair:
    """A row of a query log: `source` is `file:line`; `label` is 0 (strong) or 1 (weak relevance)."""

    source: str
    query: str
    title: str
    label: int


@dataclass
class RejectCounter:
    """What was left out, by reason, with a few examples of each.

    Attributes:
        counts: reason -> how many documents, rows or sentences were rejected.
        notes: reason -> how often something was changed or set aside that is no fault of the data (a cut sentence, a
            relevance grade that has no class). Not part of `total`.
        examples: reason -> up to `keep` strings `source: beginning of the text`.
    """

    keep: int = 3
    counts: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Number of rejected items."""
        return sum(self.counts.values())

    def add(self, source: str, reason: str, text: str = "") -> None:
        """Counts a rejected item."""
        self.counts[reason] += 1
        self._example(source, reason, text)

    def note(self, source: str, reason: str, text: str = "") -> None:
        """Counts something worth knowing that is no rejection."""
        self.notes[reason] += 1
        self._example(source, reason, text)

    def merge(self, other: RejectCounter) -> None:
        """Adds what another process counted."""
        self.counts.update(other.counts)
        self.notes.update(other.notes)
        for reason, examples in other.examples.items():
            mine = self.examples.setdefault(reason, [])
            mine.extend(examples[:self.keep - len(mine)])

    def _example(self, source: str, reason: str, text: str) -> None:
        examples = self.examples.setdefault(reason, [])
        if len(examples) < self.keep:
            examples.append(f"{source}: {text[:60]}" if text else source)


def expand_paths(patterns: Iterable[str | Path], what: str = "corpus") -> list[Path]:
    """Files that paths, globs (`**` too) and folders name: sorted within a pattern, each once.

    Args:
        patterns: As the user gave them. A folder stands for its document files.
        what: What they are, for messages.

    Raises:
        ConfigError: no pattern, a file that does not exist, a glob or folder without a file.
    """
    files: dict[Path, None] = {}
    patterns = [patterns] if isinstance(patterns, (str, Path)) else list(patterns)
    if not patterns:
        raise ConfigError(f"no {what} is named; give at least one file")
    for pattern in map(str, patterns):
        if Path(pattern).is_dir():
            found = [str(p) for p in Path(pattern).iterdir() if p.name.endswith(DOCUMENT_SUFFIXES)]
        elif Path(pattern).exists():
            found = [pattern]
        else:
            found = [p for p in glob.glob(pattern, recursive=True) if not Path(p).is_dir()]
        if not found:
            raise ConfigError(f"{what} {pattern}: no such file; check the path (relative to the folder you run in)")
        files.update((Path(p), None) for p in sorted(found))
    return list(files)


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Lines of a text file, plain or .gz, with their numbers from 1; without line ends, byte-order mark or CR.

    Raises:
        ConfigError: cannot be read, damaged gzip, not in `encoding` (names line and byte offset), unknown encoding.
    """
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise ConfigError(f"encoding {encoding!r} is unknown; use utf-8, gb18030 or big5") from None
    if name.startswith(("utf-16", "utf-32")):
        raise ConfigError(f"{path}: {encoding} is not supported; convert it to UTF-8 (iconv -f {encoding} -t utf-8)")
    offset = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            for number, line in enumerate(file, 1):
                text = _decode(line, name, path, number, offset)
                offset += len(line)
                yield number, text.removeprefix("\ufeff").rstrip("\r\n")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ConfigError(f"{path}: damaged gzip file ({error}); copy it again") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from None


def _decode(line: bytes, encoding: str, path: Path, number: int, offset: int) -> str:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        bad = line[error.start:error.start + 4].hex(" ")
        other = "gb18030" if encoding == "utf-8" else "utf-8"
        raise ConfigError(f"{path}:{number}: not {encoding} at byte {offset + error.start} ({bad}); name the "
                          f"right encoding (--encoding {other}, or data.encoding={other} in the recipe) or repair the "
                          f"file") from None


def clean_text(text: str) -> str:
    """Text without control characters, zero-width spaces, lone surrogates; tabs and odd line breaks become a space."""
    if _UNCLEAN.search(text) is not None:
        text = _INVISIBLE.sub("", _BREAKS.sub(" ", text))
    return text.strip()


def read_documents(paths: Iterable[str | Path], encoding: str = "utf-8",
                   rejects: RejectCounter | None = None) -> Iterator[RawDocument]:
    """Documents of .txt files (a paragraph or sentence per line, blank line between documents) and .jsonl files
    (`{"text": ...}` or `{"title": ..., "content": ...}`, a line feed between paragraphs), each also .gz.

    Rejects: `bad_json` (not a JSON object), `no_text` (neither form, or not strings), `empty_document`.

    Raises:
        ConfigError: missing, unreadable or wrongly encoded file, unknown suffix, or a corpus without any document.
    """
    rejects = RejectCounter() if rejects is None else rejects
    files = expand_paths(paths)
    for path in files:
        if not path.name.endswith(DOCUMENT_SUFFIXES):
            raise ConfigError(f"corpus {path}: unknown kind of file; use {', '.join(DOCUMENT_SUFFIXES)}")
    found = 0
    for path in files:
        reader = _read_jsonl if ".jsonl" in path.suffixes else _read_txt
        for document in reader(path, encoding, rejects):
            found += 1
            yield document
    if not found:
        raise ConfigError(f"corpus {', '.join(map(str, files[:5]))}: no document in it; documents are lines of text "
                          f"with a blank line between them, or JSON objects with `text`, one a line")


def is_dev(item: RawDocument | RawPair, dev_share: float) -> bool:
    """Whether an item belongs to the dev split: a hash of its content (of the query alone for a pair) falls below
    `dev_share`. It is the same in every task and run, and copies of a text fall together."""
    text = "\n".join(item.paragraphs) if isinstance(item, RawDocument) else item.query
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8, person=b"ernie2 dev").digest()
    return int.from_bytes(digest, "big") < dev_share * 2.0 ** 64


def _read_txt(path: Path, encoding: str, rejects: RejectCounter) -> Iterator[RawDocument]:
    """A document ends at a blank line or at the end of the file."""
    first, paragraphs = 0, []
    for number, line in read_lines(path, encoding):
        line = clean_text(line)
        if line:
            first = first if paragraphs else number
            paragraphs.append(line)
        elif paragraphs:
            yield RawDocument(f"{path}:{first}", paragraphs)
            paragraphs = []
    if paragraphs:
        yield RawDocument(f"{path}:{first}", paragraphs)


def _read_jsonl(path: Path, encoding: str, rejects: RejectCounter) -> Iterator[RawDocument]:
    """A document is a line; an empty line is no document."""
    for number, line in read_lines(path, encoding):
        source = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            record = None
        if not isinstance(record, dict):
            rejects.add(source, "bad_json", line)
            continue
        parts = [record["text"]] if "text" in record else [record.get("title", ""), record.get("content")]
        if not all(isinstance(part, str) for part in parts):
            rejects.add(source, "no_text", line)
            continue
        paragraphs = [clean for part in parts for clean in map(clean_text, part.split("\n")) if clean]
        if paragraphs:
            yield RawDocument(source, paragraphs)
        else:
            rejects.add(source, "empty_document", line)


def read_pairs(paths: Iterable[str | Path], rejects: RejectCounter | None = None,
               encoding: str = "utf-8") -> Iterator[RawPair]:
    """Rows of query logs: TSV, first line exactly `query<TAB>title<TAB>clicked` (1 -> class 0, 0 -> class 1) or
    `query<TAB>title<TAB>relevance` (2 -> class 0, 1 -> class 1; 0 is set aside and noted as `relevance_0`).

    Rejects: `wrong_columns`, `empty_query`, `empty_title`.

    Raises:
        ConfigError: missing or unreadable file, another header, label out of range (names file and line), no row.
    """
    rejects = RejectCounter() if rejects is None else rejects
    files = expand_paths(paths, "query log")
    found = 0
    for path in files:
        lines = read_lines(path, encoding)
        labels = _query_log_labels(path, next(lines, (1, ""))[1])
        for number, line in lines:
            pair = _read_row(f"{path}:{number}", line, labels, rejects)
            if pair is not None:
                found += 1
                yield pair
    if not found:
        raise ConfigError(f"query log {', '.join(map(str, files[:5]))}: no usable row below the header")


def _query_log_labels(path: Path, header: str) -> dict[str, int | None]:
    """What the values of the third column mean, by the header."""
    columns = header.split("\t")
    if len(columns) == 3 and columns[:2] == ["query", "title"] and columns[2] in LABEL_COLUMNS:
        return LABEL_COLUMNS[columns[2]]
    wanted = " or ".join(repr(f"query\ttitle\t{name}") for name in LABEL_COLUMNS)
    raise ConfigError(f"{path}:1: the header is {header[:80]!r}; a query log begins with {wanted}")


def _read_row(source: str, line: str, labels: dict[str, int | None], rejects: RejectCounter) -> RawPair | None:
    """One row, or None where it is empty, rejected or set aside."""
    if not line.strip():
        return None
    fields = line.split("\t")
    if len(fields) != 3:
        rejects.add(source, "wrong_columns", line)
        return None
    query, title, label = clean_text(fields[0]), clean_text(fields[1]), fields[2].strip()
    if label not in labels:
        raise ConfigError(f"{source}: label {label!r} is out of range; use one of {', '.join(sorted(labels))}")
    if not query or not title:
        rejects.add(source, "empty_title" if query else "empty_query", line)
        return None
    if labels[label] is None:
        rejects.note(source, "relevance_0", line)
        return None
    return RawPair(source, query, title, labels[label])
