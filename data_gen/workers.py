"""Processes of this machine that work side by side: forks of this one, so that they are there at once and share its tables.

There is no thread here: a fork beside a thread may hang. Not concurrent.futures, whose workers live on where this process is
killed by force, and which takes an exception that cannot be made again here for the death of a worker.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any

from ernie2.strict import ConfigError

KILLED = ("a worker process was killed from outside, most likely for want of memory; what is finished is kept: run the same "
          "command again, with fewer --workers")


class Workers:
    """Forked processes, each at the other end of a pipe. It does one call at a time.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else that library warns of every fork
        fork = multiprocessing.get_context("fork")
        self._processes: dict[Connection, multiprocessing.process.BaseProcess] = {}
        for _ in range(count):
            ours, theirs = fork.Pipe()
            process = fork.Process(target=_serve, args=(theirs, [*self._processes, ours]), daemon=True)
            process.start()
            theirs.close()
            self._processes[ours] = process

    def run(self, calls: Iterable[Callable[[], Any]]) -> Iterator[Any]:
        """What each call returns, in the order of the calls.

        A call is pickled before a worker is free for it, one ahead for each worker and no more.

        Raises:
            ConfigError: a worker was killed. Also whatever the calls, or what makes them, raise.
        """
        calls, more, read, given = iter(calls), True, 0, 0
        ready: deque[memoryview] = deque()
        idle, busy = [*self._processes], {}
        done: dict[int, Any] = {}
        while True:
            while ready and idle:
                line = idle.pop()
                _send(line, ready.popleft())
                busy[line] = read - len(ready) - 1
            if more and len(ready) < len(self._processes) and not (ready and wait(busy, 0)):
                call = next(calls, None)
                more = call is not None
                if more:
                    ready.append(ForkingPickler.dumps(call))
                    read += 1
                continue
            if not busy:
                return
            for line in wait(busy):
                done[busy.pop(line)] = _answer(line)
                idle.append(line)
            while given in done:
                yield done.pop(given)
                given += 1

    def end(self, at_once: bool) -> None:
        """Ends the processes, at once or when each has done what it is at."""
        for line, process in self._processes.items():
            if at_once:
                process.terminate()
            line.close()
        for process in self._processes.values():
            process.join()


def _send(line: Connection, call: memoryview) -> None:
    try:
        line.send_bytes(call)
    except OSError:
        raise ConfigError(KILLED) from None


def _answer(line: Connection) -> Any:
    """What a worker's call returned. Raises what it raised."""
    try:
        fine, answer = line.recv()
    except (EOFError, OSError):
        raise ConfigError(KILLED) from None
    if fine:
        return answer
    error, trace = answer
    raise error from None if isinstance(error, ConfigError) else RuntimeError(f"in a worker process:\n{trace}")


def _serve(line: Connection, others: Sequence[Connection]) -> None:
    """A worker's life: it does what comes through its line until that is closed, also by the death of the other process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the other process decides
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.SIG_DFL)
    for other in others:
        other.close()
    while True:
        try:
            call = line.recv()
        except (EOFError, OSError):
            return
        try:
            answer = ForkingPickler.dumps((True, call()))
        except Exception as error:  # noqa: BLE001 - raised again by the other process
            answer = _told(error, traceback.format_exc())
        try:
            line.send_bytes(answer)
        except OSError:
            return


def _told(error: Exception, trace: str) -> memoryview:
    """An error on its way to the other process."""
    try:
        answer = ForkingPickler.dumps((False, (error, trace)))
        ForkingPickler.loads(answer)
    except Exception:  # noqa: BLE001 - that of a user's generator may be such that it cannot be made again there
        answer = ForkingPickler.dumps((False, (RuntimeError(f"{type(error).__name__}: {error}"), trace)))
    return answer
