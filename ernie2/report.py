"""`python -m ernie2.report OUT_DIR`: a pre-training run as one self-contained HTML page. No tensors here.

It reads train.jsonl and eval.jsonl (one of them is enough), result.json and the newest checkpoint's
recipe.yaml; what is damaged is left out and mentioned."""

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ernie2.pages import CHART_SIZE, HERE, TASK_COLORS, Series, cut, environment, line_chart, write
from ernie2.strict import ConfigError, cli, load_yaml


class Stage:
    """Sums over the train.jsonl lines of steps `start` to `stop`; what is not logged is 0 or None."""

    def __init__(self, number: int, start: int, stop: int, lines: list[dict]) -> None:
        self.number, self.start, self.stop, self.tasks = number, start, stop, Counter()
        self.seconds = waited = padded = 0.0  # of training, without evaluations and saves
        for line in lines:  # one a task and log step, with the task's tokens since the log step before
            tokens = line.get("tokens", 0.0)
            seconds = tokens / line["tokens_per_s"] if line.get("tokens_per_s") else 0.0
            self.tasks[line["task"]] += tokens
            self.seconds += seconds
            waited += seconds * line.get("data_wait_share", 0.0)
            padded += line.get("padded_tokens", 0.0)
        self.tokens = self.tasks.total()
        self.padding = max(1 - self.tokens / padded, 0.0) if padded else None
        self.waiting = waited / self.seconds if self.seconds else None


class Run:
    """The logs of a run in any state, in order of step. Raises ConfigError where there is none.

    result: numbers of result.json; recipe: sections of the newest checkpoint's; notices: damaged files."""

    def __init__(self, out_dir: str | Path) -> None:
        self.folder, self.notices = Path(out_dir), []
        logs = [self.folder / name for name in ("train.jsonl", "eval.jsonl")]
        self.train, self.evals = map(self._read_log, logs)
        self.lines = sorted(self.train + self.evals, key=lambda line: line["step"])
        if not self.lines:
            remedy = "give the out_dir of a run after its first log step (fine-tuning logs in metrics.jsonl)"
            raise ConfigError(f"{out_dir}: no line of pre-training in train.jsonl or eval.jsonl; {remedy}")
        self.silent = max(time.time() - max(path.stat().st_mtime for path in logs if path.is_file()), 0.0)
        self.first_stage = {line["task"]: line["stage"] for line in reversed(self.lines)}
        self.tasks = list(dict.fromkeys(line["task"] for line in self.lines))
        self.color = {task: f"t{number % TASK_COLORS}" for number, task in enumerate(self.tasks)}
        self.last_step: int = self.lines[-1]["step"]
        self.skipped = int(max((line.get("skipped_steps", 0) for line in self.train), default=0))

        saved = max(self.folder.glob("step_*/recipe.yaml"), default=None)
        self.checkpoint = saved.parent.name if saved else None
        result, recipe = self._read(self.folder / "result.json"), self._read(saved) if saved else {}
        self.result = _numbers(result)
        self.recipe = {name: section for name, section in recipe.items() if isinstance(section, dict)}
        self.name = str(recipe.get("name") or result.get("name") or self.folder.resolve().name)

        self.stages, start = [], 0
        for number, end in {line["stage"]: line["step"] for line in self.lines}.items():  # ends are logged
            lines = [line for line in self.train if line["stage"] == number]
            self.stages.append(Stage(number, start, end, lines))
            start = end
        self.whole = Stage(0, 0, self.last_step, self.train)
        self.bands = [(stage.start, stage.stop, self.stage_name(stage.number)) for stage in self.stages]

    def _read(self, path: Path) -> dict:
        """A file of settings, JSON or YAML; empty where it is missing or damaged."""
        try:
            return load_yaml(path) if path.is_file() else {}
        except (ConfigError, RecursionError) as error:
            self.notices.append(f"{path.name} was left out: {error}")
            return {}

    def _read_log(self, path: Path) -> list[dict]:
        """Lines of a log in order of step; of a step logged twice (after a resume) the later line counts."""
        kept, bad = {}, []
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        for number, line in enumerate(text.split("\n"), 1):
            if record := _record(line):
                kept[record["step"], record["task"]] = record
            if line.strip() and (not record or re.search(r": *-?(NaN|Infinity)\b", line)):
                bad.append(number)
        if bad:
            what = f"{len(bad):,} lines are damaged or hold numbers that are not finite; left out"
            self.notices.append(f"{path.name}: {what} (the first is line {bad[0]:,}).")
        return sorted(kept.values(), key=lambda record: record["step"])

    def heads(self, task: str) -> list[str]:
        """Heads of a task: its own (sentence or token) before the shared masked_lm."""
        lines = [line["losses"] | line["accuracy"] for line in self.lines if line["task"] == task]
        return sorted({head: None for line in lines for head in line}, key=lambda head: head == "masked_lm")

    def stage_name(self, number: int) -> str:
        """Stages count from 1, as in the paper's Table 7, also when the logs count from 0."""
        return f"Stage {number + (self.lines[0]['stage'] == 0)}"

    def dev(self, task: str) -> list[dict]:
        """Evaluations of a task in order of step."""
        return [line for line in self.evals if line["task"] == task]

    def since_own_stage(self, task: str) -> list[dict]:
        """Evaluations of a task from the end of its first stage on; empty while no other stage follows."""
        own = self.first_stage[task]
        ends = [line["step"] for line in self.dev(task) if line["stage"] == own]
        if not ends or own == self.stages[-1].number:
            return []
        return [line for line in self.dev(task) if line["step"] >= ends[-1]]


def _record(line: str) -> dict | None:
    """One log line with only what is well-formed in it; None when it is not a log line."""
    try:
        data = json.loads(line)
        record = _numbers(data)
        record |= {"step": int(record["step"]), "stage": int(record["stage"]), "task": data["task"]}
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    record |= {key: _numbers(data.get(key)) for key in ("losses", "accuracy", "chance", "chance_loss")}
    return record if isinstance(data["task"], str) else None


def _numbers(values: Any) -> dict[str, float]:
    """The finite numbers of a mapping (not true, false or beyond 1e300)."""
    items = values.items() if isinstance(values, dict) else ()
    return {key: value for key, value in items if type(value) in (int, float) and abs(value) <= 1e300}


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
            Series("train", _points(train, key, head), run.color[task], "smooth"),
            Series("dev", _points(dev, key, head)),
        ]
        title = f"{cut(task, 26)} · {head} {what}"
        charts.append(line_chart(run.bands, title, series, share=key == "accuracy"))
    return charts


def forgetting_charts(run: Run) -> list[Markup]:
    """Change of each earlier task's dev loss (own head) since its own stage, in percent: wide and narrow."""
    series = []
    for task in run.tasks:
        points = _points(run.since_own_stage(task), "losses", *run.heads(task)[:1])
        if points and points[0][1]:
            change = [(step, loss / points[0][1] - 1) for step, loss in points]
            series.append(Series(task, change, run.color[task]))
    level = Series("end of own stage", [(0, 0.0), (run.last_step, 0.0)], "soft", "level")
    title, sizes = "Change of dev loss since the end of the task's own stage", ((880, 250), (440, 300))
    return [line_chart(run.bands, title, [level, *series], True, size) for size in sizes if series]


def machine_charts(run: Run) -> list[Markup]:
    """Learning rate, gradient norm and throughput: of the whole step, in the line of each of its tasks."""
    steps, charts = list({line["step"]: line for line in run.train}.values()), []
    titles = ("Learning rate", "Gradient norm before clipping", "Tokens a second")
    for number, key in enumerate(("lr", "grad_norm", "tokens_per_s")):
        series = Series("", _points(steps, key), f"t{number}", "smooth" if number else "line")
        charts.append(line_chart(run.bands, titles[number], [series]))
    return charts


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
        color=run.color,
        now=time.strftime("%Y-%m-%d %H:%M"),
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
    """Command line. Raises ConfigError: no run there, or the output cannot be written."""
    parser = argparse.ArgumentParser("python -m ernie2.report", description=__doc__)
    parser.add_argument("out_dir", help="the run's out_dir, with train.jsonl and eval.jsonl")
    parser.add_argument("--out", metavar="FILE", help="the page (default: OUT_DIR/report.html)")
    parser.add_argument("--svg", metavar="FILE", help="the curves alone, as SVG (the page only with --out)")
    options = parser.parse_args(argv)
    html = options.out or (None if options.svg else Path(options.out_dir) / "report.html")
    for path, draw in ((options.svg, curves_svg), (html, page)):
        if path:
            write(Path(path), draw(options.out_dir))
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
