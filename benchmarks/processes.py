"""Whole processes, timed: wall clock from start to exit, processor time, peak memory of every process of the tree.

Memory is the kernel's own high-water mark (VmHWM in /proc/PID/status), read ten times a second, and for what ended in
between ru_maxrss of os.wait4. Linux.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
"""One worker is one core, for us and for the peers."""
TASKS = ("knowledge_masking", "sentence_reordering", "sentence_distance", "discourse_relation", "ir_relevance")
"""The paper's five Chinese tasks."""
SAMPLE_SECONDS = 0.1


class RunFailed(Exception):  # noqa: N818 - it names what happened
    """A process ended with an error, or without the result it should leave. The message ends with its last lines."""


@dataclass(frozen=True)
class Run:
    """What a process and its children took.

    Attributes:
        seconds: Wall clock, from start to exit.
        cpu_seconds: Processor time of all its processes.
        peak_mb: Peak resident memory of its largest process, MB of 1e6 bytes.
        total_mb: Sum of the peaks of all its processes; shared pages count for each.
        output: What it printed, both streams.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float
    total_mb: float
    output: str


def run(command: Sequence[str], cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> Run:
    """Runs a command to its end. It dies with us.

    Args:
        command: Program and arguments.
        cwd: Where it runs.
        environment: Added to ours and to `ONE_THREAD`.

    Raises:
        RunFailed: it ended with another exit code than 0.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        begin = time.perf_counter()
        process = subprocess.Popen([*map(str, command)], cwd=cwd, env={**os.environ, **ONE_THREAD, **(environment or {})},
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        watch = _MemoryWatch(process.pid)
        try:
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - begin
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            watch.stop()
            _end(process)
        log.seek(0)
        output = log.read()
    if process.returncode:
        raise RunFailed(f"exit code {process.returncode}: {last_lines(output)}")
    peaks = watch.peaks or {process.pid: 0.0}
    # ru_maxrss covers the process and the children it waited for. Across exec it keeps the peak of the process that
    # started it, which is this one: small, as all large work is done in processes of its own.
    largest = max(*peaks.values(), usage.ru_maxrss * 1024 / 1e6)
    return Run(seconds, usage.ru_utime + usage.ru_stime, largest, max(sum(peaks.values()), largest), output)


def call_part(name: str, folder: Path, /, **arguments: Any) -> dict[str, Any]:
    """What a function of `benchmarks.datagen_parts` returns, run in a process of its own.

    Args:
        name: The function.
        folder: For the file of its result.
        arguments: Its arguments; JSON, paths become text.

    Raises:
        RunFailed: it failed.
    """
    result = folder / f"{name}.result.json"
    result.unlink(missing_ok=True)
    run([sys.executable, "-m", "benchmarks.datagen_parts", name, json.dumps(arguments, default=str), str(result)])
    return json.loads(result.read_text(encoding="utf-8"))


def write_recipe(folder: Path, vocab: Path, corpus: Sequence[Path], query_log: Sequence[Path],
                 entity_dicts: Sequence[Path] = (), **settings: Any) -> Path:
    """Writes a recipe of the five Chinese tasks, all settings but the paths and those given left at their defaults.

    Args:
        folder: Where recipe.yaml and the shards go.
        vocab: Vocabulary.
        corpus: Text files.
        query_log: Query-title files.
        entity_dicts: User dictionaries.
        settings: Keys of `data`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = {"shards_dir": str(folder / "shards"), "corpus": [*map(_absolute, corpus)], "query_log": [*map(_absolute, query_log)],
            **settings}
    if entity_dicts:
        data["entity_dicts"] = [*map(_absolute, entity_dicts)]
    recipe = {"name": "datagen_benchmark", "out_dir": str(folder / "out"), "model": {"vocab_file": _absolute(vocab)},
              "data": data, "curriculum": {"steps_per_task": 1000, "stages": [[task] for task in TASKS]}, "lr": {"peak": 1e-4}}
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe, ensure_ascii=False, indent=1), encoding="utf-8")  # JSON is YAML
    return path


def last_lines(text: str, count: int = 4) -> str:
    """The last lines that say something, in one line; of a command of ours the error alone."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and lines[-1].startswith("error: "):
        return lines[-1].removeprefix("error: ")
    return " / ".join(lines[-count:])[-400:] or "no output"


class _MemoryWatch(threading.Thread):
    """Reads the high-water mark of a process and its descendants while they live."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peaks: dict[int, float] = {}
        self._pid, self._over = pid, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            waiting = [self._pid]
            while waiting:
                pid = waiting.pop()
                peak, children = _peak_mb(pid), _children(pid)
                if peak:
                    self.peaks[pid] = peak  # it falls only where a process begins another program
                waiting += children

    def stop(self) -> None:
        self._over.set()
        self.join()


def _peak_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def _children(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):  # it has just ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text(encoding="utf-8").split())
    return found


def _end(process: subprocess.Popen) -> None:
    """Ends a process that still runs, and what it leaves behind."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    if process.returncode is None:
        process.wait()


def _absolute(path: Path) -> str:
    return str(Path(path).absolute())
