"""The registry of pre-training tasks: tasks/pretrain/*.yaml -> {name: Task}. No tensors here.

A task is one YAML file plus one generator; nothing else in the repository knows its name."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic.dataclasses import dataclass

from ernie2.schema import Checks, NotNegative, Positive, Section, build, expect, require
from ernie2.strict import ConfigError, load_yaml, nearest

TASKS_DIR = Path(__file__).resolve().parent.parent / "tasks" / "pretrain"
MAX_TOKEN_CLASSES = 127  # token_labels are int8
MAX_SENTENCE_CLASSES = 32_767  # sentence_label is int16
Source = Literal["documents", "pairs", "marked_pairs"]
ModulePath = Annotated[
    str, expect("a dotted module path", re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*").fullmatch)
]


@dataclass
class Loss(Section):
    """One head's loss in a task (heads are a closed set: masked_lm, token, sentence)."""

    head: Literal["masked_lm", "token", "sentence"]
    """masked_lm: shared, tied to the token embedding; token: classes for every token; sentence: classes from
    [CLS]."""
    num_classes: int | None = None
    """Number of classes of a token or sentence head; none for masked_lm."""
    weight: Positive[float] = 1.0
    """Factor of this loss in the step's loss (paper: not stated, 1)."""

    def _checks(self) -> Checks:
        """The shards' fields can hold as many classes as there are."""
        if self.head == "masked_lm":
            wanted = "nothing: head masked_lm has the vocabulary's classes; remove it"
            yield require(self.num_classes is None, "num_classes", self.num_classes, wanted)
        else:
            most = MAX_TOKEN_CLASSES if self.head == "token" else MAX_SENTENCE_CLASSES
            wanted = f"2 to {most} classes, which head {self.head} needs"
            yield require(2 <= (self.num_classes or 0) <= most, "num_classes", self.num_classes, wanted)


@dataclass
class Task(Section):
    """A pre-training task as its YAML declares it."""

    name: str
    """Equals the file name."""
    task_id: NotNegative[int]
    """Row of the task embedding; never renumbered, never reused. 0 = the fine-tuning default."""
    source: Source | Annotated[list[Source], expect("a list of them that is not empty", bool)]
    """What the generator reads: documents of the corpus, or pairs of the query log. In a list, further
    sources that are read where the recipe names files for them (marked_pairs: data.marked_pairs)."""
    generator: ModulePath
    """Dotted path of the module whose generate() makes the examples."""
    losses: list[Loss]
    """Heads trained by this task."""
    generator_args: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of generate()."""
    balance: Positive[float] | None = None
    """No class of the sentence label keeps more than this times the median class's count. Default: as
    generated."""
    max_per_class: Positive[int] | None = None
    """No class of the sentence label keeps more training examples than this. Default: no limit."""
    path: Path = field(default=Path(), init=False)

    def _checks(self) -> Checks:
        """Each head has one loss."""
        heads = [loss.head for loss in self.losses]
        each_once = len(set(heads)) == len(heads) > 0
        yield require(each_once, "losses", heads, "each head once and at least one")

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
    """Every task of a folder (default: tasks/pretrain), by name. Raises ConfigError when two share a
    task_id."""
    return _load_tasks(Path(folder or TASKS_DIR))


@functools.cache
def _load_tasks(folder: Path) -> dict[str, Task]:
    tasks: dict[str, Task] = {}
    by_id: dict[int, Task] = {}
    for path in sorted(folder.glob("*.yaml")):
        task = load_task(path)
        if task.task_id in by_id:
            raise ConfigError(
                f"{path}: task_id: {task.task_id} is already used by {by_id[task.task_id].path}; "
                f"ids are never reused, the next free one is {max(by_id) + 1}"
            )
        by_id[task.task_id] = task
        tasks[task.name] = task
    if not tasks:
        raise ConfigError(f"{folder}: no task files (*.yaml) there")
    return tasks


def select_tasks(names: list[str], where: str) -> list[Task]:
    """The tasks of these names, in this order. Raises ConfigError for an unknown one, with the nearest known
    name."""
    tasks = load_tasks()
    for name in names:
        if name not in tasks:
            raise ConfigError(
                f"{where}: unknown task '{name}' ({TASKS_DIR}/{name}.yaml does not "
                f"exist){nearest(name, tasks)}"
            )
    return [tasks[name] for name in names]
