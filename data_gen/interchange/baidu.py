"""Baidu's text format of ERNIE 1.0's pre-training examples (data/demo_*_set.gz of PaddlePaddle/ERNIE, branch
repro).

A line is `token_ids;sentence_ids;position_ids;seg_labels;label`, numbers with spaces between them. By Baidu's
README, seg_labels: 0 = a word begins, 1 = it goes on, -1 = [CLS] or [SEP], never masked; label: 1 = the
second sentence follows the first one in its text, 0 = it does not.

The format has one level of units. On import it becomes all levels; on export any one level can be written."""

from __future__ import annotations

import numpy as np

from data_gen.generators import load_generator
from data_gen.interchange.examples import number_units, require
from data_gen.interchange.lines import BadLine
from ernie2.shards import LEVELS, Example
from ernie2.strict import ConfigError
from ernie2.tasks import Task

BEGINS, CONTINUES, SPECIAL = 0, 1, -1
FIELDS = ("token_ids", "sentence_ids", "position_ids", "seg_labels", "label")


def import_labels(task: Task, language: str, labels: dict[int, int] | None) -> dict[int, int] | None:
    """Baidu's label -> class: `labels`, or as the task's generator says; None without a sentence head.

    Raises ConfigError where the task needs labels that the format does not have, or none are known."""
    if task.token_classes:
        raise ConfigError(
            f"--task {task.name}: its token head needs labels of tokens, which this format does not have"
        )
    known = load_generator(task, language).labels
    if not task.sentence_classes or labels:
        return labels if task.sentence_classes else None
    if known is None or known.next_sentence is None:
        raise ConfigError(
            f"--task {task.name}: which of its {task.sentence_classes} classes are Baidu's labels? Name "
            "them, for example --labels 0=1,1=0"
        )
    follows, elsewhere = known.next_sentence
    return {1: follows, 0: elsewhere}


def export_labels(task: Task, language: str) -> dict[int, int] | None:
    """Class -> Baidu's label, as the task's generator says; None where it does not."""
    known = load_generator(task, language).labels
    if known is None or known.next_sentence is None:
        return None
    return {label: int(label == known.next_sentence[0]) for label in range(len(known.names))}


def parse_line(text: str, labels: dict[int, int] | None = None) -> Example:
    """The example of a line.

    Args:
        text: The line.
        labels: Baidu's label -> class; None: the label as it is.

    Raises:
        BadLine: it is not of this format, or its label has no class."""
    fields = text.split(";")
    require(len(fields) == len(FIELDS), f"not {len(FIELDS)} fields")
    token_ids, sentence_ids, positions, units, label = map(_numbers, fields, FIELDS)
    lengths = {len(token_ids), len(sentence_ids), len(positions), len(units)}
    require(len(lengths) == 1, "fields of different lengths")
    require(len(label) == 1, "label is not one number")
    require(np.array_equal(positions, np.arange(len(positions))), "position_ids are not 0, 1, 2, ...")
    require(bool(np.isin(units, (BEGINS, CONTINUES, SPECIAL)).all()), "seg_labels outside -1 to 1")
    before = np.concatenate([[SPECIAL], units[:-1]])
    require(not ((units == CONTINUES) & (before == SPECIAL)).any(), "seg_labels: 1 where no word goes on")
    number = int(label[0])
    require(labels is None or number in labels, "label that has no class")
    spans = dict.fromkeys(LEVELS, number_units(units == BEGINS, units != SPECIAL))
    return Example(token_ids, sentence_ids, spans, None, labels[number] if labels else number)


def _numbers(field: str, name: str) -> np.ndarray:
    try:
        return np.array(field.split(), np.int32)
    except (ValueError, OverflowError):
        raise BadLine(f"{name}: not whole numbers with spaces between them") from None


def format_line(example: Example, level: str = "word", labels: dict[int, int] | None = None) -> str:
    """The line of an example, without its end.

    Args:
        example: Of shards, with spans.
        level: Whose units become seg_labels.
        labels: Class -> Baidu's label; None: the class itself. An example without a label gets 0.

    Raises:
        ConfigError: a class that labels do not have."""
    units = example.span_ids[level].astype(np.int32)
    begins = np.diff(units, prepend=SPECIAL - 1) != 0
    seg_labels = np.where(units < 0, SPECIAL, np.where(begins, BEGINS, CONTINUES))
    label = example.sentence_label or 0
    if labels is not None and example.sentence_label is not None:
        if label not in labels:
            raise ConfigError(f"--labels: class {label} has no label; name it too")
        label = labels[label]
    columns = (example.token_ids, example.sentence_ids, np.arange(len(units)), seg_labels)
    return ";".join([*(" ".join(map(str, column.tolist())) for column in columns), str(label)])
