"""One file on its way to pieces: its beginning looked at, then cut between documents or rows, in bounded
memory."""

from __future__ import annotations

import codecs
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass

from data_gen.reading.formats import (
    LONG_LINE,
    SOURCES,
    check_header,
    first_end,
    json_lines,
    kind_of,
    last_end,
    read_head,
)
from data_gen.reading.rejects import TEXT_CHARS, RejectCounter
from data_gen.reading.streams import COMPRESSIONS, DamagedFile, Stream

# A document of more bytes is cut at a line end into several; counted as the note `long_document`.
LONG_DOCUMENT = 4_000_000


@dataclass(frozen=True, slots=True)
class Piece:
    """Raw bytes of whole documents or rows of one file."""

    path: str
    kind: str  # "txt", "jsonl", "wiki" (WikiExtractor), "pairs" or "marked_pairs"
    first_line: int  # of the file, from 1; in a file that is one JSON array: of its records
    offset: int  # of the first byte in the (decompressed) file
    data: bytes  # whole lines, in the encoding of the file, without its byte-order mark
    header: str = ""  # first line of a .tsv file


class FileCutter:
    """Cuts one file of a source (a key of `SOURCES`) into pieces. Raises OSError where it cannot be
    opened."""

    def __init__(
        self, path: str, source: str, encoding: str, rejects: RejectCounter, piece_bytes: int
    ) -> None:
        self._path, self._source, self._encoding = path, source, encoding
        self._rejects, self._piece_bytes = rejects, piece_bytes
        self._stream = Stream(path)
        self._kind, self._header = source, ""
        self._line, self._offset, self._taken = 1, 0, 0
        self._buffer = bytearray()
        self._searched = 0  # no document ends in this much of the buffer
        self._skipping = False  # in a line that is too long

    def on_disk(self, ahead: float) -> float:
        """Bytes on disk that the pieces so far stand for, and `ahead` bytes more, about."""
        return min((self._offset + ahead) / max(self._taken, 1), 1.0) * self._stream.position

    def pieces(self) -> Iterator[Piece]:
        """The pieces of the file. Raises ConfigError where it lacks its header."""
        try:
            for chunk in self._text():
                yield from self._add(chunk)
        except DamagedFile as error:
            self._rejects.add(self._path, "damaged_file", str(error))
            del self._buffer[self._buffer.rfind(b"\n") + 1 :]  # the half of a line that was read
        finally:
            self._stream.close()
        yield from self._take(len(self._buffer))

    def _text(self) -> Iterator[bytes]:
        """Chunks of the file with line feeds for line ends; without byte-order mark and header."""
        head, damage = read_head(self._stream)
        self._taken, suffix = len(head), os.path.splitext(self._path)[1]
        if not head:
            if damage is not None:
                raise damage
            self._rejects.note(self._path, "empty_file")
            return
        if self._encoding == "utf-8" and head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            hint = "UTF-16; convert it to UTF-8 (iconv -f utf-16 -t utf-8)"
            self._rejects.add(self._path, "not_utf-8", hint)
            return
        if suffix in COMPRESSIONS and not self._stream.compression and b"\0" in head:
            raise DamagedFile(f"neither a {suffix} file nor text")
        if head.startswith(codecs.BOM_UTF8):
            self._rejects.note(self._path, "bom")
            head, self._offset = head[len(codecs.BOM_UTF8) :], len(codecs.BOM_UTF8)
        chunks = self._chunks(head, damage)
        # Of old Macs; a file put together may have other line ends among them.
        if head.count(b"\r") - head.count(b"\r\n") > head.count(b"\n"):
            self._rejects.note(self._path, "cr_line_ends")
            chunks = (chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n") for chunk in chunks)
        if SOURCES[self._source].headers:
            self._header = check_header(self._path, self._source, head, self._encoding)
            line, feed, rest = next(chunks).partition(b"\n")
            self._line, self._offset = 2, self._offset + len(line + feed)
            chunks = itertools.chain([rest], chunks)
        else:
            self._kind = kind_of(self._path, head)
            if self._kind == "array":
                self._kind, chunks = "jsonl", json_lines(chunks, self._encoding)
        yield from chunks

    def _chunks(self, head: bytes, damage: DamagedFile | None) -> Iterator[bytes]:
        yield head
        if damage is not None:
            raise damage
        for chunk in self._stream:
            self._taken += len(chunk)
            yield chunk

    def _add(self, chunk: bytes) -> Iterator[Piece]:
        """Takes what comes next in the file; yields the pieces that are complete."""
        if self._skipping:
            skipped, feed, chunk = chunk.partition(b"\n")
            self._offset += len(skipped + feed)
            if not feed:
                return
            self._skipping, self._line = False, self._line + 1
        self._buffer += chunk
        while end := self._end():
            yield from self._take(end)
        if len(self._buffer) > LONG_LINE:
            beginning = self._buffer[: 4 * TEXT_CHARS].decode(self._encoding, "replace")
            text = f"more than {LONG_LINE / 1e6:g} MB without a line end: {beginning}"
            self._rejects.add(f"{self._path}:{self._line}", "line_too_long", text)
            self._offset += len(self._buffer)
            self._buffer.clear()
            self._skipping, self._searched = True, 0

    def _take(self, end: int) -> Iterator[Piece]:
        """The first `end` bytes of the buffer, unless there is nothing in them."""
        data = bytes(self._buffer[:end])
        del self._buffer[:end]
        line, offset = self._line, self._offset
        self._line, self._offset, self._searched = line + data.count(b"\n"), offset + end, 0
        if data and not data.isspace():
            yield Piece(self._path, self._kind, line, offset, data, self._header)

    def _end(self) -> int:
        """Where the next piece ends in the buffer; 0 where more has to be read."""
        buffer = self._buffer
        if len(buffer) < self._piece_bytes:
            return 0
        start = max(self._searched, buffer.rfind(b"\n", 0, self._piece_bytes), 0)
        if end := last_end(buffer, self._kind, self._piece_bytes) or first_end(buffer, self._kind, start):
            return end
        self._searched = max(buffer.rfind(b"\n"), 0)
        if len(buffer) < LONG_DOCUMENT:
            return 0
        end = buffer.rfind(b"\n", 0, LONG_DOCUMENT) + 1 or buffer.find(b"\n", LONG_DOCUMENT) + 1
        if end and self._kind in ("txt", "wiki"):
            self._rejects.note(f"{self._path}:{self._line}", "long_document")
        return end
