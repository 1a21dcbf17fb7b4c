"""What a fine-tuning task is (tasks/finetune/*.yaml), and where and how it is carried out. No tensors here.

Both are one flat namespace of keys: `FinetuneTask` is what a fine-tuned model keeps, `FinetuneRun` adds the
rest, mostly `key=value` on the command line. Later layers win: YAML, `sizes.<size>` of the YAML, command
line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from ernie2.config import Size
from ernie2.schema import (
    Betas,
    Checks,
    Dropout,
    NotNegative,
    Positive,
    Section,
    Share,
    Text,
    Texts,
    between,
    build,
    expect,
    require,
)
from ernie2.strict import apply_overrides, from_command_line, load_yaml, nearest

METRICS_OF_KIND = {
    "classification": ("accuracy", "f1", "macro_f1", "micro_f1", "mcc", "mrr"),
    "regression": ("pearson", "spearman"),
    "tagging": ("entity_f1",),
    "span": ("cmrc_em", "cmrc_f1"),
}
COLUMNS_OF_KIND = {
    "classification": ("text_a", "text_b", "label", "qid", "id"),
    "regression": ("text_a", "text_b", "label", "qid", "id"),
    "tagging": ("text_a", "label", "id"),
    "span": (),
}
KINDS_OF_KEY = {
    "labels": ("classification", "tagging"),
    "pair": ("classification", "regression"),
    "drop_spaces": ("classification", "regression"),
    "source_tokens": ("tagging",),
    "skip_labels": ("classification", "regression", "tagging"),
    "multi_label": ("classification",),
    "simplify": ("span",),
}
EITHER = {
    "batch_size": "batch_tokens",
    "batch_tokens": "batch_size",
}  # a layer that sets one unsets the other
NotEmpty = Annotated[Texts, expect("a list that is not empty", bool)]
InitFrom = Annotated[
    Text,
    BeforeValidator(lambda value: "none" if value is None else value),
    Field(examples=["init_from=CHECKPOINT", "init_from=none on the command line"]),
]


@dataclass
class FinetuneFiles(Section):
    """Data files, relative to data_dir. A missing `x.tsv` is looked for as `x.tsv.gz` too."""

    train: NotEmpty
    """Training file; files of a list are joined."""
    dev: NotEmpty
    """Dev file; files of a list are evaluated each by itself (MNLI matched and mismatched)."""
    test: Annotated[Texts, BeforeValidator(lambda names: names or [])] = field(default_factory=list)
    """Test file or files; skipped with a note where absent."""


@dataclass
class FinetuneTask(Section):
    """One fine-tuning task as its YAML declares it (PAPER section 7 for the settings)."""

    name: Text
    """Name of the task; equals the file name."""
    kind: Literal["classification", "regression", "tagging", "span"]
    """What the head predicts: a class, a number, a tag for every token, or an answer span."""
    files: FinetuneFiles
    """Data files under data_dir."""
    metrics: Annotated[Texts, expect("at least one metric", bool)]
    """Metrics, in percent; their mean chooses the best checkpoint on dev."""
    peak_lr: Positive[float]
    """Highest learning rate."""
    epochs: Positive[int]
    """Passes over the training data."""
    labels: Texts = field(default_factory=list)
    """Classes, or tags in B-/I-/O form. None for regression and span."""
    label_aliases: dict[str, str] = field(default_factory=dict)
    """Other spellings of labels found in the data (XNLI writes both contradiction and contradictory)."""
    skip_labels: Texts = field(default_factory=list)
    """Rows with such a label are left out and counted (SNLI, CMNLI, OCNLI: `-` where annotators disagree)."""
    multi_label: bool = False
    """Whether a row has any number of labels, with commas between them, in .jsonl a list (classification).
    Metrics: accuracy (all of a row's labels are right), micro_f1, macro_f1."""
    positive_label: str | None = None
    """The class that f1 and mrr are about. Default: the last of two; of more, f1 is macro F1."""
    class_weights: list[Positive[float]] = field(default_factory=list)
    """Weight of each class in the loss; empty = all alike (the paper's setting)."""
    columns: dict[str, str] = field(default_factory=dict)
    """Header names in the data where they differ from text_a, text_b, label, qid, id."""
    pair: bool | None = None
    """Whether rows have two texts; other files are refused. Default: as train, kept for predict."""
    drop_spaces: bool = False
    """Take the spaces out of texts, as Baidu's reader of Chinese does (classification and regression)."""
    source_tokens: Literal["visible", "characters", "words"] | None = None
    """What plain text is cut into (tagging): visible or all characters, words. Default: as train, kept for
    predict."""
    simplify: bool = False
    """Convert traditional characters to simplified ones, place by place, as Baidu did with DRCD (span)."""
    task_id: NotNegative[int] = 0
    """Row of the task embedding (0: maintainers' advice, ERNIE issue 239)."""
    max_seq_len: Annotated[int, between(8)] = 128
    """Tokens in a sequence, [CLS] and [SEP] included."""
    doc_stride: Positive[int] = 128
    """Tokens between the starts of two windows over a text that is too long (span and tagging)."""
    max_query_len: Positive[int] = 64
    """Tokens of a question; the rest is cut off and counted (span)."""
    max_answer_len: Positive[int] = 100
    """Tokens of an answer (span)."""
    n_best: Positive[int] = 20
    """Answers kept for each question (span)."""
    batch_size: Positive[int] | None = None
    """Samples in an optimizer step. Give this or batch_tokens."""
    batch_tokens: Positive[int] | None = None
    """Tokens, padding included, in an optimizer step."""
    batch_order: Literal["length", "random"] = "length"
    """length: batches of sequences of like length, which takes less padding. random: as they are shuffled, as
    in Baidu's code."""
    warmup_proportion: Share = 0.0
    """Share of all steps in which the learning rate rises."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each layer's learning rate as a share of that of the layer above it; the head has the full one. 1: all
    alike, as released."""
    lr_schedule: Literal["linear", "constant", "released"] = "linear"
    """After the warm-up: linear to 0 at the last step, or constant. released: as in Baidu's code, constant
    without a warm-up, else 1 - step / steps of the peak."""
    weight_decay: NotNegative[float] = 0.01
    """Decoupled weight decay, not on LayerNorm and biases."""
    head_dropout: Dropout = 0.1
    """Dropout before the classifier."""
    sizes: dict[Size, dict[str, Any]] = field(default_factory=dict)
    """Settings that differ by model size: {large: {peak_lr: 5.0e-6}}."""
    paper: dict[Size, dict[str, Any]] = field(default_factory=dict)
    """Results of the paper (Tables 5, 6) by size and split: a number is the first metric, a section names
    metrics."""

    def _checks(self) -> Checks:
        """Metrics, columns and labels fit the kind; a batch has one size that holds a sequence."""
        metrics = METRICS_OF_KIND[self.kind]
        for name in self.metrics:
            if name not in metrics:
                yield f"metrics: '{name}' does not fit kind {self.kind}{nearest(name, metrics)}"
        for key, kinds in KINDS_OF_KEY.items():
            fits = self.kind in kinds or not getattr(self, key)
            yield require(fits, key, getattr(self, key), f"nothing, for kind {self.kind}")
        yield from self._check_columns()
        yield from self._check_lengths()
        if self.kind in ("classification", "tagging"):
            yield from self._check_labels()
        if self.kind == "tagging":
            yield from self._check_tags()

    def _check_columns(self) -> Checks:
        allowed, names = COLUMNS_OF_KIND[self.kind], list(self.columns.values())
        for column, name in self.columns.items():
            wanted = f"one of {', '.join(allowed) or 'none'} (kind {self.kind})"
            yield require(column in allowed, "columns", column, wanted)
            if names.count(name) > 1:
                yield f"columns.{column}: '{name}' is mapped twice; a column has one meaning"
        if self.pair is False and "text_b" in self.columns:
            yield "columns.text_b: a second text, but pair is false; leave one of the two out"

    def _check_lengths(self) -> Checks:
        size, tokens, most = self.batch_size, self.batch_tokens, self.max_seq_len - 4
        if (size is None) == (tokens is None):
            yield f"batch_size: found {size} beside batch_tokens {tokens}; give one of the two"
        wanted = f"at least max_seq_len ({self.max_seq_len})"
        yield require(tokens is None or tokens >= self.max_seq_len, "batch_tokens", tokens, wanted)
        fits = self.kind != "span" or self.max_query_len <= most
        yield require(fits, "max_query_len", self.max_query_len, f"at most max_seq_len - 4 ({most})")

    def _check_labels(self) -> Checks:
        labels, positive, weights = self.labels, self.positive_label, self.class_weights
        known = f"one of {', '.join(labels)}"
        yield require(len(labels) >= 2, "labels", labels, "two labels or more")
        yield require(len(set(labels)) == len(labels), "labels", labels, "each label once")
        for alias, label in self.label_aliases.items():
            yield require(label in labels, f"label_aliases.{alias}", label, known)
        for label in self.skip_labels:
            new = label not in (*labels, *self.label_aliases)
            yield require(new, "skip_labels", label, "none of labels and label_aliases")
        if "mrr" in self.metrics and len(labels) > 2 and positive is None:
            yield f"positive_label: missing; mrr ranks by one class of {', '.join(labels)}"
        yield require(positive in (None, *labels), "positive_label", positive, known)
        if self.multi_label:
            bad = [name for name in self.metrics if name not in ("accuracy", "micro_f1", "macro_f1")]
            yield require(
                not bad, "metrics", ", ".join(bad), "accuracy, micro_f1 or macro_f1 where multi_label"
            )
            yield require(
                not any("," in label for label in labels), "labels", labels, "no comma where multi_label"
            )
            yield require(not weights, "class_weights", weights, "none where multi_label")
        wanted = f"{len(labels)} positive numbers, one for each label"
        yield require(len(weights) in (0, len(labels)), "class_weights", weights, wanted)

    def _check_tags(self) -> Checks:
        for tag in self.labels:
            begins, well_formed = f"B-{tag[2:]}", tag == "O" or tag[:2] in ("B-", "I-") and len(tag) > 2
            yield require(well_formed, "labels", tag, "tags of the form O, B-X, I-X")
            yield require(tag[:2] != "I-" or begins in self.labels, "labels", tag, f"{begins} in labels too")
        yield require("O" in self.labels, "labels", self.labels, "the tag O among them")

    def label_index(self) -> dict[str, int]:
        """Every accepted spelling of a label -> its class."""
        index = {label: i for i, label in enumerate(self.labels)}
        return index | {alias: index[label] for alias, label in self.label_aliases.items()}


@dataclass(kw_only=True)
class FinetuneRun(FinetuneTask):
    """A task, and where and how it is fine-tuned."""

    init_from: InitFrom
    """Checkpoint folder to start from, or `none` for random weights."""
    data_dir: Annotated[Text, Field(examples=["data_dir=FOLDER with the task's files on the command line"])]
    """Folder of the data files."""
    out_dir: Text = ""
    """Folder of everything the run writes, for this run alone. Default: out/finetune/<task>."""
    config_from: Text | None = None
    """With init_from=none: take configuration and vocabulary (not the weights) from this checkpoint folder.
    """
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
    patience: Positive[int] | None = None
    """Stop a run after this many evaluations in a row without a better one. Default: never."""
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
        """Those of the task; the encoder comes from one place."""
        yield from super()._checks()
        wanted = f"nothing: init_from={self.init_from} settles it"
        yield require(
            self.init_from == "none" or not self.config_from, "config_from", self.config_from, wanted
        )
        if self.init_from == "none" and not self.config_from:
            yield "init_from: none needs config_from=CHECKPOINT"


def load_finetune(path: str | Path, overrides: Iterable[str] = (), size: str | None = None) -> FinetuneRun:
    """A task file: `sizes.<size>` over its keys, `key=value` overrides over both. Raises ConfigError."""
    overrides, mapping = list(overrides), load_yaml(path)
    sizes = mapping.get("sizes")
    sized = sizes.get(size) if isinstance(sizes, dict) else None
    sized = sized if isinstance(sized, dict) else {}
    on_command_line = from_command_line(overrides)
    mapping = _kept(_kept(mapping, sized) | sized, on_command_line)
    origins = dict.fromkeys(sized, f"{path}: sizes.{size}") | on_command_line
    run = build(FinetuneRun, apply_overrides(mapping, overrides), str(path), origins=origins)
    run.out_dir = run.out_dir or str(Path("out") / "finetune" / run.name)
    return run


def _kept(mapping: dict[str, Any], layer: dict[str, Any]) -> dict[str, Any]:
    """What a later layer leaves of a mapping."""
    return {key: value for key, value in mapping.items() if EITHER.get(key) not in layer}
