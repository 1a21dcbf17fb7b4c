"""Formats of input files, as bytes: what kind a file is, and where its documents or rows end. Nothing is
decoded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from data_gen.reading.streams import DamagedFile, Stream, base_name
from ernie2.strict import ConfigError

HEAD = 4096  # bytes from the beginning of a file that tell its kind
LONG_LINE = 16_000_000  # a line of more bytes is left out: the reject `line_too_long`
# What ends a document, by the kind of file; in all other kinds a line feed does.
DOCUMENT_ENDS = {"txt": re.compile(rb"\n[ \t\r\x0b\x0c]*\n"), "wiki": re.compile(rb"</doc>[^\n]*\n")}

_JSON_OBJECT = re.compile(rb"""\{\s*"[^"\\\n]{0,60}"\s*:\s*["\d\[{ntf-]""")
_JSON_ARRAY = re.compile(rb"\[\s*[{\"]")
_JSON_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*("?)|[{}\[\],]', re.DOTALL)


@dataclass(frozen=True)
class Source:
    """A kind of input: what messages call it, its key in a recipe, and the headers that its files can have
    (none: no header)."""

    name: str
    key: str
    headers: tuple[str, ...] = ()


_LABELS = ("clicked", "clicked\tcount", "relevance", "relevance\tcount")
SOURCES = {
    "documents": Source("corpus", "data.corpus"),
    "pairs": Source("query log", "data.query_log", tuple(f"query\ttitle\t{label}" for label in _LABELS)),
    "marked_pairs": Source("marked pairs", "data.marked_pairs", ("sentence1\tsentence2\tmarker",)),
}


def read_head(stream: Stream) -> tuple[bytes, DamagedFile | None]:
    """The beginning of a file, `HEAD` bytes or more where there are as many; and the damage that ended it."""
    head = b""
    try:
        for chunk in stream:
            head += chunk
            if len(head) >= HEAD:
                break
    except DamagedFile as error:
        return head, error
    return head, None


def check_header(path: str, source: str, head: bytes, encoding: str) -> str:
    """The first line of a file, if it is a header of this source. Raises ConfigError."""
    line = re.split(rb"[\r\n]", head, maxsplit=1)[0].decode(encoding, "replace").removeprefix("\ufeff")
    mine = SOURCES[source]
    if line in mine.headers:
        return line
    hint = "".join(
        f" (that of {other.name}: give the file under {other.key})"
        for other in SOURCES.values()
        if line in other.headers
    )
    raise ConfigError(
        f"{path}:1: the header is {line[:80]!r}{hint}; a file of {mine.name} begins with "
        f"{' or '.join(map(repr, mine.headers))}"
    )


def kind_of(path: str, head: bytes) -> str:
    """What a file of documents is, by its name and beginning: "txt", "jsonl", "wiki" (WikiExtractor) or
    "array" (one JSON array of records, as WuDao's files are)."""
    start = head.lstrip()
    if base_name(path).endswith((".jsonl", ".json")):
        return "array" if _JSON_ARRAY.match(start) else "jsonl"
    if start.startswith(b"<doc "):
        return "wiki"
    return "jsonl" if _JSON_OBJECT.match(start) else "txt"


def last_end(buffer: bytearray, kind: str, stop: int) -> int:
    """Where the last document or row ends in the first `stop` bytes; 0: nowhere."""
    if kind not in DOCUMENT_ENDS:
        return buffer.rfind(b"\n", 0, stop) + 1
    if kind == "txt" and (end := max(buffer.rfind(mark, 0, stop) for mark in (b"\n\n", b"\n\r\n")) + 1):
        return buffer.index(b"\n", end) + 1
    return max((match.end() for match in DOCUMENT_ENDS[kind].finditer(buffer, 0, stop)), default=0)


def first_end(buffer: bytearray, kind: str, start: int) -> int:
    """Where the first document or row ends whose end lies behind `start`; 0: nowhere."""
    if kind not in DOCUMENT_ENDS:
        return buffer.find(b"\n", start) + 1
    match = DOCUMENT_ENDS[kind].search(buffer, start)
    return match.end() if match else 0


def json_lines(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The records of one JSON array, each as a line; nothing is parsed but strings, brackets and commas.

    Raises DamagedFile where it does not end, or holds a record of more than LONG_LINE bytes."""
    # In others a byte of a character can look like a bracket.
    if encoding not in ("utf-8", "ascii"):
        raise DamagedFile(f"a JSON array in {encoding}; convert it to UTF-8, or to one record a line")
    buffer, place, depth = bytearray(), 0, 0
    for chunk in chunks:
        buffer += chunk
        lines, start = [], 0
        for token in _JSON_TOKEN.finditer(buffer, place):
            if token[1] == b"":
                break  # a string that goes on in the next chunk
            place, before, mark = token.end(), depth, token[0]
            depth = max(depth + (mark in b"{[") - (mark in b"}]"), 0)
            if before + depth == 1 or depth < 2 and mark == b",":
                lines.append(_line_of(buffer[start : token.start()]))
                start = place
        del buffer[:start]
        place -= start
        yield b"".join(lines)
        if len(buffer) > LONG_LINE:
            raise DamagedFile(f"no JSON array, or a record of more than {LONG_LINE / 1e6:.0f} MB in it")
    if depth:
        raise DamagedFile("the JSON array does not end")
    yield _line_of(buffer)


def _line_of(record: bytes) -> bytes:
    line = b" ".join(record.splitlines()).strip()
    return line + b"\n" if line else b""
