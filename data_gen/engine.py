"""Who does the work: this process, processes of this machine, or a ray cluster; results in order of calls."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.reduction import ForkingPickler
from types import TracebackType
from typing import Any

from ernie2.strict import ConfigError

Call = Callable[[], Any]
"""What is to be done: a `functools.partial` of a function of a module, with arguments that can be pickled."""
KILLED = (
    "a worker process was killed, most likely by the kernel because memory ran out; what is "
    "finished is kept: run the same command again with fewer --workers"
)
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1  # Linux, prctl.h


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """For calls that make many small objects without a cycle: looking for cycles takes up to a sixth."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Engine:
    """Does calls. Use it in a `with`, which ends the processes.

    Args:
        name: "local", or "ray": a ray cluster whose machines share the shards folder and the input.
        workers: Processes; with one, local, the work is done in this process.

    Raises:
        ConfigError: ray is not installed."""

    def __init__(self, name: str, workers: int) -> None:
        self.name, self.workers = name, workers
        self._pool: ProcessPoolExecutor | None = None
        self._processes: set[multiprocessing.process.BaseProcess] = set()
        if name == "ray":
            try:
                from ray.util.joblib import register_ray
            except ImportError:
                raise ConfigError(
                    "--engine ray: ray is not installed; pip install ray, or leave --engine out"
                ) from None
            register_ray()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is None:
            return
        if error is not None:  # at once, not when each has done what it is at
            for process in self._processes:
                process.terminate()
            if sys.version_info < (3, 11, 5):  # CPython #94777: a call sent to a dead worker blocks the pool
                self._pool._call_queue._reader.close()
        self._pool.shutdown()

    def start(self, load: Call) -> None:
        """Starts processes of this machine that share what `load` loads here. Without it all is done here."""
        if self.name != "local":
            return
        load()
        if self.workers > 1:
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else that library warns of every fork
            others = set(multiprocessing.active_children())
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # Ctrl-C between two forks: it would hang
            try:
                self._pool = ProcessPoolExecutor(
                    self.workers, multiprocessing.get_context("fork"), _begin, (os.getpid(), mask)
                )
                self._pool.submit(int)  # the first call forks them all, before any thread runs
                self._processes = set(multiprocessing.active_children()) - others
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def run(self, calls: Iterable[Call]) -> Iterator[Any]:
        """What each call returns; calls are asked for as they are needed. Large results go through files: a
        worker killed while it sends more than a pipe holds (64 KB) blocks the pool.

        Raises:
            ConfigError: a worker was killed. Also whatever the calls, or what makes them, raise."""
        if self._pool is not None:
            return self._on_pool(self._pool, calls)
        return self._on_ray(calls) if self.name == "ray" else (call() for call in calls)

    def _on_pool(self, pool: ProcessPoolExecutor, calls: Iterable[Call]) -> Iterator[Any]:
        """One call is made ahead of a free worker, and none more waits: memory stays flat."""
        sent: deque[Future] = deque()
        try:
            for call in calls:
                while len(busy := [one for one in sent if not one.done()]) == self.workers:
                    wait(busy, return_when=FIRST_COMPLETED)
                sent.append(pool.submit(_call, call))
                while len(sent) > self.workers and sent[0].done():  # all have something to do first
                    yield sent.popleft().result()
            while sent:
                yield sent.popleft().result()
        except BrokenProcessPool:
            raise ConfigError(KILLED) from None

    def _on_ray(self, calls: Iterable[Call]) -> Iterator[Any]:
        import joblib

        failed: list[BaseException] = []
        # Ray's back end cannot hand results on as they come; they are small (the examples are on disk).
        with joblib.parallel_config(backend="ray"):
            done = joblib.Parallel(n_jobs=self.workers, batch_size=1, pre_dispatch=2 * self.workers)(
                joblib.delayed(call)() for call in _until_error(calls, failed)
            )
        yield from done
        if failed:
            raise failed[0]


def _until_error(calls: Iterable[Call], failed: list[BaseException]) -> Iterator[Call]:
    """The calls up to an error, kept aside: joblib asks for calls in its threads, where it would be lost."""
    try:
        yield from calls
    except Exception as error:  # noqa: BLE001 - raised again by the caller
        failed.append(error)


def _begin(parent: int, mask: set[signal.Signals]) -> None:
    """A worker's first act: it dies with its parent, and leaves Ctrl-C, which reaches all, to it."""
    for ending in ENDING:
        signal.signal(ending, signal.SIG_IGN if ending == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


def _call(call: Call) -> Any:
    """What a call returns. Of an error that cannot be pickled and made again, as a user's may be, the words
    are raised: the pool would take it for the death of a worker."""
    try:
        return call()
    except Exception as error:
        try:
            ForkingPickler.loads(ForkingPickler.dumps(error))
        except Exception:  # noqa: BLE001 - whatever a user's class does
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
        raise
