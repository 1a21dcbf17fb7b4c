"""The model of a fine-tuning: where it starts (a checkpoint or at random), forward, loss, how it is kept.

Letters: B sequences, T tokens of a sequence."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.nn import functional as F

from ernie2 import cpu, precision
from ernie2.batching import cut_by_tokens, padded_width
from ernie2.checkpoint import checkpoints, restore_weights, save_model
from ernie2.config import SIZES
from ernie2.encoder import EncoderConfig
from ernie2.exported import EXPORT, Exported
from ernie2.finetune.data import FinetuneBatch, by_length, collate
from ernie2.finetune.readers import Split
from ernie2.finetune.task import FinetuneRun, FinetuneTask
from ernie2.model import ErnieForFinetuning, initialise
from ernie2.schema import build, to_mapping
from ernie2.shards import IGNORED
from ernie2.strict import ConfigError, load_yaml
from ernie2.tokenizer import Tokenizer, Vocab
from ernie2.warm_start import start_from
from ernie2.weights import Weights, embedding_rows, open_weights, read_object

TASK_KEY = "finetune_task"  # in config.json of a fine-tuned model: the task it was trained on, for predict
LOWER_CASE_KEY = "lower_case"
CPU_TOKENS = 1024
"""Of a micro-batch without gradients on a CPU, whose caches hold its activations: up to 1.8 times as fast."""
ARCHITECTURES = {
    "classification": "ErnieForSequenceClassification",
    "regression": "ErnieForSequenceClassification",
    "tagging": "ErnieForTokenClassification",
    "span": "ErnieForQuestionAnswering",
}
TASK_ROWS = 16  # of a task embedding where the checkpoint has none, as in the released models


@dataclass
class Start:
    """What every run of a repeat starts from."""

    config: EncoderConfig
    tokenizer: Tokenizer
    folder: Path  # the checkpoint
    weights: bool  # take its weights; else they are random

    @property
    def vocab_file(self) -> Path:
        """The vocabulary beside the weights."""
        return open_weights(self.folder).vocab_file

    @property
    def size(self) -> str | None:
        """Name of the encoder's size (tiny ... large) by layers and width; None when it is no named one."""
        shape = (self.config.num_hidden_layers, self.config.hidden_size)
        return next((name for name, sizes in SIZES.items() if sizes[:2] == shape), None)


def read_start(run: FinetuneRun) -> Start:
    """The checkpoint of a run, or the newest one of a pre-training out_dir: configuration and vocabulary.

    Raises ConfigError naming key or file."""
    key = "config_from" if run.init_from == "none" else "init_from"
    path = Path(getattr(run, key))
    folder = next((folder for _, folder in reversed(checkpoints(path))), path)
    weights = open_weights(folder, key)
    lower_case, vocab = checkpoint_lower_case(weights), Vocab.load(weights.vocab_file)
    config = EncoderConfig.from_keys(weights.config(), str(weights.config_file))
    if key == "init_from":  # the embeddings' own rows: config.json may leave them out or say otherwise
        config = replace(config, **embedding_rows(folder))
    types = max(config.type_vocab_size, 2)  # a pair needs two
    tasks = config.task_type_vocab_size or TASK_ROWS
    config = replace(config, type_vocab_size=types, task_type_vocab_size=tasks)
    if len(vocab) > config.vocab_size:
        raise ConfigError(
            f"{folder}: vocab.txt has {len(vocab)} tokens, config.json {config.vocab_size} embedding rows"
        )
    tokenizer = Tokenizer(vocab, lower_case if run.lower_case is None else run.lower_case)
    return Start(config, tokenizer, folder, weights=key == "init_from")


def checkpoint_lower_case(weights: Weights) -> bool:
    """Whether a checkpoint's text was lower-cased: as config.json, recipe.yaml or tokenizer_config.json says,
    else true."""
    config, folder = weights.config(), weights.config_file.parent
    if LOWER_CASE_KEY not in config and (path := folder / "recipe.yaml").is_file():
        config = load_yaml(path).get("data") or {}
    if LOWER_CASE_KEY not in config and (path := folder / "tokenizer_config.json").is_file():
        config = {LOWER_CASE_KEY: read_object(path).get("do_lower_case", True)}
    found = config.get(LOWER_CASE_KEY, True)
    if not isinstance(found, bool):
        raise ConfigError(f"{folder}: {LOWER_CASE_KEY}: found {found!r}, expected true or false")
    return found


def build_model(run: FinetuneRun, start: Start, seed: int) -> ErnieForFinetuning:
    """A model for the task: encoder from the checkpoint (or random), a new head drawn from `seed`. Raises
    ConfigError: the checkpoint's weights do not fit (no silent cold start)."""
    model = ErnieForFinetuning(start.config, run.kind, len(run.labels), run.head_dropout)
    initialise(model, start.config.initializer_range, seed)
    if start.weights:  # a checkpoint that was fine-tuned before has a head of another task
        tokens = len(start.tokenizer.vocab)
        start_from(model, start.folder, tokens, run.init_min_match, "init_from", skip="classifier.")
    return model


def logits_of(model: ErnieForFinetuning, batch: FinetuneBatch, task: FinetuneTask, half: str) -> Any:
    """Outputs of `ErnieForFinetuning` for a micro-batch, computed in the precision `half`, float32."""
    lengths = paddle.to_tensor(batch.lengths) if batch.lengths.sum() < batch.token_ids.size else None
    token_ids, sentence_ids = paddle.to_tensor(batch.token_ids), paddle.to_tensor(batch.sentence_ids)
    with precision.autocast(half, "O1"):
        logits = model(token_ids, sentence_ids, task.task_id, lengths)
    return [side.astype("float32") for side in logits] if task.kind == "span" else logits.astype("float32")


@paddle.no_grad()
def run_model(
    model: ErnieForFinetuning, part: Split, task: FinetuneTask, pad_id: int, micro_tokens: int, precision: str
) -> list[Any]:
    """Head outputs of every sequence, in order, without padding, float32 (see `features.decode`)."""
    model.eval()
    if paddle.get_device() == "cpu":
        micro_tokens = min(micro_tokens, CPU_TOKENS)
    positions = model.config.max_position_embeddings
    outputs: list[Any] = [None] * len(part.features)
    every = by_length(np.arange(len(outputs)), part.lengths)
    for numbers in cut_by_tokens(every, part.lengths, micro_tokens):
        width = padded_width(int(part.lengths[numbers].max()), precision, positions)
        batch = collate([part.features[i] for i in numbers], task.kind, pad_id, width)
        logits = logits_of(model, batch, task, precision)
        found = np.stack([side.numpy() for side in logits], 1) if task.kind == "span" else logits.numpy()
        for number, row, length in zip(numbers, found, batch.lengths):
            tokens = {"tagging": np.s_[:length], "span": np.s_[:, :length]}.get(task.kind, np.s_[...])
            outputs[number] = row[tokens]
    model.train()
    return outputs


def micro_loss(task: FinetuneTask, logits: Any, batch: FinetuneBatch) -> paddle.Tensor:
    """Loss of a micro-batch, summed over its targets, in float32.

    Cross-entropy of classes and of tags, of several labels the mean over them; squared error of a regression;
    for span the mean of its two ends'.
    """
    targets = paddle.to_tensor(batch.targets)
    if task.kind == "regression":
        return ((logits - targets) ** 2).sum()
    if task.kind == "span":
        padding = np.arange(batch.token_ids.shape[1]) >= batch.lengths[:, None]  # no probability there
        scores = [side + paddle.to_tensor(padding * np.float32(-1e4)) for side in logits]
        return sum(F.cross_entropy(scores[i], targets[:, i], reduction="sum") for i in (0, 1)) / 2
    if task.multi_label:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(axis=-1).sum()
    weight = paddle.to_tensor(task.class_weights, "float32") if task.class_weights else None
    flat = logits.reshape([-1, logits.shape[-1]])
    return F.cross_entropy(flat, targets.reshape([-1]), weight=weight, ignore_index=IGNORED, reduction="sum")


def save_finetuned(folder: Path, model: ErnieForFinetuning, task: FinetuneTask, start: Start) -> None:
    """Saves weights, configuration, vocabulary and the task, atomically: all that `predict` needs."""
    everything = to_mapping(task)
    kept = {key.name: everything[key.name] for key in fields(FinetuneTask)}
    lower_case = start.tokenizer.lower_case
    extra = {TASK_KEY: kept, LOWER_CASE_KEY: lower_case, **head_keys(task.kind, task.labels)}
    save_model(folder, model, start.config, start.vocab_file, extra, lower_case)


def head_keys(kind: str, labels: list[str]) -> dict[str, Any]:
    """Keys of config.json by which PaddleNLP and Hugging Face know a head and its classes."""
    keys: dict[str, Any] = {"architectures": [ARCHITECTURES[kind]]}
    if kind == "regression":
        keys["num_labels"] = 1
    if labels and kind != "span":
        keys["num_labels"] = len(labels)
        keys["id2label"] = {str(number): label for number, label in enumerate(labels)}
        keys["label2id"] = {label: number for number, label in enumerate(labels)}
    return keys


def load_finetuned(folder: str | Path) -> tuple[ErnieForFinetuning, FinetuneTask, Tokenizer]:
    """Loads what `save_finetuned` saved, in evaluation mode; of a run's out_dir its best/ folder. Raises
    ConfigError: not a fine-tuned model, or weights that do not fit its configuration."""
    folder = Path(folder)
    if not (folder / "config.json").is_file() and (folder / "best").is_dir():
        folder = folder / "best"
    path = folder / "config.json"
    config, mapping = EncoderConfig.from_json(path), load_yaml(path)
    if TASK_KEY not in mapping:
        raise ConfigError(f"{folder}: a model without a fine-tuning head (no '{TASK_KEY}' in config.json)")
    task = build(FinetuneTask, mapping[TASK_KEY], f"{path}: {TASK_KEY}")
    cpu.prepare()
    if (folder / EXPORT).is_file():
        tokenizer = Tokenizer(Vocab.load(folder / "vocab.txt"), mapping.get(LOWER_CASE_KEY, True))
        return Exported(folder), task, tokenizer
    tokenizer = Tokenizer(Vocab.load(folder / "vocab.txt"), checkpoint_lower_case(open_weights(folder)))
    model = ErnieForFinetuning(config, task.kind, len(task.labels), task.head_dropout)
    restore_weights(model, folder)
    model.eval()
    return model, task, tokenizer
