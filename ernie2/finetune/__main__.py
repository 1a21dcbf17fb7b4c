"""MAIN LOOP of fine-tuning: python -m ernie2.finetune TASK.yaml init_from=CHECKPOINT data_dir=FOLDER
[key=value ...]

Protocol, as the maintainers give it for the Chinese tasks (ERNIE issues 99, 165, 475): several runs
(`repeat`, with seeds seed, seed + 1, ...); of each run the checkpoint that is best on dev; test at that
checkpoint; the mean of the runs. For GLUE the median of five is reported (issue 575): result.json holds mean,
median and standard deviation. "Best" is the highest mean of the task's metrics over its dev files. A step's
samples and dropout are pure functions of (seed, step), so that a run which was killed goes on from its last
checkpoint to the same numbers."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from ernie2 import attention, cpu, distributed, logs
from ernie2.checkpoint import load_training, optimizer_arrays, restore_weights, save_training
from ernie2.digests import command_digests
from ernie2.finetune.decoding import decode, write_predictions
from ernie2.finetune.job import FinetuneLog, Job, finish, prepare_job
from ernie2.finetune.metrics import score
from ernie2.finetune.model import build_model, count_targets, logits_of, loss_sum, run_model, save_finetuned
from ernie2.finetune.readers import Split
from ernie2.model import ErnieForFinetuning
from ernie2.optim import LossScaler, build_optimizer, clip_by_global_norm
from ernie2.out_dir import full_disk_named
from ernie2.strict import ConfigError, cli
from ernie2.watchdog import watched

DROPOUT_STREAM = 5
STARTUP_LIMIT = 600.0  # seconds that processes have to come, and then to get ready


def fine_tune(job: Job) -> dict[str, Any]:
    """All runs of a job, each with a seed of its own; goes on where an earlier start was stopped.

    Returns what result.json holds; nothing where a SIGTERM came, and on ranks other than 0."""
    config, stop = job.start.config, distributed.Stop()
    cpu.prepare()
    attention.choose(job.run.precision, config.num_attention_heads, config.hidden_size, job.task.max_seq_len)
    model = build_model(
        job.task, job.start, job.run, job.seed(1)
    )  # before out_dir is made: weights may not fit
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
    """One run: trains, keeps the checkpoint that is best on dev, tests it. Returns its entry in result.json.

    None where a SIGTERM came: everything that the same command needs to go on is saved."""
    task, run, seed = job.task, job.run, job.seed(number)
    optimizer = build_optimizer(model, task.weight_decay, run.betas, run.eps)
    scaler = LossScaler(run.precision == "fp16")
    trainer = Trainer(job, model, optimizer, distributed.Replica(model), scaler, stop)
    steps, evaluations = job.plan(seed)
    done, best, log = trainer.restore(number, len(steps))
    model.train()
    while True:
        if done in evaluations:
            best = evaluate_dev(job, model, number, done, best, log)
        if done == len(steps):
            break
        lr = job.learning_rate(done, len(steps))
        grad_norm = trainer.step(steps[done], (seed, done), lr, log)
        done += 1
        if done % run.log_every == 0 or done in evaluations:
            log.train({"step": done, "lr": lr, "grad_norm": grad_norm})
        if stop.agreed or done in evaluations or done % run.save_every == 0:
            trainer.save(number, done, best, log)
        if stop.agreed:
            log.close()
            return None

    if job.data.test:
        restore_weights(model, job.folder(number) / "best")
        metrics, predictions = evaluate(job, model, job.data.test)
        best["metrics"] = best["metrics"] | metrics
        log.metrics({"seed": seed, "step": best["best_step"], "metrics": metrics})
        write(job, number, predictions)
    log.close()
    return best | {"steps": len(steps), "seconds": round(trainer.seconds, 1)}


@dataclass
class Trainer:
    """What a step moves, and what a checkpoint holds of it."""

    job: Job
    model: ErnieForFinetuning
    optimizer: paddle.optimizer.Optimizer
    replica: distributed.Replica
    scaler: LossScaler
    stop: distributed.Stop
    started: float = 0.0
    """When the run began, by time.monotonic(); earlier starts count as if they had just ended."""

    @property
    def seconds(self) -> float:
        """Time spent on this run so far."""
        return time.monotonic() - self.started

    def restore(self, number: int, steps: int) -> tuple[int, dict[str, Any], FinetuneLog]:
        """Goes on from a run's newest checkpoint. Returns steps done, best evaluation so far, log."""
        state: dict[str, Any] = {"step": 0, "best": {}, "sums": None, "seconds": 0.0}
        if folder := self.job.newest_checkpoint(number):
            state = load_training(folder, self.model, self.optimizer)
            self.scaler.load_state_dict(state["scaler"])
            logs.logger.info("run %d: going on from %s", number, folder)
        self.started = time.monotonic() - state["seconds"]
        return (
            state["step"],
            state["best"],
            FinetuneLog(self.job, number, state["step"], steps, state["sums"]),
        )

    def save(self, number: int, done: int, best: dict[str, Any], log: FinetuneLog) -> None:
        """Rank 0 writes a checkpoint; the others wait until it is whole. An evaluation due comes after."""
        job, start = self.job, self.job.start
        if job.rank == 0:
            state = {
                "seed": job.seed(number),
                "tokens": log.sums["tokens"],
                "seconds": self.seconds,
                "scaler": self.scaler.state_dict(),
                "best": best,
                "sums": log.sums,
            }
            save_training(
                job.folder(number),
                done,
                self.model,
                optimizer_arrays(self.model, self.optimizer),
                start.config,
                start.vocab_file,
                job.settings,
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
            ConfigError: the loss or the norm is not a finite number."""
        job, task = self.job, self.job.task
        parts, batches, weights = job.batches(numbers)
        counts = [count_targets(task, batch) * weight for batch, weight in zip(batches, weights, strict=True)]
        losses = []
        for micro in range(job.rank, len(batches), job.ranks):
            cpu.seed_samples((key[0], DROPOUT_STREAM, key[1]), parts[micro])
            with self.replica.micro_batch(last=micro + job.ranks >= len(batches)):
                logits = logits_of(self.replica.forward, batches[micro], task, job.run.precision)
                loss = loss_sum(task, logits, batches[micro]) * weights[micro]
                self.replica.backward(self.scaler.scaled(loss / max(sum(counts), 1)))
            losses.append(loss.detach())
        norm = float(clip_by_global_norm(self.model.parameters(), job.run.clip_norm, self.scaler.scale))
        local = np.array([float(sum(losses[1:], losses[0])), self.stop.asked], np.float64)
        total, asked = distributed.sum_over_ranks(local)
        self.stop.agreed = bool(asked)
        if self.accepts(total, norm, key):
            self.optimizer.set_lr(lr)
            self.optimizer.step()
        self.optimizer.clear_grad(set_to_zero=False)
        log.count(
            loss=total,
            targets=sum(counts),
            tokens=sum(b.tokens for b in batches),
            padded_tokens=sum(b.padded_tokens for b in batches),
        )
        return norm

    def accepts(self, loss: float, norm: float, key: tuple[int, int]) -> bool:
        """Whether the step may move the weights; not where fp16 overflows. Raises ConfigError: other NaN."""
        task, precision = self.job.task, self.job.run.precision
        overflow = self.scaler.enabled and math.isfinite(loss) and not math.isfinite(norm)
        if not overflow and not math.isfinite(loss + norm):
            other = "" if precision == "fp32" else f", or use another precision than {precision}"
            raise ConfigError(
                f"seed {key[0]}, step {key[1] + 1}: the loss is {loss:g}, the gradient norm {norm:g}: the "
                f"run has diverged; lower peak_lr (now {task.peak_lr:g}) or lengthen warmup_proportion "
                f"({task.warmup_proportion:g}){other}"
            )
        self.scaler.update(overflow)
        return not overflow


def evaluate(
    job: Job, model: ErnieForFinetuning, parts: list[Split]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split -> metrics (labelled splits only), and split -> predictions."""
    predictions = {}
    for part in parts:
        outputs = run_model(model, part, job.task, job.pad_id, job.run.micro_tokens, job.run.precision)
        predictions[part.name] = decode(job.task, part.samples, part.features, outputs)
    labelled = [part for part in parts if part.labelled]
    return {
        part.name: score(job.task, part.samples, predictions[part.name]) for part in labelled
    }, predictions


def evaluate_dev(
    job: Job, model: ErnieForFinetuning, number: int, done: int, best: dict[str, Any], log: FinetuneLog
) -> dict[str, Any]:
    """Evaluates dev after step `done`, keeps the best model. Returns the best evaluation so far."""
    metrics, predictions = evaluate(job, model, job.data.dev)
    selection = float(np.mean([value for split in metrics.values() for value in split.values()]))
    # Rank 0 decides for all: ranks may differ in the last bit.
    selection = float(distributed.sum_over_ranks(np.array([selection if job.rank == 0 else 0.0]))[0])
    is_best, seed = selection > best.get("selection", -math.inf), job.seed(number)
    log.metrics({"seed": seed, "step": done, "metrics": metrics, "selection": selection, "best": is_best})
    if not is_best:
        return best
    if job.rank == 0:
        save_finetuned(job.folder(number) / "best", model, job.task, job.start)
    write(job, number, predictions)
    distributed.barrier()  # the others wait until it is whole
    return {"seed": seed, "best_step": done, "selection": selection, "metrics": metrics}


def write(job: Job, number: int, predictions: dict[str, Any]) -> None:
    """Rank 0 writes predictions/<split>.jsonl of a run; for span <split>.json and <split>_nbest.json."""
    folder, suffix = job.folder(number) / "predictions", ".json" if job.task.kind == "span" else ".jsonl"
    for split, records in predictions.items() if job.rank == 0 else ():
        folder.mkdir(exist_ok=True)
        write_predictions(job.task, records, folder / f"{split}{suffix}", folder / f"{split}_nbest.json")


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
