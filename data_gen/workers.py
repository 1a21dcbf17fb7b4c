"""Processes of this machine that work side by side: forks of this one, so that they are there at once and share its tables.

There is no thread here: a fork beside a thread may hang. Not concurrent.futures, whose workers live on where this process is
killed by force, and which takes an exception that cannot be made again here for the death of a worker.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any

from ernie2.strict import ConfigError

KILLED = ("a worker process was killed from outside, most likely for want of memory; what is finished is kept: run the same "
          "command again, with fewer --workers")
ROOM_BYTES = 4 << 20
"""Bytes of a pickled call that fit into shared memory; larger ones go through the pipe, for which a worker waits."""


@dataclass
class _Ready:
    """A call on its way.

    Attributes:
        number: Place among the calls.
        room: Number of the shared memory kept for it until it is answered.
        size: Its bytes there; 0 where it does not fit.
        call: The pickled call where it does not fit.
    """

    number: int
    room: int
    size: int
    call: memoryview | None = None


class Workers:
    """Forked processes, each at the other end of a pipe. It does one call at a time.

    What a call is lies in memory that all share, put there while the workers are busy; the pipe says where.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else that library warns of every fork
        fork = multiprocessing.get_context("fork")
        self._processes: dict[Connection, multiprocessing.process.BaseProcess] = {}
        self._rooms = [mmap.mmap(-1, ROOM_BYTES) for _ in range(2 * count)]  # of a call at work and one ahead, for each worker
        for _ in range(count):
            ours, theirs = fork.Pipe()
            process = fork.Process(target=_serve, args=(theirs, [*self._processes, ours], self._rooms), daemon=True)
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
        ready: deque[_Ready] = deque()
        free, idle, busy = [*range(len(self._rooms))], [*self._processes], {}
        done: dict[int, Any] = {}
        while True:
            while ready and idle:
                line, one = idle.pop(), ready.popleft()
                _send(line, one)
                busy[line] = one
            while given in done:  # what becomes of it takes time: not before the workers have something to do
                yield done.pop(given)
                given += 1
            if more and len(ready) < len(self._processes) and not (ready and wait(busy, 0)):
                call = next(calls, None)
                more = call is not None
                if more:
                    ready.append(self._made_ready(read, call, free.pop()))
                    read += 1
                continue
            if not busy:
                return
            for line in wait(busy):
                one = busy.pop(line)
                done[one.number] = _answer(line)
                idle.append(line)
                free.append(one.room)

    def _made_ready(self, number: int, call: Callable[[], Any], room: int) -> _Ready:
        pickled = ForkingPickler.dumps(call)
        if len(pickled) > ROOM_BYTES:
            return _Ready(number, room, 0, pickled)
        self._rooms[room][:len(pickled)] = pickled
        return _Ready(number, room, len(pickled))

    def end(self, at_once: bool) -> None:
        """Ends the processes, at once or when each has done what it is at."""
        for line, process in self._processes.items():
            if at_once:
                process.terminate()
            line.close()
        for process in self._processes.values():
            process.join()


def _send(line: Connection, one: _Ready) -> None:
    try:
        line.send((one.room, one.size))
        if one.call is not None:
            line.send_bytes(one.call)
    except OSError:
        raise ConfigError(KILLED) from None


def _received(line: Connection, rooms: Sequence[mmap.mmap]) -> Callable[[], Any]:
    """The next call. Raises EOFError or OSError where there will be none."""
    room, size = line.recv()
    if not size:
        return line.recv()
    with memoryview(rooms[room]) as lying, lying[:size] as pickled:
        return ForkingPickler.loads(pickled)


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


def _serve(line: Connection, others: Sequence[Connection], rooms: Sequence[mmap.mmap]) -> None:
    """A worker's life: it does what comes through its line until that is closed, also by the death of the other process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the other process decides
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.SIG_DFL)
    for other in others:
        other.close()
    while True:
        try:
            call = _received(line, rooms)
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
