"""Continual multi-task learning: which tasks train at step s. Pure functions of the recipe; no tensors here.

Paper section 3.1.2 and Table 7. Letters: N steps a task gets in all, r steps an earlier task gets in each
later stage. A plan never holds state: step -> stage, tasks and how many batches each task has had is
arithmetic, so that every rank agrees without talking and a resume needs one integer."""

from __future__ import annotations

import bisect
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ernie2.config import CurriculumConfig
from ernie2.strict import ConfigError


@dataclass(frozen=True)
class Turn:
    """One task's part in an optimizer step."""

    task: str
    """Name of the task."""
    batch: int
    """Number of global batches of this task before this one, over the whole run."""


@dataclass(frozen=True)
class Stage:
    """A stretch of optimizer steps with fixed shares."""

    number: int
    """From 0."""
    first_step: int
    """Optimizer steps before this stage."""
    shares: dict[str, int]
    """Task -> global batches it gets in this stage, in order of first appearance."""
    new: tuple[str, ...]
    """Tasks that start in this stage."""
    step: str = "one_task"

    @property
    def steps(self) -> int:
        """Optimizer steps of this stage."""
        return sum(self.shares.values()) if self.step == "one_task" else max(self.shares.values())

    @property
    def last_step(self) -> int:
        """The first step after this stage."""
        return self.first_step + self.steps

    @cached_property
    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        """(task number, batch number within the stage) of each step: largest remaining share first, ties in
        order."""
        counts = list(self.shares.values())
        tasks = np.repeat(np.arange(len(counts), dtype=np.int16), counts)
        batches = np.concatenate([np.arange(count) for count in counts])
        done = np.concatenate([np.arange(count) / max(count, 1) for count in counts])
        order = np.lexsort((tasks, done))
        return tasks[order], batches[order]

    def turns(self, index: int) -> list[tuple[str, int]]:
        """(task, batch within the stage) of the stage's optimizer step `index`."""
        names = list(self.shares)
        if self.step == "one_task":
            tasks, batches = self._order
            return [(names[tasks[index]], int(batches[index]))]
        # A task with fewer batches than the stage has steps takes part in evenly spread steps.
        turns = []
        for name, count in self.shares.items():
            before, after = index * count // self.steps, (index + 1) * count // self.steps
            if after > before:
                turns.append((name, before))
        return turns


class Plan:
    """The whole run: stages, and what happens at each step."""

    def __init__(self, stages: list[Stage]) -> None:
        self.stages = stages
        self._first_steps = [stage.first_step for stage in stages]

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return self.stages[-1].last_step

    def stage_of(self, step: int) -> Stage:
        """The stage that step `step` (from 0) belongs to."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} is outside the plan's {self.steps} steps")
        return self.stages[bisect.bisect_right(self._first_steps, step) - 1]

    def turns(self, step: int) -> list[Turn]:
        """What trains at optimizer step `step` (from 0)."""
        stage = self.stage_of(step)
        return [
            Turn(task, self.batches_before(task, stage) + batch)
            for task, batch in stage.turns(step - stage.first_step)
        ]

    def batches_before(self, task: str, stage: Stage) -> int:
        """Global batches that `task` has had before `stage`."""
        return sum(earlier.shares.get(task, 0) for earlier in self.stages[: stage.number])

    def batches_done(self, step: int) -> Counter[str]:
        """Task -> global batches that it has had before optimizer step `step`: its position in the data."""
        return Counter(turn.task for index in range(min(step, self.steps)) for turn in self.turns(index))

    def tasks_seen(self, step: int) -> list[str]:
        """Tasks that have started by the end of optimizer step `step`, in order of first appearance."""
        last = self.stage_of(step).number
        return list(dict.fromkeys(name for stage in self.stages[: last + 1] for name in stage.shares))

    def table(self) -> list[tuple[str, list[int]]]:
        """Rows (task, batches in each stage): the paper's Table 7."""
        names = dict.fromkeys(name for stage in self.stages for name in stage.shares)
        return [(name, [stage.shares.get(name, 0) for stage in self.stages]) for name in names]


def make_plan(config: CurriculumConfig) -> Plan:
    """Turns a curriculum into a plan.

    continual_multitask: a task gets N - (stages left) x r steps in the stage where it starts and r in each
    later stage; multitask: one stage, N each; continual: each stage trains its new tasks alone, N each.

    Raises:
        ConfigError: revisit_steps leaves a new task nothing to do in its first stage."""
    total, count = config.steps_per_task, len(config.stages)
    if config.mode == "multitask":
        names = tuple(name for stage in config.stages for name in stage)
        return Plan([Stage(0, 0, dict.fromkeys(names, total), names, config.step)])
    revisit = total // (count + 1) if config.revisit_steps == "auto" else config.revisit_steps
    if config.mode == "continual":
        revisit = 0
    if revisit < 0 or total - (count - 1) * revisit < 1:
        raise ConfigError(
            f"curriculum.revisit_steps: {revisit} steps in each of {count - 1} later stages leave nothing of "
            f"steps_per_task = {total} for a task's first stage; at most {(total - 1) // max(count - 1, 1)}"
        )
    stages: list[Stage] = []
    seen: list[str] = []
    for number, new in enumerate(config.stages):
        shares = dict.fromkeys(seen, revisit) if revisit else {}
        shares |= dict.fromkeys(new, total - (count - 1 - number) * revisit)
        first = stages[-1].last_step if stages else 0
        stages.append(Stage(number, first, shares, tuple(new), config.step))
        seen += new
    return Plan(stages)
