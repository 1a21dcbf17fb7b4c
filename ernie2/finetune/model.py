"""Where a fine-tuning run starts: configuration, vocabulary and weights, from a checkpoint or at random."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ernie2 import cpu
from ernie2.checkpoint import checkpoints, restore_weights, save_model
from ernie2.config import SIZES, ModelConfig
from ernie2.encoder import EncoderConfig
from ernie2.finetune.run import FinetuneRun
from ernie2.finetune.task import FinetuneTask
from ernie2.model import ErnieForFinetuning, initialise
from ernie2.strict import ConfigError, build, to_mapping
from ernie2.tokenizer import Tokenizer, Vocab
from ernie2.warm_start import embedding_rows, start_from

TASK_KEY = "finetune_task"  # in config.json of a fine-tuned model: the task it was trained on, for predict
LOWER_CASE_KEY = "lower_case"


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
        """Name of the encoder's size; None when it is no named one."""
        return size_of(self.config)


def size_of(config: EncoderConfig) -> str | None:
    """Name of a size (tiny ... large) by layers and width."""
    shape = (config.num_hidden_layers, config.hidden_size)
    return next((name for name, (layers, width, *_) in SIZES.items() if (layers, width) == shape), None)


def checkpoint_folder(path: str, key: str) -> Path:
    """A checkpoint folder, or the newest one of a pre-training run's out_dir. Raises ConfigError naming `key`."""
    folder = Path(path)
    if (folder / "config.json").is_file():
        return folder
    found = checkpoints(folder)
    if found:
        return found[-1][1]
    raise ConfigError(
        f"{key}: {path} is no checkpoint folder (no config.json) and no run with step_* folders in it"
    )


def read_start(run: FinetuneRun) -> Start:
    """Configuration and vocabulary of a run. Raises ConfigError naming the key or file."""
    source = run.config_from if run.init_from == "none" else run.init_from
    if source is None:
        vocab = Vocab.load(run.vocab_file)
        model = ModelConfig(vocab_file=run.vocab_file, size=run.size, hidden_act=run.hidden_act)
        config = EncoderConfig.from_recipe(model, len(vocab), vocab.pad_id)
        lower_case = True
        folder, vocab_file = None, Path(run.vocab_file)
    else:
        folder = checkpoint_folder(source, "config_from" if run.init_from == "none" else "init_from")
        config, vocab_file = EncoderConfig.from_json(folder / "config.json"), folder / "vocab.txt"
        if (
            run.init_from != "none"
        ):  # the embeddings' own rows: config.json may leave them out or say otherwise
            config = replace(config, **embedding_rows(folder))
        if not config.task_type_vocab_size:
            config = replace(config, task_type_vocab_size=ModelConfig(vocab_file="").task_type_vocab_size)
        vocab = Vocab.load(vocab_file)
        if len(vocab) > config.vocab_size:
            raise ConfigError(
                f"{vocab_file}: {len(vocab)} tokens, but config.json has {config.vocab_size} embedding rows"
            )
        lower_case = checkpoint_lower_case(folder)
    lower_case = lower_case if run.lower_case is None else run.lower_case
    return Start(
        config, Tokenizer(vocab, lower_case), vocab_file, None if run.init_from == "none" else folder
    )


def checkpoint_lower_case(folder: Path) -> bool:
    """Whether a checkpoint's text was lower-cased: its config.json, else its recipe.yaml, says so; default true."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if LOWER_CASE_KEY in config:
        return bool(config[LOWER_CASE_KEY])
    recipe = folder / "recipe.yaml"
    if recipe.is_file():
        return bool(
            yaml.safe_load(recipe.read_text(encoding="utf-8")).get("data", {}).get("lower_case", True)
        )
    return True


def check_fit(task: FinetuneTask, config: EncoderConfig) -> None:
    """Raises ConfigError when the encoder has no row for a position or task id of the task."""
    if task.max_seq_len > config.max_position_embeddings:
        raise ConfigError(
            f"max_seq_len: {task.max_seq_len} tokens, but the encoder has {config.max_position_embeddings} positions; "
            f"set max_seq_len={config.max_position_embeddings} or less"
        )
    if task.task_id >= config.task_type_vocab_size:
        raise ConfigError(
            f"task_id: {task.task_id}, but the encoder has {config.task_type_vocab_size} task embeddings"
        )


def build_model(task: FinetuneTask, start: Start, run: FinetuneRun, seed: int) -> ErnieForFinetuning:
    """A model for the task: encoder from the checkpoint (or random), a new head drawn from `seed`.

    Raises:
        ConfigError: the checkpoint's weights do not fit (no silent cold start).
    """
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


def save_finetuned(folder: Path, model: ErnieForFinetuning, task: FinetuneTask, start: Start) -> None:
    """Saves weights, configuration, vocabulary and the task, atomically: all that `predict` needs."""
    extra = {TASK_KEY: to_mapping(task), LOWER_CASE_KEY: start.tokenizer.lower_case}
    save_model(folder, model, start.config, start.vocab_file, extra)


def load_finetuned(folder: str | Path) -> tuple[ErnieForFinetuning, FinetuneTask, Tokenizer]:
    """Loads what `save_finetuned` saved, in evaluation mode. Accepts a run's out_dir for its best/ folder.

    Raises:
        ConfigError: not a fine-tuned model, or weights that do not fit its configuration.
    """
    folder = Path(folder)
    folder = (
        folder / "best" if not (folder / "config.json").is_file() and (folder / "best").is_dir() else folder
    )
    config = EncoderConfig.from_json(folder / "config.json")
    mapping: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if TASK_KEY not in mapping:
        raise ConfigError(
            f"{folder}: a model without a fine-tuning head (config.json has no '{TASK_KEY}'); fine-tune it first"
        )
    task = build(FinetuneTask, mapping[TASK_KEY], f"{folder / 'config.json'}: {TASK_KEY}")
    tokenizer = Tokenizer(Vocab.load(folder / "vocab.txt"), checkpoint_lower_case(folder))
    cpu.prepare()
    model = ErnieForFinetuning(config, task.kind, task.num_labels, task.head_dropout)
    restore_weights(model, folder)
    model.eval()
    return model, task, tokenizer
