"""From a recipe to what the main loop needs: vocabulary, shards, model, optimizer, step to start from."""

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ernie2 import attention, checkpoint, cpu, distributed, out_dir, precision
from ernie2.batching import Collator, TaskStream
from ernie2.config import CurriculumConfig, ModelConfig, Recipe
from ernie2.curriculum import Plan, make_plan
from ernie2.encoder import EncoderConfig
from ernie2.evaluate import DevSet, load_dev_set
from ernie2.faults import BadSteps
from ernie2.logs import logger
from ernie2.model import ErnieForPretraining, initialise
from ernie2.optim import LossScaler, build_optimizer
from ernie2.plan import figures, opening_page
from ernie2.schema import build, to_mapping
from ernie2.shards import SENTENCE_TYPES, SPLITS, ShardReader
from ernie2.strict import ConfigError, differences, load_yaml, make_folder
from ernie2.tasks import Task, select_tasks
from ernie2.tokenizer import Vocab
from ernie2.warm_start import check_same_function, start_from
from ernie2.weights import embedding_rows, open_weights


@dataclass
class Run:
    """A run that is ready to train; `tokens` and `seconds_before` are those of earlier starts."""

    recipe: Recipe
    tasks: list[Task]
    plan: Plan
    rank: int
    ranks: int
    out_dir: Path
    streams: dict[str, TaskStream]
    collate: Collator
    dev_set: Callable[[str], DevSet]
    """Of a task by name, built at its first use."""
    model: ErnieForPretraining
    optimizer: paddle.optimizer.Optimizer
    scaler: LossScaler
    bad_steps: BadSteps
    replica: distributed.Replica = field(init=False)
    """The model as it is trained; made once it is restored."""
    start_step: int = 0
    tokens: int = 0
    seconds_before: float = 0.0
    evaluated: bool = True
    """False where an evaluation was due at start_step and a SIGTERM cut it short."""
    started: float = field(default_factory=time.monotonic)

    def autocast(self) -> contextlib.AbstractContextManager:
        """AMP O2 where the precision asks for it."""
        return precision.autocast(self.recipe.runtime.precision)


def prepare_run(recipe: Recipe, where: str, rank: int = 0, ranks: int = 1) -> Run:
    """Checks everything and builds the run. Raises ConfigError for any mistake, before the first step."""
    tasks, runtime = select_tasks(recipe.task_names(), f"{where}: curriculum.stages"), recipe.runtime
    if ranks > recipe.batch.micro_batches:
        raise ConfigError(
            f"{where}: batch: {ranks} ranks share {recipe.batch.micro_batches} micro-batches a step; "
            f"use fewer ranks, more batch.tokens or fewer batch.micro_tokens"
        )
    precision.check_precision(runtime.precision, f"{where}: runtime.precision")
    vocab, plan = Vocab.load(recipe.model.vocab_file), make_plan(recipe.curriculum)
    readers = {}
    _rows_as_before(recipe)
    for task in tasks:
        folder = Path(recipe.data.shards_dir) / task.name
        readers[task.name] = {split: ShardReader(folder, split, task, vocab.digest) for split in SPLITS}
        _check_rows(recipe.model, task, readers[task.name].values())
    streams = {task.name: TaskStream(readers[task.name]["train"], task, recipe) for task in tasks}
    if rank == 0:
        logger.info("%s", opening_page(recipe, plan, figures(recipe, plan, ranks)))

    cpu.prepare(enabled=not runtime.recompute)  # recompute replays paddle's own random state only
    config = EncoderConfig.from_recipe(recipe.model, len(vocab), vocab.pad_id)
    recipe.model.vocab_rows = config.vocab_size
    length, heads = recipe.data.max_seq_len, config.num_attention_heads
    attention.choose(runtime.precision, heads, config.hidden_size, length)
    model = ErnieForPretraining(config, tasks, runtime.recompute)
    initialise(model, config.initializer_range, recipe.seed)
    adam, half = recipe.optimizer, runtime.precision != "fp32"
    optimizer = build_optimizer(model, adam.weight_decay, adam.betas, adam.eps, half)
    scaler = LossScaler(runtime.precision == "fp16", runtime.init_loss_scale, runtime.min_loss_scale)
    bad_steps = BadSteps(Path(recipe.out_dir), tasks, scaler, runtime.max_bad_steps)
    collate = Collator(vocab, recipe.data.mask_prob, runtime.precision, config.max_position_embeddings)

    @cache
    def dev_set(name: str) -> DevSet:
        task = next(task for task in tasks if task.name == name)
        return load_dev_set(readers[name]["train"], readers[name]["dev"], task, collate, recipe)

    made = (streams, collate, dev_set, model, optimizer, scaler, bad_steps)
    run = Run(recipe, tasks, plan, rank, ranks, Path(recipe.out_dir), *made)
    _restore(run, where, vocab)
    run.replica = distributed.Replica(model, runtime.recompute)
    return run


def _rows_as_before(recipe: Recipe) -> None:
    """A resume has the rows of its checkpoints, whatever init_from holds by now."""
    for _, folder in reversed(checkpoint.checkpoints(Path(recipe.out_dir))):
        with contextlib.suppress(ConfigError):  # a damaged one is dealt with later
            return recipe.model.take_rows(embedding_rows(folder))


def _check_rows(model: ModelConfig, task: Task, readers: Iterable[ShardReader]) -> None:
    """Every id of a task needs a row, which is added or, where the recipe fixes their number, refused."""
    needed = {"task_type_vocab_size": ("task_id", task.task_id)}
    if model.sentence_type_vocab_size < SENTENCE_TYPES:  # shards never hold more
        last = max(reader.most_sentences() for reader in readers) - 1
        needed["sentence_type_vocab_size"] = ("its shards' sentence id", last)
    for key, (what, last) in needed.items():
        rows = getattr(model, key)
        if last >= rows and key not in model.unnamed:
            remedy = f"has no row in its embedding; raise model.{key} ({rows})"
            raise ConfigError(f"{task.path}: {what} {last} {remedy}")
        setattr(model, key, max(rows, last + 1))


def _restore(run: Run, where: str, vocab: Vocab) -> None:
    """Resumes from the newest whole checkpoint, else warm-starts from model.init_from or at random."""
    step = _choose_checkpoint(run, where)
    if step < 0 and run.recipe.model.init_from:
        _warm_start(run.model, run.recipe, where, vocab)
    elif step < 0:
        logger.info("starting from random weights")
    if step < 0:
        return half_precision(run)
    folder = run.out_dir / f"step_{step:07d}"
    if not folder.is_dir():
        raise ConfigError(
            f"{where}: out_dir: rank {run.rank} on {os.uname().nodename} does not see {folder}, which rank 0 "
            f"chose; out_dir has to be on a disk that all nodes share"
        )
    state = checkpoint.read_state(folder)
    _check_changes(run, folder, state)
    half_precision(run)
    checkpoint.load_training(folder, run.model, run.optimizer)
    run.scaler.load_state_dict(state["scaler"])
    run.bad_steps.load_state_dict(state.get("bad_steps", {}))
    run.start_step, run.tokens, run.seconds_before = step, state["tokens"], state["seconds"]
    run.evaluated = state.get("evaluated", True)
    logger.info("resuming from %s", folder)


def _choose_checkpoint(run: Run, where: str) -> int:
    """Rank 0 takes hold of out_dir and tells the others which step to resume from; -1 = none."""
    choice = 0
    if run.rank == 0:
        key = f"{where}: out_dir"
        make_folder(run.out_dir, key)
        out_dir.hold(run.out_dir, key)
        if (run.out_dir / out_dir.ORIGIN).exists():
            raise ConfigError(f"{key}: {run.out_dir} holds a fine-tuning; name another out_dir")
        out_dir.clean(run.out_dir)
        choice, _ = checkpoint.newest_whole(run.out_dir) or (-1, None)
        arrays = 4 * 3 * sum(int(parameter.size) for parameter in run.model.parameters())  # with two moments
        out_dir.require_room(run.out_dir, arrays + checkpoint.SPARE, "a single checkpoint")
    return int(distributed.sum_over_ranks(np.array([choice], np.int64))[0])


def half_precision(run: Run) -> None:
    """Brings a float32 model into the recipe's half precision; what it held becomes the master weights."""
    dtype = precision.DTYPES[run.recipe.runtime.precision]
    if dtype == "float32":
        return
    arrays = checkpoint.model_arrays(run.model)
    masters = {f"{name}|{checkpoint.MASTER}": array for name, array in arrays.items()}
    paddle.amp.decorate(run.model, run.optimizer, level="O2", dtype=dtype, master_weight=True)
    checkpoint.restore_optimizer(masters, run.model, run.optimizer)


# Keys of the model that what it computes does not depend on (rows are seen in the weights themselves).
LEARNING_ONLY = ("dropout", "init_from", "init_min_match", "initializer_range", "vocab_file", "vocab_rows")


def _check_changes(run: Run, folder: Path, state: dict[str, Any]) -> None:
    """Logs what changed since a checkpoint; refuses another seed, model or position in the data."""
    if state["seed"] != run.recipe.seed:
        raise ConfigError(
            f"{folder}: was made with seed {state['seed']}, the recipe says {run.recipe.seed}; "
            f"choose another out_dir for a new run"
        )
    before = load_yaml(folder / "recipe.yaml")
    changed = differences(before, to_mapping(run.recipe))
    refused = [key for key in changed if key.startswith("model.") and key[6:] not in LEARNING_ONLY]
    refused += [key for key in ("batch.tokens", "batch.pool_batches") if key in changed]
    if curriculum := [key for key in changed if key.startswith("curriculum.")]:
        plan = make_plan(build(CurriculumConfig, before.get("curriculum"), str(folder), "curriculum."))
        same = run.plan.batches_done(state["step"]) == plan.batches_done(state["step"])
        refused += [] if same else curriculum
    lines = {key: f"{key}: {old!r} -> {new!r}" for key, (old, new) in changed.items()}
    if refused:
        raise ConfigError(
            f"{folder}: was made with other settings of the model or of the place in the data: "
            f"{'; '.join(lines[key] for key in refused)}. Resume with the old ones, or begin a new run in "
            f"another out_dir with model.init_from={folder}"
        )
    shards = {name: stream.reader.digest for name, stream in run.streams.items()}
    then = shards | state.get("shards", {})
    if new := [name for name in shards if then[name] != shards[name]]:
        raise ConfigError(
            f"{folder}: the shards of {', '.join(new)} in {run.recipe.data.shards_dir} are not those it was "
            f"trained on, so its place in them means nothing; bring them back, or begin a new run in another "
            f"out_dir with model.init_from={folder}"
        )
    for key, line in lines.items():
        if key not in ("out_dir", "name"):
            logger.warning("changed since this checkpoint: %s", line)


def _warm_start(model: ErnieForPretraining, recipe: Recipe, where: str, vocab: Vocab) -> None:
    """Loads weights alone (never optimizer or learning rate: ERNIE issue 398)."""
    folder, key = Path(recipe.model.init_from), f"{where}: model.init_from"
    theirs, known = open_weights(folder, key).vocab_file, len(vocab)
    if not theirs.exists():
        unknown = "%s: no such file; whether %s is the vocabulary of these weights cannot be checked"
        logger.warning(unknown, theirs, recipe.model.vocab_file)
    elif (old := Vocab.load(theirs)).id_to_token != vocab.id_to_token[: len(old)] or 2 * len(old) < len(
        vocab
    ):
        raise ConfigError(
            f"{key}: {theirs} is not the vocabulary {recipe.model.vocab_file}, nor its larger part; set "
            f"model.vocab_file={theirs}, or extend it (data_gen.vocab --extend)"
        )
    else:
        known = len(old)  # further tokens were added by data_gen.vocab --extend
    check_same_function(folder, model.config.to_json(), key)
    start_from(model, folder, known, recipe.model.init_min_match, key)
    if known < len(vocab):
        logger.info("  %d tokens are new: their rows start at random", len(vocab) - known)
