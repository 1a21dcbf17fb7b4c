"""Where and how a fine-tuning task is carried out, and the loader of both halves. No tensors here.

Two dataclasses share one flat namespace of keys: `FinetuneTask` is the task, `FinetuneRun` the run (mostly `key=value`
on the command line). Later layers win: YAML, `sizes.<size>` of the YAML, command line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ernie2.finetune.task import FinetuneTask
from ernie2.strict import ConfigError, apply_overrides, build, load_yaml, nearest, require

UNSET_TWIN = {
    "batch_size": "batch_tokens",
    "batch_tokens": "batch_size",
}  # a later layer that sets one unsets the other
_TEXT_KEYS = ("init_from", "config_from", "vocab_file", "data_dir", "out_dir", "name", "size")


@dataclass
class FinetuneRun:
    """Where and how a task is fine-tuned; given on the command line as key=value."""

    init_from: str
    """Checkpoint folder to start from, or `none` for random weights."""
    data_dir: str
    """Folder of the data files."""
    out_dir: str = ""
    """Folder of everything the run writes, for this run alone. Default: out/finetune/<task>."""
    config_from: str | None = None
    """With init_from=none: take configuration and vocabulary (not the weights) from this checkpoint folder."""
    size: Literal["tiny", "mini", "small", "base", "large"] | None = None
    """With init_from=none: size of the encoder (needs vocab_file)."""
    vocab_file: str | None = None
    """With init_from=none: the vocabulary (needs size)."""
    hidden_act: Literal["relu", "gelu"] = "relu"
    """With init_from=none and size: activation. Released: relu (Chinese), gelu (English)."""
    init_min_match: float = 0.9
    """Share of the encoder's parameters that must be found in init_from; below it the run refuses to start. A token
    embedding or layer that is missing or of another shape stops it in any case."""
    lower_case: bool | None = None
    """Lower-case text before tokenisation. Default: as the checkpoint says, else true."""
    repeat: int = 1
    """Runs, with seeds seed, seed + 1, ...: best dev of each, test at that checkpoint, mean of the runs."""
    seed: int = 1
    """Seed of head weights, data order and dropout."""
    max_train_samples: int | None = None
    """Use this many training samples, drawn by `seed`. Default: all."""
    max_steps: int | None = None
    """Stop after this many optimizer steps; the learning rate decays over them. Default: all epochs."""
    eval_every: int | None = None
    """Steps between evaluations on dev. Default: after each epoch. The last step is always evaluated."""
    log_every: int = 10
    """Steps between log lines."""
    save_every: int = 500
    """Steps between checkpoints to go on from; every evaluation makes one too. They go when their run has ended."""
    micro_tokens: int = 8192
    """Tokens, padding included, in one forward pass; a batch is cut to fit and gradients are summed."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """Adam's betas (released fine-tuning code: the framework's defaults)."""
    eps: float = 1e-8
    """Adam's epsilon."""
    clip_norm: float = 1.0
    """Global norm that gradients are clipped to; 0 = no clipping."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 need a GPU: mixed precision, with weights and losses in fp32."""

    def __post_init__(self) -> None:
        for key in ("repeat", "log_every", "save_every", "micro_tokens", "max_train_samples", "max_steps", "eval_every"):
            value = getattr(self, key)
            require(value is None or value > 0, key, value, "a positive number")
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        require(0 <= self.init_min_match <= 1, "init_min_match", self.init_min_match, "a share between 0 and 1")
        require(
            len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "betas", self.betas, "two numbers in [0, 1)"
        )
        require(self.clip_norm >= 0, "clip_norm", self.clip_norm, "0 or more")
        if self.init_from != "none":
            for key in ("config_from", "size", "vocab_file"):
                require(
                    getattr(self, key) is None,
                    key,
                    getattr(self, key),
                    f"nothing: init_from={self.init_from} settles it",
                )
        elif self.config_from is not None:
            for key in ("size", "vocab_file"):
                require(getattr(self, key) is None, key, getattr(self, key), "nothing: config_from settles it")
        elif self.size is None or self.vocab_file is None:
            raise ConfigError("init_from: none needs size= and vocab_file=, or config_from=CHECKPOINT")


def load_finetune(
    path: str | Path, overrides: Iterable[str] = (), size: str | None = None
) -> tuple[FinetuneTask, FinetuneRun]:
    """Loads a task file with its overrides.

    Args:
        path: the YAML.
        overrides: `key=value` items; keys of FinetuneTask and FinetuneRun.
        size: apply `sizes.<size>` of the YAML below the overrides.

    Raises:
        ConfigError: naming file and key.
    """
    overrides = list(overrides)
    mapping = load_yaml(path)
    _refuse_unknown(mapping, str(path))
    sizes = mapping.get("sizes")
    if size is not None and isinstance(sizes, dict) and isinstance(sizes.get(size), dict):
        mapping = _layer(mapping, sizes[size])
        _refuse_unknown(mapping, f"{path}: sizes.{size}")
    for item in overrides:
        key = item.partition("=")[0]
        mapping.pop(UNSET_TWIN.get(key, ""), None)
    mapping = apply_overrides(mapping, overrides)
    _refuse_unknown(mapping, "command line")
    for key, remedy in (("init_from", "CHECKPOINT or init_from=none"), ("data_dir", "FOLDER with the task's files")):
        if key not in mapping:
            raise ConfigError(f"{path}: missing key '{key}'; add {key}={remedy} on the command line")
    mapping = {key: _text(value) if key in _TEXT_KEYS else value for key, value in mapping.items()}
    task = build(FinetuneTask, {key: mapping[key] for key in mapping if key in _keys(FinetuneTask)}, str(path))
    run = build(FinetuneRun, {key: mapping[key] for key in mapping if key in _keys(FinetuneRun)}, "command line")
    run.out_dir = run.out_dir or str(Path("out") / "finetune" / task.name)
    return task, run


def load_finetune_task(path: str | Path) -> FinetuneTask:
    """Loads the task half of a YAML alone, without a run. Raises ConfigError naming file and key."""
    mapping = load_yaml(path)
    _refuse_unknown(mapping, str(path))
    task = build(FinetuneTask, {key: mapping[key] for key in mapping if key in _keys(FinetuneTask)}, str(path))
    if task.name != Path(path).stem:
        raise ConfigError(f"{path}: name: found '{task.name}', expected the file's name '{Path(path).stem}'")
    for size in task.sizes:  # what a size overrides is checked even when that size is not used
        _refuse_unknown(task.sizes[size], f"{path}: sizes.{size}")
        sized = _layer(mapping, task.sizes[size])
        build(FinetuneTask, {key: sized[key] for key in sized if key in _keys(FinetuneTask)}, f"{path}: sizes.{size}")
    return task


def _text(value: Any) -> Any:
    # On the command line `init_from=none` is text, but `init_from=null` or `out_dir=2024` reach us as other YAML types.
    return "none" if value is None else str(value) if isinstance(value, (int, float)) else value


def _keys(cls: type) -> set[str]:
    return {item.name for item in dataclasses.fields(cls)}


def _layer(mapping: dict, over: dict) -> dict:
    return {key: value for key, value in mapping.items() if UNSET_TWIN.get(key) not in over} | over


def _refuse_unknown(mapping: dict, where: str) -> None:
    known = _keys(FinetuneTask) | _keys(FinetuneRun)
    for key in mapping:
        if key not in known:
            raise ConfigError(f"{where}: unknown key '{key}'{nearest(str(key), known)}")
