"""Files as streams of bytes: which files a pattern names, plain or compressed, read in bounded memory."""

from __future__ import annotations

import bz2
import codecs
import glob
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ernie2.config import ConfigError

__all__ = [
    "COMPRESSIONS",
    "DamagedFile",
    "Stream",
    "base_name",
    "check_encoding",
    "expand_paths",
    "is_document_file",
    "is_utf8",
    "read_lines",
]

COMPRESSIONS = (".gz", ".bz2", ".zst")
DOCUMENT_SUFFIXES = (".txt", ".jsonl", ".json")
DOCUMENT_KINDS = ".txt, .jsonl, .json or WikiExtractor's wiki_00, each also .gz, .bz2, .zst"

CHUNK = 1 << 17
"""Bytes of a plain file read at a time."""
STEP = {"gz": 1 << 14, "bz2": 1 << 14, "zst": 1 << 9}
"""Bytes given to a decompressor at a time: damage loses no more than these."""
MOST_OUT = 1 << 18
"""Most bytes that come out of a decompressor at a time, so that a file of zeros does not fill the memory. The
zstd package has no such limit; a step of its input grows to 16 MiB at worst."""

_WIKI_FILE = re.compile(r"wiki_\d+")


class DamagedFile(Exception):  # noqa: N818 - it names what was found
    """A file cannot be read to its end; what came before is good. The message says what is wrong."""


class Stream:
    """The bytes of a file, decompressed where its first bytes say that it is compressed (its name does not
    decide).

    Iterating gives chunks of bytes until the end of the file, or until `DamagedFile` is raised.

    Args:
        path: The file.

    Raises:
        OSError: cannot be opened, or is no regular file.
        ConfigError: zstd, and the package is missing.

    Attributes:
        size: Bytes on disk.
        compression: "gz", "bz2", "zst" or "" (plain)."""

    def __init__(self, path: str | Path) -> None:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(0, "no regular file")
        self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
        self.size = os.fstat(self._file.fileno()).st_size
        magic = self._file.peek(4)[:4]
        self.compression = _compression(magic)
        self._chunks = (
            self._plain() if not self.compression else self._decompressed(_decoder(self.compression, path))
        )

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    @property
    def position(self) -> int:
        """Bytes on disk that have been read."""
        return self.size if self._file.closed else self._file.tell()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _read(self, count: int) -> bytes:
        try:
            return self._file.read(count)
        except OSError as error:
            raise DamagedFile(f"cannot be read on: {error.strerror or error}") from None

    def _plain(self) -> Iterator[bytes]:
        while chunk := self._read(CHUNK):
            yield chunk

    def _decompressed(self, make: Callable[[], Any]) -> Iterator[bytes]:
        """One compressed member (frame) after the other, as `cat a.gz b.gz` writes them."""
        step, data = STEP[self.compression], b""
        while data := self._next_member(data, step):
            decoder = make()
            while not decoder.eof:
                try:
                    out = decoder.decompress(data, MOST_OUT)
                except (zlib.error, OSError, _zstd_error()) as error:
                    raise DamagedFile(f"damaged {self.compression} file ({error})") from None
                if out:
                    yield out
                data = b"" if decoder.eof or not decoder.needs_input else self._read(step)
                if not out and not data and not decoder.eof and decoder.needs_input:
                    raise DamagedFile(f"truncated {self.compression} file")
            data = decoder.unused_data

    def _next_member(self, data: bytes, step: int) -> bytes:
        """The first bytes after a member that are not the zeros with which tapes are filled up; empty at the
        end."""
        while not (data := data.lstrip(b"\0")):
            data = self._read(step)
            if not data:
                break
        return data


class _Gzip:
    """`zlib.decompressobj` with the calls of `bz2.BZ2Decompressor`."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, most: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, most)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data


class _Zstd:
    """A decompressor of the package `zstandard` with the calls of `bz2.BZ2Decompressor`."""

    needs_input = True

    def __init__(self, package: Any) -> None:
        self._zstd = package.ZstdDecompressor().decompressobj()

    def decompress(self, data: bytes, _most: int) -> bytes:
        return self._zstd.decompress(data) if data else b""

    @property
    def eof(self) -> bool:
        return self._zstd.eof

    @property
    def unused_data(self) -> bytes:
        return self._zstd.unused_data


def _compression(magic: bytes) -> str:
    if magic[:2] == b"\x1f\x8b":
        return "gz"
    if magic[:3] == b"BZh":
        return "bz2"
    # A zstd frame, or a skippable frame before it.
    return (
        "zst" if magic == b"\x28\xb5\x2f\xfd" or magic[1:] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5 else ""
    )


def _decoder(compression: str, path: str | Path) -> Callable[[], Any]:
    if compression != "zst":
        return _Gzip if compression == "gz" else bz2.BZ2Decompressor
    try:
        import zstandard
    except ImportError:
        raise ConfigError(
            f"{path}: .zst needs the package zstandard (pip install zstandard), or unpack the file"
        ) from None
    return lambda: _Zstd(zstandard)


def _zstd_error() -> type[Exception]:
    try:
        import zstandard
    except ImportError:
        return zlib.error
    return zstandard.ZstdError


def base_name(path: str | Path) -> str:
    """A file's name without the suffix of its compression."""
    name = os.path.basename(path)
    return next((name.removesuffix(suffix) for suffix in COMPRESSIONS if name.endswith(suffix)), name)


def is_document_file(path: str | Path) -> bool:
    """Whether the name is that of a file of documents."""
    name = base_name(path)
    return not name.startswith(".") and (
        name.endswith(DOCUMENT_SUFFIXES) or _WIKI_FILE.fullmatch(name) is not None
    )


def expand_paths(patterns: Iterable[str | Path], what: str = "corpus") -> list[Path]:
    """Files that paths, globs (`**` too) and folders name: sorted within a pattern, each once.

    Args:
        patterns: As the user gave them. A folder stands for the document files in it and in its sub-folders.
        what: What they are, for messages.

    Raises:
        ConfigError: no pattern, a file that does not exist, a glob or folder without a file."""
    files: dict[Path, None] = {}
    patterns = [patterns] if isinstance(patterns, (str, Path)) else list(patterns)
    if not patterns:
        raise ConfigError(f"no {what} is named; give at least one file")
    for pattern in map(str, patterns):
        if os.path.isdir(pattern):
            found = [
                os.path.join(folder, name)
                for folder, _, names in os.walk(pattern)
                for name in names
                if is_document_file(name)
            ]
            if not found:
                raise ConfigError(
                    f"{what} {pattern}: no such file in this folder: it holds no {DOCUMENT_KINDS}"
                )
        elif os.path.lexists(pattern):
            found = [pattern]
        else:
            found = [path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path)]
        if not found:
            raise ConfigError(
                f"{what} {pattern}: no such file; check the path (relative to the folder you run in)"
            )
        files.update((Path(path), None) for path in sorted(found))
    return list(files)


def check_encoding(encoding: str) -> str:
    """The encoding's own name. Raises ConfigError where it is unknown, or a line feed in it is not the byte
    0A."""
    try:
        name = codecs.lookup(encoding).name
        if " \t\n{".encode(name) == b" \t\n{" or name == "utf-8-sig":
            return name.removesuffix("-sig")
    except (LookupError, UnicodeError):
        raise ConfigError(f"data.encoding: {encoding!r} is unknown; use utf-8, gb18030 or big5") from None
    raise ConfigError(
        f"data.encoding: {encoding} is not supported; convert the files to UTF-8 "
        f"(iconv -f {encoding} -t utf-8)"
    )


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Lines of a file whose every line matters (a dictionary), with their numbers from 1.

    Yields:
        (number, line); without line ends (LF, CRLF or CR) and byte-order mark. A file that begins as UTF-8 is
        read as UTF-8, whatever `encoding` says: it is that of the other files.

    Raises:
        ConfigError: cannot be read, damaged, not in `encoding` (names line and byte offset), unknown
        encoding."""
    name, number, offset, is_ascii = check_encoding(encoding), 0, 0, True
    try:
        stream = Stream(path)
        rest = b""
        for chunk in _with_end(stream):
            if is_ascii and not (is_ascii := chunk.isascii()) and is_utf8(chunk):
                name = "utf-8"
            lines = (rest + chunk).splitlines(keepends=True)  # of bytes: at LF, CRLF and CR alone
            rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
            for line in lines:
                number += 1
                yield number, _decode(line.rstrip(b"\r\n"), name, path, number, offset).removeprefix("\ufeff")
                offset += len(line)
    except DamagedFile as error:
        raise ConfigError(f"{path}: {error}; copy it again") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from None


def is_utf8(data: bytes) -> bool:
    """Whether the beginning of a file is UTF-8 beyond ASCII; a character cut off at its end does not
    matter."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return not data.isascii()


def _with_end(stream: Stream) -> Iterator[bytes]:
    """The chunks, and a line feed where the last line has none."""
    last = b"\n"
    for last in stream:
        yield last
    stream.close()
    if not last.endswith(b"\n"):
        yield b"\n"


def _decode(line: bytes, encoding: str, path: Path, number: int, offset: int) -> str:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        bad = line[error.start : error.start + 4].hex(" ")
        if line.startswith((b"\xff\xfe", b"\xfe\xff")) and not offset:
            raise ConfigError(f"{path}: UTF-16; convert it to UTF-8 (iconv -f utf-16 -t utf-8)") from None
        other = "gb18030" if encoding == "utf-8" else "utf-8"
        raise ConfigError(
            f"{path}:{number}: not {encoding} at byte {offset + error.start} ({bad}); name the "
            f"right encoding (--encoding {other}, or data.encoding={other} in the recipe) or repair the "
            f"file"
        ) from None
