"""Lines of foreign files: read, rejected by reason, shuffled, written."""

from __future__ import annotations

import contextlib
import gzip
import io
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from data_gen.reading.rejects import RejectCounter
from data_gen.reading.streams import DamagedFile, Stream
from ernie2.disk import replacing, write_json_lines
from ernie2.strict import ConfigError


class BadLine(ValueError):
    """A line that cannot be used; the message is the reason that it is counted by."""


class Line(NamedTuple):
    """A line of a file, without its end, numbered from 1; `dev`: the file is one of the dev split."""

    path: Path
    number: int
    text: str
    dev: bool = False


class RejectLog(RejectCounter):
    """Rejects of an import, written to `path` at its end: {file, line, reason, text}, 10,000 of each reason.

    Attributes:
        seen, bytes: Lines read, good or bad, and their size."""

    def __init__(self, path: Path, max_share: float) -> None:
        super().__init__(keep=10_000)
        self.path, self.max_share = path, max_share
        self.seen = self.bytes = 0

    def __enter__(self) -> RejectLog:
        self.path.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self.counts:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json_lines(self.path, self.rows())

    def add(self, source: str, reason: str, text: str = "") -> None:
        """Counts a reject of `file:line`, or of a file. Raises ConfigError where too many are bad by now."""
        super().add(source, reason, text)
        if self.seen >= 1_000:
            self.judge()

    def judge(self) -> None:
        """Raises ConfigError where there is no line, too large a share is bad, or none is good."""
        if not self.seen:
            raise ConfigError(f"no line in the files; {self.summary() or 'they are empty'}")
        if self.total > self.max_share * self.seen or self.total >= self.seen:
            raise ConfigError(
                f"--max-reject-share: {self.total} of {self.seen} lines rejected, expected at most "
                f"{self.max_share:g} of them; repair the files, or allow more; {self.summary()}"
            )

    def summary(self) -> str:
        """Each reason with its count and first place; empty where nothing was rejected."""
        reasons = (
            f"{reason}: {count:,}, first {self.examples[reason][0][0]}"
            for reason, count in self.counts.most_common()
        )
        return f"rejected: {'; '.join(reasons)}; see {self.path}" if self.counts else ""


def read(paths: Sequence[Path], rejects: RejectLog, dev_paths: Sequence[Path] = ()) -> Iterator[Line]:
    """Lines of UTF-8 files, plain or compressed, without the empty ones.

    Lines that are not UTF-8, and what follows damage in a file, are rejected. Raises ConfigError for a file
    that cannot be opened."""
    for place, path in enumerate([*paths, *dev_paths]):
        number = 0
        try:
            for number, line in enumerate(_byte_lines(path), 1):
                if not line.strip():
                    continue
                rejects.seen += 1
                rejects.bytes += len(line)
                text = line.rstrip(b"\r\n").removeprefix(b"\xef\xbb\xbf" if number == 1 else b"")
                try:
                    yield Line(path, number, text.decode("utf-8"), place >= len(paths))
                except UnicodeDecodeError:
                    rejects.add(f"{path}:{number}", "not UTF-8", text.decode("utf-8", "replace"))
        except DamagedFile as error:
            rejects.add(str(path), f"from line {number + 1} on: {error}")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from None


def _byte_lines(path: Path) -> Iterator[bytes]:
    """Lines with their ends: LF, CRLF or CR."""
    rest = b""
    with contextlib.closing(Stream(path)) as stream:
        for chunk in stream:
            lines = (rest + chunk).splitlines(keepends=True)
            rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
            yield from lines
    yield from rest.splitlines(keepends=True)


@contextlib.contextmanager
def written(path: Path) -> Iterator[TextIO]:
    """A UTF-8 file, gzip for .gz, that gets its name when it is whole; equal texts give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, sync=False) as temporary, temporary.open("wb") as raw:
        packed = gzip.GzipFile("", "wb", 6, raw, mtime=0) if path.suffix == ".gz" else raw
        with packed, io.TextIOWrapper(packed, "utf-8", errors="backslashreplace", newline="\n") as file:
            yield file


@contextlib.contextmanager
def scratch(beside: Path) -> Iterator[sqlite3.Connection]:
    """A temporary database beside an output, to sort and join more than fits in memory."""
    path = Path(f"{beside}.scratch")
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            folder = str(path.parent.absolute()).replace("'", "''")
            db.executescript(f"""
                PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -64000;
                PRAGMA temp_store_directory = '{folder}'; BEGIN;
            """)
            yield db
    finally:
        path.unlink(missing_ok=True)


def shuffled(lines: Iterable[Line], seed: int, beside: Path) -> Iterator[Line]:
    """The lines in random order, the same for the same lines and seed; `beside` as of `scratch`."""
    rng = np.random.default_rng(seed)
    rows = ((int(rng.integers(2**63)), str(one.path), *one[1:]) for one in lines)
    with scratch(beside) as db:
        db.execute("CREATE TABLE lines (key INTEGER, path TEXT, number INTEGER, text TEXT, dev INTEGER)")
        db.executemany("INSERT INTO lines VALUES (?, ?, ?, ?, ?)", rows)
        for _, path, number, text, dev in db.execute("SELECT * FROM lines ORDER BY key"):
            yield Line(Path(path), number, text, bool(dev))
