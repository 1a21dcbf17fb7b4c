"""`python -m ernie2.report OUT_DIR`: a pre-training run as one self-contained HTML page. No tensors here.

ernie2/run_log.py reads the logs, report.html is the page."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import reduce
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ernie2.config import cli
from ernie2.pages import CHART_SIZE, HERE, TASK_COLORS, Series, cut, environment, line_chart, write
from ernie2.run_log import Run


def verdict(accuracy: float | None, chance: float | None) -> tuple[str, str]:
    """(text, CSS class) for a dev accuracy beside chance, the accuracy of the best constant guess.

    Above: 1.2 times chance or a tenth of the way from chance to 1, so that the rule suits both masked_lm
    (chance near 0) and unbalanced classes (near 1). Barely above: 1.05 times or a fiftieth of the way."""
    if accuracy is None or chance is None:
        return "not evaluated", "soft"
    gain, way = accuracy - chance, (accuracy - chance) / (1 - chance) if chance < 1 else 0.0
    if gain > 0 and (gain >= 0.2 * chance or way >= 0.1):
        return "● above chance", "good"
    if gain > 0 and (gain >= 0.05 * chance or way >= 0.02):
        return "◐ barely above chance", ""
    return ("○ at chance" if way > -0.02 else "▼ below chance"), "bad"


def _color(run: Run, task: str) -> str:
    """The color of a task, the same in every chart and table."""
    return f"t{run.tasks.index(task) % TASK_COLORS}"


def _points(lines: Sequence[dict], *keys: str) -> list[tuple[float, float]]:
    """(step, value) of the lines that have the value, under one key or nested ones."""
    values = [(line["step"], reduce(lambda part, key: part.get(key, {}), keys, line)) for line in lines]
    return [(step, value) for step, value in values if value != {}]


def task_charts(run: Run, task: str, head: str) -> list[Markup]:
    """Loss and accuracy of a task's head, in training and on the dev split, with the chance level."""
    train, dev, charts = [line for line in run.train if line["task"] == task], run.dev(task), []
    begin = next(stage.start for stage in run.stages if stage.number == run.first_stage[task])
    for key, chance, what in (("losses", "chance_loss", "loss"), ("accuracy", "chance", "accuracy")):
        level = _points(dev, chance, head)
        series = [
            Series("chance", [(begin, level[0][1]), *level] if level else [], "soft", "level"),
            Series("train", _points(train, key, head), _color(run, task), "smooth"),
            Series("dev", _points(dev, key, head), "ink", "marked"),
        ]
        title = f"{cut(task, 26)} · {head} {what}"
        charts.append(line_chart(run, title, series, share=key == "accuracy"))
    return charts


def forgetting_charts(run: Run) -> list[Markup]:
    """How far each earlier task's dev loss (own head) has moved since its own stage; empty without any.

    In percent, so that losses of all sizes can be compared. A wide chart and one for narrow screens."""
    series = []
    for task in run.tasks:
        points = _points(run.since_own_stage(task), "losses", *run.heads(task)[:1])
        if points and points[0][1]:
            change = [(step, loss / points[0][1] - 1) for step, loss in points]
            series.append(Series(task, change, _color(run, task), "marked"))
    if not series:
        return []
    series.insert(0, Series("end of own stage", [(0, 0.0), (run.last_step, 0.0)], "soft", "level"))
    title = "Change of dev loss since the end of the task's own stage"
    return [line_chart(run, title, series, share=True, size=size) for size in ((880, 250), (440, 300))]


def machine_charts(run: Run) -> list[Markup]:
    """Learning rate, gradient norm, throughput, padding, waiting."""
    steps = []
    for _, group in groupby(run.train, itemgetter("step")):  # a line a task, which repeats all but its tokens
        lines = list(group)
        tokens, padded = (sum(line.get(key, 0.0) for line in lines) for key in ("tokens", "padded_tokens"))
        steps.append(lines[-1] | ({"padding": 1 - tokens / padded} if padded >= tokens > 0 else {}))

    def chart(title: str, *curves: tuple[str, str, str], kind="smooth", share=False) -> Markup:
        series = [Series(label, _points(steps, key), color, kind) for label, key, color in curves]
        return line_chart(run, title, series, share=share)

    padding = (("padding", "padding", "t7"), ("waiting", "data_wait_share", "t3"))
    return [
        chart("Learning rate", ("", "lr", "t0"), kind="line"),
        chart("Gradient norm before clipping", ("", "grad_norm", "t1")),
        chart("Tokens a second", ("", "tokens_per_s", "t2")),
        chart("Share of padding and of time waiting for data", *padding, share=True),
    ]


def page(out_dir: str | Path) -> str:
    """The whole HTML page (well-formed XML as well). Raises ConfigError when there is no run in `out_dir`."""
    run = Run(out_dir)
    heads = [(task, head) for task in run.tasks for head in run.heads(task)]
    return _render(
        "report.html",
        run=run,
        curves=[chart for task, head in heads for chart in task_charts(run, task, head)],
        forgetting_charts=forgetting_charts(run),
        machine=machine_charts(run),
        color={task: _color(run, task) for task in run.tasks},
        now=time.strftime("%Y-%m-%d %H:%M"),
        verdict=verdict,
    )


def curves_svg(out_dir: str | Path) -> str:
    """A standalone SVG: loss and accuracy of each task's own head through training. Raises ConfigError."""
    run = Run(out_dir)
    rows = [task_charts(run, task, run.heads(task)[0]) for task in run.tasks if run.heads(task)]
    return _render("curves.svg", run=run, rows=rows, size=CHART_SIZE)


def _render(template: str, **values: Any) -> str:
    css = Markup((HERE / "report.css").read_text(encoding="utf-8"))
    return environment().get_template(template).render(values, css=css)


@cli
def main(argv: Sequence[str]) -> None:
    """The command line. Raises ConfigError: no run there, or the output cannot be written."""
    parser = argparse.ArgumentParser("python -m ernie2.report", description=__doc__)
    parser.add_argument("out_dir", help="the run's out_dir, with train.jsonl and eval.jsonl")
    parser.add_argument("--out", metavar="FILE", help="the page (default: OUT_DIR/report.html)")
    parser.add_argument(
        "--svg", metavar="FILE", help="write the curves alone as SVG (and the page only with --out)"
    )
    options = parser.parse_args(argv)
    wanted = [(options.svg, curves_svg)] if options.svg else []
    if options.out or not options.svg:
        wanted.append((options.out or Path(options.out_dir) / "report.html", page))
    for path, draw in wanted:
        write(Path(path), draw(options.out_dir))
        sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
