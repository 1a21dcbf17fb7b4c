"""Progress of long work over bytes: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
        unit: "B" (shown as MB = 1e6 bytes), or another word.
    """

    def __init__(self, total: int, out: Callable[[str], None], what: str = "generate", unit: str = "B") -> None:
        self.total, self.done, self._out, self._what, self._unit = max(total, 1), 0, out, what, unit
        self._resumed, self._estimated = 0, False
        self._start = self._last = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm  # here: it takes a twentieth of a second

            self._bar = tqdm(total=self.total, unit=unit, unit_scale=unit == "B", desc=what, dynamic_ncols=True, smoothing=0)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.total = max(self.done, 1) if error is None else self.total
            self._bar.refresh()
            self._bar.close()
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
            self._bar.update(count)
        elif time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            left = max(self.total - self.done, 0) / max(self._rate(), 1e-9)
            scale, word = (1e6, "MB") if self._unit == "B" else (1, self._unit)
            self._out(f"{self._what}: {self.done / scale:,.1f} of {self.total / scale:,.1f} {word}, "
                      f"{self._rate() / scale:.2f} {word}/s, {left:.0f} s left")

    def estimate(self, done: Done, workers: int, folder: Path) -> None:
        """Says, after the first block, how long it will take and how much room; once.

        Args:
            done: What the block came to.
            workers: Number of workers.
            folder: On the disk that must hold all this.
        """
        if self._estimated:
            return
        self._estimated = True
        blocks, free = self.total / done.size, shutil.disk_usage(folder).free
        seconds = max(self.total - self._resumed, done.size) / done.size * done.seconds * MERGE_FACTOR / workers
        room = blocks * (done.spilled + done.shard_bytes)
        self.say(f"about {_time(seconds)} with {workers} worker{'s' * (workers > 1)} of {_bytes(done.memory)} of memory; "
                 f"{_bytes(blocks * done.shard_bytes)} of shards and up to {_bytes(blocks * done.spilled)} of temporary files in "
                 f"{folder} ({_bytes(free)} free)")
        if room > free:
            self.say(f"WARNING: the disk is too small: {folder} needs about {_bytes(room)}; finished work is kept if it fills up")

    def say(self, line: str) -> None:
        """A line of text, above the bar where there is one."""
        if self._bar is not None:
            self._bar.clear()
        self._out(line)

    def _rate(self) -> float:
        return (self.done - self._resumed) / max(self.seconds, 1e-9)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _bytes(count: float) -> str:
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
