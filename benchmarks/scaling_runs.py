"""Trainings of the scaling benchmark: a mini recipe in one or two processes, read from train.jsonl.

Everything is started by ernie2/launch.sh, as run_pretrain.sh does it, with its variables NPROC and OMP_NUM_THREADS.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.processes import ROOT, RunFailed, last_lines, run
from ernie2.batching import Collator, TaskStream, sample_costs
from ernie2.config import Recipe, load_recipe
from ernie2.shards import ShardReader
from ernie2.tasks import select_tasks
from ernie2.tokenizer import Vocab

LENGTH = 128  # tokens of a sample, at most
VOCAB_ROWS = 8000
TASKS = ("knowledge_masking", "sentence_distance")
WARM_UP = 2  # log lines left out
LOG_EVERY = 2
_LAUNCH = 'source ernie2/env.sh; cd "$ERNIE2_ROOT"; ernie2_environment; ernie2_processes; ernie2_train "$@"'


@dataclass(frozen=True)
class Point:
    """A way to run the recipe."""

    processes: int
    threads: int
    """Of a process."""
    micro_batches: int
    """Of a step, over all processes."""
    beside: int = 1
    """So many such runs at the same time, which know nothing of each other."""

    @property
    def name(self) -> str:
        """For tables."""
        alone = "" if self.beside == 1 else f", {self.beside} unconnected runs at once"
        return (f"{self.processes} process{'es' if self.processes > 1 else ''} x {self.threads} "
                f"thread{'s' if self.threads > 1 else ''}, {self.micro_batches} micro-batches{alone}")


def write_recipe(folder: Path, corpus: Sequence[str], shards: Path | None, vocab: Path | None, size: str,
                 micro_tokens: int) -> Path:
    """Writes the recipe that is trained.

    Args:
        folder: for the recipe, the shards where there are none, and the runs.
        corpus: text files, globs; needed where there are no shards.
        shards: shards of TASKS.
        vocab: their vocabulary.
        size: of the model.
        micro_tokens: of a micro-batch.
    """
    data = {"corpus": [*corpus], "shards_dir": str(shards or folder / "shards"), "max_seq_len": LENGTH, "dev_share": 0.1,
            "vocab_size": VOCAB_ROWS}
    recipe = {"name": "scaling_benchmark", "out_dir": str(folder / "out"), "seed": 1,
              "model": {"size": size, "vocab_file": str(vocab or folder / "vocab.txt"), "vocab_rows": VOCAB_ROWS},
              "data": data, "batch": {"tokens": micro_tokens * 2, "micro_tokens": micro_tokens},
              "curriculum": {"stages": [[*TASKS]], "steps_per_task": 1000}, "lr": {"peak": 1e-4, "warmup_steps": 100},
              "runtime": {"log_every": LOG_EVERY, "eval_every": 100_000, "save_every": 100_000, "eval_tokens": micro_tokens}}
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe, ensure_ascii=False, indent=1), encoding="utf-8")  # JSON is YAML
    return path


def make_shards(recipe: Path, overrides: Sequence[str] = ()) -> None:
    """Makes the shards where they are missing. Raises RunFailed."""
    run([sys.executable, "-m", "data_gen", str(recipe), *overrides])


def train(recipe: Path, point: Point, steps: int, folder: Path) -> float:
    """Trains for `steps` steps at a point; seconds of an optimizer step, the median of its log lines after the warm-up.

    Of unconnected runs the mean, over the time when all of them were running.

    Raises:
        RunFailed: a training failed, or wrote too few lines.
    """
    with ThreadPoolExecutor(point.beside) as pool:
        return statistics.fmean(pool.map(lambda number: _train_once(recipe, point, steps, folder / f"run_{number}"),
                                         range(point.beside)))


def _train_once(recipe: Path, point: Point, steps: int, out: Path) -> float:
    shutil.rmtree(out, ignore_errors=True)
    micro = json.loads(recipe.read_text(encoding="utf-8"))["batch"]["micro_tokens"]
    overrides = [f"out_dir={out}", f"runtime.max_steps={steps}", f"batch.tokens={micro * point.micro_batches}"]
    _launch(point, "ernie2.pretrain", str(recipe), *overrides)
    seconds = step_seconds(out / "train.jsonl", micro * point.micro_batches)
    shutil.rmtree(out)
    return statistics.median(seconds)


def _launch(point: Point, module: str, *arguments: str) -> str:
    """Runs a module in the processes and threads of a point, by the project's own launcher; what it printed."""
    environment = {"NPROC": str(point.processes), "OMP_NUM_THREADS": str(point.threads), "MKL_NUM_THREADS": str(point.threads),
                   "ERNIE2_PYTHON": sys.executable, "NNODES": "1", "GPUS": ""}
    return run(["bash", "-euc", _LAUNCH, "bash", module, *arguments], ROOT, environment).output


def step_seconds(log: Path, tokens: int) -> list[float]:
    """Seconds of a step from each log line of train.jsonl after the warm-up.

    Args:
        log: the file; a log line has a record for each task.
        tokens: of an optimizer step.

    Raises:
        RunFailed: there are too few.
    """
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    rates = list({record["step"]: record["tokens_per_s"] for record in records}.values())[WARM_UP:]
    if not rates:
        raise RunFailed(f"{log}: {len(records)} lines are too few to measure by; give --steps more than "
                        f"{(WARM_UP + 1) * LOG_EVERY}")
    return [tokens / rate for rate in rates]


def all_reduce(sizes: Sequence[int], rounds: int, folder: Path) -> dict[int, float]:
    """Bytes -> seconds (median) of an all-reduce of so many between two processes of one thread. Raises RunFailed."""
    result = folder / "all_reduce.json"
    result.unlink(missing_ok=True)
    output = _launch(Point(2, 1, 2), "benchmarks.scaling_allreduce", str(result), str(rounds), *map(str, sizes))
    if not result.is_file():
        raise RunFailed(f"the all-reduce left no result: {last_lines(output)}")
    return {int(size): statistics.median(seconds) for size, seconds in json.loads(result.read_text(encoding="utf-8")).items()}


def imbalance(recipe: Recipe, ranks: int, steps: int = 64) -> float:
    """Cost of a step's costliest rank over the mean rank's, as the shards' samples fall; the mean over `steps` steps.

    The cost of a micro-batch is its floating-point operations, padding and the square of its length included; micro-batches
    are dealt out to ranks as in ernie2.pretrain.
    """
    ratios = []
    for stream, reader in _streams(recipe):
        lengths = reader.lengths()
        for number in range(steps // len(recipe.task_names())):
            costs = np.zeros(ranks)
            for micro, samples in enumerate(stream.batch(number)):
                costs[micro % ranks] += len(samples) * sample_costs(lengths[samples].max(), recipe.model.size)
            ratios.append(costs.max() / costs.mean())
    return float(np.mean(ratios))


def input_rate(recipe: Recipe, micro_batches: int = 24) -> float:
    """Tokens a second that one process masks and pads, in its one thread."""
    collate = Collator(Vocab.load(recipe.model.vocab_file), recipe.data.mask_prob)
    tokens, seconds = 0, 0.0
    for stream, _ in _streams(recipe):
        samples = stream.batch(0)
        for micro in range(micro_batches // len(recipe.task_names())):
            begin = time.perf_counter()
            batch = stream.micro_batch(0, micro, samples[micro % len(samples)], recipe.masking.levels(0), collate)
            seconds += time.perf_counter() - begin
            tokens += batch.tokens
    return tokens / seconds


def _streams(recipe: Recipe) -> list[tuple[TaskStream, ShardReader]]:
    digest = Vocab.load(recipe.model.vocab_file).digest
    readers = [(ShardReader(Path(recipe.data.shards_dir) / task.name, "train", task, digest), task)
               for task in select_tasks(recipe.task_names(), "curriculum.stages")]
    return [(TaskStream(reader, task, recipe), reader) for reader, task in readers]


def load(recipe: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe, with overrides."""
    return load_recipe(recipe, [*overrides])
