"""The bytes of a piece as text; documents that cannot be decoded are left out, and it is said what they may
be."""

from __future__ import annotations

import functools
import itertools
import re

from data_gen.reading.cutting import Piece
from data_gen.reading.rejects import RejectCounter
from data_gen.reading.streams import check_encoding, is_utf8

__all__ = ["decoded"]

CONTROL_SHARE = 0.05
"""More control characters than this make bytes that cannot be decoded binary junk rather than text in another
encoding.
"""
NUL_SHARE = 0.1
"""As many zero bytes make a document binary junk though it can be decoded."""

_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n\v\f\r")
_ENDS = {"txt": re.compile(rb"\n[ \t\r\x0b\x0c]*\n"), "wiki": re.compile(rb"</doc>[^\n]*\n")}
_LINE_END = re.compile(rb"\n")

_encoding = functools.lru_cache(check_encoding)


def decoded(piece: Piece, encoding: str, rejects: RejectCounter) -> list[tuple[int, str]]:
    """The text of a piece with the number of its first line; in several parts where some documents are left
    out.

    Rejects, with the byte offset in the file: `binary`, `not_<encoding>`.

    Raises:
        ConfigError: unknown encoding."""
    name, data = _encoding(encoding), piece.data
    if name != "utf-8" and is_utf8(data):
        name = "utf-8"  # data.encoding is that of the files that are not UTF-8
    if b"\0" not in data:
        try:
            return [(piece.first_line, data.decode(name))]
        except UnicodeDecodeError:
            pass
    parts, line, start = [], piece.first_line, 0
    ends = (match.end() for match in _ENDS.get(piece.kind, _LINE_END).finditer(data))
    for end in itertools.chain(ends, [len(data)]):
        document = data[start:end]
        try:
            text = document.decode(name)
        except UnicodeDecodeError as error:
            _reject(piece, line, start, document, error, rejects)
        else:
            if document.count(b"\0") > NUL_SHARE * len(document):
                rejects.add(
                    f"{piece.path}:{line}", "binary", f"zero bytes from byte {piece.offset + start} on"
                )
            elif text:
                parts.append((line, text))
        line += document.count(b"\n")
        start = end
    return parts


def _reject(
    piece: Piece, line: int, start: int, document: bytes, error: UnicodeDecodeError, rejects: RejectCounter
) -> None:
    """Counts a document that cannot be decoded; says what the matter may be."""
    encoding, hint = _encoding(error.encoding), ""
    reason = f"not_{encoding}"
    if len(document) - len(document.translate(None, _CONTROLS)) > CONTROL_SHARE * len(document):
        reason = "binary"
    elif len(rejects.examples.get(reason, ())) < rejects.keep:
        other = next(
            (name for name in ("utf-8", "gb18030", "big5") if name != encoding and _fits(document, name)),
            None,
        )
        hint = f"; if the file is {other}, set data.encoding={other}" if other else ""
    bad = document[error.start : error.start + 4].hex(" ")
    where = line + document.count(b"\n", 0, error.start)
    rejects.add(f"{piece.path}:{where}", reason, f"byte {piece.offset + start + error.start} ({bad}){hint}")


def _fits(document: bytes, encoding: str) -> bool:
    try:
        document.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
