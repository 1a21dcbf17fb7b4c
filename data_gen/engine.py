"""Who does the work: this process, processes of this machine, or a ray cluster; results come in the order of the calls."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

from data_gen.workers import Workers
from ernie2.strict import ConfigError

Call = Callable[[], Any]
"""What is to be done: a `functools.partial` of a function of a module, with arguments that can be pickled."""


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """For a call, which makes a hundred thousand small objects without a cycle: looking for cycles takes up to a sixth of it."""
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
        ConfigError: ray is not installed.
    """

    def __init__(self, name: str, workers: int) -> None:
        self.name, self.workers = name, workers
        self._processes: Workers | None = None
        if name == "ray":
            try:
                from ray.util.joblib import register_ray
            except ImportError:
                raise ConfigError("--engine ray: ray is not installed; pip install ray, or leave --engine out") from None
            register_ray()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._processes is not None:
            self._processes.end(at_once=error is not None)

    def start(self, load: Call) -> None:
        """Starts the processes of this machine, which share what `load` loads here. Without it all is done in this process."""
        if self.name == "local":
            load()
            if self.workers > 1:
                self._processes = Workers(self.workers)

    def run(self, calls: Iterable[Call]) -> Iterator[Any]:
        """What each call returns; calls are asked for as they are needed.

        Raises:
            ConfigError: a worker was killed. Also whatever the calls, or what makes them, raise.
        """
        if self._processes is not None:
            return self._processes.run(calls)
        return self._on_ray(calls) if self.name == "ray" else (call() for call in calls)

    def _on_ray(self, calls: Iterable[Call]) -> Iterator[Any]:
        import joblib

        failed: list[BaseException] = []
        # Ray's back end cannot hand results on as they come; they are small (the examples are on disk).
        with joblib.parallel_config(backend="ray"):
            done = joblib.Parallel(n_jobs=self.workers, batch_size=1, pre_dispatch=2 * self.workers)(
                joblib.delayed(call)() for call in _until_error(calls, failed))
        yield from done
        if failed:
            raise failed[0]


def _until_error(calls: Iterable[Call], failed: list[BaseException]) -> Iterator[Call]:
    """The calls up to an error, which is kept: joblib asks for calls in threads of its own, where it would be lost."""
    try:
        yield from calls
    except Exception as error:  # noqa: BLE001 - raised again by the caller
        failed.append(error)
