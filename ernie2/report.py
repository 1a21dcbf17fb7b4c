"""`python -m ernie2.report OUT_DIR`: a pre-training run as one self-contained HTML page. No tensors here.

What is read, and what becomes of damaged logs, is in ernie2/run_log.py; the page itself in report.html."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from math import nan
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ernie2.config import cli
from ernie2.pages import (
    CHART_SIZE,
    HERE,
    TASK_COLORS,
    Series,
    compact,
    environment,
    line_chart,
    percent,
    write,
)
from ernie2.run_log import Run, load_run

SETTINGS = {
    "Model": ("model", "size"),
    "Schedule": ("curriculum", "mode"),
    "Peak learning rate": ("lr", "peak"),
    "Tokens a step": ("batch", "tokens"),
    "Precision": ("runtime", "precision"),
}
"""Facts of the recipe shown in the header: label -> section, key."""


def verdict(accuracy: float | None, chance: float | None) -> tuple[str, str]:
    """(words, CSS class) for a dev accuracy beside chance, the accuracy of the best constant guess.

    Above: 1.2 times chance or a tenth of the way from chance to 1, so that the rule suits both masked_lm
    (chance near 0) and unbalanced classes (near 1). Barely above: 1.05 times or a fiftieth of the way."""
    if accuracy is None or chance is None:
        return ("not evaluated" if accuracy is None else "no chance level logged"), "soft"
    gain = accuracy - chance
    way = gain / (1 - chance) if chance < 1 else 0.0
    if gain > 0 and (accuracy >= 1.2 * chance or way >= 0.1):
        return "● above chance", "good"
    if gain > 0 and (accuracy >= 1.05 * chance or way >= 0.02):
        return "◐ barely above chance", ""
    return ("○ at chance", "bad") if way > -0.02 else ("▼ below chance", "bad")


def duration(seconds: float) -> str:
    """Seconds for people: 40 s, 90 min, 3 h 2 min."""
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60:,} h {minutes % 60} min"


# ---- figures ------------------------------------------------------------------------------------------


def facts(run: Run) -> dict[str, str]:
    """What the header says of the run."""
    whole, planned = run.whole, sum(run.planned.values())
    tokens, seconds = run.result.get("tokens") or whole.tokens, run.result.get("seconds") or whole.seconds
    found = {
        "Steps": f"{run.last_step:,}" + (f" of {planned:,}" if planned else ""),
        "Stages": str(len(run.stages)),
        "Tokens": compact(tokens) if tokens else "–",
        "Time": duration(seconds) if seconds else "–",
        "Tokens a second": compact(whole.tokens / whole.seconds) if whole.seconds else "–",
        "Padding": percent(whole.padding),
        "Waiting for data": percent(whole.waiting),
    }
    if run.skipped:
        found["Skipped steps"] = f"{run.skipped:,}"
    found["Newest checkpoint"] = run.checkpoint or "none yet"
    for label, place in SETTINGS.items():
        value = run.setting(*place)
        if value is not None:
            found[label] = (
                compact(value)
                if isinstance(value, float)
                else f"{value:,}"
                if type(value) is int
                else str(value)
            )
    return found


def state(run: Run) -> tuple[str, str]:
    """(words, CSS class) for how far the run has come."""
    ago, planned = duration(run.silent), sum(run.planned.values())
    if run.state == "finished":
        return "● Finished", "good"
    if run.state == "stopped":
        return f"▼ Stopped: no log line for {ago} and no result", "bad"
    seconds, left = run.result.get("seconds") or run.whole.seconds, planned - run.last_step
    rest = (
        f", about {duration(seconds / run.last_step * left)} of training left" if left > 0 and seconds else ""
    )
    return f"◐ Running, last log line {ago} ago{rest}", ""


def results(run: Run) -> Iterator[dict[str, Any]]:
    """The newest evaluation of each head of each task, beside chance."""
    for task in run.tasks:
        for last in run.dev(task)[-1:]:
            for head in run.heads(task):
                found = {key: last[key].get(head) for key in ("accuracy", "chance", "losses", "chance_loss")}
                words, kind = verdict(found["accuracy"], found["chance"])
                yield found | {"task": task, "head": head, "words": words, "kind": kind, "step": last["step"]}


def stages(run: Run) -> Iterator[dict[str, Any]]:
    """Each stage with its tasks: (name, share of its tokens or None, whether it is new)."""
    seen: set[str] = set()
    for stage in run.stages:
        tasks = sorted(stage.tasks, key=run.tasks.index)
        shares = [
            (task, stage.tasks[task] / stage.tokens if stage.tokens else None, task not in seen)
            for task in tasks
        ]
        seen |= set(tasks)
        yield {
            "stage": stage,
            "name": run.stage_name(stage.number),
            "tasks": shares,
            "planned": run.planned.get(stage.number),
        }


def forgetting(run: Run) -> Iterator[dict[str, Any]]:
    """Dev loss and accuracy of every earlier task at the end of its own stage and now."""
    for task in run.tasks:
        records = run.since_own_stage(task)
        for head in run.heads(task) if records else []:
            then, now = records[0]["losses"].get(head), records[-1]["losses"].get(head)
            if then is None or now is None:
                continue
            words, kind = ("● kept", "")
            if not 0.98 * then <= now <= 1.02 * then:
                words, kind = ("▲ forgotten", "bad") if now > then else ("▼ improved", "good")
            yield {
                "task": task,
                "head": head,
                "words": words,
                "kind": kind,
                "then": then,
                "now": now,
                "stage": run.stage_name(records[0]["stage"]),
                "change": f"{now - then:+.3f}" + (f" ({now / then - 1:+.1%})" if then else ""),
                "accuracies": [record["accuracy"].get(head) for record in (records[0], records[-1])],
            }


# ---- pictures -----------------------------------------------------------------------------------------


def _color(run: Run, task: str) -> str:
    """The colour of a task, the same in every picture and table."""
    return f"t{run.tasks.index(task) % TASK_COLORS}"


def _points(records: Sequence[dict], key: str, head: str | None = None) -> list[tuple[float, float]]:
    """(step, value) of the records that have one, with a gap where a whole stage lies between two of them."""
    points: list[tuple[float, float]] = []
    stage = None
    for record in records:
        value = record.get(key) if head is None else record[key].get(head)
        if value is not None:
            if stage is not None and record["stage"] > stage + 1:
                points.append((record["step"], nan))
            points.append((record["step"], value))
            stage = record["stage"]
    return points


def task_charts(run: Run, task: str, head: str) -> list[Markup]:
    """Loss and accuracy of a task's head, in training and on the dev split, with the chance level."""
    train, dev, charts = [record for record in run.train if record["task"] == task], run.dev(task), []
    first = min((record["stage"] for record in train + dev), default=0)
    begin = next((stage.start for stage in run.stages if stage.number == first), 0)
    for key, chance in (("losses", "chance_loss"), ("accuracy", "chance")):
        level = _points(dev, chance, head)
        level = [(begin, level[0][1]), *level] if level else []  # one evaluation is a line, too
        series = [
            Series("chance", level, "soft", "level"),
            Series("train", _points(train, key, head), _color(run, task), "smooth"),
            Series("dev", _points(dev, key, head), "ink", "marked"),
        ]
        share = key == "accuracy"
        values = [y for one in series for _, y in one.points if y == y]
        zero = share and bool(values) and min(values) < 0.5 * max(values)
        name = task if len(task) <= 26 else task[:25] + "…"
        charts.append(
            line_chart(
                run, f"{name} · {head} {'accuracy' if share else 'loss'}", series, share=share, zero=zero
            )
        )
    return charts


def forgetting_charts(run: Run) -> list[Markup]:
    """How far each earlier task's dev loss (own head) has moved since its own stage.

    In percent, so that losses of all sizes can be compared. A wide picture and one for narrow screens."""
    series = [Series("end of own stage", [(0, 0.0), (run.last_step, 0.0)], "soft", "level", note=" ")]
    for task in run.tasks:
        records = run.since_own_stage(task)
        head = next(iter(run.heads(task)), "")
        then = records[0]["losses"].get(head) if records else None
        if then:
            change = [
                (record["step"], record["losses"][head] / then - 1)
                for record in records
                if head in record["losses"]
            ]
            series.append(Series(task, change, _color(run, task), "marked", note=f"{change[-1][1]:+.1%}"))
    title = "Change of dev loss since the end of the task's own stage"
    return [line_chart(run, title, series, share=True, size=size) for size in ((880, 250), (440, 300))]


def machine_charts(run: Run) -> list[Markup]:
    """Learning rate, gradient norm, throughput, padding, waiting; loss scale, skipped steps if any."""
    by_step: dict[int, dict] = {}
    for record in run.train:  # a line a task: what it says of the whole step is the same, tokens are added up
        step = by_step.setdefault(record["step"], {})
        sums = {key: step.get(key, 0.0) + record.get(key, 0.0) for key in ("tokens", "padded_tokens")}
        step |= record | sums
    steps = list(by_step.values())
    for step in steps:
        if step["padded_tokens"] >= step["tokens"] > 0:
            share = step["tokens"] / step["padded_tokens"]
            step["padding"] = 1 - share
            if "tokens_per_s" in step:
                step["padded_per_s"] = step["tokens_per_s"] / share

    def chart(title: str, *curves: tuple[str, str, str], kind="smooth", share=False, note="") -> Markup:
        series = [Series(label, _points(steps, key), color, kind, note) for label, key, color in curves]
        return line_chart(run, title, series, share=share, zero=True)

    charts = [
        chart("Learning rate", ("", "lr", "t0"), kind="line"),
        chart("Gradient norm before clipping", ("", "grad_norm", "t1")),
        chart("Tokens a second", ("real", "tokens_per_s", "t2"), ("padded", "padded_per_s", "t4")),
        chart(
            "Share of padding and of time waiting for data",
            ("padding", "padding", "t7"),
            ("waiting", "data_wait_share", "t3"),
            share=True,
        ),
    ]
    if len({record.get("loss_scale") for record in steps} - {None}) > 1:
        charts.append(chart("Loss scale", ("", "loss_scale", "t6"), kind="line"))
    if run.skipped:
        title = "Steps skipped so far (no finite loss or gradient)"
        charts.append(chart(title, ("", "skipped_steps", "t4"), kind="line", note=f"{run.skipped:,}"))
    return charts


# ---- pages --------------------------------------------------------------------------------------------


def page(out_dir: str | Path) -> str:
    """The whole HTML page (well-formed XML as well). Raises ConfigError when there is no run in `out_dir`."""
    run = load_run(out_dir)
    forgotten = list(forgetting(run))
    return (
        environment()
        .get_template("report.html")
        .render(
            run=run,
            state=state(run),
            facts=facts(run),
            results=list(results(run)),
            stages=list(stages(run)),
            curves=[
                chart
                for task in run.tasks
                for head in run.heads(task)
                for chart in task_charts(run, task, head)
            ],
            forgotten=forgotten,
            forgetting_charts=forgetting_charts(run) if forgotten else [],
            machine=machine_charts(run),
            duration=duration,
            now=time.strftime("%Y-%m-%d %H:%M"),
            color={task: _color(run, task) for task in run.tasks},
            css=_css(),
        )
    )


def curves_svg(out_dir: str | Path) -> str:
    """A standalone SVG: loss and accuracy of each task's own head through training. Raises ConfigError."""
    run = load_run(out_dir)
    rows = [task_charts(run, task, run.heads(task)[0]) for task in run.tasks if run.heads(task)]
    return environment().get_template("curves.svg").render(run=run, rows=rows, size=CHART_SIZE, css=_css())


def _css() -> Markup:
    return Markup((HERE / "report.css").read_text(encoding="utf-8"))


@cli
def main(argv: Sequence[str]) -> None:
    """The command line. Raises ConfigError: no run there, or the output cannot be written."""
    parser = argparse.ArgumentParser(
        "python -m ernie2.report", description="Draws a pre-training run as an HTML page."
    )
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
