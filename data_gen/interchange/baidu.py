"""Baidu's text format of ERNIE 1.0's pre-training examples (data/demo_*_set.gz of PaddlePaddle/ERNIE, branch
repro).

A line is `token_ids;sentence_ids;position_ids;seg_labels;label`, numbers parted by spaces. By Baidu's README:
seg_labels: 0 = a word begins at the token, 1 = the token goes on with it, -1 = [CLS] or [SEP], never masked;
label: whether the second sentence follows the first one in its text, 1 = it does, 0 = it does not.

The format knows one level of units. On import it becomes the word level, and the phrase and entity levels
equal it; on export any one level can be written. Positions are always 0, 1, 2, ...: a line with others is
rejected.

The label goes where the task has a sentence head, as the task's generator says (`Labels.next_sentence`) or
the user does (`labels`). Tasks without a sentence head drop it, which is counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_gen.generators import load_generator
from data_gen.interchange.examples import Parse, number_units, require
from data_gen.interchange.lines import BadLine, written
from ernie2.shards import LEVELS, Example, ShardReader
from ernie2.strict import ConfigError
from ernie2.tasks import Task, load_tasks
from ernie2.tokenizer import Vocab

BEGINS, CONTINUES, SPECIAL = 0, 1, -1
FIELDS = ("token_ids", "sentence_ids", "position_ids", "seg_labels", "label")


def labels_for(task: Task, language: str, given: dict[int, int] | None) -> dict[int, int] | None:
    """Baidu's label -> class of a task: as given, else as its generator says; None for a task without a
    sentence head.

    Raises:
        ConfigError: the task needs labels that the format does not have, or the meaning of the label is not
        known."""
    if task.token_classes:
        raise ConfigError(
            f"--task {task.name}: its token head needs a label for every token, which this format does not "
            "have"
        )
    if not task.sentence_classes or given is not None:
        return given if task.sentence_classes else None
    known = load_generator(task, language).labels
    if known is None or known.next_sentence is None:
        raise ConfigError(
            f"--task {task.name}: say which of its {task.sentence_classes} classes Baidu's labels are, for "
            f"example --labels 0=1,1=0"
        )
    follows, elsewhere = known.next_sentence
    return {1: follows, 0: elsewhere}


def parser(labels: dict[int, int] | None, notes: dict[str, int]) -> Callable[[Vocab], Parse]:
    """Makes the parser of lines.

    Args:
        labels: Baidu's label -> class; None: the labels are dropped.
        notes: Counts the labels that are dropped."""

    def parse(text: str) -> Example:
        example = parse_line(text)
        if labels is None:
            notes["pair label dropped"] = notes.get("pair label dropped", 0) + 1
            return example
        require(example.sentence_label in labels, "label that has no class")
        example.sentence_label = labels[example.sentence_label]
        return example

    return lambda vocab: parse


def parse_line(text: str) -> Example:
    """The example of a line, the label as Baidu has it. Raises BadLine."""
    fields = text.split(";")
    require(len(fields) == len(FIELDS), f"not {len(FIELDS)} fields")
    token_ids, sentence_ids, positions, seg_labels, label = map(_numbers, fields, FIELDS)
    require(
        len(token_ids) == len(sentence_ids) == len(positions) == len(seg_labels),
        "fields of different lengths",
    )
    require(len(label) == 1, "label is not one number")
    require(np.array_equal(positions, np.arange(len(positions))), "position_ids are not 0, 1, 2, ...")
    require(
        len(seg_labels) > 0 and seg_labels.min() >= SPECIAL and seg_labels.max() <= CONTINUES,
        "seg_labels outside -1 to 1",
    )
    before = np.concatenate([[SPECIAL], seg_labels[:-1]])
    require(
        not ((seg_labels == CONTINUES) & (before == SPECIAL)).any(), "seg_labels: 1 where no word goes on"
    )
    spans = number_units(seg_labels == BEGINS, seg_labels != SPECIAL)
    return Example(token_ids, sentence_ids, dict.fromkeys(LEVELS, spans), None, int(label[0]))


def _numbers(field: str, name: str) -> np.ndarray:
    try:
        return np.array(field.split(), np.int32)
    except (ValueError, OverflowError):
        raise BadLine(f"{name}: not whole numbers parted by spaces") from None


def format_line(example: Example, level: str = "word", labels: dict[int, int] | None = None) -> str:
    """The line of an example, without its end.

    Args:
        example: Of shards, with spans.
        level: Whose units become seg_labels.
        labels: Class -> Baidu's label; None: the class itself. An example without a label gets 0."""
    spans = example.span_ids[level].astype(np.int32)
    begins = np.ones(len(spans), bool)
    begins[1:] = spans[1:] != spans[:-1]
    seg_labels = np.where(spans < 0, SPECIAL, np.where(begins, BEGINS, CONTINUES))
    label = example.sentence_label
    label = 0 if label is None else label if labels is None else labels[label]
    columns = (example.token_ids, example.sentence_ids, np.arange(len(spans)), seg_labels)
    return ";".join([*(" ".join(map(str, column.tolist())) for column in columns), str(label)])


def export_lines(
    folder: Path, split: str, to: Path, level: str = "word", labels: dict[int, int] | None = None
) -> int:
    """Writes a split of a task's shards, in its order; gzip where the name ends in .gz. Returns the number of
    lines.

    Raises:
        ConfigError: no finished shards there, or shards without spans, or a class that `labels` does not
        name."""
    reader = ShardReader(folder, split)
    name = reader.index["task"]
    if f"span_ids_{level}" not in reader.index["fields"]:
        raise ConfigError(
            f"{folder}: task '{name}' has no masked LM and so no units, which this format needs"
        )
    task = load_tasks().get(name)
    if labels is None and task is not None:
        known = load_generator(task, reader.index["language"]).labels
        if known is not None and known.next_sentence is not None:
            labels = {label: int(label == known.next_sentence[0]) for label in range(len(known.names))}
    with written(to) as file:
        for i in range(len(reader)):
            example = reader[i]
            if labels is not None and example.sentence_label not in (None, *labels):
                raise ConfigError(
                    f"--labels: class {example.sentence_label} of task '{name}' has no label; name it too"
                )
            file.write(format_line(example, level, labels) + "\n")
    return len(reader)
