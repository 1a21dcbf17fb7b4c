"""Where and how a fine-tuning task is carried out, and the loader of both halves. No tensors here.

Two dataclasses share one flat namespace of keys: `FinetuneTask` is the task, `FinetuneRun` the run (mostly
`key=value` on the command line). Later layers win: YAML, `sizes.<size>` of the YAML, command line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from ernie2.config import Size
from ernie2.finetune.task import FinetuneTask
from ernie2.schema import Betas, Checks, NotNegative, Positive, Section, Share, Text, build, require
from ernie2.strict import apply_overrides, from_command_line, load_yaml

UNSET_TWIN = {
    "batch_size": "batch_tokens",
    "batch_tokens": "batch_size",
}  # a later layer that sets one unsets the other
Start = Annotated[
    Text,
    BeforeValidator(lambda value: "none" if value is None else value),  # init_from=null means none
    Field(examples=["init_from=CHECKPOINT", "init_from=none on the command line"]),
]


@dataclass(kw_only=True)
class FinetuneRun(Section):
    """Where and how a task is fine-tuned; given on the command line as key=value."""

    init_from: Start
    """Checkpoint folder to start from, or `none` for random weights."""
    data_dir: Annotated[Text, Field(examples=["data_dir=FOLDER with the task's files on the command line"])]
    """Folder of the data files."""
    out_dir: Text = ""
    """Folder of everything the run writes, for this run alone. Default: out/finetune/<task>."""
    config_from: Text | None = None
    """With init_from=none: take configuration and vocabulary (not the weights) from this checkpoint folder.
    """
    size: Size | None = None
    """With init_from=none: size of the encoder (needs vocab_file)."""
    vocab_file: Text | None = None
    """With init_from=none: the vocabulary (needs size)."""
    hidden_act: Literal["relu", "gelu"] = "relu"
    """With init_from=none and size: activation. Released: relu (Chinese), gelu (English)."""
    init_min_match: Share = 0.9
    """Share of the encoder's parameters that must be found in init_from; below it the run refuses to start. A
    token embedding or layer that is missing or of another shape stops it in any case."""
    lower_case: bool | None = None
    """Lower-case text before tokenisation. Default: as the checkpoint says, else true."""
    repeat: Positive[int] = 1
    """Runs, with seeds seed, seed + 1, ...: best dev of each, test at that checkpoint, mean of the runs."""
    seed: NotNegative[int] = 1
    """Seed of head weights, data order and dropout."""
    max_train_samples: Positive[int] | None = None
    """Use this many training samples, drawn by `seed`. Default: all."""
    max_steps: Positive[int] | None = None
    """Stop after this many optimizer steps; the learning rate decays over them. Default: all epochs."""
    eval_every: Positive[int] | Literal["end"] | None = None
    """Steps between evaluations on dev; end: none before the last step, which is always evaluated. Default:
    after each epoch."""
    log_every: Positive[int] = 10
    """Steps between log lines."""
    save_every: Positive[int] = 500
    """Steps between checkpoints to go on from; every evaluation makes one too. They go when their run has
    ended."""
    micro_tokens: Positive[int] = 8192
    """Tokens, padding included, in one forward pass; a batch is cut to fit and gradients are summed."""
    betas: Betas = field(default_factory=lambda: [0.9, 0.999])
    """Adam's betas (released fine-tuning code: the framework's defaults)."""
    eps: NotNegative[float] = 1e-8
    """Adam's epsilon."""
    clip_norm: NotNegative[float] = 1.0
    """Global norm that gradients are clipped to; 0 = no clipping."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 need a GPU: mixed precision, with weights and losses in fp32."""

    def _checks(self) -> Checks:
        """The encoder comes from one place."""
        source = "config_from" if self.config_from is not None else None
        if self.init_from != "none":
            source = f"init_from={self.init_from}"
            yield require(
                self.config_from is None, "config_from", self.config_from, f"nothing: {source} settles it"
            )
        for key in ("size", "vocab_file") if source else ():
            found = getattr(self, key)
            yield require(found is None, key, found, f"nothing: {source} settles it")
        if source is None and None in (self.size, self.vocab_file):
            yield "init_from: none needs size= and vocab_file=, or config_from=CHECKPOINT"


@dataclass
class _Both(FinetuneRun, FinetuneTask):
    """One flat namespace of keys."""

    def _checks(self) -> Checks:
        yield from FinetuneTask._checks(self)
        yield from FinetuneRun._checks(self)


def load_finetune(
    path: str | Path, overrides: Iterable[str] = (), size: str | None = None
) -> tuple[FinetuneTask, FinetuneRun]:
    """Loads a task file with its overrides.

    Args:
        path: the YAML.
        overrides: `key=value` items; keys of FinetuneTask and FinetuneRun.
        size: apply `sizes.<size>` of the YAML below the overrides.

    Raises:
        ConfigError: naming file and key."""
    overrides, file = list(overrides), load_yaml(path)
    sizes = file.get("sizes")
    sized = sizes.get(size) if isinstance(sizes, dict) else None
    sized = sized if isinstance(sized, dict) else {}
    given = from_command_line(overrides)
    mapping = {key: value for key, value in _layer(file, sized).items() if UNSET_TWIN.get(key) not in given}
    origins = dict.fromkeys(sized, f"{path}: sizes.{size}") | given
    both = build(_Both, apply_overrides(mapping, overrides), str(path), origins=origins)
    task, run = (
        cls(**{one.name: getattr(both, one.name) for one in fields(cls)})
        for cls in (FinetuneTask, FinetuneRun)
    )
    run.out_dir = run.out_dir or str(Path("out") / "finetune" / task.name)
    return task, run


def _layer(mapping: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if UNSET_TWIN.get(key) not in over} | over
