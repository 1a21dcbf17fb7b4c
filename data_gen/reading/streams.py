"""Files as streams of bytes: which files a pattern names, plain or compressed, read in bounded memory."""

from __future__ import annotations

import bz2
import codecs
import glob
import io
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ernie2.config import ConfigError

COMPRESSIONS = (".gz", ".bz2", ".zst")
DOCUMENT_KINDS = ".txt, .jsonl, .json or WikiExtractor's wiki_00, each also .gz, .bz2, .zst"
CHUNK = 1 << 17  # bytes of a plain file read at a time
# Bytes given to a decompressor at a time: damage loses no more than these. The order of the documents depends
# on them, so they are not left to the buffers of `gzip` and `bz2`, which differ between versions of Python.
STEP = {"gz": 1 << 14, "bz2": 1 << 14, "zst": 1 << 9}
# Most bytes that come out of a decompressor at a time, so that a file of zeros does not fill the memory. zstd
# has no such limit; a step of its input grows to 16 MiB at worst.
MOST_OUT = 1 << 18

_MAGIC = re.compile(rb"(?P<gz>\x1f\x8b)|(?P<bz2>BZh)|(?P<zst>\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)")
_DOCUMENT_NAME = re.compile(r"[^.].*\.(?:txt|jsonl|json)|wiki_\d+")


class DamagedFile(Exception):  # noqa: N818 - it names what was found
    """A file cannot be read to its end; what came before is good. The message says what is wrong."""


class Stream:
    """The bytes of a file in chunks, decompressed where its first bytes say that it is compressed;
    `compression` is "gz", "bz2", "zst" or "" (plain).

    Raises OSError where it cannot be opened, or is no regular file; iterating raises DamagedFile, or
    ConfigError where the package for zstd is missing."""

    def __init__(self, path: str | Path) -> None:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(0, "no regular file")
        self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
        self._size = os.fstat(self._file.fileno()).st_size
        magic = _MAGIC.match(self._file.peek(4))
        self.compression = magic.lastgroup if magic else ""
        self._chunks = self._decompressed(path) if self.compression else iter(lambda: self._read(CHUNK), b"")

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    @property
    def position(self) -> int:
        """Bytes on disk that have been read."""
        return self._size if self._file.closed else self._file.tell()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _read(self, count: int) -> bytes:
        try:
            return self._file.read(count)
        except OSError as error:
            raise DamagedFile(f"cannot be read on: {error.strerror or error}") from None

    def _decompressed(self, path: str | Path) -> Iterator[bytes]:
        """One compressed member (frame) after the other, as `cat a.gz b.gz` writes them."""
        make, failure = _decompressor(self.compression, path)
        limit, step = () if self.compression == "zst" else (MOST_OUT,), STEP[self.compression]
        data = b""
        while True:
            while not (data := data.lstrip(b"\0")):  # tapes are filled up with zeros
                if not (data := self._read(step)):
                    return
            member = make()
            while not member.eof:
                try:
                    out = member.decompress(data, *limit)
                except failure as error:
                    raise DamagedFile(f"damaged {self.compression} file ({error})") from None
                if out:
                    yield out
                # What does not come out at once waits: zlib hands it back, bz2 keeps it.
                data = getattr(member, "unconsumed_tail", b"")
                if not data and not member.eof and getattr(member, "needs_input", True):
                    data = self._read(step)
                    if not data and not out:
                        raise DamagedFile(f"truncated {self.compression} file")
            data = member.unused_data


def _decompressor(compression: str, path: str | Path) -> tuple[Callable[[], Any], type[Exception]]:
    """What makes a decompressor, and what it raises for damage."""
    if compression == "gz":
        return lambda: zlib.decompressobj(wbits=31), zlib.error
    if compression == "bz2":
        return bz2.BZ2Decompressor, OSError
    try:
        import zstandard
    except ImportError:
        raise ConfigError(
            f"{path}: .zst needs the package zstandard (pip install zstandard), or unpack the file"
        ) from None
    return lambda: zstandard.ZstdDecompressor().decompressobj(), zstandard.ZstdError


def base_name(path: str | Path) -> str:
    """A file's name without the suffix of its compression."""
    stem, suffix = os.path.splitext(os.path.basename(path))
    return stem if suffix in COMPRESSIONS else stem + suffix


def is_document_file(path: str | Path) -> bool:
    """Whether the name is that of a file of documents."""
    return _DOCUMENT_NAME.fullmatch(base_name(path)) is not None


def expand_paths(patterns: Iterable[str | Path], what: str = "corpus") -> list[Path]:
    """Files that paths, globs (`**` too) and folders (for the document files at any depth) name: sorted
    within a pattern, each once. `what` they are is for messages.

    Raises ConfigError for no pattern, a file that does not exist, a glob or folder without a file."""
    files: dict[Path, None] = {}
    patterns = [patterns] if isinstance(patterns, (str, Path)) else list(patterns)
    if not patterns:
        raise ConfigError(f"no {what} is named; give at least one file")
    for pattern in map(str, patterns):
        problem = "no such file; check the path (relative to the folder you run in)"
        if os.path.isdir(pattern):
            walk = os.walk(pattern)
            found = [
                f"{folder}/{name}" for folder, _, names in walk for name in names if is_document_file(name)
            ]
            problem = f"no such file in this folder: it holds no {DOCUMENT_KINDS}"
        else:
            found = [pattern] if os.path.lexists(pattern) else glob.iglob(pattern, recursive=True)
        found = sorted(path for path in found if not os.path.isdir(path))
        if not found:
            raise ConfigError(f"{what} {pattern}: {problem}")
        files.update((Path(path), None) for path in found)
    return list(files)


def check_encoding(encoding: str) -> str:
    """The encoding's own name. Raises ConfigError where it is unknown, or a line feed is not the byte 0A."""
    try:
        name = codecs.lookup(encoding).name.removesuffix("-sig")
        if " \t\n{".encode(name) == b" \t\n{":
            return name
        problem = f"is not supported; convert the files to UTF-8 (iconv -f {encoding} -t utf-8)"
    except (LookupError, UnicodeError):
        problem = "is unknown; use utf-8, gb18030 or big5"
    raise ConfigError(f"data.encoding: {encoding!r} {problem}")


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Lines of a file whose every line matters (a dictionary), with their numbers from 1; without line ends
    (LF, CRLF or CR) and byte-order mark. A file that begins as UTF-8 is read as UTF-8, whatever `encoding`
    says: it is that of the other files.

    Raises:
        ConfigError: cannot be read, damaged, not in `encoding` (names line and byte offset), unknown
            encoding."""
    name = check_encoding(encoding)
    try:
        stream = Stream(path)
        data = b"".join(stream)
        stream.close()
    except DamagedFile as error:
        raise ConfigError(f"{path}: {error}; copy it again") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{path}: UTF-16; convert it to UTF-8 (iconv -f utf-16 -t utf-8)")
    beyond_ascii = re.search(rb"[^\0-\x7f]", data)
    if beyond_ascii and is_utf8(data[beyond_ascii.start() :][:CHUNK]):
        name = "utf-8"
    try:
        lines = io.StringIO(data.decode(name), newline=None)
    except UnicodeDecodeError as error:
        number = len(data[: error.start + 1].splitlines())
        bad, other = data[error.start : error.start + 4].hex(" "), "gb18030" if name == "utf-8" else "utf-8"
        raise ConfigError(
            f"{path}:{number}: not {name} at byte {error.start} ({bad}); name the right encoding "
            f"(--encoding {other}, or data.encoding={other} in the recipe) or repair the file"
        ) from None
    for number, line in enumerate(lines, 1):
        yield number, line.rstrip("\n").removeprefix("\ufeff")


def is_utf8(data: bytes) -> bool:
    """Whether the beginning of a file is UTF-8 beyond ASCII; its last character may be cut off."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return not data.isascii()
