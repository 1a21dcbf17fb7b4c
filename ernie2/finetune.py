"""MAIN LOOP of fine-tuning: python -m ernie2.finetune TASK.yaml init_from=CHECKPOINT|none data_dir=FOLDER [key=value
...]

Protocol, as the maintainers give it for the Chinese tasks (ERNIE issues 99, 165, 475): several runs (`repeat`, with
seeds seed, seed + 1, ...); of each run the checkpoint that is best on dev; test at that checkpoint; the mean of the
runs. For GLUE the median of five is reported (issue 575): result.json holds mean, median and standard deviation.
"Best" is the highest mean of the task's metrics over its dev files. A step's samples and dropout are pure functions of
(seed, step).
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.nn import functional as F

from ernie2 import attention, cpu, distributed, logs
from ernie2.checkpoint import load_model_weights
from ernie2.features import IGNORED
from ernie2.finetune_data import FinetuneBatch, Prepared
from ernie2.finetune_eval import autocast, model_inputs, predict, score, write_predictions
from ernie2.finetune_job import Job, prepare_job
from ernie2.finetune_log import FinetuneLog
from ernie2.finetune_model import build_model, save_finetuned
from ernie2.finetune_result import finish
from ernie2.finetune_task import FinetuneTask
from ernie2.gradients import GradientSums
from ernie2.model import ErnieForFinetuning
from ernie2.optim import build_optimizer, clip_by_global_norm, schedule
from ernie2.strict import cli

DROPOUT_STREAM = 5


def fine_tune(job: Job) -> dict[str, Any]:
    """All runs of a job, each from the same start with a seed of its own. Returns what result.json holds."""
    log, results, config = None, [], job.start.config
    attention.choose(job.run.precision, config.num_attention_heads, config.hidden_size)
    for number in range(1, job.run.repeat + 1):
        model = build_model(job.task, job.start, job.run, job.seed(number))
        log = log or job.open_log()
        results.append(train(job, model, number, log))
    log.close()
    return finish(job, results) if job.rank == 0 else {}


def train(job: Job, model: ErnieForFinetuning, number: int, log: FinetuneLog) -> dict[str, Any]:
    """One run: trains, keeps the checkpoint that is best on dev, tests it. Returns the run's entry in result.json."""
    task, run, seed, folder = job.task, job.run, job.seed(number), job.folder(number)
    optimizer = build_optimizer(model, task.weight_decay, run.betas, run.eps)
    sums = GradientSums(model.parameters(), 0, job.rank, job.ranks)
    scaler = paddle.amp.GradScaler(enable=run.precision == "fp16")
    steps, evaluations = job.plan(seed)
    warmup = int(task.warmup_proportion * len(steps))
    started, best = time.monotonic(), {"selection": -math.inf}
    model.train()
    for step, numbers in enumerate(steps):
        lr, done = schedule("linear", step, task.peak_lr, warmup, len(steps)), step + 1
        grad_norm = optimizer_step(job, model, optimizer, sums, scaler, numbers, (seed, step), lr, log)

        if done % run.log_every == 0 or done in evaluations:
            log.train({"run": number, "step": done, "steps": len(steps), "lr": lr, "grad_norm": float(grad_norm)})
        if done in evaluations:
            metrics, predictions = evaluate(job, model, job.data.dev)
            selection = float(np.mean([value for split in metrics.values() for value in split.values()]))
            # Rank 0 decides for all: ranks may differ in the last bit.
            selection = float(distributed.sum_over_ranks(np.array([selection if job.rank == 0 else 0.0]))[0])
            is_best = selection > best["selection"]
            log.metrics(
                {"run": number, "seed": seed, "step": done, "metrics": metrics, "selection": selection, "best": is_best}
            )
            if is_best:
                best = {"seed": seed, "best_step": done, "selection": selection, "metrics": metrics}
                keep(job, model, folder, predictions)

    if job.data.test:
        load_model_weights(model, folder / "best")
        metrics, predictions = evaluate(job, model, job.data.test)
        best["metrics"] = best["metrics"] | metrics
        log.metrics({"run": number, "seed": seed, "step": best["best_step"], "metrics": metrics})
        write(job, folder, predictions)
    return best | {"steps": len(steps), "seconds": round(time.monotonic() - started, 1)}


def optimizer_step(
    job: Job,
    model: ErnieForFinetuning,
    optimizer: paddle.optimizer.Optimizer,
    sums: GradientSums,
    scaler: paddle.amp.GradScaler,
    numbers: np.ndarray,
    key: tuple[int, int],
    lr: float,
    log: FinetuneLog,
) -> paddle.Tensor:
    """Forward and backward of this rank's micro-batches, one sum over ranks, one update. Returns the gradients' norm."""
    batches, weights = job.batches(numbers)
    counts = [count_targets(job.task, batch) * weight for batch, weight in zip(batches, weights, strict=True)]
    losses = []
    sums.begin(model.parameters(), -(-len(batches) // job.ranks))
    for micro in range(job.rank, len(batches), job.ranks):
        cpu.seed(key[0], DROPOUT_STREAM, key[1], micro)
        with autocast(job.run.precision):
            logits = model(*model_inputs(batches[micro], job.task))
        loss = loss_sum(job.task, logits, batches[micro]) * weights[micro]
        with sums.backward(last=micro + job.ranks >= len(batches)):
            scaler.scale(loss / max(sum(counts), 1)).backward()
        losses.append(loss.detach())

    sums.finish()
    scaler.unscale_(optimizer)
    grad_norm = clip_by_global_norm(model.parameters(), job.run.clip_norm)
    optimizer.set_lr(lr)
    scaler.step(optimizer)
    scaler.update()
    optimizer.clear_grad(set_to_zero=False)

    total = float(distributed.sum_over_ranks(np.array([float(sum(losses[1:], losses[0]))]))[0])
    if not math.isfinite(total):
        raise FloatingPointError(f"the loss is {total} at step {key[1] + 1}: lower peak_lr (now {job.task.peak_lr})")
    log.step(total, sum(counts), sum(int(b.lengths.sum()) for b in batches), sum(b.token_ids.size for b in batches))
    return grad_norm


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


def evaluate(job: Job, model: ErnieForFinetuning, parts: list[Prepared]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split -> metrics (labelled splits only), and split -> predictions."""
    predictions = {
        part.name: predict(model, part, job.task, job.start.tokenizer, job.run.micro_tokens, job.run.precision)
        for part in parts
    }
    return {
        part.name: score(job.task, part.split.samples, predictions[part.name]) for part in parts if part.split.labelled
    }, predictions


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
    rank, ranks = distributed.init()
    logs.setup(rank)
    cpu.prepare()
    fine_tune(prepare_job(args.task, args.overrides, rank, ranks))


if __name__ == "__main__":
    cli(main)()
