"""`python -m ernie2.report OUT_DIR`: a pre-training run as one self-contained HTML page. No tensors here.

What is read, and what becomes of damaged logs, is in ernie2/run_log.py. The page loads nothing from anywhere.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ernie2.chart_scales import compact, escape
from ernie2.charts import CHART_CSS, CHART_SIZE, stack
from ernie2.config import ConfigError, cli
from ernie2.disk import write_text
from ernie2.report_charts import color_of, forgetting_charts, machine_charts, task_charts
from ernie2.run_log import Run, load_run

PAGE_CSS = Path(__file__).with_name("report.css").read_text(encoding="utf-8")

SETTINGS = (("Model", "model", "size"), ("Schedule", "curriculum", "mode"), ("Peak learning rate", "lr", "peak"),
            ("Tokens a step", "batch", "tokens"), ("Precision", "runtime", "precision"))
"""Facts of the recipe shown in the header: label, section, key."""

LONG_NAME = 26
"""Characters of a task's name that every table has room for."""

CAPTIONS = {
    "Tasks against chance":
        "The newest result on each dev split. Chance is the accuracy of the best guess from label frequencies alone; "
        "ratio is accuracy over chance. Above chance: at least 1.2 times chance, or a tenth of the way from chance to "
        "100%.",
    "Stages": "",
    "Each task through training":
        "Shaded stretches are stages. Each curve is named at its end, with its last value: train (faint points as logged, "
        "the line is their moving average), dev split, and dashed what chance gives.",
    "Forgetting":
        "What becomes of a task once later stages train others: above zero, its dev loss has risen since the end of "
        "its own stage, in percent of the loss then. The picture shows each task's own head; kept means within 2%.",
    "Optimisation and throughput": "Padded tokens count what the device computes, real tokens what it learns from. "
                                   "Faint points: as logged; line: moving average.",
}


def verdict(accuracy: float, chance: float) -> tuple[str, str]:
    """(words, CSS class) for a dev accuracy beside chance, the accuracy of the best constant guess.

    Above: 1.2 times chance or a tenth of the way from chance to 1, so that the rule suits both masked_lm (chance
    near 0) and unbalanced classes (chance near 1). Barely above: 1.05 times or a fiftieth of the way.
    """
    gain = accuracy - chance
    way = gain / (1 - chance) if chance < 1 else 0.0
    if gain > 0 and (accuracy >= 1.2 * chance or way >= 0.1):
        return "● above chance", "good"
    if gain > 0 and (accuracy >= 1.05 * chance or way >= 0.02):
        return "◐ barely above chance", ""
    return ("○ at chance", "bad") if way > -0.02 else ("▼ below chance", "bad")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60:,} h {minutes % 60} min"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of ready-made cells; columns whose head begins with '<' hold words and align left."""
    kinds = [' class="w"' if head.startswith("<") else "" for head in heads]
    top = "".join(f'<th scope="col"{kind}>{escape(head.lstrip("<"))}</th>'
                  for head, kind in zip(heads, kinds, strict=True))
    body = "".join("<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
                   for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _swatch(run: Run, task: str) -> str:
    """A task's colour and its name; a long name may be parted on paper, where a table cannot be moved sideways."""
    name = escape(task) if len(task) <= LONG_NAME else escape(task).replace("_", "_<wbr/>")
    return f'<i class="b-{color_of(run, task)}"></i><span class="task">{name}</span>'


def _results(run: Run) -> str:
    rows = []
    for task in run.tasks:
        last = run.dev(task)[-1] if run.dev(task) else None
        for head in run.heads(task) if last else []:
            accuracy, chance = last["accuracy"].get(head), last["chance"].get(head)
            known = accuracy is not None and chance is not None
            words, kind = (verdict(accuracy, chance) if known else
                           ("not evaluated" if accuracy is None else "no chance level logged", "soft"))
            rows.append([_swatch(run, task), escape(head), f'<span class="{kind}">{words}</span>', _percent(accuracy),
                         _percent(chance), f"{accuracy / chance:.2f}" if known and chance else "–",
                         _fixed(last["losses"].get(head)), _fixed(last["chance_loss"].get(head)), f"{last['step']:,}"])
    if not rows:
        return "<p>No evaluation is logged yet.</p>"
    return _table(["<Task", "<Head", "<Verdict", "Dev accuracy", "Chance", "Ratio", "Dev loss", "Chance loss",
                   "At step"], rows)


def _stage_table(run: Run) -> str:
    rows, seen = [], set()
    for stage in run.stages:
        tasks = []
        for task in sorted(stage.tasks, key=run.tasks.index):
            name = _swatch(run, task) if task in seen else f"<b>{_swatch(run, task)}</b>"
            tasks.append(f"{name} {100 * stage.tasks[task] / stage.tokens:.0f}%" if stage.tokens else name)
        seen |= set(stage.tasks)
        planned = run.planned.get(stage.number)
        rows.append([run.stage_name(stage.number), "<br/>".join(tasks) or "–", f"{stage.start + 1:,} – {stage.stop:,}",
                     f"{stage.stop - stage.start:,}" + (f" of {planned:,}" if planned else ""),
                     compact(stage.tokens) if stage.tokens else "–", _duration(stage.seconds) if stage.seconds else "–",
                     compact(stage.tokens / stage.seconds) if stage.seconds else "–", _percent(stage.padding),
                     _percent(stage.waiting)])
    return _table(["<Stage", "<Tasks and their share of its tokens (new ones bold)", "Steps", "Count", "Tokens", "Time",
                   "Tokens/s", "Padding", "Waiting for data"], rows)


def _forgetting(run: Run) -> str:
    """Dev loss of every earlier task after its own stage: a picture of the change and a table of the figures."""
    rows = []
    for task in run.tasks:
        records = run.since_own_stage(task)
        for head in run.heads(task) if records else []:
            then, now = records[0]["losses"].get(head), records[-1]["losses"].get(head)
            if then is None or now is None:
                continue
            words, kind = (("▲ forgotten", "bad") if now > 1.02 * then else
                           ("▼ improved", "good") if now < 0.98 * then else ("● kept", ""))
            rows.append([_swatch(run, task), escape(head), f'<span class="{kind}">{words}</span>',
                         run.stage_name(records[0]["stage"]), _fixed(then), _fixed(now),
                         f"{now - then:+.3f}" + (f" ({100 * (now / then - 1):+.1f}%)" if then else ""),
                         _percent(records[0]["accuracy"].get(head)), _percent(records[-1]["accuracy"].get(head))])
    if not rows:
        return "<p>Nothing to compare yet: no task has been evaluated after a stage that follows its own.</p>"
    end = "end of training" if run.state == "finished" else "newest evaluation"
    return forgetting_charts(run) + _table(
        ["<Task", "<Head", "<", "<Own stage", "Loss, end of own stage", f"Loss, {end}", "Difference", "Accuracy then",
         "Accuracy now"], rows)


def _fixed(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"


def _header(run: Run) -> str:
    tokens, seconds = run.result.get("tokens") or run.whole.tokens, run.result.get("seconds") or run.whole.seconds
    planned = sum(run.planned.values())
    ago = _duration(run.silent)
    state, kind = {"finished": ("● Finished", "good"), "running": (f"◐ Running, last log line {ago} ago", ""),
                   "stopped": (f"▼ Stopped: no log line for {ago} and no result", "bad")}[run.state]
    if run.state == "running" and planned > run.last_step and seconds:
        state += f", about {_duration(seconds / run.last_step * (planned - run.last_step))} of training left"
    facts = {"Steps": f"{run.last_step:,}" + (f" of {planned:,}" if planned else ""), "Stages": str(len(run.stages)),
             "Tokens": compact(tokens) if tokens else "–", "Time": _duration(seconds) if seconds else "–",
             "Tokens a second": compact(run.whole.tokens / run.whole.seconds) if run.whole.seconds else "–",
             "Padding": _percent(run.whole.padding), "Waiting for data": _percent(run.whole.waiting)}
    if run.skipped:
        facts["Skipped steps"] = f"{run.skipped:,}"
    facts["Newest checkpoint"] = run.checkpoint or "none yet"
    for label, section, key in SETTINGS:
        value = run.setting(section, key)
        if value is not None:
            shown = f"{value:,}" if type(value) is int else value
            facts[label] = compact(value) if isinstance(value, float) else str(shown)
    notes = "".join(f"<li>{escape(notice)}</li>" for notice in run.notices)
    return (f'<h1>{escape(run.name)}</h1><div class="state {kind}">{escape(state)}</div><dl>'
            + "".join(f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for label, value in facts.items())
            + "</dl>" + (f'<ul class="notes">{notes}</ul>' if notes else ""))


def page(out_dir: str | Path) -> str:
    """The whole HTML page (well-formed XML as well). Raises ConfigError when there is no run in `out_dir`."""
    run = load_run(out_dir)
    curves = "".join(chart for task in run.tasks for head in run.heads(task) for chart in task_charts(run, task, head))
    contents = [_results(run), _stage_table(run), f'<div class="charts">{curves}</div>', _forgetting(run),
                f'<div class="charts">{"".join(machine_charts(run))}</div>']
    body = "".join(f"<h2>{title}</h2>{f'<p>{caption}</p>' if caption else ''}{content}"
                   for (title, caption), content in zip(CAPTIONS.items(), contents, strict=True))
    return ('<!DOCTYPE html>\n<html lang="en" xmlns="http://www.w3.org/1999/xhtml"><head><meta charset="utf-8"/>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"/>'
            f'<title>{escape(run.name)}: pre-training report</title>'
            f"<style>{CHART_CSS}{PAGE_CSS}</style></head><body><main>{_header(run)}{body}"
            f"<footer>Drawn {time.strftime('%Y-%m-%d %H:%M')} from {escape(run.folder)} by ernie2.report.</footer>"
            "</main></body></html>\n")


def curves_svg(out_dir: str | Path) -> str:
    """A standalone SVG: for each task, loss and accuracy of its own head through training. Raises ConfigError."""
    run = load_run(out_dir)
    rows = [task_charts(run, task, run.heads(task)[0]) for task in run.tasks if run.heads(task)]
    return stack(rows, CHART_SIZE, f"{run.name}: each task's own head through training")


@cli
def main(argv: Sequence[str]) -> None:
    """The command line. Raises ConfigError: no run there, or the output cannot be written."""
    parser = argparse.ArgumentParser("python -m ernie2.report", description="Draws a pre-training run as an HTML page.")
    parser.add_argument("out_dir", help="the run's out_dir, with train.jsonl and eval.jsonl")
    parser.add_argument("--out", metavar="FILE", help="the page (default: OUT_DIR/report.html)")
    parser.add_argument("--svg", metavar="FILE", help="write the curves alone as SVG (and the page only with --out)")
    options = parser.parse_args(argv)
    wanted = [(options.svg, curves_svg)] if options.svg else []
    if options.out or not options.svg:
        wanted.append((options.out or Path(options.out_dir) / "report.html", page))
    for path, draw in wanted:
        text, path = draw(options.out_dir), Path(path)
        try:
            write_text(path, text)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}; choose another place with --out") from None
        sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
