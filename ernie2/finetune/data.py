"""Fine-tuning data on its way to the model: splits, length-bucketed batches, arrays. No tensors here.

Letters: B sequences of a micro-batch, T tokens of its longest one.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ernie2.finetune.features import IGNORED, Feature, build_features
from ernie2.finetune.readers import Split, find_file, read_split
from ernie2.finetune.run import FinetuneRun
from ernie2.finetune.tagging import cut_of
from ernie2.finetune.task import FinetuneTask
from ernie2.strict import ConfigError
from ernie2.tokenizer import Tokenizer, Vocab

UNKNOWN_WARN, UNKNOWN_STOP = 0.05, 0.5  # shares of [UNK] among a split's tokens
UNKNOWN_FEW = 20  # fewer tokens than this say little of a vocabulary
POOL_BATCHES = (
    32  # batches whose sequences are sorted by length together: padding stays small, the order random
)
log = logging.getLogger(__name__)


@dataclass
class Prepared:
    """A split, tokenised."""

    split: Split
    features: list[Feature]
    lengths: np.ndarray
    """int64: tokens of each sequence."""

    @property
    def name(self) -> str:
        """Name of the split."""
        return self.split.name


@dataclass
class Data:
    """Everything a fine-tuning run reads."""

    train: Prepared
    dev: list[Prepared]
    test: list[Prepared]
    notes: list[str]

    def counts(self) -> dict[str, dict[str, int]]:
        """Split -> rows, and what was skipped, repaired or cut, by reason."""
        return {
            part.name: {
                "samples": len(part.split.samples),
                "sequences": len(part.features),
                **+part.split.counts,
            }
            for part in (self.train, *self.dev, *self.test)
        }


def prepare_data(task: FinetuneTask, run: FinetuneRun, tokenizer: Tokenizer) -> Data:
    """Reads and tokenises all splits. Raises ConfigError naming file and line or key; a missing test file is a note."""
    splits, notes = load_splits(task, run)
    prepared = {}
    for role, members in splits.items():
        prepared[role] = [prepare(split, tokenizer, task, training=role == "train") for split in members]
    train = prepared["train"][0]
    if not train.features:
        raise ConfigError(f"{train.split.path}: nothing to learn from: {dict(train.split.counts)}")
    return Data(train, prepared["dev"], prepared["test"], notes)


def prepare(split: Split, tokenizer: Tokenizer, task: FinetuneTask, training: bool = False) -> Prepared:
    """Tokenises a split; what is cut or left out is added to its counts and logged."""
    features = build_features(split.samples, tokenizer, task, split.counts, training)
    lengths = np.array([len(feature.token_ids) for feature in features], np.int64)
    words = "".join(f", {count} {reason}" for reason, count in split.counts.items() if count)
    share = check_unknown(split, features, tokenizer.vocab)
    counted = f"{len(split.samples)} samples, {len(features)} sequences, {share:.1%} [UNK]"
    log.info("%s: %s%s", split.path, counted, words)
    return Prepared(split, features, lengths)


def check_unknown(split: Split, features: Sequence[Feature], vocab: Vocab) -> float:
    """Counts the [UNK] among a split's tokens, without [CLS] and [SEP]; warns of many. Returns their share.

    Raises:
        ConfigError: most of the text is unknown, so that nothing can be learned or predicted.
    """
    ids = np.concatenate([feature.token_ids for feature in features]) if features else np.zeros(0, np.int32)
    tokens = int(np.sum((ids != vocab.cls_id) & (ids != vocab.sep_id)))
    unknown = int(np.sum(ids == vocab.unk_id))
    split.counts["[UNK] tokens"] = unknown
    share = unknown / max(1, tokens)
    if share > UNKNOWN_WARN:
        message = (
            f"{split.path}: {share:.1%} of the tokens of {split.name} are [UNK]: the checkpoint's vocabulary does "
            f"not hold this text; take a checkpoint with another vocabulary, or bring the text to its form "
            f"(traditional to simplified characters, lower_case)"
        )
        if share > UNKNOWN_STOP and tokens >= UNKNOWN_FEW:
            raise ConfigError(message)
        log.warning("%s", message)
    return share


def settle(task: FinetuneTask, split: Split) -> None:
    """Writes into the task what its first training file shows and all others, predict's too, have to share."""
    if task.kind == "tagging" and task.source_tokens is None:
        task.source_tokens = cut_of([sample.tokens for sample in split.samples])
    elif task.kind in ("classification", "regression") and task.pair is None:
        task.pair = split.samples[0].text_b is not None


def load_splits(task: FinetuneTask, run: FinetuneRun) -> tuple[dict[str, list[Split]], list[str]]:
    """Reads the files of train (joined), dev and test (each by itself). Returns the splits and notes for the user."""
    if not Path(run.data_dir).is_dir():
        raise ConfigError(f"data_dir: no folder '{run.data_dir}'")
    notes: list[str] = []
    splits: dict[str, list[Split]] = {}
    for role in ("train", "dev", "test"):
        names = getattr(task.files, role)
        names = [] if names is None else [names] if isinstance(names, str) else names
        splits[role] = []
        for name in names:
            path = find_file(run.data_dir, name)
            if path is not None:
                called = role if len(names) == 1 or role == "train" else split_name(name)
                splits[role].append(
                    read_split(path, called, task, "optional" if role == "test" else "required")
                )
                settle(task, splits[role][-1])
            elif role == "test":
                notes.append(f"no test file {Path(run.data_dir) / name}: test is skipped")
            else:
                raise ConfigError(f"files.{role}: no file {Path(run.data_dir) / name} (nor with .gz)")
        if role != "test" and not names:
            raise ConfigError(f"files.{role}: names no file")
    if task.kind == "regression":
        _unlabel_minus_one(splits)
    notes += [
        f"{part.path} has no labels: predictions are written, not scored"
        for part in splits["test"]
        if not part.labelled
    ]
    splits["train"] = [_join(splits["train"], run)]
    return splits, notes


def _unlabel_minus_one(splits: dict[str, list[Split]]) -> None:
    """A regression's test file of -1 alone is unlabelled (Baidu's converters), unless train has -1 too."""
    if all(sample.label != -1 for part in splits["train"] for sample in part.samples):
        for part in splits["test"]:
            part.labelled = part.labelled and any(sample.label != -1 for sample in part.samples)


def split_name(file_name: str) -> str:
    """Name of a split of several files: dev_matched.tsv -> dev_matched, m/dev.tsv.gz -> m_dev."""
    return file_name.removesuffix(".gz").rpartition(".")[0].replace("/", "_") or file_name


def _join(parts: Sequence[Split], run: FinetuneRun) -> Split:
    samples = [sample for part in parts for sample in part.samples]
    if run.max_train_samples is not None and run.max_train_samples < len(samples):
        chosen = np.random.default_rng(run.seed).choice(len(samples), run.max_train_samples, replace=False)
        samples = [samples[i] for i in sorted(chosen)]
    counts: Counter[str] = sum((part.counts for part in parts), Counter())
    return Split("train", parts[0].path, samples, True, counts)


def plan_batches(lengths: np.ndarray, task: FinetuneTask, seed: int, epoch: int) -> list[np.ndarray]:
    """The optimizer steps of one epoch: arrays of sequence numbers, each once; a pure function of its arguments.

    Sequences are shuffled, sorted by length within pools of POOL_BATCHES batches, cut into batches (`batch_size`
    sequences, or as many as fit `batch_tokens` with their padding), and the batches shuffled.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    per_batch = task.batch_size or max(1, int(task.batch_tokens / max(1.0, float(np.mean(lengths)))))
    batches: list[np.ndarray] = []
    pool = per_batch * POOL_BATCHES
    for first in range(0, len(order), pool):
        numbers = order[first : first + pool]
        numbers = numbers[np.argsort(lengths[numbers], kind="stable")]
        if task.batch_size:
            batches += [numbers[i : i + task.batch_size] for i in range(0, len(numbers), task.batch_size)]
        else:
            batches += cut_by_tokens(numbers, lengths, task.batch_tokens)
    return [batches[i] for i in rng.permutation(len(batches))]


def cut_by_tokens(numbers: np.ndarray, lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Cuts sequences sorted by length into runs of at most `tokens` tokens, padding included; at least one each."""
    runs, first = [], 0
    for i in range(len(numbers) + 1):
        if i == len(numbers) or i > first and (i - first + 1) * int(lengths[numbers[i]]) > tokens:
            runs.append(numbers[first:i])
            first = i
    return [part for part in runs if len(part)]


def micro_batches(
    numbers: np.ndarray, lengths: np.ndarray, tokens: int, at_least: int = 1
) -> list[np.ndarray]:
    """Cuts a batch into micro-batches of at most `tokens` tokens, and into `at_least` parts where it has so many."""
    parts = cut_by_tokens(numbers[np.argsort(lengths[numbers], kind="stable")], lengths, tokens)
    while len(parts) < min(at_least, len(numbers)):
        widest = max(range(len(parts)), key=lambda i: len(parts[i]))
        parts[widest : widest + 1] = np.array_split(parts[widest], 2)
    return parts


@dataclass
class FinetuneBatch:
    """One micro-batch as arrays."""

    token_ids: np.ndarray
    """int64 (B, T), padded with [PAD]."""
    sentence_ids: np.ndarray
    """int64 (B, T)."""
    lengths: np.ndarray
    """int64 (B)."""
    targets: np.ndarray | None
    """int64 (B) classes, float32 (B) numbers, int64 (B, T) tags with -100, int64 (B, 2) first and last answer token."""

    @property
    def padded(self) -> bool:
        """Whether any sequence is shorter than T."""
        return int(self.lengths.sum()) < self.token_ids.size


def collate(
    features: Sequence[Feature], kind: str, pad_id: int, with_targets: bool = True, width: int = 0
) -> FinetuneBatch:
    """Pads sequences into arrays, of at least `width` tokens."""
    lengths = np.array([len(feature.token_ids) for feature in features], np.int64)
    shape = (len(features), max(width, int(lengths.max())))
    token_ids = np.full(shape, pad_id, np.int64)
    sentence_ids = np.zeros(shape, np.int64)
    for row, feature in enumerate(features):
        token_ids[row, : lengths[row]] = feature.token_ids
        sentence_ids[row, : lengths[row]] = feature.sentence_ids
    targets = _targets([feature.target for feature in features], kind, shape) if with_targets else None
    return FinetuneBatch(token_ids, sentence_ids, lengths, targets)


def _targets(targets: Sequence[Any], kind: str, shape: tuple[int, int]) -> np.ndarray:
    if kind != "tagging":
        return np.array(targets, np.float32 if kind == "regression" else np.int64)
    tags = np.full(shape, IGNORED, np.int64)
    for row, target in enumerate(targets):
        tags[row, : len(target)] = target
    return tags
