"""Formats of input files, as bytes: what kind a file is, and where its documents or rows end. Nothing is
decoded."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from data_gen.reading.streams import DamagedFile, Stream, base_name
from ernie2.strict import ConfigError

__all__ = [
    "LONG_LINE",
    "SOURCES",
    "Source",
    "byte_order_mark",
    "check_header",
    "decodes",
    "first_end",
    "json_lines",
    "kind_of",
    "last_end",
    "read_head",
]

HEAD = 4096
"""Bytes from the beginning of a file that tell its kind."""
LONG_LINE = 16_000_000
"""A line of more bytes is left out: the reject `line_too_long`."""

_JSON_OBJECT = re.compile(rb"""\{\s*"[^"\\\n]{0,60}"\s*:\s*["\d\[{ntf-]""")
_JSON_ARRAY = re.compile(rb"\[\s*[{\"]")
_JSON_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*("?)|[{}\[\]]', re.DOTALL)
_BLANK_LINE = re.compile(rb"\n[ \t\r\x0b\x0c]*\n")
_END_OF_DOC = re.compile(rb"</doc>[^\n]*\n")


@dataclass(frozen=True)
class Source:
    """A kind of input: what messages call it, its key in a recipe, and the headers that its files can have
    (none: no header)."""

    name: str
    key: str
    headers: tuple[str, ...] = ()


SOURCES = {
    "documents": Source("corpus", "data.corpus"),
    "pairs": Source(
        "query log",
        "data.query_log",
        tuple(
            f"query\ttitle\t{label}{more}" for label in ("clicked", "relevance") for more in ("", "\tcount")
        ),
    ),
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
    if line not in SOURCES[source].headers:
        wanted = " or ".join(map(repr, SOURCES[source].headers))
        others = [
            f" (that of {other.name}: give the file under {other.key})"
            for other in SOURCES.values()
            if line in other.headers
        ]
        raise ConfigError(
            f"{path}:1: the header is {line[:80]!r}{''.join(others)}; a file of {SOURCES[source].name} "
            "begins with "
            f"{wanted}"
        )
    return line


def byte_order_mark(encoding: str) -> bytes:
    """U+FEFF in an encoding; empty where it has none."""
    try:
        return "\ufeff".encode(encoding)
    except UnicodeEncodeError:
        return b""


def decodes(head: bytes, encoding: str) -> bool:
    """Whether the beginning of a file, cut anywhere, is text."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(head[:HEAD])
    except UnicodeDecodeError:
        return False
    return b"\0" not in head[:HEAD]


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
    if kind not in ("txt", "wiki"):
        return buffer.rfind(b"\n", 0, stop) + 1
    if kind == "txt":
        end = max(buffer.rfind(mark, 0, stop) + 1 for mark in (b"\n\n", b"\n\r\n"))
        if end:
            return buffer.index(b"\n", end) + 1
    end = 0
    for match in (_BLANK_LINE if kind == "txt" else _END_OF_DOC).finditer(buffer, 0, stop):
        end = match.end()
    return end


def first_end(buffer: bytearray, kind: str, start: int) -> int:
    """Where the first document or row ends whose end lies behind `start`; 0: nowhere."""
    if kind not in ("txt", "wiki"):
        return buffer.find(b"\n", start) + 1
    match = (_BLANK_LINE if kind == "txt" else _END_OF_DOC).search(buffer, start)
    return match.end() if match else 0


def json_lines(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The records of one JSON array, each as a line.

    Args:
        chunks: The file.
        encoding: UTF-8 or ASCII: in others a byte of a character can look like a bracket.

    Raises:
        DamagedFile: it does not end, or holds a record of more than LONG_LINE bytes."""
    if encoding not in ("utf-8", "ascii"):
        raise DamagedFile(f"a JSON array in {encoding}; convert it to UTF-8, or to one record a line")
    buffer, place, start, depth = bytearray(), 0, 0, 0
    for chunk in chunks:
        buffer += chunk
        records = []
        for token in _JSON_TOKEN.finditer(buffer, place):
            if token[1] == b"":
                break  # a string that goes on in the next chunk
            if depth < 2 and (other := buffer[place : token.start()].strip(b" \t\r\n,")):
                records += bytes(other).split(b",")  # numbers, or what has no place there
            if token[1] is not None:
                records += [token[0]] if depth == 1 else []
            elif token[0] in b"{[":
                depth += 1
                start = token.start() if depth == 2 else start
            else:
                depth -= 1
                if depth == 1:
                    records.append(bytes(buffer[start : token.end()]))
            place = token.end()
        done = start if depth > 1 else place
        del buffer[:done]
        place, start = place - done, 0
        yield b"".join(map(_one_line, records))
        if len(buffer) > LONG_LINE:
            raise DamagedFile(f"no JSON array, or a record of more than {LONG_LINE / 1e6:.0f} MB in it")
    if depth:
        raise DamagedFile("the JSON array does not end")
    if rest := bytes(buffer).strip():
        yield _one_line(rest)


def _one_line(record: bytes) -> bytes:
    return record.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"
