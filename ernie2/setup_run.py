"""From a recipe to everything the main loop needs: vocabulary, shards, model, optimizer, and where to go on."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ernie2 import attention, cpu, distributed, out_dir, precision
from ernie2.batching import Collator, TaskStream
from ernie2.checkpoint import SPARE, checkpoints, load_model_weights, load_training, model_arrays, newest_whole
from ernie2.config import Recipe
from ernie2.curriculum import Plan, make_plan
from ernie2.encoder import EncoderConfig
from ernie2.evaluate import DevSet, load_dev_set
from ernie2.faults import BadSteps
from ernie2.gradients import GradientSums
from ernie2.logs import logger
from ernie2.model import ErnieForPretraining, initialise
from ernie2.moments import MASTER, restore_optimizer
from ernie2.optim import LossScaler, build_optimizer
from ernie2.plan import opening_page
from ernie2.shards import ShardReader
from ernie2.strict import ConfigError, make_folder
from ernie2.tasks import Task, select_tasks
from ernie2.tokenizer import Vocab


@dataclass
class Run:
    """A run that is ready to train."""

    recipe: Recipe
    tasks: list[Task]
    plan: Plan
    rank: int
    ranks: int
    out_dir: Path
    streams: dict[str, TaskStream]
    collate: Collator
    dev_set: Any
    """Task name -> DevSet, built at its first use."""
    model: ErnieForPretraining
    optimizer: paddle.optimizer.Optimizer
    scaler: LossScaler
    bad_steps: BadSteps
    sums: GradientSums
    start_step: int = 0
    tokens: int = 0
    """Real tokens trained before this start."""
    seconds_before: float = 0.0
    """Time spent before this start."""
    evaluated: bool = True
    """False where an evaluation was due at start_step and a SIGTERM cut it short."""
    started: float = field(default_factory=time.monotonic)

    def most_micro_batches(self, step: int) -> int:
        """Micro-batches of the rank that has most of them in this step."""
        return len(self.plan.turns(step)) * -(-self.recipe.batch.micro_batches // self.ranks)

    def autocast(self) -> contextlib.AbstractContextManager:
        """AMP O2 where the precision asks for it."""
        return precision.autocast(self.recipe.runtime.precision)


def prepare_run(recipe: Recipe, where: str, rank: int = 0, ranks: int = 1) -> Run:
    """Checks everything and builds the run. Raises ConfigError for any mistake, before the first step."""
    tasks = select_tasks(recipe.task_names(), f"{where}: curriculum.stages")
    _check(recipe, where, tasks, ranks)
    vocab = Vocab.load(recipe.model.vocab_file)
    plan = make_plan(recipe.curriculum)
    readers = {task.name: {split: ShardReader(Path(recipe.data.shards_dir) / task.name, split, task, vocab.digest)
                           for split in ("train", "dev")} for task in tasks}
    streams = {task.name: TaskStream(readers[task.name]["train"], task, recipe) for task in tasks}
    if rank == 0:
        logger.info("%s", opening_page(recipe, plan, ranks))

    cpu.prepare(enabled=not recipe.runtime.recompute)  # recompute replays paddle's own random state only
    config = EncoderConfig.from_recipe(recipe.model, len(vocab), vocab.pad_id)
    attention.choose(recipe.runtime.precision, config.num_attention_heads, config.hidden_size)
    model = ErnieForPretraining(config, tasks, recipe.runtime.recompute)
    initialise(model, config.initializer_range, recipe.seed)
    half = recipe.runtime.precision != "fp32"
    optimizer = build_optimizer(model, recipe.optimizer.weight_decay, recipe.optimizer.betas, recipe.optimizer.eps, half)
    scaler = LossScaler(recipe.runtime.precision == "fp16", recipe.runtime.init_loss_scale, recipe.runtime.min_loss_scale)
    bad_steps = BadSteps(Path(recipe.out_dir), tasks, vocab, scaler, recipe.runtime.max_bad_steps)
    collate = Collator(vocab, recipe.data.mask_prob, recipe.runtime.precision, config.max_position_embeddings)
    by_name = {task.name: task for task in tasks}

    @cache
    def dev_set(name: str) -> DevSet:
        return load_dev_set(readers[name]["train"], readers[name]["dev"], by_name[name], collate, recipe)

    sums = GradientSums(model.parameters(), recipe.runtime.sharding_stage, rank, ranks)
    run = Run(recipe, tasks, plan, rank, ranks, Path(recipe.out_dir), streams, collate, dev_set, model, optimizer, scaler,
              bad_steps, sums)
    _restore(run, where, vocab)
    distributed.broadcast_parameters(model)
    return run


def half_precision(run: Run) -> None:
    """Brings a float32 model into the recipe's half precision; what it held becomes the master weights."""
    dtype = precision.DTYPES[run.recipe.runtime.precision]
    if dtype == "float32":
        return
    masters = {f"{name}|{MASTER}": array for name, array in model_arrays(run.model).items()}
    paddle.amp.decorate(run.model, run.optimizer, level="O2", dtype=dtype, master_weight=True)
    restore_optimizer(masters, run.model, run.optimizer, run.sums)


def _restore(run: Run, where: str, vocab: Vocab) -> None:
    """Resumes from the newest whole checkpoint in out_dir, else warm-starts from model.init_from, else starts at random."""
    step = _choose_checkpoint(run, where)
    if step >= 0:
        folder = run.out_dir / f"step_{step:07d}"
        if not folder.is_dir():
            raise ConfigError(f"{where}: out_dir: rank {run.rank} on {os.uname().nodename} does not see {folder}, which rank 0 "
                              f"chose; out_dir has to be on a disk that all nodes share")
        half_precision(run)
        state = load_training(folder, run.model, run.optimizer, run.sums)
        if state["seed"] != run.recipe.seed:
            raise ConfigError(f"{folder}: was made with seed {state['seed']}, the recipe says {run.recipe.seed}; "
                              f"choose another out_dir for a new run")
        run.scaler.load_state_dict(state["scaler"])
        run.bad_steps.load_state_dict(state.get("bad_steps", {}))
        run.start_step, run.tokens, run.seconds_before = step, state["tokens"], state["seconds"]
        run.evaluated = state.get("evaluated", True)
        logger.info("resuming from %s", folder)
        now = run.recipe.runtime.precision
        if (before := state.get("precision", now)) != now:
            logger.warning("%s was trained in %s and goes on in %s; weights and moments are converted",
                           folder, before, now)
    elif run.recipe.model.init_from:
        warm_start(run.model, run.recipe, where, vocab)
    else:
        logger.info("starting from random weights")
    if step < 0:
        half_precision(run)


def _choose_checkpoint(run: Run, where: str) -> int:
    """Rank 0 takes hold of out_dir and tells the others which step to go on from; -1 = none."""
    choice = -1
    if run.rank == 0:
        key = f"{where}: out_dir"
        make_folder(run.out_dir, key)
        out_dir.hold(run.out_dir, key)
        out_dir.clean(run.out_dir)
        found = newest_whole(run.out_dir)
        choice = found[0] if found else -1
        _check_room(run, key)
    return int(distributed.sum_over_ranks(np.array([choice if run.rank == 0 else 0], np.int64))[0])


def _check_room(run: Run, key: str) -> None:
    """Refuses to start where not even one checkpoint fits on the disk; warns where those that are kept do not."""
    # Weights and two moments, float32 whatever the precision.
    one = 4 * 3 * sum(int(parameter.size) for parameter in run.model.parameters()) + SPARE
    out_dir.require_room(run.out_dir, one, "a single checkpoint")
    wanted = one * (run.recipe.runtime.keep_last + 1 - len(checkpoints(run.out_dir)))
    if out_dir.free_bytes(run.out_dir) < wanted:
        logger.warning("%s: %s are free in %s, but runtime.keep_last=%d checkpoints of %s will want %s more", key,
                       out_dir.size(out_dir.free_bytes(run.out_dir)), run.out_dir, run.recipe.runtime.keep_last,
                       out_dir.size(one), out_dir.size(wanted))


def warm_start(model: ErnieForPretraining, recipe: Recipe, where: str, vocab: Vocab) -> None:
    """Loads weights alone (never optimizer or learning rate: ERNIE issue 398) and refuses a poor match."""
    folder = Path(recipe.model.init_from)
    if not folder.is_dir():
        raise ConfigError(f"{where}: model.init_from: {folder} is not a folder with model.safetensors and vocab.txt")
    theirs = folder / "vocab.txt"
    if theirs.exists() and Vocab.load(theirs).digest != vocab.digest:
        raise ConfigError(f"{where}: model.init_from: {theirs} is not the vocabulary {recipe.model.vocab_file}; "
                          f"set model.vocab_file={theirs}")
    report = load_model_weights(model, folder)
    logger.info("weights from %s: %s", folder, report)
    if report.share() < recipe.model.init_min_match:
        raise ConfigError(f"{where}: model.init_from: only {report.share():.0%} of the encoder's tensors match {folder} "
                          f"({report}); check model.size, model.vocab_file and the embedding sizes, "
                          f"or lower model.init_min_match")


def _check(recipe: Recipe, where: str, tasks: list[Task], ranks: int) -> None:
    if ranks > recipe.batch.micro_batches:
        raise ConfigError(f"{where}: batch: {ranks} ranks share {recipe.batch.micro_batches} micro-batches a step; "
                          f"use fewer ranks, more batch.tokens or fewer batch.micro_tokens")
    for task in tasks:
        if task.task_id >= recipe.model.task_type_vocab_size:
            raise ConfigError(f"{task.path}: task_id: {task.task_id} has no row in the task embedding; "
                              f"raise model.task_type_vocab_size ({recipe.model.task_type_vocab_size})")
    precision.check_precision(recipe.runtime.precision, f"{where}: runtime.precision")


