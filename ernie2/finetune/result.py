"""The end of a fine-tuning: the best run's model and predictions, result.json, a table beside the paper's numbers."""

from __future__ import annotations

import json
import shutil
import time
from typing import Any

import numpy as np

from ernie2.disk import write_json
from ernie2.finetune.eval import MAJORITY_RULE, majority
from ernie2.finetune.job import Job
from ernie2.logs import logger

Metrics = dict[str, dict[str, float]]  # split -> metric -> percent


def finish(job: Job) -> dict[str, Any]:
    """Keeps the best run's model and predictions, writes result.json, shows the table. Returns the result.

    A job that had come to its end before finds its result and changes nothing.
    """
    path = job.out_dir / "result.json"
    if path.is_file():
        result = json.loads(path.read_text(encoding="utf-8"))
        logger.info("%s: this run has ended before; nothing was left to do", path)
    else:
        best = max(range(len(job.ended)), key=lambda i: job.ended[i]["selection"]) + 1
        if job.run.repeat > 1:
            keep_best_run(job, best)
        result = summarise(job, job.ended, best)
        write_json(path, result)
    logger.info("%s", table(result))
    return result


def keep_best_run(job: Job, best: int) -> None:
    """Of several runs one model is kept: out_dir/best, and out_dir/predictions are its own. run_<k>/ keep theirs."""
    if (job.folder(best) / "best").is_dir():  # else an earlier start has come that far
        shutil.rmtree(job.out_dir / "best", ignore_errors=True)
        (job.folder(best) / "best").rename(job.out_dir / "best")
    shutil.rmtree(job.out_dir / "predictions", ignore_errors=True)
    shutil.copytree(job.folder(best) / "predictions", job.out_dir / "predictions")
    for number in range(1, job.run.repeat + 1):
        shutil.rmtree(job.folder(number) / "best", ignore_errors=True)


def summarise(job: Job, runs: list[dict[str, Any]], best: int) -> dict[str, Any]:
    """What result.json holds. `metrics` is the mean over the runs; every metric is in percent."""
    all_metrics = [run["metrics"] for run in runs]
    labelled = [part for part in (*job.data.dev, *job.data.test) if part.split.labelled]
    samples = job.data.train.split.samples
    result: dict[str, Any] = {
        "task": job.task.name,
        "kind": job.task.kind,
        "size": job.start.size,
        "init_from": job.run.init_from,
        "seed": job.run.seed,
        "unit": "percent",
        "metrics": over_runs(all_metrics, np.mean),
        "majority": {part.name: majority(job.task, samples, part.split.samples) for part in labelled},
        "majority_rule": MAJORITY_RULE[job.task.kind],
        "paper": job.task.paper.get(job.start.size or "", job.task.paper),
        "steps": runs[0]["steps"],
        "seconds": round(time.monotonic() - job.started, 1),
        "data": job.data.counts(),
        "notes": job.data.notes,
        "runs": runs,
    }
    if len(runs) > 1:
        statistics = {"mean": np.mean, "median": np.median, "std": lambda values: np.std(values, ddof=1)}
        result |= {name: over_runs(all_metrics, statistic) for name, statistic in statistics.items()}
        result["best_run"] = best
    return result


def over_runs(runs: list[Metrics], statistic: Any) -> Metrics:
    """A statistic of every metric over the runs; std is the sample standard deviation."""
    return {
        split: {name: round(float(statistic([run[split][name] for run in runs])), 4) for name in values}
        for split, values in runs[0].items()
    }


def paper_value(task_metrics: list[str], paper: dict[str, Any], split: str, metric: str) -> float | None:
    """The paper's number for a metric of a split: a plain number there is the first metric's."""
    value = paper.get(split)
    if isinstance(value, dict):
        return value.get(metric)
    return value if metric == task_metrics[0] else None


def table(result: dict[str, Any]) -> str:
    """Metrics by split beside the majority baseline and, for a size of the paper, the paper's numbers."""
    lines = [
        f"{result['task']}: {len(result['runs'])} run(s), {result['steps']} steps each, in percent",
        f"{'split':<16}{'metric':<12}{'mean':>8}{'std':>8}{'majority':>10}{'paper':>8}",
    ]
    for split, values in result["metrics"].items():
        for metric, value in values.items():
            std = f"{result['std'][split][metric]:.2f}" if "std" in result else "-"
            theirs = paper_value(list(values), result["paper"], split, metric)
            lines.append(
                f"{split:<16}{metric:<12}{value:>8.2f}{std:>8}{result['majority'][split][metric]:>10.2f}"
                f"{'-' if theirs is None else format(theirs, '.1f'):>8}"
            )
    return "\n".join(lines)
