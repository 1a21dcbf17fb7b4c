"""The model of a fine-tuning: where it starts (a checkpoint or at random), forward, loss, how it is kept.

Letters: B sequences, T tokens of a sequence."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.nn import functional as F

from ernie2 import cpu, precision
from ernie2.batching import cut_by_tokens, padded_width
from ernie2.checkpoint import checkpoints, restore_weights, save_model
from ernie2.config import SIZES, ModelConfig
from ernie2.encoder import EncoderConfig
from ernie2.exported import EXPORT, Exported
from ernie2.finetune.data import FinetuneBatch, by_length, collate
from ernie2.finetune.readers import Split
from ernie2.finetune.run import FinetuneRun
from ernie2.finetune.task import FinetuneTask
from ernie2.model import ErnieForFinetuning, initialise
from ernie2.schema import build, to_mapping
from ernie2.shards import IGNORED
from ernie2.strict import ConfigError, load_yaml
from ernie2.tokenizer import Tokenizer, Vocab
from ernie2.warm_start import start_from
from ernie2.weights import Weights, embedding_rows, open_weights, read_object

TASK_KEY = "finetune_task"  # in config.json of a fine-tuned model: the task it was trained on, for predict
LOWER_CASE_KEY = "lower_case"
ARCHITECTURES = {
    "classification": "ErnieForSequenceClassification",
    "regression": "ErnieForSequenceClassification",
    "tagging": "ErnieForTokenClassification",
    "span": "ErnieForQuestionAnswering",
}


@dataclass
class Start:
    """What every run of a repeat starts from."""

    config: EncoderConfig
    tokenizer: Tokenizer
    vocab_file: Path
    weights: Path | None
    """Checkpoint folder; None = random weights."""

    @property
    def size(self) -> str | None:
        """Name of the encoder's size (tiny ... large) by layers and width; None when it is no named one."""
        shape = (self.config.num_hidden_layers, self.config.hidden_size)
        return next((name for name, (layers, width, *_) in SIZES.items() if (layers, width) == shape), None)


def checkpoint_folder(path: str, key: str) -> Path:
    """A checkpoint folder, or the newest one of a pre-training out_dir. Raises ConfigError naming `key`."""
    found = checkpoints(Path(path))
    return found[-1][1] if found else open_weights(path, key) and Path(path)


def read_start(run: FinetuneRun) -> Start:
    """Configuration and vocabulary of a run. Raises ConfigError naming the key or file."""
    random = run.init_from == "none"
    source = run.config_from if random else run.init_from
    if source is None:
        vocab_file, vocab, lower_case = Path(run.vocab_file), Vocab.load(run.vocab_file), True
        model = ModelConfig(vocab_file=run.vocab_file, size=run.size, hidden_act=run.hidden_act)
        config = EncoderConfig.from_recipe(model, len(vocab), vocab.pad_id)
    else:
        folder = checkpoint_folder(source, "config_from" if random else "init_from")
        weights = open_weights(folder)
        vocab_file, lower_case = weights.vocab_file, checkpoint_lower_case(weights)
        config = EncoderConfig.from_keys(weights.config(), str(weights.config_file))
        vocab = Vocab.load(vocab_file)
        if not random:  # the embeddings' own rows: config.json may leave them out or say otherwise
            config = replace(config, **embedding_rows(folder))
        if config.type_vocab_size < 2:  # a pair needs two
            config = replace(config, type_vocab_size=2)
        if not config.task_type_vocab_size:
            config = replace(config, task_type_vocab_size=ModelConfig(vocab_file="").task_type_vocab_size)
        if len(vocab) > config.vocab_size:
            raise ConfigError(
                f"{vocab_file}: {len(vocab)} tokens, but config.json has {config.vocab_size} embedding rows"
            )
    lower_case = lower_case if run.lower_case is None else run.lower_case
    return Start(config, Tokenizer(vocab, lower_case), vocab_file, None if random else folder)


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


def check_fit(task: FinetuneTask, config: EncoderConfig) -> None:
    """Raises ConfigError when the encoder has no row for a position or task id of the task."""
    if task.max_seq_len > config.max_position_embeddings:
        raise ConfigError(
            f"max_seq_len: {task.max_seq_len} tokens, but the encoder has {config.max_position_embeddings} "
            f"positions; set max_seq_len={config.max_position_embeddings} or less"
        )
    if task.task_id >= config.task_type_vocab_size:
        raise ConfigError(
            f"task_id: {task.task_id}, but the encoder has {config.task_type_vocab_size} task embeddings"
        )


def build_model(task: FinetuneTask, start: Start, run: FinetuneRun, seed: int) -> ErnieForFinetuning:
    """A model for the task: encoder from the checkpoint (or random), a new head drawn from `seed`.

    Raises:
        ConfigError: the checkpoint's weights do not fit (no silent cold start)."""
    model = ErnieForFinetuning(start.config, task.kind, task.num_labels, task.head_dropout)
    initialise(model, start.config.initializer_range, seed)
    if start.weights is not None:  # one that was fine-tuned before has a head of another task
        start_from(
            model,
            start.weights,
            len(start.tokenizer.vocab),
            run.init_min_match,
            "init_from",
            skip="classifier.",
        )
    return model


def logits_of(model: ErnieForFinetuning, batch: FinetuneBatch, task: FinetuneTask, half: str) -> Any:
    """Outputs of `ErnieForFinetuning` for a micro-batch, computed in the precision `half`, float32."""
    lengths = paddle.to_tensor(batch.lengths) if batch.tokens < batch.padded_tokens else None
    token_ids, sentence_ids = paddle.to_tensor(batch.token_ids), paddle.to_tensor(batch.sentence_ids)
    with precision.autocast(half, "O1"):
        logits = model(token_ids, sentence_ids, task.task_id, lengths)
    return (
        tuple(side.astype("float32") for side in logits) if task.kind == "span" else logits.astype("float32")
    )


@paddle.no_grad()
def run_model(
    model: ErnieForFinetuning, part: Split, task: FinetuneTask, pad_id: int, micro_tokens: int, precision: str
) -> list[Any]:
    """Head outputs of every sequence, in order, without padding, float32 (see `decoding.decode`)."""
    model.eval()
    outputs: list[Any] = [None] * len(part.features)
    every = by_length(np.arange(len(outputs)), part.lengths)
    for numbers in cut_by_tokens(every, part.lengths, micro_tokens):
        width = padded_width(
            int(part.lengths[numbers].max()), precision, model.config.max_position_embeddings
        )
        batch = collate([part.features[i] for i in numbers], task.kind, pad_id, width, with_targets=False)
        found = logits_of(model, batch, task, precision)
        if task.kind == "span":
            start, stop = (side.numpy() for side in found)
            rows: Any = [(start[i, :length], stop[i, :length]) for i, length in enumerate(batch.lengths)]
        elif task.kind == "tagging":
            rows = [row[:length] for row, length in zip(found.numpy(), batch.lengths)]
        else:
            rows = found.numpy()
        for number, row in zip(numbers, rows):
            outputs[number] = row
    model.train()
    return outputs


def loss_sum(task: FinetuneTask, logits: Any, batch: FinetuneBatch) -> paddle.Tensor:
    """Loss of a micro-batch, summed over its targets, in float32.

    Cross-entropy of classes and of tags; squared error of a regression; for span the mean of its two ends'.
    """
    targets = paddle.to_tensor(batch.targets)
    if task.kind == "regression":
        return ((logits - targets) ** 2).sum()
    if task.kind == "span":
        positions = paddle.arange(batch.token_ids.shape[1]).unsqueeze(0)
        padding = (positions >= paddle.to_tensor(batch.lengths).unsqueeze(1)).astype("float32") * -1e4
        sides = [
            F.cross_entropy(side + padding, targets[:, i], reduction="sum") for i, side in enumerate(logits)
        ]
        return (sides[0] + sides[1]) / 2  # no probability on padding
    weight = paddle.to_tensor(task.class_weights, "float32") if task.class_weights else None
    flat = logits.reshape([-1, logits.shape[-1]])
    return F.cross_entropy(flat, targets.reshape([-1]), weight=weight, ignore_index=IGNORED, reduction="sum")


def count_targets(task: FinetuneTask, batch: FinetuneBatch) -> int:
    """Predictions that the loss of a micro-batch sums over."""
    return int((batch.targets != IGNORED).sum()) if task.kind == "tagging" else len(batch.targets)


def save_finetuned(folder: Path, model: ErnieForFinetuning, task: FinetuneTask, start: Start) -> None:
    """Saves weights, configuration, vocabulary and the task, atomically: all that `predict` needs."""
    lower_case = start.tokenizer.lower_case
    extra = {TASK_KEY: to_mapping(task), LOWER_CASE_KEY: lower_case, **head_keys(task.kind, task.labels)}
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
    """Loads what `save_finetuned` saved, in evaluation mode. Accepts a run's out_dir for its best/ folder.

    Raises:
        ConfigError: not a fine-tuned model, or weights that do not fit its configuration."""
    folder = Path(folder)
    folder = (
        folder / "best" if not (folder / "config.json").is_file() and (folder / "best").is_dir() else folder
    )
    path = folder / "config.json"
    config, mapping = EncoderConfig.from_json(path), json.loads(path.read_text(encoding="utf-8"))
    if TASK_KEY not in mapping:
        raise ConfigError(
            f"{folder}: a model without a fine-tuning head (config.json has no '{TASK_KEY}'); "
            f"fine-tune it first"
        )
    task = build(FinetuneTask, mapping[TASK_KEY], f"{path}: {TASK_KEY}")
    cpu.prepare()
    if (folder / EXPORT).is_file():
        tokenizer = Tokenizer(Vocab.load(folder / "vocab.txt"), mapping.get(LOWER_CASE_KEY, True))
        return Exported(folder), task, tokenizer
    tokenizer = Tokenizer(Vocab.load(folder / "vocab.txt"), checkpoint_lower_case(open_weights(folder)))
    model = ErnieForFinetuning(config, task.kind, task.num_labels, task.head_dropout)
    restore_weights(model, folder)
    model.eval()
    return model, task, tokenizer
