"""MAIN LOOP of pre-training: python -m ernie2.pretrain RECIPE.yaml [key=value ...]

What happens at step s (stage, tasks, samples, masks, dropout, learning rate) is a pure function of the recipe and s. So
every rank agrees without talking, and a resume needs one integer beside weights and moments.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import paddle
import yaml

from ernie2 import cpu, distributed, logs
from ernie2 import plan as plan_page
from ernie2.batching import Batch, prefetch
from ernie2.checkpoint import save_training
from ernie2.config import cli, to_mapping
from ernie2.evaluate import evaluate
from ernie2.meter import Meter
from ernie2.optim import clip_by_global_norm, learning_rate
from ernie2.setup_run import Run, prepare_run
from ernie2.shards import write_json

DROPOUT_STREAM = 4


def train(run: Run) -> dict:
    """Trains from run.start_step to the end of the plan. Returns what result.json holds."""
    recipe, plan, model = run.recipe, run.plan, run.model
    end = min(plan.steps, recipe.runtime.max_steps or plan.steps)
    log = logs.RunLog(run.out_dir, run.start_step, end, recipe.runtime.visualdl, active=run.rank == 0)
    meter, stop = Meter(run.tokens), _catch_sigterm()
    results: dict[str, dict] = {}
    feed = prefetch(micro_batches(run, end))
    model.train()
    for step in range(run.start_step, end):
        waiting = time.monotonic()
        batches = next(feed)
        meter.waited(time.monotonic() - waiting)

        lr = learning_rate(recipe.lr, plan, step, plan.turns(step))
        grad_norm = optimizer_step(run, step, batches, lr, meter)

        done, stage = step + 1, plan.stage_of(step)
        stage_ends = done in (stage.last_step, end)
        if done % recipe.runtime.log_every == 0 or stage_ends:
            for record in meter.records(done, stage.number, lr, float(grad_norm), run.loss_scale()):
                log.train(record)
                log.step(done, logs.describe(record))
        if done % recipe.runtime.eval_every == 0 or stage_ends:
            results = evaluate_all(run, step, log)
            meter.restart_clock()
        if done % recipe.runtime.save_every == 0 or stage_ends or stop:
            save(run, done, meter.tokens)
            meter.restart_clock()
        if stop:
            logs.logger.warning("stopped by SIGTERM after step %d; the same command goes on from there", done)
            break
    log.close()
    return {"name": recipe.name, "steps": end, "finished": not stop, "tokens": meter.tokens,
            "seconds": run.seconds_before + time.monotonic() - log.started, "tasks": {k: {"dev": v} for k, v in results.items()}}


def micro_batches(run: Run, end: int) -> Iterator[list[Batch]]:
    """For each step from run.start_step: this rank's micro-batches, masked and padded."""
    recipe, plan = run.recipe, run.plan
    for step in range(run.start_step, end):
        levels = recipe.masking.levels(plan.stage_of(step).number)
        step_batches = []
        for turn in plan.turns(step):
            stream = run.streams[turn.task]
            for micro, samples in enumerate(stream.batch(turn.batch)):
                if micro % run.ranks == run.rank:
                    batch = stream.micro_batch(turn.batch, micro, samples, levels, run.collate)
                    step_batches.append((micro, batch))
        yield step_batches


def optimizer_step(run: Run, step: int, batches: list[tuple[int, Batch]], lr: float, meter: Meter) -> paddle.Tensor:
    """Forward and backward of every micro-batch, one all-reduce, one update. Returns the gradient norm before clipping."""
    counts = meter.global_counts([batch for _, batch in batches])
    for micro, batch in batches:
        # Dropout follows (seed, step, micro-batch), not the rank: any split over ranks draws the same.
        cpu.seed(run.recipe.seed, DROPOUT_STREAM, step, batch.task.task_id, micro)
        with run.autocast():
            heads = run.model(batch)
        terms = [heads[loss.head].loss_sum * (loss.weight / counts[batch.task.name, loss.head])
                 for loss in batch.task.losses if loss.head in heads]
        run.scaler.scale(sum(terms[1:], terms[0])).backward()
        meter.add(batch, heads)

    trained = run.model.trained_parameters([batch.task for _, batch in batches])
    distributed.sum_gradients(trained)
    run.scaler.unscale_(run.optimizer)
    grad_norm = clip_by_global_norm(trained, run.recipe.optimizer.clip_norm)
    run.optimizer.set_lr(lr)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    # Gradients become None, not zero: a head does not move on another task's step, neither by decay nor by momentum.
    run.optimizer.clear_grad(set_to_zero=False)
    return grad_norm


def evaluate_all(run: Run, step: int, log: logs.RunLog) -> dict[str, dict]:
    """Dev loss and accuracy of every task seen so far: this draws forgetting."""
    results = {}
    for name in run.plan.tasks_seen(step):
        results[name] = evaluate(run.model, run.dev_set(name))
        log.eval({"step": step + 1, "stage": run.plan.stage_of(step).number, "task": name, **results[name]})
    return results


def save(run: Run, done: int, tokens: int) -> None:
    """Rank 0 writes a checkpoint; the others wait until it is whole."""
    if run.rank == 0:
        state = {"tokens": tokens, "seed": run.recipe.seed, "scaler": run.scaler.state_dict(),
                 "seconds": run.seconds_before + time.monotonic() - run.started,
                 "task_ids": {task.name: task.task_id for task in run.tasks}}
        save_training(run.out_dir, done, run.model, run.optimizer, run.model.config, run.recipe.model.vocab_file,
                      yaml.safe_dump(to_mapping(run.recipe), sort_keys=False, allow_unicode=True), state,
                      run.recipe.runtime.keep_last)
    distributed.barrier()


def _catch_sigterm() -> list[int]:
    """A list that SIGTERM makes true: the loop then saves and leaves at the end of the step."""
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
    return stop


def main(argv: list[str]) -> None:
    """Command line."""
    recipe, where = plan_page.recipe_from_command_line(argv, "python -m ernie2.pretrain")
    rank, ranks = distributed.init()
    logs.setup(rank)
    run = prepare_run(recipe, where, rank, ranks)
    result = train(run)
    if rank == 0 and result["finished"]:
        write_json(run.out_dir / "result.json", result)
        logs.logger.info("%s", plan_page.closing_page(run.recipe, where, result))


if __name__ == "__main__":
    cli(main)()
