"""MAIN LOOP of pre-training: python -m ernie2.pretrain RECIPE.yaml [key=value ...]

What happens at step s (stage, tasks, samples, masks, dropout, learning rate) is a pure function of the recipe
and s: ranks agree without talking, and a resume needs one integer beside weights and moments."""

import math
import time
from collections.abc import Iterator

import paddle

from ernie2 import cpu, distributed, logs
from ernie2.batching import Batch, prefetch
from ernie2.checkpoint import save
from ernie2.digests import run_digests
from ernie2.disk import write_json
from ernie2.evaluate import Meter, evaluate
from ernie2.faults import MicroStep, missing_memory_named
from ernie2.optim import clip_by_global_norm, learning_rate
from ernie2.out_dir import full_disk_named
from ernie2.plan import closing_page, parse_recipe, recipe_parser
from ernie2.run import Run, prepare_run
from ernie2.strict import cli
from ernie2.watchdog import watched

DROPOUT_STREAM = 4


def train(run: Run) -> dict:
    """Trains from run.start_step to the end of the plan. Returns what result.json holds."""
    recipe, plan = run.recipe, run.plan
    end = min(plan.steps, recipe.runtime.max_steps or plan.steps)
    log = logs.RunLog(run.out_dir, run.start_step, end, recipe.runtime.visualdl, active=run.rank == 0)
    meter, stop = Meter(run.tokens), distributed.Stop()
    feed = prefetch(micro_batches(run, end))
    run.model.train()
    # An evaluation that a SIGTERM cut short is made up for.
    results = None if run.evaluated else evaluate_all(run, run.start_step - 1, stop, log)
    run.evaluated = run.evaluated or results is not None
    done, saved = run.start_step, run.start_step
    while done < end and not stop.agreed:
        waiting = time.monotonic()
        batches = next(feed)
        meter.waited += time.monotonic() - waiting

        lr = learning_rate(recipe.lr, plan, done, plan.turns(done))
        grad_norm = optimizer_step(run, done, batches, lr, meter, stop)
        if stop.agreed:
            break  # nothing remains of the step
        done, stage = done + 1, plan.stage_of(done)

        stage_ends = done in (stage.last_step, end)
        if done % recipe.runtime.log_every == 0 or stage_ends:
            for record in meter.records(done, stage.number, lr, float(grad_norm), run.scaler.scale):
                log.train({**record, "skipped_steps": run.bad_steps.skipped})
                check_warm_start(run, done, record["losses"].get("masked_lm"))
        if done % recipe.runtime.eval_every == 0 or stage_ends:
            results = evaluate_all(run, done - 1, stop, log)
            run.evaluated = results is not None
            meter.restart_clock()
        if (done % recipe.runtime.save_every == 0 or stage_ends) and not stop.agreed:
            save(run, done, meter.tokens)
            saved = done
            meter.restart_clock()
    if stop.agreed and (done > saved or not run.evaluated):
        save(run, done, meter.tokens)
    if stop.agreed:
        logs.logger.warning("stopped by SIGTERM after step %d; the same command goes on from there", done)
    elif results is None:  # nothing was left to do but this: result.json needs it
        results = evaluate_all(run, done - 1, stop)
    log.close()
    return {
        "name": recipe.name,
        "steps": end,
        "finished": not stop.agreed,
        "tokens": meter.tokens,
        "seconds": run.seconds_before + time.monotonic() - log.started,
        "tasks": {name: {"dev": result} for name, result in (results or {}).items()},
    }


def check_warm_start(run: Run, done: int, loss: float | None) -> None:
    """Says how a warm start begins; warns where the masked LM is near ln(vocabulary), as without weights."""
    first, tokens = run.start_step == 0 and done <= run.recipe.runtime.log_every, run.model.config.vocab_size
    if run.recipe.model.init_from and first and loss is not None:
        told = f"the masked LM begins at {loss:.2f}; without its weights it would at {math.log(tokens):.2f}"
        cold = loss > 0.75 * math.log(tokens)
        logs.logger.log(30 if cold else 20, "%s%s", told, ": is the vocabulary theirs, and the head?" * cold)


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


def optimizer_step(
    run: Run, step: int, batches: list[tuple[int, Batch]], lr: float, meter: Meter, stop: distributed.Stop
) -> paddle.Tensor:
    """Forward and backward of every micro-batch, one sum over ranks, one update. Returns the gradient norm.

    Nothing but counters changes where the step is bad (ernie2.faults), or where a SIGTERM ends it."""
    tokens_before, passed = meter.tokens, []
    counts = meter.global_counts([batch for _, batch in batches])
    for number, (micro, batch) in enumerate(batches, start=1):
        if stop.asked and run.ranks == 1:
            break  # among several the others wait for all of its gradients
        # Dropout follows (seed, step, micro-batch), not the rank: any split over ranks draws the same.
        cpu.seed(run.recipe.seed, DROPOUT_STREAM, step, batch.task.task_id, micro)
        with run.replica.micro_batch(last=number == len(batches)):
            with run.autocast():
                heads = run.replica.forward(batch)
            terms = [
                heads[loss.head].loss_sum * (loss.weight / counts[batch.task.name, loss.head])
                for loss in batch.task.losses
                if loss.head in heads
            ]
            run.replica.backward(run.scaler.scaled(sum(terms[1:], terms[0])))
        meter.add(batch, heads)
        losses = {head: result.loss_sum.detach() for head, result in heads.items()}
        passed.append(MicroStep(micro, batch, losses))

    norm = clip_by_global_norm(run.model.parameters(), run.recipe.optimizer.clip_norm, run.scaler.scale)
    if not stop.agree() and run.bad_steps.accepts(step + 1, lr, norm, passed):
        run.optimizer.set_lr(lr)
        run.optimizer.step()
    else:
        meter.tokens = tokens_before
        meter.restart()  # sums that hold this step are no numbers, or hold half of it
    # None, not zero: a head does not move on another task's step, neither by decay nor by momentum.
    run.optimizer.clear_grad(set_to_zero=False)
    return norm


def evaluate_all(run: Run, step: int, stop: distributed.Stop, log: logs.RunLog | None = None) -> dict | None:
    """Dev loss and accuracy of every task seen so far (forgetting). None where a SIGTERM came in between."""
    results, where = {}, {"step": step + 1, "stage": run.plan.stage_of(step).number}
    for name in run.plan.tasks_seen(step):
        with run.autocast():
            results[name] = evaluate(run.model, run.dev_set(name))
        if stop.agree():
            return None
    for name, result in results.items() if log else ():
        log.eval({**where, "task": name, **result})
    return results


def main(argv: list[str]) -> None:
    """Command line."""
    recipe, where, _ = parse_recipe(recipe_parser("python -m ernie2.pretrain", None), argv)
    facts = run_digests(recipe) | {"card": distributed.card()}
    with watched(recipe.runtime.startup_limit, facts) as ready:
        rank, ranks = distributed.init(recipe.runtime.startup_limit)
        logs.setup(rank)
        with missing_memory_named(recipe, ranks):
            run = prepare_run(recipe, where, rank, ranks)
            ready()
            with full_disk_named(run.out_dir, "the logs"):
                result = train(run)
        if rank == 0 and result["finished"]:
            write_json(run.out_dir / "result.json", result)
            logs.logger.info("%s", closing_page(run.recipe, where, result))


if __name__ == "__main__":
    cli(main)()
