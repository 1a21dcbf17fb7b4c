"""Report of the scaling benchmark: measured here, predicted here, predicted for V100s; measured and assumed kept apart.

    python -m benchmarks.scaling_report      the predictions for V100s alone, as docs/scaling.md has them
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from benchmarks.report import command_line, spread
from benchmarks.scaling_v100 import (
    CASES,
    NETWORKS,
    PAGE_IMBALANCES,
    PER_NODE,
    RANKS,
    RECIPES,
    Row,
    assumptions,
    batch_for,
    predictions,
)
from ernie2.scaling import Step

if TYPE_CHECKING:
    from benchmarks.scaling import Calibration, Measured
    from benchmarks.scaling_runs import Point

GOAL = 0.8  # expected efficiency that "what it would take" speaks of


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Markdown lines."""
    first, *others = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return [first, "|" + "---|" * len(head), *others]


def measured_table(measured: Measured) -> list[str]:
    """Every point: milliseconds of a step, tokens a second, factor over one process of one thread at the same step."""
    base = {point.micro_batches: seconds for point, values in measured.seconds.items()
            if (point.processes, point.threads, point.beside) == (1, 1, 1) for seconds in [min(values)]}
    rows = []
    for point, seconds in measured.seconds.items():
        factor = point.beside * base[point.micro_batches] / min(seconds)
        rows.append([point.name, spread([1e3 * value for value in seconds], 0),
                     f"{point.beside * measured.tokens_per_s(point):,.0f}", f"{factor:.2f}"])
    return table(["run", "ms a step, best [range of rounds]", "tokens/s in all", "factor"], rows)


def check_table(rows: Sequence[tuple[Point, Sequence[float], Step]]) -> list[str]:
    """Measured beside predicted."""
    lines = []
    for point, seconds, step in rows:
        real = min(seconds)
        parts = " + ".join(f"{name} {1e3 * value:.0f}" for name, value in (
            ("compute", step.compute), ("waiting", step.waiting), ("update", step.update), ("exchange", step.exposed)) if value)
        lines.append([point.name, "calibrates" if point.processes == 1 else "predicted", f"{1e3 * real:.0f}",
                      f"{1e3 * step.seconds:.0f} ({parts})", f"{step.seconds / real - 1:+.0%}"])
    return table(["run", "", "measured ms", "model ms", "off"], lines)


def inputs_table(measured: Measured, found: Calibration) -> list[str]:
    """What was measured for the model."""
    small, large = sorted(measured.all_reduce)
    rows = [["gradients that travel, one process", f"{4 * measured.parameters / 1e6:.1f} MB a step "
             f"({measured.parameters / 1e6:.2f} M parameters, float32)"],
            ["all-reduce alone, 2 processes, gloo", f"{1e3 * measured.all_reduce[large]:.1f} ms for {large / 1e6:.1f} MB, "
             f"{1e3 * measured.all_reduce[small]:.2f} ms for {small / 1e3:.1f} kB: {found.link.bandwidth / 1e9:.2f} GB/s, "
             f"{1e6 * found.link.latency:.0f} us a hop"],
            ["micro-batch on one thread", f"{1e3 * found.micro:.0f} ms for {measured.recipe.batch.micro_tokens:,} tokens"],
            ["rest of a step on one thread", f"{1e3 * found.update:.0f} ms (norm, update, log)"],
            ["contention", f"{found.contention:.2f} (a run beside another one, over a run alone)"],
            ["imbalance of micro-batches", ", ".join(f"{ranks} ranks {value:.3f}" for ranks, value in measured.imbalances.items())],
            ["input", f"{measured.input_rate:,.0f} tokens/s masked and padded by one thread"]]
    return table(["input of the model", "measured"], rows)


def _range(values: Sequence[float], scale: float = 1.0, digits: int = 0) -> str:
    """expected (cautious to optimistic), from (cautious, expected, optimistic)."""
    cautious, expected, optimistic = (f"{value * scale:,.{digits}f}" for value in values)
    return f"{expected} ({cautious} to {optimistic})"


def v100_table(rows: Iterable[Row]) -> list[str]:
    """Predictions."""
    lines = []
    for row in rows:
        lines.append([row.size, str(row.ranks), row.network or "one node", f"{row.micro_batches} x {row.micro_tokens:,}",
                      _range([step.seconds for step in row.steps], 1e3), _range([step.tokens_per_s for step in row.steps], 1e-6, 2),
                      _range(row.efficiencies, 100), f"{100 * row.steps[1].exposed / row.steps[1].seconds:.0f}"])
    return table(["size", "V100s", "between nodes", "micro-batches a card", "ms a step", "M tokens/s", "efficiency %",
                  "of it exchange %"], lines)


def limits_table(imbalances: dict[int, float]) -> list[str]:
    """How many times the paper's batch each network needs for GOAL."""
    rows = []
    for network in NETWORKS:
        cells = [batch_for(size, ranks, network, GOAL, imbalances.get(ranks, 1.0))
                 for size in RECIPES for ranks in RANKS if ranks > PER_NODE]
        rows.append([network, *("over 64" if cell is None else str(cell) for cell in cells)])
    return table(["between nodes", *(f"{size} on {ranks}" for size in RECIPES for ranks in RANKS if ranks > PER_NODE)], rows)


def v100_parts(imbalances: dict[int, float]) -> list[tuple[str, list[str]]]:
    """(heading, lines) of everything about V100s."""
    head, cases = f"{CASES[1]} ({CASES[0]} to {CASES[2]})", [
        [one.what, _range(one.values, digits=1 if one.values[0] < 3 else 0) if len(set(one.values)) > 1 else f"{one.values[0]:g}",
         one.unit, one.source] for one in assumptions()]
    return [(f"V100s at 393,216 tokens a step, fp16: {head}; predicted, not measured", v100_table(predictions(imbalances))),
            (f"How many times the paper's batch it takes until {100 * GOAL:.0f}% is expected", limits_table(imbalances)),
            ("Assumed", table(["figure", head, "unit", "source"], cases))]


def report(measured: Measured, found: Calibration, rows: Sequence[tuple[Point, Sequence[float], Step]], facts: Sequence[str],
           argv: Sequence[str]) -> str:
    """The whole report in Markdown."""
    parts = [("Measured", measured_table(measured)), ("The model's inputs, measured", inputs_table(measured, found)),
             ("The model beside the measurement", check_table(rows)), *v100_parts(measured.imbalances)]
    lines = ["# Scaling: data parallelism measured on this machine, predicted for V100s", "",
             f"Written {time.strftime('%Y-%m-%d')} by one run of `benchmarks/scaling.py`: the best of {len(rows[0][1])} rounds in "
             "turn. The model and its limits: [docs/scaling.md](../../docs/scaling.md).", "", "```text",
             command_line("benchmarks.scaling", argv), "```", "", *facts, ""]
    return "\n".join([*lines, *_sections(parts)])


def _sections(parts: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    return [line for heading, content in parts for line in (f"## {heading}", "", *content, "")]


if __name__ == "__main__":
    print("\n".join(_sections(v100_parts(PAGE_IMBALANCES))))
