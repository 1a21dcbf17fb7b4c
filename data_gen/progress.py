"""Progress of long work over bytes: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts bytes done; shows rate in MB/s (MB = 1e6 bytes) and the time left.

    Args:
        total: Bytes expected; an estimate will do.
        out: Takes a plain line when standard error is not a terminal.
    """

    def __init__(self, total: int, out: Callable[[str], None]) -> None:
        self.total, self.done, self._out = max(total, 1), 0, out
        self._start = self._last = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=self.total, unit="B", unit_scale=True, desc="generate", dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        if error is None:
            self._out(f"read {self.done / 1e6:.1f} MB of text in {self.seconds:.1f} s, {self._rate():.2f} MB/s")

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def add(self, count: int) -> None:
        """Counts `count` bytes as done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            left = max(self.total - self.done, 0) / 1e6 / max(self._rate(), 1e-9)
            self._out(f"{self.done / 1e6:.1f} of {self.total / 1e6:.1f} MB, {self._rate():.2f} MB/s, {left:.0f} s left")

    def _rate(self) -> float:
        return self.done / 1e6 / max(self.seconds, 1e-9)
