"""The road from raw text to shards: which tasks need making, blocks to spill files, spill files to shards,
report.

Everything depends on input and seed alone: the shards are the same bytes whatever the number of workers, the
engine, or how often the run was interrupted. Memory: a few blocks and one bucket for each worker."""

from __future__ import annotations

import errno
import functools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from data_gen.block_work import load
from data_gen.engine import Engine
from data_gen.generators import load_generator
from data_gen.job import Job
from data_gen.provenance import Inputs, is_imported, origin, stale
from data_gen.reading.documents import TextOptions
from data_gen.work_folder import WORK, locked, sweep
from ernie2.config import Recipe
from ernie2.shards import SPLITS, ShardReader
from ernie2.strict import ConfigError, make_folder
from ernie2.tasks import Task
from ernie2.tokenizer import Vocab

Out = Callable[[str], None]


def build_shards(
    recipe: Recipe, tasks: Sequence[Task], workers: int, out: Out = print, engine: str = "local"
) -> None:
    """Makes the shards of every task whose shards are missing or no longer what the recipe would make.

    Args:
        recipe: The recipe.
        tasks: Tasks to make, in the order they are reported.
        workers: Processes.
        out: Takes the lines of the report.
        engine: "local" (processes of this machine) or "ray" (a ray cluster that shares data.shards_dir).

    Raises:
        ConfigError: any mistake in recipe, task files or input, another run at work in the folder, a full
        disk. What is
            finished is kept for the next run."""
    shards = Path(recipe.data.shards_dir)
    imported = [task for task in tasks if is_imported(shards / task.name)]
    own = [task for task in tasks if task not in imported]
    for task in own:
        load_generator(task, recipe.data.language)
    inputs = Inputs.of(recipe, own)
    vocab = ready_vocab(recipe, inputs, out)
    for task in imported:
        for split in SPLITS:
            ShardReader(shards / task.name, split, task, vocab.digest)
        out(f"{task.name}: imported; left as it is")
    origins, todo = {task.name: origin(recipe, task, inputs, vocab.digest) for task in own}, []
    for task in own:
        reason = stale(shards / task.name, task, origins[task.name], inputs)
        out(f"{task.name}: {'up to date' if reason is None else 'to be made: ' + reason}")
        todo += [task] if reason else []
    if not todo and not (shards / WORK).exists():
        return
    with Engine(engine, workers) as helpers:
        if todo:
            job = Job.of(recipe, todo, inputs, vocab, helpers, out)
            helpers.start(
                functools.partial(load, job.settings, vocab)
            )  # before the lock, which they would hold on to
        with locked(shards):
            try:
                sweep(shards / WORK, [task.name for task in own if task not in todo])
                if todo:
                    job.do(origins)
            except OSError as error:
                raise named(error, shards) from error
            except KeyboardInterrupt:
                out("interrupted; what is finished is kept: the same command goes on from there")
                raise


def named(error: OSError, shards: Path) -> Exception:
    """The error to raise: a ConfigError where the disk is full or something is in the way in the shards
    folder."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(shards).free / 1e9
        return ConfigError(
            f"data.shards_dir: no space left in {shards} ({free:.2f} GB free); finished blocks are kept: "
            "make room "
            f"and run the same command again"
        )
    path = Path(error.filename or "/").absolute()
    if shards.absolute() in [path, *path.parents]:
        return ConfigError(
            f"data.shards_dir: {path}: {error.strerror}; mend that and run the same command again, what is "
            "finished "
            f"is kept"
        )
    return error


def ready_vocab(recipe: Recipe, inputs: Inputs, out: Out) -> Vocab:
    """The recipe's vocabulary; built from the corpus where the file is missing and data.vocab_size is set."""
    path, size = Path(recipe.model.vocab_file), recipe.data.vocab_size
    if not path.exists():
        if size is None:
            raise ConfigError(
                f"model.vocab_file: {path} does not exist; name an existing vocabulary, or set "
                f"data.vocab_size to have one of that size built from the corpus"
            )
        out(f"building a vocabulary of {size} tokens: {path}")
        make_folder(path.parent, "model.vocab_file")
        from data_gen.vocab import build_vocab  # here: hardly any run needs it

        build_vocab(
            [*inputs.corpus, *inputs.query_log, *inputs.marked_pairs],
            size,
            path,
            recipe.data.lower_case,
            recipe.data.language,
            TextOptions.of(recipe.data, recipe.seed),
            out,
        )
    return Vocab.load(path)
