"""Lines of foreign files, in and out: where they come from, those that cannot be used, and their order.

What is wrong with a line is told by `BadLine`; it is left out, counted and written to a file of rejects with
file, line and reason, and the import stops when more than a stated share of the lines is bad."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from data_gen.reading.streams import DamagedFile, Stream
from ernie2.strict import ConfigError

LINES_BEFORE_JUDGING = 1_000
"""Lines read before the share of bad ones can stop an import that is still reading."""
CACHE_KB = 64_000
"""Memory that sorting and joining may take."""
UNPACKED = 8
"""How much larger the text of a compressed file is taken to be."""


class BadLine(ValueError):
    """A line cannot be used. The message is the reason: the same for every like case, because it is counted
    by it."""


class Line(NamedTuple):
    """A line and where it stands.

    Attributes:
        path: The file.
        number: From 1.
        text: Without its end.
        dev: Whether the file was named as one of the dev split."""

    path: Path
    number: int
    text: str
    dev: bool = False


class RejectLog:
    """Rejects of an import, written as they come: one JSON object {file, line, reason, text} a line.

    Attributes:
        path: The file of rejects; not there when nothing was rejected. None: they are counted only.
        seen: Lines read, good or bad.
        counts: reason -> lines rejected.
        notes: reason -> lines of which something was set aside, through no fault of theirs.
        explain: Says the one cause behind all that is bad, with its option, where there is one; else ""."""

    def __init__(self, path: Path | None, max_share: float) -> None:
        """Raises ConfigError for a share that is none."""
        if not 0 <= max_share <= 1:
            raise ConfigError(f"--max-reject-share: found {max_share}, expected a share between 0 and 1")
        self.path, self.max_share = path, max_share
        self.seen = 0
        self.counts: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.explain: Callable[[], str] = str
        self._first: dict[str, str] = {}
        self._file: TextIO | None = None

    def __enter__(self) -> RejectLog:
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, path: Path, number: int | None, reason: str, text: str = "") -> None:
        """Rejects a line; `number` None: a file from somewhere on. Raises ConfigError when too many are bad
        by now."""
        self.counts[reason] += 1
        self._first.setdefault(reason, f"{path}:{number}" if number else str(path))
        if self.path is not None:
            self._write({"file": str(path), "line": number, "reason": reason, "text": text[:80]})
        if self.seen >= LINES_BEFORE_JUDGING:
            self.judge()

    def _write(self, row: dict[str, str | int | None]) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8", errors="backslashreplace")
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def judge(self) -> None:
        """Raises ConfigError where there is no line, more than the allowed share is bad, or none is good."""
        bad = self.counts.total()
        if not self.seen:
            raise ConfigError(
                f"no line in the files ({self.reasons() or 'they are empty'}); nothing to import"
            )
        if bad > self.max_share * self.seen or bad >= self.seen:
            if cause := self.explain():
                raise ConfigError(f"{cause} ({bad} of {self.seen} lines rejected; all are in {self.path})")
            raise ConfigError(
                f"--max-reject-share: {bad} of {self.seen} lines rejected, more than {self.max_share:g} of "
                "them "
                f"({self.reasons()}); all are in {self.path}; mend the files, or allow more"
            )

    def reasons(self) -> str:
        """Counts by reason with a place each, for messages."""
        return "; ".join(
            f"{reason}: {count:,}, first {self._first[reason]}" for reason, count in self.counts.most_common()
        )


def read(paths: Sequence[Path], rejects: RejectLog, dev: bool = False) -> Iterator[Line]:
    """Lines of text files, plain or compressed, UTF-8, but for empty ones.

    A line that is not UTF-8 is rejected; of a damaged file what can be read is read, and the rest rejected as
    one line. Raises ConfigError for a file that cannot be opened."""
    for path in paths:
        number, rest = 0, b""
        try:
            stream = Stream(path)
            with contextlib.closing(stream):
                for chunk in _ended(stream):
                    lines = (rest + chunk).splitlines(keepends=True)  # of bytes: at LF, CRLF and CR alone
                    rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
                    for line in lines:
                        number += 1
                        yield from _decoded(path, number, line, dev, rejects)
        except DamagedFile as error:
            rejects.add(path, None, f"from line {number + 1} on: {error}")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from None


def _ended(stream: Stream) -> Iterator[bytes]:
    """The chunks, and a line feed where the last line has none."""
    last = b"\n"
    for last in stream:
        yield last
    if not last.endswith(b"\n"):
        yield b"\n"


def _decoded(path: Path, number: int, line: bytes, dev: bool, rejects: RejectLog) -> Iterator[Line]:
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")
    if not line.strip():
        return
    rejects.seen += 1
    try:
        yield Line(path, number, line.decode("utf-8").rstrip("\r\n"), dev)
    except UnicodeDecodeError:
        rejects.add(path, number, "not UTF-8", line.rstrip(b"\r\n").decode("utf-8", "replace"))


@contextlib.contextmanager
def written(path: Path) -> Iterator[TextIO]:
    """A UTF-8 text file to write; gzip for .gz. It gets its name when all went well. The same text gives the
    same bytes.

    Raises ConfigError where it cannot be made."""
    path = Path(path)
    tmp = path.with_name(f"{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = tmp.open("wb")
    except OSError as error:
        raise ConfigError(f"--to: {path} cannot be written ({error.strerror})") from None
    try:
        with raw:
            packed = gzip.GzipFile("", "wb", 6, raw, mtime=0) if path.suffix == ".gz" else raw
            with packed, io.TextIOWrapper(packed, "utf-8", errors="backslashreplace", newline="\n") as file:
                yield file
        tmp.replace(path)
    finally:
        tmp.unlink(missing_ok=True)


def unpacked_bytes(paths: Iterable[Path]) -> int:
    """About how many bytes the text of files has."""
    return sum(
        path.stat().st_size * (UNPACKED if path.suffix in (".gz", ".bz2", ".zst") else 1) for path in paths
    )


def is_number(text: str) -> bool:
    """Whether a text is a whole number that 64 bits hold."""
    return text.isascii() and text.isdigit() and len(text) < 19


@contextlib.contextmanager
def scratch(beside: Path) -> Iterator[sqlite3.Connection]:
    """A database in a file of its own beside an output, to sort and join more than fits in memory; gone
    afterwards.

    Raises:
        ConfigError: the disk is full, or the file cannot be made."""
    path = Path(f"{beside}.scratch")
    path.unlink(missing_ok=True)  # of an import that was killed
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.executescript(f"""
                PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -{CACHE_KB};
                PRAGMA temp_store_directory = '{str(path.parent.absolute()).replace("'", "''")}'; BEGIN;
            """)
            yield db
    except sqlite3.OperationalError as error:
        raise ConfigError(f"--to: {path} cannot be written ({error}); make room and run it again") from None
    finally:
        path.unlink(missing_ok=True)


def shuffled(lines: Iterable[Line], seed: int, beside: Path) -> Iterator[Line]:
    """The lines in random order, the same for the same lines and seed; `beside`: where a temporary file may
    be."""
    rng, files = np.random.default_rng(seed), {}
    rows = (
        (int(rng.integers(2**63)), files.setdefault(line.path, len(files)), line.number, line.text, line.dev)
        for line in lines
    )
    with scratch(beside) as db:
        db.execute("CREATE TABLE lines (key INTEGER, file INTEGER, number INTEGER, text TEXT, dev INTEGER)")
        db.executemany("INSERT INTO lines VALUES (?, ?, ?, ?, ?)", rows)
        paths = list(files)
        for _, file, number, text, dev in db.execute("SELECT * FROM lines ORDER BY key"):
            yield Line(paths[file], number, text, bool(dev))
