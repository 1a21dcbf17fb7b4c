"""Progress of long work over bytes: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.filesize import decimal

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from data_gen.block_work import Done

SECONDS_BETWEEN_LINES = 10.0
MERGE_FACTOR = 1.15
"""The merge takes about so much more than the blocks alone."""


class Progress:
    """Counts bytes or shards done; shows the rate and the time left.

    Args:
        total: Expected; an estimate will do.
        out: Takes a plain line when standard error is not a terminal.
        what: What is going on.
        unit: "B" (shown as MB = 1e6 bytes), or another word."""

    def __init__(
        self, total: int, out: Callable[[str], None], what: str = "generate", unit: str = "B"
    ) -> None:
        self.total, self.done, self._out, self._what, self._unit = max(total, 1), 0, out, what, unit
        self._resumed, self._estimated = 0, False
        self._start = self._last = time.monotonic()
        self._bar = _bar(unit) if sys.stderr.isatty() else None
        if self._bar is not None:
            self._task = self._bar.add_task(what, total=self.total)
            self._bar.start()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.update(self._task, total=max(self.done, 1) if error is None else self.total)
            self._bar.stop()
        if error is None and self._unit == "B":
            before = f" ({self._resumed / 1e6:.1f} MB of it in a run before)" if self._resumed else ""
            rate = f", {self._rate() / 1e6:.2f} MB/s" if self.done > self._resumed else ""
            self._out(f"read {self.done / 1e6:.1f} MB of text{before} in {self.seconds:.1f} s{rate}")

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def add(self, count: int, resumed: bool = False) -> None:
        """Counts `count` as done; `resumed`: by a run before."""
        self.done += count
        self._resumed += count if resumed else 0
        if self._bar is not None:
            self._bar.update(self._task, advance=count, refresh=True)
        elif time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            left = max(self.total - self.done, 0) / max(self._rate(), 1e-9)
            scale, word = (1e6, "MB") if self._unit == "B" else (1, self._unit)
            self._out(
                f"{self._what}: {self.done / scale:,.1f} of {self.total / scale:,.1f} {word}, "
                f"{self._rate() / scale:.2f} {word}/s, {left:.0f} s left"
            )

    def estimate(self, done: Done, workers: int, folder: Path) -> None:
        """Says, after the first block, how long it will take and how much room; once.

        Args:
            done: What the block came to.
            workers: Number of workers.
            folder: On the disk that must hold all this."""
        if self._estimated:
            return
        self._estimated = True
        blocks, free = self.total / done.size, shutil.disk_usage(folder).free
        seconds = (
            max(self.total - self._resumed, done.size) / done.size * done.seconds * MERGE_FACTOR / workers
        )
        room = blocks * (done.spilled + done.shard_bytes)
        memory, shards, spilled, needed, left = (
            decimal(round(size))
            for size in (done.memory, blocks * done.shard_bytes, blocks * done.spilled, room, free)
        )
        plural = "s" * (workers > 1)
        self._out(
            f"about {_time(seconds)} with {workers} worker{plural} of {memory} of memory; {shards} of "
            f"shards and up to {spilled} of temporary files in {folder} ({left} free)"
        )
        if room > free:
            self._out(
                f"WARNING: the disk is too small: {folder} needs about {needed}; finished work is kept "
                "if it fills up"
            )

    def _rate(self) -> float:
        return (self.done - self._resumed) / max(self.seconds, 1e-9)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _bar(unit: str) -> Bar:
    """A bar on standard error; lines printed meanwhile stand above it."""
    from rich import console, progress  # here: they take a tenth of a second

    counts = progress.DownloadColumn() if unit == "B" else progress.MofNCompleteColumn()
    columns = "{task.description}", progress.BarColumn(), counts, progress.TimeRemainingColumn()
    # Not refreshed by a thread: workers are forked, and one forked amid its writing would find the lock held.
    return progress.Progress(
        *columns,
        console=console.Console(stderr=True),
        auto_refresh=False,
        redirect_stdout=sys.stdout.isatty(),
    )
