"""Fine-tuning data on its way to the model: splits, length-bucketed batches, arrays. No tensors here.

Letters: B sequences of a micro-batch, T tokens of its longest one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ernie2.batching import cut_by_tokens, padded
from ernie2.finetune.features import Feature, build_features
from ernie2.finetune.readers import Split, find_file, read_split
from ernie2.finetune.tagging import cut_of
from ernie2.finetune.task import FinetuneRun, FinetuneTask
from ernie2.logs import logger
from ernie2.shards import IGNORED
from ernie2.strict import ConfigError
from ernie2.tokenizer import Tokenizer

POOL_BATCHES = 32  # batches sorted by length together: padding stays small, the order random


@dataclass
class Data:
    """Everything a fine-tuning run reads."""

    train: Split
    dev: list[Split]
    test: list[Split]
    notes: list[str]  # what the user should know of the files


def tokenise(
    split: Split, tokenizer: Tokenizer, task: FinetuneTask, training: bool = False, log: bool = True
) -> None:
    """Gives a split its sequences; what is cut or left out is added to its counts and logged. Raises
    ConfigError where most of the text is [UNK], so that nothing can be learned or predicted."""
    split.features = build_features(split.samples, tokenizer, task, split.counts, training)
    split.lengths = np.array([len(feature.token_ids) for feature in split.features], np.int64)
    reasons = "".join(f", {count} {reason}" for reason, count in split.counts.items() if count)
    vocab = tokenizer.vocab
    ids = np.concatenate([[vocab.cls_id], *(feature.token_ids for feature in split.features)])
    tokens = int(np.sum((ids != vocab.cls_id) & (ids != vocab.sep_id)))
    split.counts["[UNK] tokens"] = unknown = int(np.sum(ids == vocab.unk_id))
    share = unknown / max(1, tokens)
    counted = f"{len(split.samples)} samples, {len(split.features)} sequences, {share:.1%} [UNK]"
    if log:
        logger.info("%s: %s%s", split.path, counted, reasons)
    message = (
        f"{split.path}: {share:.1%} of the tokens of {split.name} are [UNK]: the checkpoint's vocabulary "
        f"does not hold this text; take a checkpoint with another vocabulary, or bring the text to its "
        f"form (traditional to simplified characters, lower_case)"
    )
    if share > 0.5 and tokens >= 20:  # fewer tokens say little of a vocabulary
        raise ConfigError(message)
    if share > 0.05 and log:
        logger.warning("%s", message)


def prepare_data(run: FinetuneRun, tokenizer: Tokenizer) -> Data:
    """Reads and tokenises the files of train (joined), dev and test (each by itself). Raises ConfigError."""
    if not Path(run.data_dir).is_dir():
        raise ConfigError(f"data_dir: no folder '{run.data_dir}'")
    notes: list[str] = []
    parts, dev, test = (_read_role(run, role, notes) for role in ("train", "dev", "test"))
    names = Counter(part.name for part in dev + test)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ConfigError(f"files: several files of dev and test are called {twice[0]!r}; rename one")
    samples = [sample for part in parts for sample in part.samples]
    # A regression's test file of -1 alone is unlabelled (Baidu's converters), unless train has -1 too.
    if run.kind == "regression" and all(sample.label != -1 for sample in samples):
        for part in test:
            part.labelled = part.labelled and any(sample.label != -1 for sample in part.samples)
    bare = [part.path for part in test if not part.labelled]
    notes += [f"{path} has no labels: predictions are written, not scored" for path in bare]
    if run.max_train_samples is not None and run.max_train_samples < len(samples):
        chosen = np.random.default_rng(run.seed).choice(len(samples), run.max_train_samples, replace=False)
        samples = [samples[i] for i in sorted(chosen)]
    counts = sum((part.counts for part in parts), Counter())
    train = Split("train", parts[0].path, samples, True, counts)
    for part in (train, *dev, *test):
        tokenise(part, tokenizer, run, training=part is train)
    if not train.features:
        raise ConfigError(f"{train.path}: nothing to learn from: {dict(counts)}")
    return Data(train, dev, test, notes)


def _read_role(run: FinetuneRun, role: str, notes: list[str]) -> list[Split]:
    """The files of train, dev or test; notes test files that are not there."""
    parts, names = [], getattr(run.files, role)
    for name in names:
        if path := find_file(run.data_dir, name):
            called = role if len(names) == 1 or role == "train" else split_name(name)
            parts.append(read_split(path, called, run, "optional" if role == "test" else "required"))
            settle(run, parts[-1])
        elif role != "test":
            raise ConfigError(f"files.{role}: no file {Path(run.data_dir) / name} (nor with .gz)")
        else:
            notes.append(f"no test file {Path(run.data_dir) / name}: test is skipped")
    return parts


def settle(task: FinetuneTask, split: Split) -> None:
    """Writes into the task what its first training file shows and all others, predict's too, must share."""
    if task.kind == "tagging" and task.source_tokens is None:
        task.source_tokens = cut_of([sample.tokens for sample in split.samples])
    elif task.kind in ("classification", "regression") and task.pair is None:
        task.pair = split.samples[0].text_b is not None


def split_name(file_name: str) -> str:
    """Name of a split of several files: dev_matched.tsv -> dev_matched, m/dev.tsv.gz -> m_dev."""
    return file_name.removesuffix(".gz").rpartition(".")[0].replace("/", "_") or file_name


def plan_batches(lengths: np.ndarray, task: FinetuneTask, seed: int, epoch: int) -> list[np.ndarray]:
    """The optimizer steps of an epoch: arrays of sequence numbers, each once; pure function of the arguments.

    Sequences are shuffled and cut into batches: `batch_size` sequences, or as many as fit `batch_tokens` with
    their padding. With `batch_order: length` they are sorted by length before that, within pools of
    POOL_BATCHES batches, and the batches shuffled."""

    def cut(numbers: np.ndarray) -> list[np.ndarray]:
        if task.batch_tokens:
            return cut_by_tokens(numbers, lengths, task.batch_tokens)
        return np.split(numbers, range(task.batch_size, len(numbers), task.batch_size))

    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    if task.batch_order == "random":
        return cut(order)
    pool = POOL_BATCHES * (task.batch_size or max(1, int(task.batch_tokens / float(np.mean(lengths)))))
    pools = (order[first : first + pool] for first in range(0, len(order), pool))
    batches = [batch for numbers in pools for batch in cut(by_length(numbers, lengths))]
    return [batches[i] for i in rng.permutation(len(batches))]


def by_length(numbers: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sequence numbers, the shortest first; equals keep their order."""
    return numbers[np.argsort(lengths[numbers], kind="stable")]


def micro_batches(
    numbers: np.ndarray, lengths: np.ndarray, tokens: int, at_least: int = 1
) -> list[np.ndarray]:
    """Cuts a batch into micro-batches of at most `tokens` tokens, `at_least` of them where it has so many."""
    parts = cut_by_tokens(by_length(numbers, lengths), lengths, tokens)
    while len(parts) < min(at_least, len(numbers)):
        widest = max(range(len(parts)), key=lambda i: len(parts[i]))
        parts[widest : widest + 1] = np.array_split(parts[widest], 2)
    return parts


@dataclass
class FinetuneBatch:
    """One micro-batch as arrays."""

    token_ids: np.ndarray  # int64 (B, T), padded with [PAD]
    sentence_ids: np.ndarray  # int64 (B, T)
    lengths: np.ndarray  # int64 (B)
    targets: np.ndarray | None
    """int64 (B) classes, float32 (B) numbers, int64 (B, T) tags or -100, int64 (B, 2) answer's ends."""
    count: int  # predictions that the loss sums over


def collate(features: Sequence[Feature], kind: str, pad_id: int, width: int) -> FinetuneBatch:
    """Pads sequences to arrays of `width` tokens; without targets where one of them has none."""
    targets: Any = [feature.target for feature in features]
    count = len(targets)
    if any(target is None for target in targets):
        targets = None
    elif kind == "tagging":
        targets = padded(targets, width, IGNORED)
        count = int(np.sum(targets != IGNORED))
    else:
        real = kind == "regression" or isinstance(targets[0], np.ndarray)  # of several labels 0 or 1 each
        targets = np.array(targets, np.float32 if real else np.int64)
    token_ids = padded([feature.token_ids for feature in features], width, pad_id)
    sentence_ids = padded([feature.sentence_ids for feature in features], width)
    lengths = np.array([len(feature.token_ids) for feature in features], np.int64)
    return FinetuneBatch(token_ids, sentence_ids, lengths, targets, count)
