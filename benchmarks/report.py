"""Table of the data-generation benchmark: what is wanted, what was measured, ok or MISSED."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import ROOT, RunFailed, run
from ernie2 import __version__

PACKAGES = ("numpy", "jieba", "rjieba", "tokenizers", "joblib", "paddlenlp", "paddlepaddle", "protobuf")
OK, MISSED, NOT_RUN, INFORMATION = "ok", "MISSED", "not run", ""


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        what: What is measured.
        wanted: The target in words; empty where there is none.
        measured: Median and range in words.
        verdict: OK, MISSED, NOT_RUN, or INFORMATION where there is no target.
    """

    what: str
    wanted: str
    measured: str
    verdict: str

    @property
    def line(self) -> str:
        """The row in Markdown."""
        verdict = f"**{self.verdict}**" if self.verdict == MISSED else self.verdict
        return f"| {' | '.join(cell.replace('|', '/') for cell in (self.what, self.wanted, self.measured, verdict))} |"


def spread(values: Sequence[float], digits: int = 2, unit: str = "", best: Callable = min) -> str:
    """`best [min..max]`, or the value alone where there is one; `best` is min for times, max for rates."""
    text = f"{best(values):,.{digits}f}"
    if len(values) > 1:
        text += f" [{min(values):,.{digits}f}..{max(values):,.{digits}f}]"
    return f"{text} {unit}".rstrip()


def at_least(what: str, limit: float, values: Sequence[float], unit: str = "", digits: int = 2, note: str = "") -> Row:
    """A row whose best value must not be below the limit."""
    return Row(what, f">= {limit:g} {unit}".rstrip(), f"{spread(values, digits, unit, max)}{note}",
               OK if max(values) >= limit else MISSED)


def at_most(what: str, limit: float, values: Sequence[float], unit: str = "", digits: int = 2, note: str = "") -> Row:
    """A row whose best value must not be above the limit."""
    return Row(what, f"<= {limit:g} {unit}".rstrip(), f"{spread(values, digits, unit)}{note}",
               OK if min(values) <= limit else MISSED)


def failed(what: str, wanted: str, why: str, ours: bool) -> Row:
    """A row of what could not be measured: MISSED where the fault is ours, else not run."""
    return Row(what, wanted, f"not run: {why}" if not ours else f"failed: {why}", MISSED if ours else NOT_RUN)


def machine_facts(folder: Path) -> list[str]:
    """What the figures depend on: processor, cores, memory, disk of `folder`, Python, packages."""
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} not installed")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return [f"- processor: {_processor()}; {os.cpu_count()} cores, {memory:.0f} GB of memory; {platform.system()} "
            f"{platform.release()}",
            f"- Python {platform.python_version()}, ernie2 {__version__}{_commit()}; {', '.join(versions)}",
            f"- load average at the start {os.getloadavg()[0]:.2f}; temporary files in {_file_system(folder)}"]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _file_system(folder: Path) -> str:
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return "a file system of unknown type"
    inside = [(place, kind) for place, kind in mounts if folder.resolve().is_relative_to(place)]
    return max(inside, key=lambda one: len(one[0]))[1] if inside else "a file system of unknown type"


def _commit() -> str:
    try:
        commit = run(["git", "rev-parse", "--short=12", "HEAD"], ROOT).output.strip()
        changed = run(["git", "status", "--porcelain", "--untracked-files=no"], ROOT).output.strip()
    except (RunFailed, OSError):
        return ""
    return f" ({commit}{', with changes' if changed else ''})"


def markdown(title: str, about: Sequence[str], rows: Sequence[Row], tables: Sequence[tuple[str, Sequence[str]]]) -> str:
    """The whole report.

    Args:
        title: Heading.
        about: Lines before the table.
        rows: Of the table.
        tables: (heading, Markdown lines) of further parts.
    """
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in (OK, MISSED, NOT_RUN)}
    lines = [f"# {title}", "", *about, "", f"**{counts[OK]} targets met, {counts[MISSED]} missed, {counts[NOT_RUN]} not run.**",
             "", "| what | wanted | measured | |", "|---|---|---|---|", *(row.line for row in rows), ""]
    for heading, content in tables:
        lines += [f"## {heading}", "", *content, ""]
    return "\n".join(lines)


def command_line(module: str, argv: Sequence[str]) -> str:
    """What was typed; paths without the folders that are of one machine alone."""
    short = ("/".join(Path(argument).parts[-2:]) if "/" in argument else argument for argument in argv)
    return shlex.join(["python", "-m", module, *short])


def publish(report: str, rows: Sequence[Row], out: Path | None) -> int:
    """Prints a report, writes it to `out` too, and returns the exit code: 1 where a target is missed."""
    print(report)
    if out is not None:
        out.write_text(report, encoding="utf-8")
    return int(any(row.verdict == MISSED for row in rows))
