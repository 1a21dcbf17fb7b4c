"""From a recipe to everything the main loop needs: vocabulary, shards, model, optimizer, and where to go
on."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ernie2 import attention, cpu, distributed, out_dir, precision
from ernie2.batching import Collator, TaskStream
from ernie2.checkpoint import (
    MASTER,
    SPARE,
    checkpoints,
    load_training,
    model_arrays,
    newest_whole,
    read_state,
    restore_optimizer,
)
from ernie2.config import CurriculumConfig, ModelConfig, Recipe, build, load_yaml, to_mapping
from ernie2.curriculum import Plan, make_plan
from ernie2.encoder import EncoderConfig
from ernie2.evaluate import DevSet, load_dev_set
from ernie2.faults import BadSteps
from ernie2.logs import logger
from ernie2.model import ErnieForPretraining, initialise
from ernie2.optim import LossScaler, build_optimizer
from ernie2.plan import opening_page
from ernie2.shards import SENTENCE_TYPES, SPLITS, ShardReader
from ernie2.strict import ConfigError, differences, make_folder
from ernie2.tasks import Task, select_tasks
from ernie2.tokenizer import Vocab
from ernie2.warm_start import check_same_function, start_from
from ernie2.weights import embedding_rows, open_weights


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
    replica: distributed.Replica = field(init=False)
    """The model as it is trained; made once it is restored."""
    start_step: int = 0
    tokens: int = 0
    """Real tokens trained before this start."""
    seconds_before: float = 0.0
    """Time spent before this start."""
    evaluated: bool = True
    """False where an evaluation was due at start_step and a SIGTERM cut it short."""
    started: float = field(default_factory=time.monotonic)

    def autocast(self) -> contextlib.AbstractContextManager:
        """AMP O2 where the precision asks for it."""
        return precision.autocast(self.recipe.runtime.precision)


def _readers(recipe: Recipe, task: Task, vocab: Vocab) -> dict[str, ShardReader]:
    folder = Path(recipe.data.shards_dir) / task.name
    return {split: ShardReader(folder, split, task, vocab.digest) for split in SPLITS}


def prepare_run(recipe: Recipe, where: str, rank: int = 0, ranks: int = 1) -> Run:
    """Checks everything and builds the run. Raises ConfigError for any mistake, before the first step."""
    tasks = select_tasks(recipe.task_names(), f"{where}: curriculum.stages")
    _check(recipe, where, tasks, ranks)
    vocab = Vocab.load(recipe.model.vocab_file)
    plan = make_plan(recipe.curriculum)
    readers = {task.name: _readers(recipe, task, vocab) for task in tasks}
    _rows_as_before(recipe)
    for task in tasks:
        _check_rows(recipe.model, task, readers[task.name].values())
    streams = {task.name: TaskStream(readers[task.name]["train"], task, recipe) for task in tasks}
    if rank == 0:
        logger.info("%s", opening_page(recipe, plan, ranks))

    cpu.prepare(enabled=not recipe.runtime.recompute)  # recompute replays paddle's own random state only
    config = EncoderConfig.from_recipe(recipe.model, len(vocab), vocab.pad_id)
    recipe.model.vocab_rows = config.vocab_size
    length = recipe.data.max_seq_len
    attention.choose(recipe.runtime.precision, config.num_attention_heads, config.hidden_size, length)
    model = ErnieForPretraining(config, tasks, recipe.runtime.recompute)
    initialise(model, config.initializer_range, recipe.seed)
    adam, runtime, out = recipe.optimizer, recipe.runtime, Path(recipe.out_dir)
    half = runtime.precision != "fp32"
    optimizer = build_optimizer(model, adam.weight_decay, adam.betas, adam.eps, half)
    scaler = LossScaler(runtime.precision == "fp16", runtime.init_loss_scale, runtime.min_loss_scale)
    bad_steps = BadSteps(out, tasks, vocab, scaler, runtime.max_bad_steps)
    collate = Collator(vocab, recipe.data.mask_prob, recipe.runtime.precision, config.max_position_embeddings)
    by_name = {task.name: task for task in tasks}

    @cache
    def dev_set(name: str) -> DevSet:
        return load_dev_set(readers[name]["train"], readers[name]["dev"], by_name[name], collate, recipe)

    made = (streams, collate, dev_set, model, optimizer, scaler, bad_steps)
    run = Run(recipe, tasks, plan, rank, ranks, out, *made)
    _restore(run, where, vocab)
    run.replica = distributed.Replica(model, recipe.runtime.recompute)
    return run


def half_precision(run: Run) -> None:
    """Brings a float32 model into the recipe's half precision; what it held becomes the master weights."""
    dtype = precision.DTYPES[run.recipe.runtime.precision]
    if dtype == "float32":
        return
    masters = {f"{name}|{MASTER}": array for name, array in model_arrays(run.model).items()}
    paddle.amp.decorate(run.model, run.optimizer, level="O2", dtype=dtype, master_weight=True)
    restore_optimizer(masters, run.model, run.optimizer)


def _restore(run: Run, where: str, vocab: Vocab) -> None:
    """Resumes from the newest whole checkpoint in out_dir, else warm-starts from model.init_from, else starts
    at random."""
    step = _choose_checkpoint(run, where)
    if step >= 0:
        folder = run.out_dir / f"step_{step:07d}"
        if not folder.is_dir():
            raise ConfigError(
                f"{where}: out_dir: rank {run.rank} on {os.uname().nodename} does not see {folder}, which "
                "rank 0 "
                f"chose; out_dir has to be on a disk that all nodes share"
            )
        state = read_state(folder)
        if state["seed"] != run.recipe.seed:
            raise ConfigError(
                f"{folder}: was made with seed {state['seed']}, the recipe says {run.recipe.seed}; "
                f"choose another out_dir for a new run"
            )
        _check_changes(run, folder, state)
        half_precision(run)
        load_training(folder, run.model, run.optimizer)
        run.scaler.load_state_dict(state["scaler"])
        run.bad_steps.load_state_dict(state.get("bad_steps", {}))
        run.start_step, run.tokens, run.seconds_before = step, state["tokens"], state["seconds"]
        run.evaluated = state.get("evaluated", True)
        logger.info("resuming from %s", folder)
    elif run.recipe.model.init_from:
        warm_start(run.model, run.recipe, where, vocab)
    else:
        logger.info("starting from random weights")
    if step < 0:
        half_precision(run)


LEARNING_ONLY = {
    f"model.{key}"
    for key in ("dropout", "init_from", "init_min_match", "initializer_range", "vocab_file", "vocab_rows")
}
"""Keys of the model that what it computes does not depend on (rows are seen in the weights themselves)."""


def _check_changes(run: Run, folder: Path, state: dict[str, Any]) -> None:
    """Says what a resume does otherwise than the run before, and refuses another model or another position in
    the data."""
    changed = differences(load_yaml(folder / "recipe.yaml"), to_mapping(run.recipe))
    refused = [key for key in changed if key.startswith("model.") and key not in LEARNING_ONLY]
    refused += [key for key in ("batch.tokens", "batch.pool_batches") if key in changed]
    curriculum = [key for key in changed if key.startswith("curriculum.")]
    if curriculum and run.plan.batches_done(state["step"]) != _plan_of(folder).batches_done(state["step"]):
        refused += curriculum
    lines = {
        key: f"{key}: {before!r} -> {now!r}"
        for key, (before, now) in changed.items()
        if key not in ("out_dir", "name")
    }
    if refused:
        raise ConfigError(
            f"{folder}: was made with other settings of the model or of the place in the data: "
            f"{'; '.join(lines[key] for key in refused)}. Resume with the old ones, or begin a new run in "
            f"another out_dir with model.init_from={folder}"
        )
    shards = state.get("shards", {})
    new = [
        name
        for name, stream in run.streams.items()
        if shards.get(name, stream.reader.digest) != stream.reader.digest
    ]
    if new:
        raise ConfigError(
            f"{folder}: the shards of {', '.join(new)} in {run.recipe.data.shards_dir} are not those it was "
            "trained "
            "on, so its place in them means nothing; bring them back, or begin a new run in another "
            "out_dir with "
            f"model.init_from={folder}"
        )
    for line in lines.values():
        logger.warning("changed since this checkpoint: %s", line)


def _plan_of(folder: Path) -> Plan:
    """The plan that a checkpoint was made with."""
    path = folder / "recipe.yaml"
    return make_plan(build(CurriculumConfig, load_yaml(path).get("curriculum"), str(path), "curriculum."))


def _choose_checkpoint(run: Run, where: str) -> int:
    """Rank 0 takes hold of out_dir and tells the others which step to go on from; -1 = none."""
    choice = -1
    if run.rank == 0:
        key = f"{where}: out_dir"
        make_folder(run.out_dir, key)
        out_dir.hold(run.out_dir, key)
        if (run.out_dir / out_dir.ORIGIN).exists():
            raise ConfigError(f"{key}: {run.out_dir} holds a fine-tuning; name another out_dir")
        out_dir.clean(run.out_dir)
        found = newest_whole(run.out_dir)
        choice = found[0] if found else -1
        _check_room(run, key)
    return int(distributed.sum_over_ranks(np.array([choice if run.rank == 0 else 0], np.int64))[0])


def _check_room(run: Run, key: str) -> None:
    """Refuses to start where not even one checkpoint fits on the disk; warns where those that are kept do
    not."""
    # Weights and two moments, float32 whatever the precision.
    one = 4 * 3 * sum(int(parameter.size) for parameter in run.model.parameters()) + SPARE
    out_dir.require_room(run.out_dir, one, "a single checkpoint")
    wanted = one * (run.recipe.runtime.keep_last + 1 - len(checkpoints(run.out_dir)))
    if out_dir.free_bytes(run.out_dir) < wanted:
        logger.warning(
            "%s: %s are free in %s, but runtime.keep_last=%d checkpoints of %s will want %s more",
            key,
            out_dir.size(out_dir.free_bytes(run.out_dir)),
            run.out_dir,
            run.recipe.runtime.keep_last,
            out_dir.size(one),
            out_dir.size(wanted),
        )


def warm_start(model: ErnieForPretraining, recipe: Recipe, where: str, vocab: Vocab) -> None:
    """Loads weights alone (never optimizer or learning rate: ERNIE issue 398) and refuses what does not
    fit."""
    folder, key = Path(recipe.model.init_from), f"{where}: model.init_from"
    if not folder.is_dir():
        raise ConfigError(f"{key}: {folder} is not a folder with model.safetensors and vocab.txt")
    theirs = open_weights(folder, key).vocab_file
    if not theirs.exists():
        logger.warning(
            "%s: no such file; whether %s is the vocabulary of these weights cannot be checked",
            theirs,
            recipe.model.vocab_file,
        )
    elif Vocab.load(theirs).digest != vocab.digest:
        raise ConfigError(
            f"{key}: {theirs} is not the vocabulary {recipe.model.vocab_file}; set model.vocab_file={theirs}"
        )
    check_same_function(folder, model.config.to_json(), key)
    start_from(model, folder, len(vocab), recipe.model.init_min_match, key)


def _check(recipe: Recipe, where: str, tasks: list[Task], ranks: int) -> None:
    if ranks > recipe.batch.micro_batches:
        raise ConfigError(
            f"{where}: batch: {ranks} ranks share {recipe.batch.micro_batches} micro-batches a step; "
            f"use fewer ranks, more batch.tokens or fewer batch.micro_tokens"
        )
    precision.check_precision(recipe.runtime.precision, f"{where}: runtime.precision")


def _rows_as_before(recipe: Recipe) -> None:
    """A resume has the rows of its checkpoints, whatever init_from holds by now."""
    for _, folder in reversed(checkpoints(Path(recipe.out_dir))):
        with contextlib.suppress(ConfigError):  # a damaged one is dealt with later
            recipe.model.take_rows(embedding_rows(folder))
            return


def _check_rows(model: ModelConfig, task: Task, readers: Iterable[ShardReader]) -> None:
    """Every id of a task needs a row: more are made where the recipe names no number, else it is refused by
    name."""

    def need(key: str, last: int, what: str) -> None:
        if last >= getattr(model, key) and key not in model.unnamed:
            raise ConfigError(
                f"{task.path}: {what} {last} has no row in its embedding; raise model.{key} "
                f"({getattr(model, key)})"
            )
        setattr(model, key, max(getattr(model, key), last + 1))

    need("task_type_vocab_size", task.task_id, "task_id")
    if model.sentence_type_vocab_size < SENTENCE_TYPES:  # shards never hold more
        need(
            "sentence_type_vocab_size",
            max(reader.most_sentences() for reader in readers) - 1,
            "its shards' sentence id",
        )
