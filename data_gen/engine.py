"""Who does the work: this process, processes of this machine, or a ray cluster; results come in the order of the calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ernie2.strict import ConfigError

KILLED = ("a worker process was killed from outside, most likely for want of memory; what is finished is kept: run the same "
          "command again, with fewer --workers")


class Engine:
    """Runs a function on many argument tuples.

    Args:
        name: "local", or "ray": a ray cluster whose machines share the shards folder and the input.
        workers: Processes; with one, local, the work is done in this process.

    Raises:
        ConfigError: ray is not installed.
    """

    def __init__(self, name: str, workers: int) -> None:
        self.name, self.workers = name, workers
        if name == "ray":
            try:
                from ray.util.joblib import register_ray
            except ImportError:
                raise ConfigError("--engine ray: ray is not installed; pip install ray, or leave --engine out") from None
            register_ray()

    def run(self, function: Callable, calls: Iterable[tuple], expected: int) -> Iterator[Any]:
        """What `function` returns for each call; calls are asked for as they are needed.

        Args:
            function: Called in a worker.
            calls: Its arguments.
            expected: Calls there will be, about: no more workers than these are started.

        Raises:
            ConfigError: a worker was killed. Also whatever function or calls raise.
        """
        workers = min(self.workers, max(expected, 1))
        if self.name == "local" and workers == 1:
            yield from (function(*call) for call in calls)
            return
        import joblib  # here: one worker needs none of it, and it takes a sixth of a second
        from joblib.externals.loky.process_executor import BrokenProcessPool

        failed: list[BaseException] = []
        jobs = (joblib.delayed(function)(*call) for call in _until_error(calls, failed))
        try:
            yield from self._parallel(jobs, workers)
        except BrokenProcessPool:
            raise ConfigError(KILLED) from None
        if failed:
            raise failed[0]

    def _parallel(self, jobs: Iterable, workers: int) -> Iterable:
        import joblib

        ahead = 2 * workers
        if self.name == "local":
            # mmap_mode, max_nbytes: pieces are bytes, not arrays; nothing is to be mapped.
            return joblib.Parallel(n_jobs=workers, return_as="generator", batch_size=1, pre_dispatch=ahead,
                                   max_nbytes=None)(jobs)
        # Ray's back end cannot hand results on as they come; they are small (the examples are on disk).
        with joblib.parallel_config(backend="ray"):
            return joblib.Parallel(n_jobs=workers, batch_size=1, pre_dispatch=ahead)(jobs)


def _until_error(calls: Iterable[tuple], failed: list[BaseException]) -> Iterator[tuple]:
    """The calls up to an error, which is kept: joblib asks for calls in threads of its own, where it would be lost."""
    try:
        yield from calls
    except Exception as error:  # noqa: BLE001 - raised again by the caller
        failed.append(error)
