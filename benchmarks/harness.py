"""One harness for all benchmarks: commands run as children, series measured in turn, a page of targets and
figures.

A child is timed from start to exit, with the processor time and the peak memory of every process of its tree:
the kernel's high-water mark (VmHWM), read ten times a second, and ru_maxrss of os.wait4 for what ended in
between. Linux.

    python -m benchmarks.harness MODULE FUNCTION ARGUMENTS RESULT.json      what `call` starts"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ernie2 import __version__
from ernie2.strict import cli, make_folder

ROOT = Path(__file__).resolve().parent.parent
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
"""One worker is one core, for us and for the peers."""
PACKAGES = ("numpy", "jieba", "rjieba", "tokenizers", "joblib", "paddlenlp", "paddlepaddle", "protobuf")
OK, MISSED, NOT_RUN, INFORMATION = "ok", "MISSED", "not run", ""
_STARTED = time.monotonic()


# ---- children
# -------------------------------------------------------------------------------------------------


class RunFailed(Exception):  # noqa: N818 - it names what happened
    """A process ended with an error, or without its result. The message ends with its last lines."""


@dataclass(frozen=True)
class Run:
    """What a process and its children took."""

    seconds: float  # wall clock, from start to exit
    cpu_seconds: float  # processor time of all its processes, user and system
    peak_mb: float  # peak resident memory of its largest process, MB of 1e6 bytes
    total_mb: float  # sum of the peaks of all its processes; shared pages count for each
    output: str  # both streams


def run(command: Sequence[Any], cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> Run:
    """Runs a command to its end, `environment` added to ours and to ONE_THREAD. It dies with us.

    Raises:
        RunFailed: its exit code was not 0."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        begin, env = time.perf_counter(), {**os.environ, **ONE_THREAD, **(environment or {})}
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        process = subprocess.Popen([*map(str, command)], cwd=cwd, env=env, start_new_session=True, **streams)
        watch = _MemoryWatch(process.pid)
        try:
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - begin
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            watch.stop()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it left behind
            process.wait()
        log.seek(0)
        output = log.read()
    if process.returncode:
        raise RunFailed(f"exit code {process.returncode}: {last_lines(output)}")
    # ru_maxrss covers the children that were waited for. Across exec it keeps the peak of the process that
    # started it, which is this one: small, as all large work is done in processes of its own.
    largest = max(*watch.peaks.values(), usage.ru_maxrss * 1024 / 1e6, 0.0)
    total = max(sum(watch.peaks.values()), largest)
    return Run(seconds, usage.ru_utime + usage.ru_stime, largest, total, output)


def call_command(module: str, function: str, result: Path, /, **arguments: Any) -> list[Any]:
    """The command of a process that calls a function and writes what it returns to `result`. Paths become
    text."""
    return [
        sys.executable,
        "-m",
        "benchmarks.harness",
        module,
        function,
        json.dumps(arguments, default=str),
        result,
    ]


def call(module: str, function: str, folder: Path, /, **arguments: Any) -> Any:
    """What a function returns, called in a process of its own: none warms another, none counts for another's
    memory.

    Args:
        module: Its module.
        function: Its name.
        folder: For the file of its result.
        arguments: Its arguments.

    Raises:
        RunFailed: it failed."""
    result = folder / f"{function}.result.json"
    run(call_command(module, function, result, **arguments))
    return json.loads(result.read_text(encoding="utf-8"))


def last_lines(text: str, count: int = 4) -> str:
    """The last lines that say something, in one line; of a command of ours the error alone."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and lines[-1].startswith("error: "):
        return lines[-1].removeprefix("error: ")
    return " / ".join(lines[-count:])[-400:] or "no output"


class _MemoryWatch(threading.Thread):
    """Reads the high-water mark of a process and its descendants while they live: `peaks`, MB by process."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peaks, self._pid, self._over = {pid: 0.0}, pid, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.1):
            waiting = [self._pid]
            while waiting:
                pid = waiting.pop()
                with contextlib.suppress(OSError):  # it has just ended
                    waiting += self._read(Path("/proc", str(pid)))

    def _read(self, folder: Path) -> list[int]:
        """Notes a process's peak; its children."""
        for line in (folder / "status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM"):
                self.peaks[int(folder.name)] = int(line.split()[1]) * 1024 / 1e6
        children = [path.read_text(encoding="utf-8") for path in folder.glob("task/*/children")]
        return [int(pid) for pid in " ".join(children).split()]

    def stop(self) -> None:
        self._over.set()
        self.join()


@contextlib.contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """A temporary folder that is removed however the run ends, kill -9 excepted."""
    if parent is not None:
        make_folder(parent, "--scratch")

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # raises KeyboardInterrupt
    with tempfile.TemporaryDirectory(prefix="ernie2_benchmark_", dir=parent) as folder:
        yield Path(folder)


def write_recipe(path: Path, keys: Mapping[str, Any]) -> Path:
    """Writes a recipe of these dotted keys, all others at their defaults."""
    recipe: dict[str, Any] = {"name": "benchmark", "seed": 1, "lr": {"peak": 1e-4}}
    for key, value in keys.items():
        section, _, name = key.rpartition(".")
        (recipe.setdefault(section, {}) if section else recipe)[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(recipe, ensure_ascii=False, default=str), encoding="utf-8")  # JSON is YAML
    return path


# ---- series
# ---------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """What was measured."""

    runs: dict[str, list[Any]] = field(default_factory=dict)  # series -> results, one a round
    faults: dict[str, str] = field(default_factory=dict)  # series that failed -> why

    def measure(self, series: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Adds a result to a series; a series that failed once is not tried again."""
        if series in self.faults:
            return
        try:
            result = function(*args, **kwargs)
        except RunFailed as error:
            self.faults[series] = str(error)
            say(f"{series}: FAILED: {error}")
            return
        self.runs.setdefault(series, []).append(result)
        said = getattr(result, "seconds", result)
        say(f"{series}: {said:.2f} s" if isinstance(said, float) else f"{series}: {said}"[:150])

    def has(self, *names: str) -> bool:
        """Whether all these series have results, and none failed in a later round."""
        return all(self.runs.get(name) and name not in self.faults for name in names)

    def seconds(self, name: str) -> list[float]:
        """Seconds of a series, round by round."""
        return [run.seconds for run in self.runs[name]]

    def values(self, name: str, key: str) -> list[Any]:
        """One figure of a series whose results are mappings, round by round."""
        return [one[key] for one in self.runs[name]]

    def failed(self, what: str, wanted: str, names: Iterable[str]) -> Row:
        """The row of what could not be measured for want of these series: MISSED where one of them failed."""
        why = next((self.faults[name] for name in names if name in self.faults), None)
        if why is None:
            return Row(what, wanted, "not run: left out", NOT_RUN)
        return Row(what, wanted, f"failed: {why}", MISSED)


def say(text: str) -> None:
    """Prints a line with the minutes since the start."""
    print(f"[{(time.monotonic() - _STARTED) / 60:5.1f} min] {text}", flush=True)


# ---- the page
# -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A line of the table: what is measured, the target in words, the figures in words, and whether it is
    met."""

    what: str
    wanted: str
    measured: str
    verdict: str = INFORMATION

    @property
    def cells(self) -> list[str]:
        """The row for `table`."""
        verdict = f"**{self.verdict}**" if self.verdict == MISSED else self.verdict
        return [cell.replace("|", "/") for cell in (self.what, self.wanted, self.measured, verdict)]


def spread(values: Sequence[float], digits: int = 2, unit: str = "", best: Callable = min) -> str:
    """`best [min..max]`, or the value alone where there is one; best is min for times, max for rates, or the
    median."""
    text = f"{best(values):,.{digits}f}"
    if len(values) > 1:
        text += f" [{min(values):,.{digits}f}..{max(values):,.{digits}f}]"
    return f"{text} {unit}".rstrip()


def at_least(what: str, limit: float, values: Sequence[float], unit: str = "", **shown: Any) -> Row:
    """A row whose best value must not be below the limit; `shown`: digits, note, best."""
    return _judged(what, ">=", limit, values, unit, **{"best": max, **shown})


def at_most(what: str, limit: float, values: Sequence[float], unit: str = "", **shown: Any) -> Row:
    """A row whose best value must not be above the limit; `shown`: digits, note, best."""
    return _judged(what, "<=", limit, values, unit, **shown)


def _judged(what, relation, limit, values, unit, digits=2, note="", best=min) -> Row:  # noqa: ANN001
    met = best(values) >= limit if relation == ">=" else best(values) <= limit
    wanted = f"{relation} {limit:g} {unit}".rstrip()
    return Row(what, wanted, spread(values, digits, unit, best) + note, OK if met else MISSED)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    first, *others = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return [first, "|" + "---|" * len(head), *others]


def targets(rows: Sequence[Row]) -> list[str]:
    """The table of targets, and how many of them are met."""
    met, missed, rest = (sum(row.verdict == verdict for row in rows) for verdict in (OK, MISSED, NOT_RUN))
    head = f"**{met} targets met, {missed} missed, {rest} not run.**"
    return [head, "", *table(["what", "wanted", "measured", ""], [row.cells for row in rows]), ""]


def page(title: str, about: Sequence[str], parts: Iterable[tuple[str, Sequence[str]]]) -> str:
    """A report in Markdown: title, lines about the run, (heading, lines) of each part."""
    lines = [f"# {title}", "", *about]
    for heading, content in parts:
        lines += [f"## {heading}", "", *content, ""]
    return "\n".join(lines)


def about(module: str, argv: Sequence[str], how: str, facts: Sequence[str]) -> list[str]:
    """When, how and where a report's figures were measured. Of paths the last two parts alone: the rest is of
    one machine."""
    short = ("/".join(Path(argument).parts[-2:]) if "/" in argument else argument for argument in argv)
    written = f"Written {time.strftime('%Y-%m-%d')} by one run of `{module.replace('.', '/')}.py`: {how}"
    command = shlex.join(["python", "-m", module, *short])
    load = f"- load average at the end {os.getloadavg()[0]:.2f}"
    return [written, "", "```text", command, "```", "", *facts, load, ""]


def publish(report: str, out: Path | None) -> None:
    """Prints a report, and writes it to `out` too."""
    print(report)
    if out is not None:
        out.write_text(report, encoding="utf-8")


def machine_facts(folder: Path) -> list[str]:
    """What the figures depend on: processor, cores, memory, disk of `folder`, Python, packages."""
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} not installed")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    system = f"{os.cpu_count()} cores, {memory:.0f} GB of memory; {platform.system()} {platform.release()}"
    disk = _first_line(["stat", "--file-system", "--format=%T", folder]) or "a file system of unknown type"
    commit = _first_line(["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"])
    return [
        f"- processor: {_processor()}; {system}",
        f"- Python {platform.python_version()}, ernie2 {__version__} ({commit}); {', '.join(versions)}",
        f"- load average at the start {os.getloadavg()[0]:.2f}; temporary files in {disk}",
    ]


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(command: Sequence[Any]) -> str:
    try:
        return run(command).output.strip().partition("\n")[0]
    except (RunFailed, OSError):
        return ""


@cli
def main(argv: Sequence[str]) -> int:
    """Calls one function. What it returns is written unless it is None (the ranks of a run beside the
    first)."""
    module, function, arguments, result = argv
    found = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    if found is not None:
        Path(result).write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    return 0


if __name__ == "__main__":
    main()
