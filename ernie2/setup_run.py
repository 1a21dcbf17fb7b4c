"""From a recipe to everything the main loop needs: vocabulary, shards, model, optimizer, and where to go on."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import paddle

from ernie2 import cpu, distributed
from ernie2.batching import Collator, TaskStream
from ernie2.checkpoint import checkpoints, load_model_weights, load_training
from ernie2.config import Recipe
from ernie2.curriculum import Plan, make_plan
from ernie2.encoder import EncoderConfig
from ernie2.evaluate import DevSet, load_dev_set
from ernie2.logs import logger
from ernie2.model import ErnieForPretraining, initialise
from ernie2.optim import build_optimizer
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
    scaler: paddle.amp.GradScaler
    start_step: int = 0
    tokens: int = 0
    """Real tokens trained before this start."""
    seconds_before: float = 0.0
    """Time spent before this start."""
    started: float = field(default_factory=time.monotonic)

    def autocast(self) -> contextlib.AbstractContextManager:
        """AMP O2 where the precision asks for it."""
        if self.recipe.runtime.precision == "fp32":
            return contextlib.nullcontext()
        return paddle.amp.auto_cast(level="O2", dtype=_DTYPES[self.recipe.runtime.precision])

    def loss_scale(self) -> float:
        """Loss scale in use; 1 without fp16."""
        return float(self.scaler.state_dict().get("scale", 1.0)) if self.scaler.is_enable() else 1.0


_DTYPES = {"fp16": "float16", "bf16": "bfloat16"}


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
    model = ErnieForPretraining(config, tasks, recipe.runtime.recompute)
    initialise(model, config.initializer_range, recipe.seed)
    half = recipe.runtime.precision != "fp32"
    optimizer = build_optimizer(model, recipe.optimizer.weight_decay, recipe.optimizer.betas, recipe.optimizer.eps, half)
    if half:
        model, optimizer = paddle.amp.decorate(model, optimizer, level="O2", dtype=_DTYPES[recipe.runtime.precision],
                                               master_weight=True)
    # Released code: start 102,400; x2 after 100 good steps, x0.8 after 2 bad ones (PAPER section 5).
    scaler = paddle.amp.GradScaler(enable=recipe.runtime.precision == "fp16", incr_every_n_steps=100, incr_ratio=2.0,
                                   init_loss_scaling=recipe.runtime.init_loss_scale, decr_every_n_nan_or_inf=2, decr_ratio=0.8)
    collate = Collator(vocab, recipe.data.mask_prob)
    by_name = {task.name: task for task in tasks}

    @cache
    def dev_set(name: str) -> DevSet:
        return load_dev_set(readers[name]["train"], readers[name]["dev"], by_name[name], collate, recipe)

    run = Run(recipe, tasks, plan, rank, ranks, Path(recipe.out_dir), streams, collate, dev_set, model, optimizer, scaler)
    _restore(run, where, vocab)
    distributed.broadcast_parameters(model)
    return run


def _restore(run: Run, where: str, vocab: Vocab) -> None:
    """Resumes from the newest checkpoint in out_dir, else warm-starts from model.init_from, else starts at random."""
    make_folder(run.out_dir, f"{where}: out_dir")
    found = checkpoints(run.out_dir)
    if found:
        step, folder = found[-1]
        state = load_training(folder, run.model, run.optimizer)
        if state["seed"] != run.recipe.seed:
            raise ConfigError(f"{folder}: was made with seed {state['seed']}, the recipe says {run.recipe.seed}; "
                              f"choose another out_dir for a new run")
        if run.scaler.is_enable():
            run.scaler.load_state_dict(state["scaler"])
        run.start_step, run.tokens, run.seconds_before = step, state["tokens"], state["seconds"]
        logger.info("resuming from %s", folder)
    elif run.recipe.model.init_from:
        warm_start(run.model, run.recipe, where, vocab)
    else:
        logger.info("starting from random weights")


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
    if recipe.runtime.precision != "fp32" and not paddle.is_compiled_with_cuda():
        raise ConfigError(f"{where}: runtime.precision: {recipe.runtime.precision} needs a GPU; use fp32 on a CPU")


