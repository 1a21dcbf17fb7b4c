"""What a pre-training run has written, read for people: its two logs, result.json, recipe.yaml. No tensors.

recipe.yaml is that of the newest checkpoint, result.json is written at the end. One of the two logs is
enough; a line cut off by a crash is passed over and mentioned."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ernie2.config import ConfigError, CurriculumConfig, build, load_yaml
from ernie2.curriculum import make_plan

LOGS = ("train.jsonl", "eval.jsonl")
SILENT_SECONDS = 900
"""A run without result.json is called stopped when its logs are older; evaluations and saves take less."""


@dataclass
class Stage:
    """What the logs tell of one stage."""

    number: int
    """As logged."""
    start: int
    """Optimizer steps before it."""
    stop: int
    """Its last logged step."""
    tasks: dict[str, float] = field(default_factory=dict)
    """Task -> real tokens trained on."""
    seconds: float = 0.0
    """Tokens over tokens a second: training only, without evaluations and saves."""
    padded: float = 0.0
    """Tokens with padding, as the device computes them; 0: not logged."""
    waited: float = 0.0
    """Seconds that training waited for data."""

    @property
    def tokens(self) -> float:
        """Real tokens of all its tasks."""
        return sum(self.tasks.values())

    @property
    def padding(self) -> float | None:
        """Share of padding in what the device computes; None: not logged."""
        return max(1 - self.tokens / self.padded, 0.0) if self.padded else None

    @property
    def waiting(self) -> float | None:
        """Share of the time that training waited for data; None: no times are logged."""
        return self.waited / self.seconds if self.seconds else None


@dataclass
class Run:
    """The logs of one out_dir, read and checked."""

    folder: Path
    train: list[dict]
    evals: list[dict]
    result: dict
    recipe: dict
    checkpoint: str | None
    silent: float
    """Seconds since the logs last grew."""
    notices: list[str]
    """What a reader of the page must know: lines passed over, losses that are not numbers."""

    @cached_property
    def tasks(self) -> list[str]:
        """Tasks in order of first appearance."""
        return list(
            dict.fromkeys(r["task"] for r in sorted(self.train + self.evals, key=lambda r: r["step"]))
        )

    @cached_property
    def last_step(self) -> int:
        """The newest step of either log."""
        return max(record["step"] for record in self.train + self.evals)

    @cached_property
    def planned(self) -> dict[int, int]:
        """Stage number (from 0) -> planned optimizer steps, by the checkpoint's recipe; empty without one."""
        try:
            plan = make_plan(build(CurriculumConfig, self.recipe["curriculum"], "recipe.yaml"))
        except (KeyError, ConfigError):
            return {}
        end = int(_number(self.setting("runtime", "max_steps")) or plan.steps)
        return {stage.number: min(stage.last_step, end) - min(stage.first_step, end) for stage in plan.stages}

    @cached_property
    def stages(self) -> list[Stage]:
        """Stages seen so far. Each one's end is evaluated: the newest step of either log is where it ends."""
        found: dict[int, Stage] = {}
        for record in sorted(self.train + self.evals, key=lambda r: r["step"]):
            before = max((stage.stop for stage in found.values()), default=0)
            stage = found.setdefault(record["stage"], Stage(record["stage"], before, before))
            stage.stop = max(stage.stop, record["step"])
        for (
            record
        ) in self.train:  # one line a task and log step, with the task's tokens since the log step before
            stage, tokens = found[record["stage"]], record.get("tokens", 0.0)
            stage.tasks[record["task"]] = stage.tasks.get(record["task"], 0.0) + tokens
            seconds = tokens / record["tokens_per_s"] if record.get("tokens_per_s") else 0.0
            stage.seconds += seconds
            stage.waited += seconds * record.get("data_wait_share", 0.0)
            stage.padded += record.get("padded_tokens", 0.0)
        return list(found.values())

    @cached_property
    def whole(self) -> Stage:
        """All stages as one."""
        whole = Stage(0, 0, self.last_step)
        for stage in self.stages:
            whole.tasks |= {task: tokens + whole.tasks.get(task, 0.0) for task, tokens in stage.tasks.items()}
            whole.seconds, whole.padded = whole.seconds + stage.seconds, whole.padded + stage.padded
            whole.waited += stage.waited
        return whole

    @property
    def skipped(self) -> int:
        """Optimizer steps skipped so far: a loss or gradient that was not a number, or too large for fp16."""
        return int(max((record.get("skipped_steps", 0.0) for record in self.train), default=0.0))

    @property
    def name(self) -> str:
        """As the recipe says, else as result.json says, else the folder's name."""
        return str(self.recipe.get("name") or self.result.get("name") or self.folder.resolve().name)

    def setting(self, section: str, key: str) -> object:
        """A value of the checkpoint's recipe; None when there is none."""
        part = self.recipe.get(section)
        return part.get(key) if isinstance(part, dict) else None

    @property
    def state(self) -> str:
        """finished | running | stopped."""
        if self.result and self.result.get("steps", self.last_step) >= self.last_step:
            return "finished"
        return "running" if self.silent < SILENT_SECONDS else "stopped"

    def heads(self, task: str) -> list[str]:
        """Heads of a task: its own (sentence or token) before the shared masked_lm."""
        records = [record for record in self.train + self.evals if record["task"] == task]
        names = dict.fromkeys(head for record in records for head in record["losses"] | record["accuracy"])
        return sorted(names, key=lambda name: name == "masked_lm")

    def stage_name(self, number: int) -> str:
        """Stages count from 1, as in the paper's Table 7, also when the logs count from 0."""
        return f"Stage {number + (min(stage.number for stage in self.stages) == 0)}"

    def dev(self, task: str) -> list[dict]:
        """Evaluations of a task in order of step."""
        return [record for record in self.evals if record["task"] == task]

    def since_own_stage(self, task: str) -> list[dict]:
        """Evaluations of a task from the end of its first stage on; empty while no other stage follows."""
        own = min(
            (record["stage"] for record in self.train + self.evals if record["task"] == task), default=0
        )
        ends = [record["step"] for record in self.dev(task) if record["stage"] == own]
        if not ends or own == self.stages[-1].number:
            return []
        return [record for record in self.dev(task) if record["step"] >= ends[-1]]


def load_run(out_dir: str | Path) -> Run:
    """Reads the logs of a run in any state. Raises ConfigError: no such folder, or no log in it."""
    folder = Path(out_dir)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give the out_dir of a pre-training run")
    notices: list[str] = []
    train, evals = (_read_log(folder / name, notices) for name in LOGS)
    if not train and not evals:
        raise ConfigError(f"{folder}: {_what_it_is(folder)}")
    if not evals:
        notices.append("eval.jsonl has nothing yet: dev results appear after the first evaluation.")
    result, recipe = _read_result(folder, notices), {}
    saved = sorted(
        folder.glob("step_*/recipe.yaml"), key=lambda path: (len(path.parent.name), path.parent.name)
    )
    if saved:
        try:
            recipe = load_yaml(saved[-1])
        except ConfigError as error:
            notices.append(f"The checkpoint's recipe was left aside: {error}")
    numbers = {
        key: value
        for key in ("steps", "tokens", "seconds")
        if (value := _number(result.get(key))) is not None
    }
    silent = time.time() - max((folder / name).stat().st_mtime for name in LOGS if (folder / name).is_file())
    return Run(
        folder,
        train,
        evals,
        result and result | numbers,
        recipe,
        saved[-1].parent.name if saved else None,
        max(0.0, silent),
        notices,
    )


def _what_it_is(folder: Path) -> str:
    """What a folder without a readable log line of pre-training is instead, and the remedy."""
    if (folder / "metrics.jsonl").is_file():
        result = _read_result(folder, [])
        task, best = result.get("task"), " and of result.json" if result else ", still without result.json"
        return (
            "the folder of a fine-tuning run"
            + (f" (task {task})" if isinstance(task, str) else "")
            + ", whose "
            f"figures are those of metrics.jsonl{best}; this page draws pre-training: give its out_dir"
        )
    if any((folder / name).is_file() for name in LOGS):
        return "its logs hold no readable line yet; wait for the first log step"
    near = sorted(path.parent for path in folder.glob("*/train.jsonl"))
    return "neither train.jsonl nor eval.jsonl in it; " + (
        f"did you mean {near[0]}?" if near else "give the out_dir of a pre-training run"
    )


def _read_result(folder: Path, notices: list[str]) -> dict:
    """result.json, written when a run ends; empty when there is none."""
    path = folder / "result.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (ValueError, RecursionError):
        notices.append("result.json is not readable JSON and was left aside.")
        return {}
    return found if isinstance(found, dict) else {}


def _read_log(path: Path, notices: list[str]) -> list[dict]:
    """Lines of a log in order of step; of a step logged twice (after a resume) the later line counts."""
    kept: dict[tuple[int, str], dict] = {}
    bad, twice, number = [], 0, 0
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                record = _record(line) if line.strip() else {}
                if record:
                    twice += (record["step"], record["task"]) in kept
                    kept[record["step"], record["task"]] = record
                elif record is None:
                    bad.append(number)
    if bad and bad[-1] == number:
        notices.append(
            f"The last line of {path.name} (line {bad.pop():,}) is cut off, as by a crash or a write under "
            "way; it was left out."
        )
    if bad:
        notices.append(
            f"{path.name}: {len(bad):,} unreadable lines were left out (the first is line {bad[0]:,})."
        )
    if twice:
        notices.append(
            f"{path.name}: {twice:,} steps are logged twice, as after a resume; the later lines count."
        )
    records = sorted(kept.values(), key=lambda record: record["step"])
    broken = [record["step"] for record in records if record["broken"]]
    if broken:
        notices.append(
            f"{path.name}: the loss is not a finite number in {len(broken):,} line(s) "
            f"(first at step {broken[0]:,})."
        )
    return records


def _record(line: str) -> dict | None:
    """One log line with only what is well-formed in it; None when it is not a log line."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step, stage = (_number(data.get(key)) if isinstance(data, dict) else None for key in ("step", "stage"))
    if step is None or stage is None or not isinstance(data.get("task"), str):
        return None
    record = {key: number for key, value in data.items() if (number := _number(value)) is not None}
    record |= {"step": int(step), "stage": int(stage), "task": data["task"]}
    for key in ("losses", "accuracy", "chance", "chance_loss"):
        found = data.get(key) if isinstance(data.get(key), dict) else {}
        record[key] = {
            head: number for head, value in found.items() if (number := _number(value)) is not None
        }
    losses = data["losses"] if isinstance(data.get("losses"), dict) else {}
    values = [data.get("loss"), *losses.values()]
    record["broken"] = any(isinstance(value, float) and not math.isfinite(value) for value in values)
    return record


def _number(value: object) -> float | None:
    """A finite number (not true, false or beyond 1e300) or None."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if number and abs(value) <= 1e300 else None
