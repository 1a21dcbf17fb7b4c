"""What the scaling benchmark measures: trainings of a mini recipe in one or two processes, the all-reduce
alone, imbalance.

Everything is started by ernie2/launch.sh, as run_pretrain.sh does it, with its variables NPROC and
OMP_NUM_THREADS."""

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

from benchmarks.harness import ROOT, RunFailed, call_command, run
from benchmarks.harness import write_recipe as write_recipe_file

LENGTH = 128  # tokens of a sample, at most
VOCAB_ROWS = 8000
TASKS = ("knowledge_masking", "sentence_distance")
WARM_UP = 2  # log lines left out
LOG_EVERY = 2
FEWEST_STEPS = (WARM_UP + 2) * LOG_EVERY
ALL_REDUCE_ROUNDS = 20
_LAUNCH = 'source ernie2/env.sh; cd "$ERNIE2_ROOT"; ernie2_environment; ernie2_processes; ernie2_train "$@"'


@dataclass(frozen=True)
class Point:
    """A way to run the recipe."""

    processes: int
    threads: int  # of a process
    micro_batches: int  # of a step, over all processes
    beside: int = 1  # so many such runs at the same time, which know nothing of each other

    @property
    def name(self) -> str:
        """For tables."""
        processes = f"{self.processes} process{'es' * (self.processes > 1)}"
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        alone = "" if self.beside == 1 else f", {self.beside} unconnected runs at once"
        return f"{processes} x {threads}, {self.micro_batches} micro-batches{alone}"


def write_recipe(folder: Path, corpus: Sequence[str], size: str, micro_tokens: int) -> Path:
    """Writes the recipe that is trained: a model of `size`, shards of `corpus`, everything inside
    `folder`."""
    keys = {
        "out_dir": folder / "out",
        "model.size": size,
        "model.vocab_file": folder / "vocab.txt",
        "model.vocab_rows": VOCAB_ROWS,
        "data.vocab_size": VOCAB_ROWS,
        "data.corpus": corpus,
        "data.shards_dir": folder / "shards",
        "data.max_seq_len": LENGTH,
        "data.dev_share": 0.1,
        "batch.tokens": micro_tokens * 2,
        "batch.micro_tokens": micro_tokens,
        "curriculum.stages": [TASKS],
        "curriculum.steps_per_task": 1000,
        "runtime.log_every": LOG_EVERY,
        "runtime.eval_every": 100_000,
        "runtime.save_every": 100_000,
        "runtime.eval_tokens": micro_tokens,
    }
    return write_recipe_file(folder / "recipe.yaml", keys)


def make_shards(recipe: Path, overrides: Sequence[str] = ()) -> None:
    """Makes the shards where they are missing. Raises RunFailed."""
    run([sys.executable, "-m", "data_gen", recipe, *overrides])


def train(recipe: Path, point: Point, steps: int, folder: Path) -> float:
    """Seconds of an optimizer step at a point, the median of the log lines of a training of `steps` steps.

    Of unconnected runs the mean, over the time when all of them were running.

    Raises:
        RunFailed: a training failed, or wrote too few lines."""
    micro = json.loads(recipe.read_text(encoding="utf-8"))["batch"]["micro_tokens"]
    tokens = micro * point.micro_batches

    def once(out: Path) -> float:
        shutil.rmtree(out, ignore_errors=True)
        overrides = [f"out_dir={out}", f"runtime.max_steps={steps}", f"batch.tokens={tokens}"]
        launch(point, "ernie2.pretrain", recipe, *overrides)
        return statistics.median(step_seconds(out / "train.jsonl", tokens))

    with ThreadPoolExecutor(point.beside) as pool:
        return statistics.fmean(pool.map(once, [folder / f"run_{number}" for number in range(point.beside)]))


def launch(point: Point, module: str, *arguments: object) -> None:
    """Runs a module in the processes and threads of a point, by the project's own launcher. Raises
    RunFailed."""
    threads = str(point.threads)
    environment = {"NPROC": str(point.processes), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    environment |= {"ERNIE2_PYTHON": sys.executable, "NNODES": "1", "GPUS": ""}
    run(["bash", "-euc", _LAUNCH, "bash", module, *arguments], ROOT, environment)


def step_seconds(log: Path, tokens: int) -> list[float]:
    """Seconds of a step of `tokens` tokens, from each log line of train.jsonl after the warm-up.

    Raises:
        RunFailed: there are too few."""
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    rates = list({record["step"]: record["tokens_per_s"] for record in records}.values())[WARM_UP:]
    if not rates:
        least = (WARM_UP + 1) * LOG_EVERY
        raise RunFailed(
            f"{log}: {len(records)} lines are too few to measure by; give --steps more than {least}"
        )
    return [tokens / rate for rate in rates]


def all_reduce(sizes: Sequence[int], folder: Path) -> dict[int, float]:
    """Bytes -> seconds (median) of an all-reduce of so many between two processes of one thread. Raises
    RunFailed."""
    result = folder / "all_reduce.json"
    _, _, *command = call_command("benchmarks.scaling_runs", "time_all_reduce", result, sizes=sizes)
    launch(Point(2, 1, 2), *command)
    seconds = json.loads(result.read_text(encoding="utf-8"))
    return {int(size): statistics.median(rounds) for size, rounds in seconds.items()}


def time_all_reduce(sizes: Sequence[int]) -> dict[int, list[float]] | None:
    """On every rank of a run: bytes -> seconds of the slowest rank, one a round; the sizes in turn, float32.
    On rank 0."""
    import paddle
    import paddle.distributed as dist

    dist.init_parallel_env()
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(ALL_REDUCE_ROUNDS + 1):
        for size in sizes:
            tensor = paddle.ones([max(1, size // 4)], "float32")
            dist.barrier()
            begin = time.perf_counter()
            dist.all_reduce(tensor)
            float(tensor[0])  # has arrived
            slowest = paddle.to_tensor([time.perf_counter() - begin], "float64")
            dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
            seconds[size].append(float(slowest))
    opened = {size: rounds[1:] for size, rounds in seconds.items()}  # the first opens the connections
    return opened if dist.get_rank() == 0 else None
