"""A fine-tuning that is ready to run: what each step takes, what is logged, kept, found again; the result."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ernie2 import cpu, distributed, model_card, out_dir, precision
from ernie2.batching import padded_width
from ernie2.checkpoint import checkpoints, newest_whole
from ernie2.disk import file_digest, write_json, write_text
from ernie2.finetune.data import Data, FinetuneBatch, collate, micro_batches, plan_batches, prepare_data
from ernie2.finetune.metrics import MAJORITY_RULE, majority
from ernie2.finetune.model import Start, read_start
from ernie2.finetune.readers import find_file
from ernie2.finetune.task import FinetuneRun, load_finetune
from ernie2.logs import RunLog, logger
from ernie2.optim import schedule
from ernie2.schema import to_mapping
from ernie2.strict import ConfigError, differences, make_folder
from ernie2.weights import open_weights

ENDED, RESULT = "runs.json", "result.json"
# What a run leaves in its folder that another must not find there (eval.jsonl: of a pre-training).
RESULTS = f"{ENDED} {RESULT} eval.jsonl best predictions step_* run_*/best run_*/predictions run_*/step_*"
# Settings that the numbers of a run do not depend on; files and weights are compared by content.
FREE = "out_dir data_dir init_from init_min_match config_from log_every save_every micro_tokens sizes paper"


@dataclass
class Job:
    """Everything that the runs of a repeat share."""

    task: FinetuneRun
    start: Start
    data: Data
    out_dir: Path
    ended: list[dict[str, Any]] = field(default_factory=list)
    """Entries of result.json of runs that have ended; what earlier starts left is known to rank 0 alone."""
    started: float = field(default_factory=time.monotonic)
    warned_idle: bool = False

    @property
    def settings(self) -> str:
        """Everything that was set, as YAML."""
        return yaml.safe_dump(to_mapping(self.task), sort_keys=False, allow_unicode=True)

    def seed(self, number: int) -> int:
        """Seed of run `number` (from 1)."""
        return self.task.seed + number - 1

    def folder(self, number: int) -> Path:
        """Folder of run `number`: out_dir itself where there is one run."""
        return self.out_dir if self.task.repeat == 1 else self.out_dir / f"run_{number}"

    def plan(self, seed: int) -> tuple[list[np.ndarray], set[int]]:
        """Optimizer steps of a run (arrays of sequence numbers), and after which of them dev is evaluated."""
        steps, epoch_ends, task = [], [], self.task
        for epoch in range(task.epochs):
            steps += plan_batches(self.data.train.lengths, task, seed, epoch)
            epoch_ends.append(len(steps))
            if task.max_steps is not None and len(steps) >= task.max_steps:
                break
        steps = steps[: task.max_steps]
        every = len(steps) if task.eval_every == "end" else task.eval_every
        due = range(every, len(steps), every) if every else epoch_ends
        return steps, {step for step in due if step < len(steps)} | {len(steps)}

    def learning_rate(self, step: int, steps: int) -> float:
        """Of step `step` (from 0) of `steps`. Baidu's code counts the steps of a schedule without the last,
        smaller batches of the epochs."""
        task, total = self.task, steps
        if task.lr_schedule == "released" and task.batch_size and task.max_steps is None:
            total = max(task.epochs * len(self.data.train.lengths) // task.batch_size, 1)
        return schedule(task.lr_schedule, step, task.peak_lr, int(task.warmup_proportion * total), total)

    def batches(self, numbers: np.ndarray) -> tuple[list[np.ndarray], list[FinetuneBatch]]:
        """The micro-batches of one step over all ranks: sequence numbers and arrays.

        A CPU draws dropout for each sequence, so there the batch is cut for all ranks; on a GPU dropout
        follows the micro-batches, which must not depend on the ranks then."""
        train, task, ranks = self.data.train, self.task, distributed.world_size()
        at_least = ranks if cpu.switch.enabled else 1
        parts = micro_batches(numbers, train.lengths, task.micro_tokens, at_least)
        if len(parts) < ranks and not self.warned_idle:
            self.warned_idle = True
            found = len(parts), ranks, task.micro_tokens
            logger.warning("%d micro-batches in a step for %d processes: lower micro_tokens (now %d)", *found)
        positions, pad_id = self.start.config.max_position_embeddings, self.start.tokenizer.vocab.pad_id
        width = padded_width(int(train.lengths[numbers].max()), task.precision, positions)
        return parts, [collate([train.features[i] for i in part], task.kind, pad_id, width) for part in parts]

    def open(self) -> int:
        """Takes hold of out_dir. Returns how many runs of this very job have ended there before. Raises
        ConfigError: another process is at work there, or the folder holds another job's results."""
        if distributed.rank() == 0:
            make_folder(self.out_dir, "out_dir")
            out_dir.hold(self.out_dir, "out_dir")
            self._take_over()
            for number in range(1, self.task.repeat + 1):
                self.folder(number).mkdir(exist_ok=True)
                out_dir.clean(self.folder(number))
            for number in range(1, len(self.ended) + 1):
                self._remove_checkpoints(number)
            write_text(self.out_dir / "task.yaml", self.settings)
        ended = int(from_rank_0(len(self.ended)))
        if ended:
            logger.info("%d of %d runs have ended before", ended, self.task.repeat)
        return ended

    def _take_over(self) -> None:
        """Goes on in a folder that this job began, refuses one with other results, begins in any other."""
        origin, path = self._origin(), self.out_dir / out_dir.ORIGIN
        if any(left for name in RESULTS.split() for left in self.out_dir.glob(name)):
            before = _read_json(path) if path.is_file() else {out_dir.ORIGIN: "none"}
            if changed := differences(before, origin).items():
                what = "; ".join(f"{key}: {str(a)[:60]} there, {str(b)[:60]} here" for key, (a, b) in changed)
                raise ConfigError(
                    f"out_dir: {self.out_dir} holds the results of another run ({what[:600]}); name another "
                    f"out_dir, or remove that folder"
                )
            self.ended = _read_json(self.out_dir / ENDED) if (self.out_dir / ENDED).is_file() else []
        write_json(path, origin)

    def _origin(self) -> dict[str, Any]:
        """What the numbers of a run depend on: settings, and digests of data, weights and vocabulary."""
        names = [*self.task.files.train, *self.task.files.dev, *self.task.files.test]
        found = {name: find_file(self.task.data_dir, name) for name in names}
        settings, free = to_mapping(self.task), FREE.split()
        return {
            "settings": {key: value for key, value in settings.items() if key not in free},
            "weights": file_digest(open_weights(self.start.folder).file) if self.start.weights else None,
            "vocabulary": self.start.tokenizer.vocab.digest,
            "lower_case": self.start.tokenizer.lower_case,
            "encoder": self.start.config.to_json(),
            "files": {name: path and file_digest(path) for name, path in found.items()},
        }

    def newest_checkpoint(self, number: int) -> Path | None:
        """Where run `number` goes on, the same on every rank; None where it begins."""
        found = newest_whole(self.folder(number)) if distributed.rank() == 0 else None
        step = int(from_rank_0(found[0] if found else 0))
        return self.folder(number) / f"step_{step:07d}" if step else None

    def end_run(self, entry: dict[str, Any]) -> None:
        """Notes the result of a run: it is not trained again, so its checkpoints go."""
        self.ended.append(entry)
        if distributed.rank() == 0:
            write_json(self.out_dir / ENDED, self.ended)
            self._remove_checkpoints(len(self.ended))

    def _remove_checkpoints(self, number: int) -> None:
        for _, folder in checkpoints(self.folder(number)):
            out_dir.remove(folder)


def from_rank_0(number: float) -> float:
    """A number that rank 0 decides for all."""
    return float(distributed.sum_over_ranks(np.array([0 if distributed.rank() else number], np.float64))[0])


def prepare_job(path: str | Path, overrides: list[str]) -> Job:
    """Checks all a user can get wrong and reads all data, before anything is written. Raises ConfigError."""
    task = load_finetune(path, overrides)
    precision.check_precision(task.precision, "precision")
    start = read_start(task)
    task, config = load_finetune(path, overrides, start.size), start.config
    for key, needed, rows, what in (
        ("max_seq_len", task.max_seq_len, config.max_position_embeddings, "positions"),
        ("task_id", task.task_id + 1, config.task_type_vocab_size, "task embeddings"),
    ):
        if needed > rows:
            raise ConfigError(f"{key}: {getattr(task, key)}, but the encoder has {rows} {what}")
    size, weights = start.size or "of its own size", start.folder if start.weights else "random weights"
    sized = f", with the settings of sizes.{start.size}" if start.size in task.sizes else ""
    logger.info("task %s (%s), encoder %s from %s%s", task.name, task.kind, size, weights, sized)
    data = prepare_data(task, start.tokenizer)
    for note in data.notes:
        logger.info("note: %s", note)
    return Job(task, start, data, Path(task.out_dir))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: damaged ({error}); remove {path.parent} to train anew") from None


class FinetuneLog(RunLog):
    """train.jsonl and metrics.jsonl of run `number`, from `step` on. `sums`: those of the log there."""

    def __init__(self, job: Job, number: int, step: int, steps: int, sums: dict[str, float] | None) -> None:
        self.number, self.steps, self.done = number, steps, (number - 1) * steps + step
        # Of the steps since the last line of train.jsonl.
        self.sums = sums or {"loss": 0.0, "targets": 0.0, "tokens": 0, "padded_tokens": 0}
        self._since, at = time.monotonic(), (number, step)
        kept = {
            "train": lambda line: (line["run"], line["step"]) <= at,
            # The evaluation of the step that was saved is made again, and after it the test.
            "metrics": lambda line: (line["run"], line["step"] if "selection" in line else steps) < at,
        }
        active = distributed.rank() == 0
        super().__init__(job.out_dir, self.done, job.task.repeat * steps, active=active, kept=kept)

    def count(self, **sums: float) -> None:
        """Counts one optimizer step: its summed loss, its targets, its real and computed tokens."""
        self.done += 1
        self.sums = {name: value + sums[name] for name, value in self.sums.items()}
        self.step(self.done)

    def train(self, record: dict[str, Any]) -> None:
        """Writes a line of train.jsonl: `record` (step, lr, grad_norm) with means since the last one."""
        rate = self.sums["tokens"] / max(time.monotonic() - self._since, 1e-9)
        at = {"run": self.number, "step": record["step"], "steps": self.steps}
        record = at | record | self.sums | {"tokens_per_s": round(rate, 1)}
        record["loss"] /= max(record.pop("targets"), 1)
        self.sums, self._since = dict.fromkeys(self.sums, 0), time.monotonic()
        where = f"run {self.number}  step {record['step']}/{self.steps}"
        self.progress(record, where, f"loss {record['loss']:.4f}  lr {record['lr']:.2e}", self.done)

    def metrics(self, record: dict[str, Any]) -> None:
        """Writes a line of metrics.jsonl and of the console."""
        self._since = time.monotonic()  # an evaluation is not training time
        if self.active:
            self._write("metrics", {"run": self.number, **record})
            shown = "  ".join(
                f"{split} {name} {value:.2f}"
                for split, values in record["metrics"].items()
                for name, value in values.items()
            )
            best = "  (best)" if record.get("best") else ""
            logger.info("run %d  step %d  %s%s", self.number, record["step"], shown, best)


def finish(job: Job) -> dict[str, Any]:
    """Keeps the best run's model and predictions, writes result.json, shows the table. Returns the result.

    A job that had come to its end before finds its result and changes nothing."""
    path = job.out_dir / RESULT
    if path.is_file():
        logger.info("%s: this run has ended before; nothing was left to do", path)
    else:
        best = max(range(len(job.ended)), key=lambda i: job.ended[i]["selection"]) + 1
        if job.task.repeat > 1:  # run_<k>/ keep their own predictions
            if (job.folder(best) / "best").is_dir():  # else an earlier start has come that far
                shutil.rmtree(job.out_dir / "best", ignore_errors=True)
                (job.folder(best) / "best").rename(job.out_dir / "best")
            shutil.rmtree(job.out_dir / "predictions", ignore_errors=True)
            shutil.copytree(job.folder(best) / "predictions", job.out_dir / "predictions")
            for number in range(1, job.task.repeat + 1):
                shutil.rmtree(job.folder(number) / "best", ignore_errors=True)
        result = summarise(job, best)
        card = model_card.finetuned(result, to_mapping(job.task))
        write_text(job.out_dir / "best" / model_card.CARD, card)
        write_json(path, result)
    result = _read_json(path)
    logger.info("%s", table(result))
    return result


def summarise(job: Job, best: int) -> dict[str, Any]:
    """What result.json holds. `metrics` is the mean over the runs; every metric is in percent."""
    task, data, runs = job.task, job.data, [run["metrics"] for run in job.ended]
    splits = [data.train, *data.dev, *data.test]
    labelled = [part for part in splits[1:] if part.labelled]
    result: dict[str, Any] = {
        "task": task.name,
        "kind": task.kind,
        "size": job.start.size,
        "init_from": task.init_from,
        "seed": task.seed,
        "unit": "percent",
        "metrics": over_runs(runs, np.mean),
        "majority": {part.name: majority(task, data.train.samples, part.samples) for part in labelled},
        "majority_rule": MAJORITY_RULE[task.kind],
        "paper": task.paper.get(job.start.size or "", task.paper),
        "steps": job.ended[0]["steps"],
        "seconds": round(time.monotonic() - job.started, 1),
        "data": {
            part.name: {"samples": len(part.samples), "sequences": len(part.features), **+part.counts}
            for part in splits
        },
        "notes": data.notes,
        "runs": job.ended,
    }
    if len(runs) > 1:
        statistics = {"mean": np.mean, "median": np.median, "std": lambda values: np.std(values, ddof=1)}
        result |= {name: over_runs(runs, statistic) for name, statistic in statistics.items()}
        result["best_run"] = best
    return result


def over_runs(runs: list[dict[str, dict[str, float]]], statistic: Any) -> dict[str, dict[str, float]]:
    """Split -> metric -> a statistic of it over the runs."""
    return {
        split: {name: round(float(statistic([run[split][name] for run in runs])), 4) for name in values}
        for split, values in runs[0].items()
    }


def table(result: dict[str, Any]) -> str:
    """Metrics by split beside the majority baseline and, for a size of the paper, the paper's numbers."""
    lines = [
        f"{result['task']}: {len(result['runs'])} run(s), {result['steps']} steps each, in percent",
        f"{'split':<16}{'metric':<12}{'mean':>10}{'std':>10}{'majority':>10}{'paper':>10}",
    ]
    for split, values in result["metrics"].items():
        paper, std = result["paper"].get(split, {}), result.get("std", {}).get(split, {})
        if not isinstance(paper, dict):  # a plain number is the first metric's
            paper = {next(iter(values)): paper}
        columns = values, std, result["majority"][split], paper
        for metric in values:
            cells = (f"{c[metric]:.2f}" if c.get(metric) is not None else "-" for c in columns)
            lines.append(f"{split:<16}{metric:<12}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)
