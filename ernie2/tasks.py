"""The registry of pre-training tasks: tasks/pretrain/*.yaml -> {name: Task}. No tensors here.

A task is one YAML file plus one generator; nothing else in the repository knows its name.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ernie2.strict import ConfigError, build, load_yaml, nearest

TASKS_DIR = Path(__file__).resolve().parent.parent / "tasks" / "pretrain"
MAX_TOKEN_CLASSES = 127  # token_labels are int8
MAX_SENTENCE_CLASSES = 32_767  # sentence_label is int16


@dataclass
class Loss:
    """One head's loss in a task (heads are a closed set: masked_lm, token, sentence)."""

    head: Literal["masked_lm", "token", "sentence"]
    """masked_lm: shared, tied to the token embedding; token: classes for every token; sentence: classes from [CLS]."""
    num_classes: int | None = None
    """Number of classes of a token or sentence head; none for masked_lm."""
    weight: float = 1.0
    """Factor of this loss in the step's loss (paper: not stated, 1)."""

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ConfigError(f"weight: found {self.weight}, expected a positive number")
        if self.head == "masked_lm":
            if self.num_classes is not None:
                raise ConfigError("num_classes: head masked_lm has the vocabulary's classes; remove num_classes")
            return
        limit = MAX_TOKEN_CLASSES if self.head == "token" else MAX_SENTENCE_CLASSES
        if self.num_classes is None or not 2 <= self.num_classes <= limit:
            raise ConfigError(f"num_classes: head {self.head} needs 2 to {limit} classes, found {self.num_classes}")


@dataclass
class Task:
    """A pre-training task as its YAML declares it."""

    name: str
    """Equals the file name."""
    task_id: int
    """Row of the task embedding; never renumbered, never reused. 0 = the fine-tuning default."""
    source: Literal["documents", "pairs", "marked_pairs"] | list[Literal["documents", "pairs", "marked_pairs"]]
    """What the generator reads: documents of the corpus, or pairs of the query log. In a list, further sources that are
    read where the recipe names files for them (marked_pairs: data.marked_pairs)."""
    generator: str
    """Dotted path of the module whose generate() makes the examples."""
    losses: list[Loss]
    """Heads trained by this task."""
    generator_args: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of generate()."""
    balance: float | None = None
    """No class of the sentence label keeps more than this times the median class's count. Default: as generated."""
    max_per_class: int | None = None
    """No class of the sentence label keeps more training examples than this. Default: no limit."""
    path: Path = field(default=Path(), init=False)

    def __post_init__(self) -> None:
        heads = [loss.head for loss in self.losses]
        if not heads or len(set(heads)) != len(heads):
            raise ConfigError(f"losses: found heads {heads}, expected each head once and at least one")
        if self.task_id < 0:
            raise ConfigError(f"task_id: found {self.task_id}, expected 0 or more")
        if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", self.generator) is None:
            raise ConfigError(f"generator: '{self.generator}' is not a dotted module path")
        if self.balance is not None and self.balance <= 0:
            raise ConfigError(f"balance: found {self.balance}, expected a positive number")
        if self.max_per_class is not None and self.max_per_class < 1:
            raise ConfigError(f"max_per_class: found {self.max_per_class}, expected 1 or more")
        if not self.sources:
            raise ConfigError("source: an empty list; expected documents or pairs")

    def loss(self, head: str) -> Loss | None:
        """The task's loss for `head`, or None."""
        return next((loss for loss in self.losses if loss.head == head), None)

    @property
    def sources(self) -> tuple[str, ...]:
        """What the generator reads; the first is required, the others may be missing."""
        return (self.source,) if isinstance(self.source, str) else tuple(self.source)

    @property
    def has_masked_lm(self) -> bool:
        """Whether the task trains the masked LM."""
        return self.loss("masked_lm") is not None

    @property
    def token_classes(self) -> int | None:
        """Classes of the token head, or None."""
        loss = self.loss("token")
        return loss.num_classes if loss else None

    @property
    def sentence_classes(self) -> int | None:
        """Classes of the sentence head, or None."""
        loss = self.loss("sentence")
        return loss.num_classes if loss else None

    def digest(self) -> str:
        """sha256 of the YAML file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def load_task(path: Path) -> Task:
    """Loads one task file. Raises ConfigError naming file and key."""
    task = build(Task, load_yaml(path), str(path))
    if task.name != path.stem:
        raise ConfigError(f"{path}: name: found '{task.name}', expected the file's name '{path.stem}'")
    task.path = path
    return task


def load_tasks(folder: Path | None = None) -> dict[str, Task]:
    """Every task of a folder (default: tasks/pretrain), by name. Raises ConfigError when two share a task_id."""
    return _load_tasks(Path(folder or TASKS_DIR))


@functools.cache
def _load_tasks(folder: Path) -> dict[str, Task]:
    tasks: dict[str, Task] = {}
    by_id: dict[int, Task] = {}
    for path in sorted(folder.glob("*.yaml")):
        task = load_task(path)
        if task.task_id in by_id:
            raise ConfigError(f"{path}: task_id: {task.task_id} is already used by {by_id[task.task_id].path}; "
                              f"ids are never reused, the next free one is {max(by_id) + 1}")
        by_id[task.task_id] = task
        tasks[task.name] = task
    if not tasks:
        raise ConfigError(f"{folder}: no task files (*.yaml) there")
    return tasks


def select_tasks(names: list[str], where: str) -> list[Task]:
    """The tasks of these names, in this order. Raises ConfigError for an unknown one, with the nearest known name."""
    tasks = load_tasks()
    for name in names:
        if name not in tasks:
            raise ConfigError(f"{where}: unknown task '{name}' ({TASKS_DIR}/{name}.yaml does not exist){nearest(name, tasks)}")
    return [tasks[name] for name in names]
