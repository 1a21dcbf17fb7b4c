"""The pictures of a run's report: each task through training, forgetting, and the machinery under both. No tensors here."""

from __future__ import annotations

from collections.abc import Sequence

from ernie2.chart_scales import Point, shorten
from ernie2.charts import COLORS, Band, Series, line_chart
from ernie2.run_log import Run


def color_of(run: Run, task: str) -> str:
    """The colour of a task, the same in every picture and table."""
    return f"t{run.tasks.index(task) % COLORS}"


def _bands(run: Run) -> list[Band]:
    return [Band(run.stage_name(stage.number), stage.start, stage.stop) for stage in run.stages]


def _points(records: Sequence[dict], key: str, head: str | None = None) -> list[Point]:
    """(step, value) of the records that have one, with a gap where a whole stage lies between two of them."""
    points: list[Point] = []
    stage = None
    for record in records:
        value = record.get(key) if head is None else record[key].get(head)
        if value is not None:
            if stage is not None and record["stage"] > stage + 1:
                points.append((record["step"], None))
            points.append((record["step"], value))
            stage = record["stage"]
    return points


def task_charts(run: Run, task: str, head: str) -> list[str]:
    """Two charts of a task's head: loss and accuracy, in training and on the dev split, with the chance level."""
    train, dev, charts = [record for record in run.train if record["task"] == task], run.dev(task), []
    first = min((record["stage"] for record in train + dev), default=0)
    begin = next((stage.start for stage in run.stages if stage.number == first), 0)
    for key, chance in (("losses", "chance_loss"), ("accuracy", "chance")):
        level = _points(dev, chance, head)
        level = [(begin, level[0][1]), *level] if level else []  # one evaluation is a line, too
        series = [Series("chance", level, "soft", "level"),
                  Series("train", _points(train, key, head), color_of(run, task), "smooth"),
                  Series("dev", _points(dev, key, head), "ink", "marked")]
        share = key == "accuracy"
        values = [y for one in series for _, y in one.points if y is not None]
        zero = share and bool(values) and min(values) < 0.5 * max(values)
        charts.append(line_chart(f"{shorten(task, 26)} · {head} {'accuracy' if share else 'loss'}", series, _bands(run),
                                 x_range=(0, run.last_step), share=share, zero=zero))
    return charts


def forgetting_charts(run: Run) -> str:
    """How far each earlier task's dev loss (own head) has moved since its own stage, in percent, so that losses of all sizes
    can be compared: a wide picture and one for narrow screens."""
    series = []
    for task in run.tasks:
        records = run.since_own_stage(task)
        head = run.heads(task)[0] if records and run.heads(task) else ""
        then = records[0]["losses"].get(head) if records else None
        if then:
            change = [(record["step"], record["losses"][head] / then - 1) for record in records if head in record["losses"]]
            series.append(Series(task, change, color_of(run, task), "marked", note=f"{100 * change[-1][1]:+.1f}%"))
    zero = Series("end of own stage", [(0, 0.0), (run.last_step, 0.0)], "soft", "level", note=" ")
    wide, narrow = (line_chart("Change of dev loss since the end of the task's own stage", [zero, *series], _bands(run),
                               x_range=(0, run.last_step), share=True, size=size) for size in ((880, 250), (440, 300)))
    return f'<div class="full on-wide">{wide}</div><div class="full on-narrow">{narrow}</div>'


def machine_charts(run: Run) -> list[str]:
    """Learning rate, gradient norm, throughput, padding, waiting for data; loss scale and skipped steps where they move."""
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

    def one(label: str, key: str, color: str, kind: str) -> Series:
        return Series(label, _points(steps, key), color, kind)

    charts = [("Learning rate", [one("", "lr", "t0", "line")], False),
              ("Gradient norm before clipping", [one("", "grad_norm", "t1", "smooth")], False),
              ("Tokens a second", [one("real", "tokens_per_s", "t2", "smooth"),
                                   one("padded", "padded_per_s", "t4", "smooth")], False),
              ("Share of padding and of time waiting for data", [one("padding", "padding", "t7", "smooth"),
                                                                 one("waiting", "data_wait_share", "t3", "smooth")], True)]
    if len({record.get("loss_scale") for record in steps} - {None}) > 1:
        charts.append(("Loss scale", [one("", "loss_scale", "t6", "line")], False))
    if run.skipped:
        skipped = Series("", _points(steps, "skipped_steps"), "t4", note=f"{run.skipped:,}")
        charts.append(("Steps skipped so far (no finite loss or gradient)", [skipped], False))
    return [line_chart(title, series, _bands(run), x_range=(0, run.last_step), share=share, zero=True)
            for title, series, share in charts]
