"""What a fine-tuning task is: tasks/finetune/*.yaml as a dataclass. No tensors here.

Where and how a task is carried out (checkpoint, folders, repeats) is in `ernie2.finetune.run`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ernie2.config import SIZES
from ernie2.strict import ConfigError, nearest, require

KINDS = ("classification", "regression", "tagging", "span")
METRICS_OF_KIND = {
    "classification": ("accuracy", "f1", "mcc", "mrr"),
    "regression": ("pearson", "spearman"),
    "tagging": ("entity_f1",),
    "span": ("cmrc_em", "cmrc_f1"),
}
_TEXT_COLUMNS = ("text_a", "text_b", "label", "qid", "id")
COLUMNS_OF_KIND = {
    "classification": _TEXT_COLUMNS,
    "regression": _TEXT_COLUMNS,
    "tagging": ("text_a", "label", "id"),
    "span": (),
}


@dataclass
class FinetuneFiles:
    """Data files, relative to data_dir. A missing `x.tsv` is looked for as `x.tsv.gz` too."""

    train: str | list[str]
    """Training file; files of a list are joined."""
    dev: str | list[str]
    """Dev file; files of a list are evaluated each by itself (MNLI matched and mismatched)."""
    test: str | list[str] | None = None
    """Test file or files; skipped with a note where absent."""


@dataclass
class FinetuneTask:
    """One fine-tuning task as its YAML declares it (PAPER section 7 for the settings)."""

    name: str
    """Name of the task; equals the file name."""
    kind: Literal["classification", "regression", "tagging", "span"]
    """What the head predicts: a class, a number, a tag for every token, or an answer span."""
    files: FinetuneFiles
    """Data files under data_dir."""
    metrics: list[str]
    """Metrics, in percent; their mean chooses the best checkpoint on dev."""
    peak_lr: float
    """Highest learning rate; it decays linearly to 0."""
    epochs: int
    """Passes over the training data."""
    labels: list[str] = field(default_factory=list)
    """Classes, or tags in B-/I-/O form. None for regression and span."""
    label_aliases: dict[str, str] = field(default_factory=dict)
    """Other spellings of labels found in the data (XNLI writes both contradiction and contradictory)."""
    skip_labels: list[str] = field(default_factory=list)
    """Rows with such a label are left out and counted (SNLI, CMNLI, OCNLI: `-` where annotators disagree)."""
    positive_label: str | None = None
    """The class that f1 and mrr are about. Default: the last of two; of more, f1 is macro F1."""
    class_weights: list[float] = field(default_factory=list)
    """Weight of each class in the loss; empty = all alike (the paper's setting)."""
    columns: dict[str, str] = field(default_factory=dict)
    """Header names in the data where they differ from text_a, text_b, label, qid, id."""
    pair: bool | None = None
    """Whether rows have two texts; other files are refused. Default: as train, kept for predict."""
    source_tokens: Literal["visible", "characters", "words"] | None = None
    """What plain text is cut into (tagging): visible or all characters, words. Default: as train, kept for predict."""
    task_id: int = 0
    """Row of the task embedding (0: maintainers' advice, ERNIE issue 239)."""
    max_seq_len: int = 128
    """Tokens in a sequence, [CLS] and [SEP] included."""
    doc_stride: int = 128
    """Tokens between the starts of two windows over a text that is too long (span and tagging)."""
    max_query_len: int = 64
    """Tokens of a question; the rest is cut off and counted (span)."""
    max_answer_len: int = 100
    """Tokens of an answer (span)."""
    n_best: int = 20
    """Answers kept for each question (span)."""
    batch_size: int | None = None
    """Samples in an optimizer step. Give this or batch_tokens."""
    batch_tokens: int | None = None
    """Tokens, padding included, in an optimizer step."""
    warmup_proportion: float = 0.0
    """Share of all steps in which the learning rate rises."""
    weight_decay: float = 0.01
    """Decoupled weight decay, not on LayerNorm and biases."""
    head_dropout: float = 0.1
    """Dropout before the classifier."""
    sizes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings that differ by model size: {large: {peak_lr: 5.0e-6}}."""
    paper: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Results of the paper (Tables 5, 6) by size and split: a number is the first metric, a section names metrics."""

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_labels()
        for name in self.metrics:
            if name not in METRICS_OF_KIND[self.kind]:
                raise ConfigError(
                    f"metrics: '{name}' does not fit kind {self.kind}{nearest(name, METRICS_OF_KIND[self.kind])}"
                )
        require(bool(self.metrics), "metrics", self.metrics, "at least one metric")
        if (self.batch_size is None) == (self.batch_tokens is None):
            raise ConfigError(
                f"batch_size: found {self.batch_size} beside batch_tokens {self.batch_tokens}; give one of the two"
            )
        self._check_columns()
        for size in (*self.sizes, *self.paper):
            require(size in SIZES, "sizes", size, f"one of {', '.join(SIZES)}")
        if self.batch_tokens is not None:
            require(
                self.batch_tokens >= self.max_seq_len,
                "batch_tokens",
                self.batch_tokens,
                f"at least max_seq_len ({self.max_seq_len})",
            )

    def _check_columns(self) -> None:
        allowed = COLUMNS_OF_KIND[self.kind]
        for column, name in self.columns.items():
            wanted = f"one of {', '.join(allowed) or 'none'} (kind {self.kind})"
            require(column in allowed, "columns", column, wanted)
            if list(self.columns.values()).count(name) > 1:
                raise ConfigError(f"columns.{column}: '{name}' is mapped twice; a column has one meaning")
        require(self.pair is None or "text_b" in allowed, "pair", self.pair, f"nothing, for kind {self.kind}")
        if self.pair is False and "text_b" in self.columns:
            raise ConfigError("columns.text_b: a second text, but pair is false; leave one of the two out")
        cut, skip = self.source_tokens, self.skip_labels
        require(cut is None or self.kind == "tagging", "source_tokens", cut, f"nothing, for kind {self.kind}")
        require(not skip or self.kind != "span", "skip_labels", skip, "nothing, for kind span")

    def _check_numbers(self) -> None:
        for key in ("epochs", "max_query_len", "max_answer_len", "n_best", "doc_stride"):
            require(getattr(self, key) > 0, key, getattr(self, key), "a positive number")
        for key in ("batch_size", "batch_tokens"):
            require(getattr(self, key) is None or getattr(self, key) > 0, key, getattr(self, key), "a positive number")
        require(self.max_seq_len >= 8, "max_seq_len", self.max_seq_len, "8 or more")
        require(self.peak_lr > 0, "peak_lr", self.peak_lr, "a positive number")
        require(
            0 <= self.warmup_proportion <= 1, "warmup_proportion", self.warmup_proportion, "a share between 0 and 1"
        )
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        require(0 <= self.head_dropout < 1, "head_dropout", self.head_dropout, "0 <= head_dropout < 1")
        require(self.task_id >= 0, "task_id", self.task_id, "0 or more")
        if self.kind == "span":
            room = self.max_seq_len - self.max_query_len - 3
            require(room > 0, "max_query_len", self.max_query_len, f"at most max_seq_len - 4 ({self.max_seq_len - 4})")

    def _check_labels(self) -> None:
        if self.kind in ("regression", "span"):
            require(not self.labels, "labels", self.labels, f"no labels, for kind {self.kind} has none")
            return
        require(len(self.labels) >= 2, "labels", self.labels, "two labels or more")
        require(len(set(self.labels)) == len(self.labels), "labels", self.labels, "each label once")
        if self.kind == "tagging":
            for tag in self.labels:
                require(
                    tag == "O" or tag[:2] in ("B-", "I-") and len(tag) > 2,
                    "labels",
                    tag,
                    "tags of the form O, B-X, I-X",
                )
                require(tag[:2] != "I-" or f"B-{tag[2:]}" in self.labels, "labels", tag, f"B-{tag[2:]} in labels too")
            require("O" in self.labels, "labels", self.labels, "the tag O among them")
        for alias, label in self.label_aliases.items():
            require(label in self.labels, f"label_aliases.{alias}", label, f"one of {', '.join(self.labels)}")
        for label in self.skip_labels:
            require(label not in self.label_index(), "skip_labels", label, "none of labels and label_aliases")
        if "mrr" in self.metrics and len(self.labels) > 2 and self.positive_label is None:
            raise ConfigError(f"positive_label: missing; mrr ranks by one class of {', '.join(self.labels)}")
        if self.positive_label is not None:
            require(
                self.positive_label in self.labels,
                "positive_label",
                self.positive_label,
                f"one of {', '.join(self.labels)}",
            )
        if self.class_weights:
            require(
                len(self.class_weights) == len(self.labels) and min(self.class_weights) > 0,
                "class_weights",
                self.class_weights,
                f"{len(self.labels)} positive numbers, one for each label",
            )

    @property
    def num_labels(self) -> int:
        """Outputs of the head: classes, 1 for regression, 2 (start, end) for span."""
        return {"regression": 1, "span": 2}.get(self.kind, len(self.labels))

    @property
    def positive_index(self) -> int:
        """Index of the class that f1 and mrr are about."""
        return len(self.labels) - 1 if self.positive_label is None else self.labels.index(self.positive_label)

    def label_index(self) -> dict[str, int]:
        """Every accepted spelling of a label -> its class."""
        index = {label: i for i, label in enumerate(self.labels)}
        return index | {alias: index[label] for alias, label in self.label_aliases.items()}

