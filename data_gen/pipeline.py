"""The road from raw text to shards: which tasks need making, blocks in parallel, merge, report.

Blocks and the merge depend on input and seed alone: the shards are the same bytes whatever the number of workers.
Memory: a few blocks for each worker, and one bucket of the merge.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from data_gen.blocks import Block, Made, Settings, block_bytes_for, read_blocks, work
from data_gen.documents import RejectCounter
from data_gen.generators import load_generator
from data_gen.progress import Progress
from data_gen.provenance import Inputs, origin, stale
from data_gen.spill import balanced_shares, label_counts, merged, thin, token_label_counts
from data_gen.vocab import build_vocab
from ernie2.config import ConfigError, Recipe
from ernie2.shards import SPLITS, ShardWriter
from ernie2.strict import make_folder
from ernie2.tasks import Task
from ernie2.tokenizer import Vocab

Out = Callable[[str], None]
ITEMS_BEFORE_JUDGING = 1_000
"""Documents or rows read before data.max_reject_share can stop a run that is still reading."""


def build_shards(recipe: Recipe, tasks: Sequence[Task], workers: int, out: Out = print, engine: str = "local") -> None:
    """Makes the shards of every task whose shards are missing or no longer what the recipe would make.

    Args:
        recipe: The recipe.
        tasks: Tasks to make, in the order they are reported.
        workers: Processes.
        out: Takes the lines of the report.
        engine: "local" (processes of this machine) or "ray" (a ray cluster that shares data.shards_dir).

    Raises:
        ConfigError: any mistake in recipe, task files or input; nothing half-written is left behind.
    """
    for task in tasks:
        load_generator(task, recipe.data.language)
    inputs = Inputs.of(recipe, tasks)
    vocab = ready_vocab(recipe, inputs, out)
    shards = Path(recipe.data.shards_dir)
    origins = {task.name: origin(recipe, task, inputs, vocab.digest) for task in tasks}
    todo = []
    for task in tasks:
        reason = stale(shards / task.name, task, origins[task.name])
        out(f"{task.name}: {'up to date' if reason is None else 'to be made: ' + reason}")
        todo += [task] if reason else []
    if not todo:
        return
    with _building_folder(shards) as folder, _parallel(engine, workers) as parallel:
        rejects = RejectCounter()
        made = make_blocks(recipe, todo, inputs, parallel, folder, rejects, out)
        _check_splits(todo, made, recipe)
        for task in todo:
            merge_task(task, made, shards / task.name, recipe, len(vocab), origins[task.name], out)
        if Path(recipe.model.vocab_file).resolve() != (shards / "vocab.txt").resolve():
            shutil.copyfile(recipe.model.vocab_file, shards / "vocab.txt")
        write_rejects(shards / "rejects.jsonl", rejects, todo, made)
    report_rejects(rejects, todo, made, out)


def ready_vocab(recipe: Recipe, inputs: Inputs, out: Out) -> Vocab:
    """The recipe's vocabulary; built from the corpus where the file is missing and data.vocab_size is set."""
    path, size = Path(recipe.model.vocab_file), recipe.data.vocab_size
    if not path.exists():
        if size is None:
            raise ConfigError(f"model.vocab_file: {path} does not exist; name an existing vocabulary, or set "
                              f"data.vocab_size to have one of that size built from the corpus")
        out(f"building a vocabulary of {size} tokens: {path}")
        make_folder(path.parent, "model.vocab_file")
        build_vocab([*inputs.corpus, *inputs.query_log], size, path, recipe.data.lower_case, recipe.data.language,
                    recipe.data.encoding, out)
    return Vocab.load(path)


def make_blocks(recipe: Recipe, tasks: Sequence[Task], inputs: Inputs, parallel: joblib.Parallel, folder: Path,
                rejects: RejectCounter, out: Out) -> list[Made]:
    """Reads all input that `tasks` need and works it off; the results come in the order of the blocks.

    Raises:
        ConfigError: a bad input file, or more than data.max_reject_share of it rejected.
    """
    settings, results, annotating = Settings.of(recipe, inputs.dictionaries), [], RejectCounter()
    sources = list(dict.fromkeys(task.source for task in tasks))
    with Progress(inputs.total_bytes(sources), out) as progress:
        for source in sources:
            block_bytes = block_bytes_for(inputs.total_bytes([source]))
            blocks = read_blocks(source, inputs.paths(source), recipe, block_bytes, rejects)
            blocks = _judged(blocks, source, rejects, recipe)
            for done in parallel(joblib.delayed(work)(block, tasks, settings, folder) for block in blocks):
                results += done.made
                annotating.merge(done.rejects)
                progress.add(done.size)
    rejects.merge(annotating)
    return results


def _judged(blocks: Iterator[Block], source: str, rejects: RejectCounter, recipe: Recipe) -> Iterator[Block]:
    """The blocks, as long as not too much of the input is rejected. Raises ConfigError."""
    before, seen = rejects.total, 0

    def judge(least: int) -> None:
        rejected = rejects.total - before
        limit = recipe.data.max_reject_share
        if seen + rejected >= least and rejected > limit * (seen + rejected):
            reasons = "; ".join(f"{reason}: {count}, for example {' | '.join(rejects.examples.get(reason, []))}"
                                for reason, count in rejects.counts.most_common())
            raise ConfigError(f"data.max_reject_share: {rejected} of {seen + rejected} {source} rejected, more than "
                              f"{limit:g} of them ({reasons}); mend the input, or allow more")

    for block in blocks:
        seen += len(block.items)
        judge(ITEMS_BEFORE_JUDGING)
        yield block
    judge(1)


def _check_splits(tasks: Sequence[Task], made: Sequence[Made], recipe: Recipe) -> None:
    """Raises ConfigError for a task without train or without dev examples."""
    for task in tasks:
        accepted, reasons = Counter(), Counter()
        for part in made:
            if part.task == task.name:
                accepted[part.split] += part.accepted
                reasons.update(part.reasons)
        why = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common(3))
        why = f" (rejected: {why})" if why else ""
        if not accepted["train"]:
            raise ConfigError(f"task '{task.name}': no training example in the whole input{why}; give it text that it "
                              f"can use, or leave it out of curriculum.stages")
        if not accepted["dev"]:
            raise ConfigError(f"task '{task.name}': no example in the dev split{why}: too few {task.source} are held "
                              f"out; raise data.dev_share (now {recipe.data.dev_share:g}) or give more text")


def merge_task(task: Task, made: Sequence[Made], folder: Path, recipe: Recipe, vocab_size: int, source: dict[str, Any],
               out: Out) -> None:
    """Merges the spilled examples of one task into its shards, thins too frequent classes, writes the index."""
    mine = [part for part in made if part.task == task.name]
    paths = {split: [part.path for part in mine if part.split == split and part.path is not None] for split in SPLITS}
    shares = None
    if task.balance is not None:
        shares = balanced_shares(label_counts(paths["train"], task.sentence_classes), task.balance)
    statistics: dict[str, Any] = {
        "accepted": {split: sum(part.accepted for part in mine if part.split == split) for split in SPLITS},
        "rejected": dict(sorted(sum((part.reasons for part in mine), Counter()).items())), "thinned": {}, "labels": {}}
    writer = ShardWriter(folder, task, vocab_size)
    try:
        for split in SPLITS:
            thinning = None if shares is None else thin(paths[split], shares)
            counts = np.zeros(task.sentence_classes or task.token_classes or 0, np.int64)
            for example in merged(paths[split], thinning):
                writer.write(split, example)
                if task.sentence_classes:
                    counts[example.sentence_label] += 1
                elif task.token_classes:
                    counts += token_label_counts(example, task.token_classes)
            statistics["labels"][split] = counts.tolist()
            statistics["thinned"][split] = 0 if thinning is None else thinning.dropped
        index = writer.close({**source, "task_id": task.task_id, "generator": task.generator,
                              "generator_args": task.generator_args, "balance": task.balance, "statistics": statistics})
    except BaseException:
        writer.abort()
        raise
    out(f"{task.name}: {index['samples']['train']:,} train and {index['samples']['dev']:,} dev examples, "
        f"{sum(index['tokens'].values()) / 1e6:.2f} M tokens")


@contextlib.contextmanager
def _building_folder(shards: Path) -> Iterator[Path]:
    """A temporary folder beside the shards, gone afterwards whatever happens; takes away those of dead processes."""
    existed = shards.exists()
    folder = shards.absolute() / f".building-{os.uname().nodename}-{os.getpid()}"
    make_folder(folder, "data.shards_dir")
    for other in shards.glob(f".building-{os.uname().nodename}-*"):
        if not Path("/proc").exists() or Path("/proc", other.name.rpartition("-")[2]).exists():
            continue
        shutil.rmtree(other, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not existed and not any(shards.iterdir()):
            shards.rmdir()


@contextlib.contextmanager
def _parallel(engine: str, workers: int) -> Iterator[joblib.Parallel]:
    """What runs the blocks; it takes them as they are needed and keeps their order."""
    if engine == "local":
        yield joblib.Parallel(n_jobs=workers, return_as="generator", batch_size=1, pre_dispatch=2 * workers)
        return
    try:
        from ray.util.joblib import register_ray
    except ImportError:
        raise ConfigError("--engine ray: ray is not installed; pip install ray, or leave --engine out") from None
    register_ray()
    with joblib.parallel_config(backend="ray"):
        # Ray's back end cannot hand results on as they come; they are small (the examples are on disk).
        yield joblib.Parallel(n_jobs=workers, batch_size=1, pre_dispatch=2 * workers)


def write_rejects(path: Path, rejects: RejectCounter, tasks: Sequence[Task], made: Sequence[Made]) -> None:
    """Writes one JSON object a reason: {task (null: the reader), reason, count, examples}."""
    rows = [{"task": None, "reason": reason, "count": count, "examples": rejects.examples.get(reason, [])}
            for reason, count in sorted((rejects.counts + rejects.notes).items())]
    for task in tasks:
        mine = [part for part in made if part.task == task.name]
        for reason, count in sorted(sum((part.reasons for part in mine), Counter()).items()):
            examples = [f"{where}: {text}" for part in mine for where, why, text in part.rejects if why == reason]
            rows.append({"task": task.name, "reason": reason, "count": count, "examples": examples[:3]})
    tmp = path.with_name(path.name + ".tmp")
    tmp.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    tmp.replace(path)


def report_rejects(rejects: RejectCounter, tasks: Sequence[Task], made: Sequence[Made], out: Out) -> None:
    """One line a reason."""
    for reason, count in (rejects.counts + rejects.notes).most_common():
        out(f"left out while reading: {reason}: {count:,}")
    for task in tasks:
        reasons = sum((part.reasons for part in made if part.task == task.name), Counter())
        for reason, count in reasons.most_common():
            out(f"left out by {task.name}: {reason}: {count:,}")
