"""What a pre-training run has written, read for its report: train.jsonl, eval.jsonl, result.json and the
newest checkpoint's recipe.yaml. No tensors here.

One of the two logs is enough; what is damaged is left out and mentioned."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ernie2.config import ConfigError, CurriculumConfig, build, load_yaml
from ernie2.curriculum import make_plan

LOGS = ("train.jsonl", "eval.jsonl")


class Stage:
    """Optimizer steps `start` to `stop`, with sums over their lines of train.jsonl.

    Attributes:
        tasks: Task -> real tokens trained on.
        seconds: Of training, without evaluations and saves; 0: not logged.
        padding, waiting: Shares of padded tokens and of time spent on waiting for data; None: not logged."""

    def __init__(self, number: int, start: int, stop: int, lines: list[dict]) -> None:
        self.number, self.start, self.stop, self.tasks = number, start, stop, Counter()
        self.seconds = waited = padded = 0.0
        for line in lines:  # one a task and log step, with the task's tokens since the log step before
            tokens = line.get("tokens", 0.0)
            seconds = tokens / line["tokens_per_s"] if line.get("tokens_per_s") else 0.0
            self.tasks[line["task"]] += tokens
            self.seconds += seconds
            waited += seconds * line.get("data_wait_share", 0.0)
            padded += line.get("padded_tokens", 0.0)
        self.tokens = self.tasks.total()
        self.padding = max(1 - self.tokens / padded, 0.0) if padded else None
        self.waiting = waited / self.seconds if self.seconds else None


class Run:
    """The logs of a run in any state.

    Attributes:
        train, evals: Lines of the two logs in order of step.
        tasks, first_stage: In order of first appearance, and the stage each starts in.
        result, recipe: Numbers of result.json; section -> settings of the newest checkpoint.
        silent: Seconds since the logs last grew.
        notices: What a reader of the page must know of damaged files."""

    def __init__(self, out_dir: str | Path) -> None:
        """Raises ConfigError where there is no log."""
        self.folder, self.notices = Path(out_dir), []
        self.train, self.evals = (self._read_log(self.folder / name) for name in LOGS)
        self.lines = sorted(self.train + self.evals, key=lambda line: line["step"])
        if not self.lines:
            remedy = "give the out_dir of a run after its first log step (fine-tuning logs in metrics.jsonl)"
            raise ConfigError(f"{out_dir}: no line of pre-training in train.jsonl or eval.jsonl; {remedy}")
        if not self.evals:
            self.notices.append("eval.jsonl has nothing yet: dev results appear after the first evaluation.")
        times = [path.stat().st_mtime for name in LOGS if (path := self.folder / name).is_file()]
        self.silent = max(time.time() - max(times), 0.0)
        self.first_stage = {line["task"]: line["stage"] for line in reversed(self.lines)}
        self.tasks = list(dict.fromkeys(line["task"] for line in self.lines))
        self.last_step: int = self.lines[-1]["step"]
        self.skipped = int(max((line.get("skipped_steps", 0) for line in self.train), default=0))

        saved = max(self.folder.glob("step_*/recipe.yaml"), default=None)
        self.checkpoint = saved.parent.name if saved else None
        result, recipe = self._read(self.folder / "result.json"), self._read(saved) if saved else {}
        self.result = _numbers(result)
        self.recipe = {name: section for name, section in recipe.items() if isinstance(section, dict)}
        self.name = str(recipe.get("name") or result.get("name") or self.folder.resolve().name)

        ends = {line["stage"]: line["step"] for line in self.lines}  # each stage's end is logged
        starts = dict(zip(ends, [0, *ends.values()], strict=False))
        self.stages = [
            Stage(number, starts[number], end, [line for line in self.train if line["stage"] == number])
            for number, end in ends.items()
        ]
        self.whole = Stage(0, 0, self.last_step, self.train)
        self.planned = self._planned()

    def _read(self, path: Path) -> dict:
        """A file of settings, JSON or YAML; empty where it is missing or damaged."""
        try:
            return load_yaml(path) if path.is_file() else {}
        except (ConfigError, RecursionError) as error:
            self.notices.append(f"{path.name} was left out: {error}")
            return {}

    def _read_log(self, path: Path) -> list[dict]:
        """Lines of a log in order of step; of a step logged twice (after a resume) the later line counts."""
        kept, bad = {}, []
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        for number, line in enumerate(text.split("\n"), 1):
            if record := _record(line):
                kept[record["step"], record["task"]] = record
            if line.strip() and (not record or re.search(r": *-?(NaN|Infinity)\b", line)):
                bad.append(number)
        if bad:
            what = f"{len(bad):,} lines are damaged or hold numbers that are not finite; left out"
            self.notices.append(f"{path.name}: {what} (the first is line {bad[0]:,}).")
        return sorted(kept.values(), key=lambda record: record["step"])

    def _planned(self) -> dict[int, int]:
        """Stage number (from 0) -> planned optimizer steps, by the checkpoint's recipe; empty without one."""
        try:
            plan = make_plan(build(CurriculumConfig, self.recipe["curriculum"], "recipe.yaml"))
        except (KeyError, ConfigError):
            return {}
        end = int(_numbers(self.recipe.get("runtime")).get("max_steps") or plan.steps)
        return {stage.number: min(stage.last_step, end) - min(stage.first_step, end) for stage in plan.stages}

    def heads(self, task: str) -> list[str]:
        """Heads of a task: its own (sentence or token) before the shared masked_lm."""
        lines = [line["losses"] | line["accuracy"] for line in self.lines if line["task"] == task]
        return sorted({head: None for line in lines for head in line}, key=lambda head: head == "masked_lm")

    def stage_name(self, number: int) -> str:
        """Stages count from 1, as in the paper's Table 7, also when the logs count from 0."""
        return f"Stage {number + (self.lines[0]['stage'] == 0)}"

    def dev(self, task: str) -> list[dict]:
        """Evaluations of a task in order of step."""
        return [line for line in self.evals if line["task"] == task]

    def since_own_stage(self, task: str) -> list[dict]:
        """Evaluations of a task from the end of its first stage on; empty while no other stage follows."""
        own = self.first_stage[task]
        ends = [line["step"] for line in self.dev(task) if line["stage"] == own]
        if not ends or own == self.stages[-1].number:
            return []
        return [line for line in self.dev(task) if line["step"] >= ends[-1]]


def _record(line: str) -> dict | None:
    """One log line with only what is well-formed in it; None when it is not a log line."""
    try:
        data = json.loads(line)
        record = _numbers(data)
        record |= {"step": int(record["step"]), "stage": int(record["stage"]), "task": data["task"]}
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    record |= {key: _numbers(data.get(key)) for key in ("losses", "accuracy", "chance", "chance_loss")}
    return record if isinstance(data["task"], str) else None


def _numbers(values: Any) -> dict[str, float]:
    """The finite numbers of a mapping (not true, false or beyond 1e300)."""
    items = values.items() if isinstance(values, dict) else ()
    return {key: value for key, value in items if type(value) in (int, float) and abs(value) <= 1e300}
