"""MAIN LOOP of fine-tuning: python -m ernie2.finetune TASK.yaml init_from=CHECKPOINT data_dir=FOLDER [key=value ...]

Protocol, as the maintainers give it for the Chinese tasks (ERNIE issues 99, 165, 475): several runs (`repeat`, with
seeds seed, seed + 1, ...); of each run the checkpoint that is best on dev; test at that checkpoint; the mean of the
runs. For GLUE the median of five is reported (issue 575): result.json holds mean, median and standard deviation.
"Best" is the highest mean of the task's metrics over its dev files. A step's samples and dropout are pure functions of
(seed, step), so that a run which was killed goes on from its last checkpoint to the same numbers.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.nn import functional as F

from ernie2 import attention, cpu, distributed, logs
from ernie2.checkpoint import load_training, optimizer_arrays, restore_weights, save_training
from ernie2.digests import command_digests
from ernie2.finetune.data import FinetuneBatch, Prepared
from ernie2.finetune.eval import autocast, model_inputs, predict, score, write_predictions
from ernie2.finetune.features import IGNORED
from ernie2.finetune.job import Job, prepare_job
from ernie2.finetune.log import FinetuneLog
from ernie2.finetune.model import build_model, save_finetuned
from ernie2.finetune.result import finish
from ernie2.finetune.task import FinetuneTask
from ernie2.model import ErnieForFinetuning
from ernie2.optim import LossScaler, build_optimizer, clip_by_global_norm, schedule
from ernie2.out_dir import full_disk_named
from ernie2.strict import ConfigError, cli
from ernie2.watchdog import watched

DROPOUT_STREAM = 5
STARTUP_LIMIT = 600.0  # seconds that processes have to come, and then to get ready


def fine_tune(job: Job) -> dict[str, Any]:
    """All runs of a job, each from the same start with a seed of its own; goes on where an earlier start was stopped.

    Returns what result.json holds; nothing where a SIGTERM came, and on ranks other than 0.
    """
    config, stop = job.start.config, distributed.Stop()
    cpu.prepare()
    attention.choose(job.run.precision, config.num_attention_heads, config.hidden_size)
    model = build_model(
        job.task, job.start, job.run, job.seed(1)
    )  # weights that do not fit stop it before out_dir is made
    ended = job.open()
    for number in range(ended + 1, job.run.repeat + 1):
        if number > 1:
            model = build_model(job.task, job.start, job.run, job.seed(number))
        entry = train(job, model, number, stop)
        if entry is None:
            logs.logger.warning("stopped by SIGTERM in run %d; the same command goes on from there", number)
            return {}
        job.end_run(entry)
    return finish(job) if job.rank == 0 else {}


def train(job: Job, model: ErnieForFinetuning, number: int, stop: distributed.Stop) -> dict[str, Any] | None:
    """One run: trains, keeps the checkpoint that is best on dev, tests it. Returns the run's entry in result.json.

    None where a SIGTERM came: everything that the same command needs to go on is saved.
    """
    task, run, seed, folder = job.task, job.run, job.seed(number), job.folder(number)
    optimizer = build_optimizer(model, task.weight_decay, run.betas, run.eps)
    trainer = Trainer(job, model, optimizer, distributed.Replica(model), LossScaler(run.precision == "fp16"), stop)
    steps, evaluations = job.plan(seed)
    warmup = int(task.warmup_proportion * len(steps))
    done, best, log = trainer.restore(number)
    started = time.monotonic() - trainer.seconds_before
    model.train()
    while True:
        if done in evaluations:
            best = evaluate_dev(job, model, number, done, best, log)
        if done == len(steps):
            break
        lr = schedule("linear", done, task.peak_lr, warmup, len(steps))
        grad_norm = trainer.step(steps[done], (seed, done), lr, log)
        done += 1
        if done % run.log_every == 0 or done in evaluations:
            log.train({"run": number, "step": done, "steps": len(steps), "lr": lr, "grad_norm": grad_norm})
        if stop.agreed or done in evaluations or done % run.save_every == 0:
            trainer.save(folder, done, seed, best, log, time.monotonic() - started)
        if stop.agreed:
            log.close()
            return None

    if job.data.test:
        restore_weights(model, folder / "best")
        metrics, predictions = evaluate(job, model, job.data.test)
        best["metrics"] = best["metrics"] | metrics
        log.metrics({"run": number, "seed": seed, "step": best["best_step"], "metrics": metrics})
        write(job, folder, predictions)
    log.close()
    return best | {"steps": len(steps), "seconds": round(time.monotonic() - started, 1)}


@dataclass
class Trainer:
    """What a step moves, and what a checkpoint holds of it."""

    job: Job
    model: ErnieForFinetuning
    optimizer: paddle.optimizer.Optimizer
    replica: distributed.Replica
    scaler: LossScaler
    stop: distributed.Stop
    seconds_before: float = 0.0
    """Time that earlier starts spent on this run."""

    def restore(self, number: int) -> tuple[int, dict[str, Any], FinetuneLog]:
        """Goes on from the newest checkpoint of a run. Returns steps done, the best evaluation so far, and the log."""
        state: dict[str, Any] = {"step": 0, "best": {}, "sums": None}
        if folder := self.job.newest_checkpoint(number):
            state = load_training(folder, self.model, self.optimizer)
            self.scaler.load_state_dict(state["scaler"])
            self.seconds_before = state["seconds"]
            logs.logger.info("run %d: going on from %s", number, folder)
        return state["step"], state["best"], self.job.open_log(number, state["step"], state["sums"])

    def save(
        self, folder: Path, done: int, seed: int, best: dict[str, Any], log: FinetuneLog, seconds: float
    ) -> None:
        """Rank 0 writes a checkpoint; the others wait until it is whole. An evaluation due here is still to come."""
        if self.job.rank == 0:
            state = {
                "seed": seed,
                "tokens": log.sums["tokens"],
                "seconds": seconds,
                "scaler": self.scaler.state_dict(),
                "best": best,
                "sums": log.sums,
            }
            save_training(
                folder,
                done,
                self.model,
                optimizer_arrays(self.model, self.optimizer),
                self.job.start.config,
                self.job.start.vocab_file,
                self.job.settings,
                state,
                keep_last=1,
            )
        distributed.barrier()

    def step(self, numbers: np.ndarray, key: tuple[int, int], lr: float, log: FinetuneLog) -> float:
        """Forward and backward of this rank's micro-batches, one sum over ranks, one update.

        Args:
            numbers: sequences of the step, over all ranks.
            key: seed and step (from 0). Dropout is drawn for each sequence by (seed, step, sequence).
            lr: learning rate.
            log: gets the step's sums.

        Returns:
            The gradients' norm.

        Raises:
            ConfigError: the loss or the norm is not a finite number.
        """
        job, task = self.job, self.job.task
        parts, batches, weights = job.batches(numbers)
        counts = [count_targets(task, batch) * weight for batch, weight in zip(batches, weights, strict=True)]
        losses = []
        for micro in range(job.rank, len(batches), job.ranks):
            cpu.seed_samples((key[0], DROPOUT_STREAM, key[1]), parts[micro])
            with self.replica.micro_batch(last=micro + job.ranks >= len(batches)):
                with autocast(job.run.precision):
                    logits = self.replica.forward(*model_inputs(batches[micro], task))
                loss = loss_sum(task, logits, batches[micro]) * weights[micro]
                self.replica.backward(self.scaler.scaled(loss / max(sum(counts), 1)))
            losses.append(loss.detach())
        norm = float(clip_by_global_norm(self.model.parameters(), job.run.clip_norm, self.scaler.scale))
        local = np.array([float(sum(losses[1:], losses[0])), self.stop.asked], np.float64)
        total, asked = distributed.sum_over_ranks(local)
        self.stop.agreed = bool(asked)
        overflow = self.scaler.enabled and math.isfinite(total) and not math.isfinite(norm)
        if not overflow and not math.isfinite(total + norm):
            raise ConfigError(
                f"seed {key[0]}, step {key[1] + 1}: the loss is {total:g}, the gradient norm {norm:g}: the run has "
                f"diverged; lower peak_lr (now {task.peak_lr:g}) or lengthen warmup_proportion ({task.warmup_proportion:g})"
                + (
                    ""
                    if job.run.precision == "fp32"
                    else f", or use another precision than {job.run.precision}"
                )
            )
        self.scaler.update(overflow)
        if not overflow:
            self.optimizer.set_lr(lr)
            self.optimizer.step()
        self.optimizer.clear_grad(set_to_zero=False)
        log.step(
            total,
            sum(counts),
            sum(int(b.lengths.sum()) for b in batches),
            sum(b.token_ids.size for b in batches),
        )
        return norm


def loss_sum(task: FinetuneTask, logits: Any, batch: FinetuneBatch) -> paddle.Tensor:
    """Loss of a micro-batch, summed over its targets, in float32.

    Cross-entropy of classes and of tags; squared error of a regression; for span the mean of start's and end's.
    """
    targets = paddle.to_tensor(batch.targets)
    if task.kind == "regression":
        return ((logits.astype("float32") - targets) ** 2).sum()
    if task.kind == "span":
        positions = paddle.arange(batch.token_ids.shape[1]).unsqueeze(0)
        padding = (positions >= paddle.to_tensor(batch.lengths).unsqueeze(1)).astype("float32") * -1e4
        start, stop = (side.astype("float32") + padding for side in logits)  # no probability on padding
        loss = F.cross_entropy(start, targets[:, 0], reduction="sum") + F.cross_entropy(
            stop, targets[:, 1], reduction="sum"
        )
        return loss / 2
    weight = paddle.to_tensor(task.class_weights, "float32") if task.class_weights else None
    flat = logits.astype("float32").reshape([-1, logits.shape[-1]])
    return F.cross_entropy(flat, targets.reshape([-1]), weight=weight, ignore_index=IGNORED, reduction="sum")


def count_targets(task: FinetuneTask, batch: FinetuneBatch) -> int:
    """Predictions that the loss of a micro-batch sums over."""
    return int((batch.targets != IGNORED).sum()) if task.kind == "tagging" else len(batch.targets)


def evaluate(
    job: Job, model: ErnieForFinetuning, parts: list[Prepared]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split -> metrics (labelled splits only), and split -> predictions."""
    predictions = {
        part.name: predict(
            model, part, job.task, job.start.tokenizer, job.run.micro_tokens, job.run.precision
        )
        for part in parts
    }
    return {
        part.name: score(job.task, part.split.samples, predictions[part.name])
        for part in parts
        if part.split.labelled
    }, predictions


def evaluate_dev(
    job: Job, model: ErnieForFinetuning, number: int, done: int, best: dict[str, Any], log: FinetuneLog
) -> dict[str, Any]:
    """Evaluates dev after step `done` and keeps the model where it is the best so far. Returns the best evaluation."""
    metrics, predictions = evaluate(job, model, job.data.dev)
    selection = float(np.mean([value for split in metrics.values() for value in split.values()]))
    # Rank 0 decides for all: ranks may differ in the last bit.
    selection = float(distributed.sum_over_ranks(np.array([selection if job.rank == 0 else 0.0]))[0])
    is_best = selection > best.get("selection", -math.inf)
    seed = job.seed(number)
    log.metrics(
        {
            "run": number,
            "seed": seed,
            "step": done,
            "metrics": metrics,
            "selection": selection,
            "best": is_best,
        }
    )
    if not is_best:
        return best
    keep(job, model, job.folder(number), predictions)
    return {"seed": seed, "best_step": done, "selection": selection, "metrics": metrics}


def keep(job: Job, model: ErnieForFinetuning, folder: Path, predictions: dict[str, Any]) -> None:
    """Rank 0 saves the best model so far and its predictions; the others wait until it is whole."""
    if job.rank == 0:
        save_finetuned(folder / "best", model, job.task, job.start)
    write(job, folder, predictions)
    distributed.barrier()


def write(job: Job, folder: Path, predictions: dict[str, Any]) -> None:
    """Rank 0 writes predictions/<split>.* of a run."""
    for split, records in predictions.items() if job.rank == 0 else ():
        write_predictions(folder / "predictions", split, job.task, records)


def main(argv: list[str]) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m ernie2.finetune", description=__doc__.split("\n\n")[0])
    parser.add_argument("task", help="task file (tasks/finetune/*.yaml)")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="init_from=CHECKPOINT|none data_dir=FOLDER ..."
    )
    args = parser.parse_args(argv)
    with watched(STARTUP_LIMIT, command_digests(args.task, args.overrides)) as ready:
        rank, ranks = distributed.init(STARTUP_LIMIT)
        logs.setup(rank)
        job = prepare_job(args.task, args.overrides, rank, ranks)
        ready()
        with full_disk_named(job.out_dir, "the results"):
            fine_tune(job)


if __name__ == "__main__":
    cli(main)()
