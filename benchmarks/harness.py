"""One harness for all benchmarks: commands run as children, series measured in turn, a page of targets and
figures. Linux.

python -m benchmarks.harness MODULE FUNCTION ARGUMENTS      what `call` starts"""

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ernie2 import __version__
from ernie2.strict import ConfigError, cli, make_folder

ROOT = Path(__file__).resolve().parent.parent
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
PACKAGES = ("numpy", "jieba", "rjieba", "tokenizers", "joblib", "paddlenlp", "paddlepaddle")
OK, MISSED, NOT_RUN, INFORMATION = "ok", "MISSED", "not run", ""
RESULT = "result of the call: "
Parts = Iterable[tuple[str, Sequence[str]]]
_STARTED = time.monotonic()


class RunFailed(ConfigError):
    """A process ended with an error. The message ends with its last lines."""


@dataclass(frozen=True)
class Run:
    """What a process and its children took."""

    seconds: float  # wall clock, from start to exit
    peak_mb: float  # peak resident memory of its largest process, MB of 1e6 bytes
    output: str  # both streams


def run(command: Sequence[Any], cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> Run:
    """Runs a command to its end, `environment` added to ours and to ONE_THREAD. It dies with us.

    Raises RunFailed where its exit code is not 0."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        begin, env = time.perf_counter(), {**os.environ, **ONE_THREAD, **(environment or {})}
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        process = subprocess.Popen([*map(str, command)], cwd=cwd, env=env, start_new_session=True, **streams)
        try:
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - begin
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it left behind
            process.wait()
        log.seek(0)
        output = log.read()
    if process.returncode:
        raise RunFailed(f"exit code {process.returncode}: {last_lines(output)}")
    # Across exec ru_maxrss keeps the peak of the process that started it, which is this one: small, as all
    # large work is done in processes of its own.
    return Run(seconds, usage.ru_maxrss * 1024 / 1e6, output)


def last_lines(text: str) -> str:
    """The last lines of some text in one."""
    return " / ".join(line.strip() for line in text.splitlines() if line.strip())[-400:] or "no output"


def call_command(module: str, function: str, /, **arguments: Any) -> list[str]:
    """The command of a process that calls a function. Paths become text."""
    text = json.dumps(arguments, default=str)
    return [sys.executable, "-m", "benchmarks.harness", module, function, text]


def call(module: str, function: str, /, **arguments: Any) -> Any:
    """What a function returns, called in a process of its own: none warms another. Keys become attributes.

    Raises RunFailed."""
    return result_of(run(call_command(module, function, **arguments)))


def result_of(run: Run) -> Any:
    """What the function that `call_command` called returned."""
    line = run.output.rpartition(RESULT)[2].partition("\n")[0]
    return json.loads(line, object_hook=lambda found: SimpleNamespace(**found))


def write_recipe(path: Path, keys: Mapping[str, Any]) -> Path:
    """Writes a recipe of these dotted keys, all others at their defaults."""
    recipe: dict[str, Any] = {"name": "benchmark", "seed": 1, "lr": {"peak": 1e-4}}
    for key, value in keys.items():
        section, _, name = key.rpartition(".")
        (recipe.setdefault(section, {}) if section else recipe)[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(recipe, ensure_ascii=False, default=str), encoding="utf-8")  # JSON is YAML
    return path


@dataclass(frozen=True)
class Row:
    """A line of the table of targets."""

    what: str
    wanted: str
    measured: str
    verdict: str = INFORMATION


@dataclass
class Results:
    """Series of measurements, one result a round, and the error of each series that failed."""

    series: dict[str, list[Any]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def measure(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Adds a result to a series; a series that failed once is not tried again."""
        if name in self.errors:
            return
        try:
            result = function(*args, **kwargs)
        except RunFailed as error:
            self.errors[name] = str(error)
            say(f"{name}: FAILED: {error}")
            return
        self.series.setdefault(name, []).append(result)
        say(f"{name}: {result.seconds:.2f} s" if isinstance(result, Run) else f"{name}: {result}")

    def row(
        self,
        what: str,
        names: Sequence[str],
        values: Callable[..., Sequence[float]],
        wanted: str = "",
        digits: int = 2,
        best: Callable | None = None,
    ) -> Row:
        """As `judge`, of what `values` makes of the series `names`; MISSED where one of them failed."""
        failed = [self.errors[name] for name in names if name in self.errors]
        if not failed and all(self.series.get(name) for name in names):
            return judge(what, values(*[self.series[name] for name in names]), wanted, digits, best)
        if not wanted.startswith(("<", ">")):
            return Row(what, "", "not run")
        return Row(
            what, wanted, f"failed: {failed[0]}" if failed else "not run", MISSED if failed else NOT_RUN
        )


def judge(
    what: str, values: Sequence[float], wanted: str = "", digits: int = 2, best: Callable | None = None
) -> Row:
    """The row of a figure that was measured once or in rounds. `wanted` is ">= 3 MB/s" or "<= 3 MB/s", "MB/s"
    for information; `best` says which round counts, by default the best one."""
    limit, unit = re.fullmatch(r"([<>]= \S+)? ?(.*)", wanted).groups()
    most = wanted.startswith("<")
    best = best or (min if most else max)
    text = spread(values, digits, unit, best)
    if not limit:
        return Row(what, "", text)
    figure, number = best(values), float(limit.split()[1])
    return Row(what, wanted, text, OK if (figure <= number if most else figure >= number) else MISSED)


def column(key: str, factor: float = 1) -> Callable[[Sequence[Any]], list[float]]:
    """What makes one figure of a series, round by round."""
    return lambda series: [factor * getattr(one, key) for one in series]


def say(text: str) -> None:
    """Prints a line with the minutes since the start."""
    print(f"[{(time.monotonic() - _STARTED) / 60:5.1f} min] {text}", flush=True)


def spread(values: Sequence[float], digits: int = 2, unit: str = "", best: Callable = min) -> str:
    """`best [min..max] unit`, or the value alone where there is one."""
    text = f"{best(values):,.{digits}f}"
    if len(values) > 1:
        text += f" [{min(values):,.{digits}f}..{max(values):,.{digits}f}]"
    return f"{text} {unit}".rstrip()


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    first, *others = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return [first, "|" + "---|" * len(head), *others]


def targets(rows: Sequence[Row]) -> tuple[str, list[str]]:
    """Heading and table of targets: how many of them are met."""
    met, missed, rest = (sum(row.verdict == verdict for row in rows) for verdict in (OK, MISSED, NOT_RUN))
    cells = [[row.what, row.wanted, row.measured.replace("|", "/"), row.verdict] for row in rows]
    head = ["what", "wanted", "measured", ""]
    return f"{met} targets met, {missed} missed, {rest} not run", table(head, cells)


def publish(module: str, argv: Sequence[str], facts: Sequence[str], parts: Parts, out: Path | None) -> None:
    """Prints a report in Markdown, and writes it to `out` too: command (of paths the last two parts), facts,
    headings and lines."""
    short = ("/".join(Path(argument).parts[-2:]) if "/" in argument else argument for argument in argv)
    lines = [f"# {module}", "", "```text", shlex.join(["python", "-m", module, *short]), "```", ""]
    lines += [f"- written {time.strftime('%Y-%m-%d')}; load average {os.getloadavg()[0]:.2f}", *facts, ""]
    for heading, content in parts:
        lines += [f"## {heading}", "", *content, ""]
    print("\n".join(lines))
    if out is not None:
        out.write_text("\n".join(lines), encoding="utf-8")


def machine_facts() -> list[str]:
    """What figures depend on: processor, cores, memory, versions, load."""
    installed = {one.metadata["Name"]: one.version for one in importlib.metadata.distributions()}
    versions = ", ".join(f"{name} {installed.get(name, 'not installed')}" for name in PACKAGES)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    describe = ["sh", "-c", "git describe --always --abbrev=12 --dirty --exclude=* || echo no checkout"]
    commit = run(describe).output.strip()
    system = f"{os.cpu_count()} cores, {memory:.0f} GB of memory; {platform.system()} {platform.release()}"
    return [
        f"- {model[1] if model else platform.machine()}; {system}",
        f"- Python {platform.python_version()}, ernie2 {__version__} ({commit}); {versions}",
        f"- load average at the start {os.getloadavg()[0]:.2f}",
    ]


def parser(module: str, about: str) -> argparse.ArgumentParser:
    """The options that benchmarks share."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(f"python -m {module}", description=about, formatter_class=raw)
    rounds = "how often everything is measured; default 3"
    parser.add_argument("--rounds", type=positive, default=3, help=rounds)
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="report to write")
    return parser


def positive(text: str) -> int:
    """A whole number of an option, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number, 1 or more")
    return int(text)


@contextlib.contextmanager
def scratch_folder(out: Path | None) -> Iterator[Path]:
    """A temporary folder, removed however the run ends, kill -9 excepted; TMPDIR says where. Checks --out."""
    if out is not None:
        make_folder(out.parent, "--out")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # raises KeyboardInterrupt
    with tempfile.TemporaryDirectory(prefix="ernie2_benchmark_") as folder:
        yield Path(folder)


@cli
def main(argv: Sequence[str]) -> None:
    """Calls one function and prints what it returns."""
    module, function, arguments = argv
    result = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    print(f"\n{RESULT}{json.dumps(result)}", flush=True)


if __name__ == "__main__":
    main()
