"""MAIN LOOP of fine-tuning: python -m ernie2.finetune TASK.yaml init_from=CHECKPOINT data_dir=FOLDER
[key=value ...]

Protocol, as the maintainers give it for the Chinese tasks (ERNIE issues 99, 165, 475): several runs
(`repeat`), of each the checkpoint that is best on dev (the mean of the task's metrics over its dev files),
test at that checkpoint, the mean of the runs; for GLUE the median of five (issue 575). A step's samples and
dropout are pure functions of (seed, step): a killed run goes on from its last checkpoint to the same
numbers."""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import numpy as np

from ernie2 import attention, cpu, distributed, logs
from ernie2.checkpoint import load_training, optimizer_arrays, restore_weights, save_training
from ernie2.digests import command_digests
from ernie2.disk import write_json
from ernie2.finetune.features import decode, mean_loss, write_predictions
from ernie2.finetune.job import FinetuneLog, Job, finish, from_rank_0, prepare_job
from ernie2.finetune.metrics import report, score
from ernie2.finetune.model import build_model, logits_of, micro_loss, run_model, save_finetuned
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
    task, config, stop = job.task, job.start.config, distributed.Stop()
    cpu.prepare()
    attention.choose(task.precision, config.num_attention_heads, config.hidden_size, task.max_seq_len)
    # Before out_dir is made: weights may not fit.
    model = build_model(task, job.start, job.seed(1))
    for number in range(job.open() + 1, task.repeat + 1):
        if number > 1:
            model = build_model(task, job.start, job.seed(number))
        entry = train(job, model, number, stop)
        if entry is None:
            logs.logger.warning("stopped by SIGTERM in run %d; the same command goes on from there", number)
            return {}
        job.end_run(entry)
    return finish(job) if distributed.rank() == 0 else {}


def train(job: Job, model: ErnieForFinetuning, number: int, stop: distributed.Stop) -> dict[str, Any] | None:
    """One run: trains, keeps the checkpoint that is best on dev, tests it. Returns its entry in result.json.

    None where a SIGTERM came: everything that the same command needs to go on is saved."""
    task, (steps, evaluations) = job.task, job.plan(job.seed(number))
    trainer = Trainer(job, model, number, len(steps), stop)
    log = trainer.log
    model.train()
    while True:
        done = trainer.done
        if done in evaluations:
            trainer.evaluate_dev()
        if done == len(steps) or trainer.best.get("stale", 0) >= (task.patience or math.inf):
            break
        lr = job.learning_rate(done, len(steps))
        grad_norm = trainer.step(steps[done], lr)
        done += 1
        if done % task.log_every == 0 or done in evaluations:
            log.train({"step": done, "lr": lr, "grad_norm": grad_norm})
        if stop.agreed or done in evaluations or done % task.save_every == 0:
            trainer.save()
        if stop.agreed:
            log.close()
            return None

    best = trainer.best
    if job.data.test:
        restore_weights(model, job.folder(number) / "best")
        metrics, predictions, _ = evaluate(job, model, job.data.test)
        best["metrics"] = best["metrics"] | metrics
        log.metrics({"seed": best["seed"], "step": best["best_step"], "metrics": metrics})
        write(job, number, predictions, job.data.test)
    log.close()
    best.pop("stale", None)
    return best | {"steps": trainer.done, "seconds": round(time.monotonic() - trainer.started, 1)}


class Trainer:
    """Run `number` of `steps` steps: what a step moves, what a checkpoint holds of it, and its log. Goes on
    from the run's newest checkpoint."""

    def __init__(
        self, job: Job, model: ErnieForFinetuning, number: int, steps: int, stop: distributed.Stop
    ) -> None:
        task = job.task
        self.job, self.model, self.number, self.seed, self.stop = job, model, number, job.seed(number), stop
        self.optimizer = build_optimizer(
            model, task.weight_decay, task.betas, task.eps, layer_decay=task.layer_decay
        )
        self.replica, self.scaler = distributed.Replica(model), LossScaler(task.precision == "fp16")
        state: dict[str, Any] = {"step": 0, "best": {}, "sums": None, "seconds": 0.0}
        if folder := job.newest_checkpoint(number):
            state = load_training(folder, model, self.optimizer)
            self.scaler.load_state_dict(state["scaler"])
            logs.logger.info("run %d: going on from %s", number, folder)
        self.done, self.best = state["step"], state["best"]
        self.log = FinetuneLog(job, number, self.done, steps, state["sums"])
        self.started = time.monotonic() - state["seconds"]

    def save(self) -> None:
        """Rank 0 writes a checkpoint; the others wait until it is whole. An evaluation due comes after."""
        job, start, sums = self.job, self.job.start, self.log.sums
        if distributed.rank() == 0:
            state = {"seed": self.seed, "tokens": sums["tokens"], "seconds": time.monotonic() - self.started}
            state |= {"scaler": self.scaler.state_dict(), "best": self.best, "sums": sums}
            moments, vocab = optimizer_arrays(self.model, self.optimizer), start.vocab_file
            place = job.folder(self.number), self.done
            save_training(*place, self.model, moments, start.config, vocab, job.settings, state, keep_last=1)
        distributed.barrier()

    def step(self, numbers: np.ndarray, lr: float) -> float:
        """One update by the sequences `numbers`, spread over the ranks. Returns the gradients' norm.

        Dropout is drawn for each sequence by (seed, step, sequence)."""
        job, task, rank, ranks = self.job, self.job.task, distributed.rank(), distributed.world_size()
        parts, batches = job.batches(numbers)
        targets = sum(batch.count for batch in batches)
        loss_sum = 0.0
        # Every rank needs a gradient to sum: one without a micro-batch takes the first with weight 0.
        weight, mine = float(rank < len(batches)), range(rank, len(batches), ranks) or [0]
        for micro in mine:
            cpu.seed_samples((self.seed, DROPOUT_STREAM, self.done), parts[micro])
            with self.replica.micro_batch(last=micro == mine[-1]):
                logits = logits_of(self.replica.forward, batches[micro], task, task.precision)
                loss = micro_loss(task, logits, batches[micro]) * weight
                self.replica.backward(self.scaler.scaled(loss / max(targets, 1)))
            loss_sum = loss_sum + loss.detach()
        norm = float(clip_by_global_norm(self.model.parameters(), task.clip_norm, self.scaler.scale))
        total, asked = distributed.sum_over_ranks(np.array([float(loss_sum), self.stop.asked], np.float64))
        self.stop.agreed = bool(asked)
        if self.accepts(total, norm):
            self.optimizer.set_lr(lr)
            self.optimizer.step()
        self.optimizer.clear_grad(set_to_zero=False)
        self.done += 1
        tokens, padded = sum(int(b.lengths.sum()) for b in batches), sum(b.token_ids.size for b in batches)
        self.log.count(loss=total, targets=targets, tokens=tokens, padded_tokens=padded)
        return norm

    def accepts(self, loss: float, norm: float) -> bool:
        """Whether the step may move the weights; not where fp16 overflows. Raises ConfigError: other NaN."""
        task, finite = self.job.task, math.isfinite(loss + norm)
        if not finite and not (self.scaler.enabled and math.isfinite(loss)):
            other = "" if task.precision == "fp32" else f", or use another precision than {task.precision}"
            raise ConfigError(
                f"seed {self.seed}, step {self.done + 1}: the loss is {loss:g}, the gradient norm {norm:g}: "
                f"the run has diverged; lower peak_lr (now {task.peak_lr:g}) or lengthen warmup_proportion "
                f"({task.warmup_proportion:g}){other}"
            )
        self.scaler.update(overflow=not finite)
        return finite

    def evaluate_dev(self) -> None:
        """Evaluates dev, and keeps the model where it is the best so far."""
        job = self.job
        metrics, predictions, losses = evaluate(job, self.model, job.data.dev)
        # Rank 0 decides for all: ranks may differ in the last bit.
        selection = from_rank_0(float(np.mean([value for one in metrics.values() for value in one.values()])))
        is_best = selection > self.best.get("selection", -math.inf)
        record = {"seed": self.seed, "step": self.done, "metrics": metrics, "loss": losses}
        record["selection"] = selection
        self.best["stale"] = 0 if is_best else self.best["stale"] + 1
        self.log.metrics(record | {"best": is_best})
        if is_best:
            if distributed.rank() == 0:
                save_finetuned(job.folder(self.number) / "best", self.model, job.task, job.start)
            write(job, self.number, predictions, job.data.dev)
            distributed.barrier()  # the others wait until it is whole
            self.best = {
                "seed": self.seed,
                "best_step": self.done,
                "selection": selection,
                "metrics": metrics,
                "stale": 0,
            }


def evaluate(
    job: Job, model: ErnieForFinetuning, parts: list[Split]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
    """Split -> metrics, predictions and loss; metrics and loss of labelled splits only."""
    metrics, predictions, losses, pad_id = {}, {}, {}, job.start.tokenizer.vocab.pad_id
    for part in parts:
        outputs = run_model(model, part, job.task, pad_id, job.task.micro_tokens, job.task.precision)
        predictions[part.name] = decode(job.task, part.samples, part.features, outputs)
        if part.labelled:
            metrics[part.name] = score(job.task, part.samples, predictions[part.name])
            losses[part.name] = round(mean_loss(job.task, part.features, outputs), 6)
    return metrics, predictions, losses


def write(job: Job, number: int, predictions: dict[str, Any], parts: list[Split]) -> None:
    """Rank 0 writes predictions/<split>.jsonl of a run, of classes and tags <split>_report.json too;
    for span <split>.json and <split>_nbest.json."""
    folder, suffix = job.folder(number) / "predictions", ".json" if job.task.kind == "span" else ".jsonl"
    for split, records in predictions.items() if distributed.rank() == 0 else ():
        folder.mkdir(exist_ok=True)
        write_predictions(job.task, records, folder / f"{split}{suffix}", folder / f"{split}_nbest.json")
        part = next(part for part in parts if part.name == split)
        if part.labelled and job.task.kind in ("classification", "tagging"):
            write_json(folder / f"{split}_report.json", report(job.task, part.samples, records))


def main(argv: list[str]) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m ernie2.finetune", description=__doc__.split("\n\n")[0])
    parser.add_argument("task", help="task file (tasks/finetune/*.yaml)")
    words = "init_from=CHECKPOINT|none data_dir=FOLDER ..."
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=words)
    args = parser.parse_args(argv)
    with watched(STARTUP_LIMIT, command_digests(args.task, args.overrides)) as ready:
        logs.setup(distributed.init(STARTUP_LIMIT)[0])
        job = prepare_job(args.task, args.overrides)
        ready()
        with full_disk_named(job.out_dir, "the results"):
            fine_tune(job)


if __name__ == "__main__":
    cli(main)()
