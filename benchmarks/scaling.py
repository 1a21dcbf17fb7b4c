"""Data parallelism on 1 and 2 processes of this machine, the model of docs/scaling.md beside it, and what it
says of V100s.

    python -m benchmarks.scaling [--corpus 'corpus/*.txt.gz'] [--out benchmarks/results/scaling.md]

A mini recipe is trained, started as run_pretrain.sh does it, at every point in turn (A, B, C, A, B, C, ...).
One process of one thread calibrates the model, together with the all-reduce alone and two unconnected runs at
once; what two processes reach is then predicted and compared. Shown is the best round, which other load
disturbs least, of the medians of the rounds' log lines. Predictions for V100s come from public figures, no
GPU is measured. Needs 2 cores and about 3 minutes a round. Ends with 1 where a prediction for this machine is
off by more than 25%."""

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import ROOT, Run, run, say, spread, table
from benchmarks.scaling_model import Cluster, Link, Step, Work, fit_compute, step_seconds
from benchmarks.scaling_v100 import v100_parts
from ernie2.config import Recipe, load_recipe
from ernie2.curriculum import make_plan
from ernie2.plan import balance, estimate, parameter_count
from ernie2.strict import cli
from ernie2.tasks import select_tasks

LENGTH, VOCAB_ROWS, MICRO_TOKENS = 128, 8000, 1024
WARM_UP, LOG_EVERY = 2, 2  # log lines left out, steps of a line
FEWEST_STEPS = (WARM_UP + 2) * LOG_EVERY
TOLERANCE = 0.25
LAUNCH = 'source ernie2/env.sh; cd "$ERNIE2_ROOT"; ernie2_environment; ernie2_processes; ernie2_train "$@"'


@dataclass(frozen=True)
class Point:
    """A way to run the recipe, each process on one thread."""

    processes: int
    micro_batches: int  # of a step, over all processes
    beside: int = 1  # so many such runs at the same time, which know nothing of each other

    @property
    def name(self) -> str:
        """For tables."""
        processes = f"{self.processes} process{'es' * (self.processes > 1)}"
        alone = "" if self.beside == 1 else f", {self.beside} unconnected runs at once"
        return f"{processes}, {self.micro_batches} micro-batches{alone}"


FEW, MANY = 2, 8  # micro-batches of a step
ONE, ONE_MANY, BESIDE = Point(1, FEW), Point(1, MANY), Point(1, FEW, beside=2)
TWO, TWO_MANY = Point(2, FEW), Point(2, MANY)
POINTS = (ONE, TWO, ONE_MANY, TWO_MANY, BESIDE)
PREDICTED = (TWO, TWO_MANY)


@dataclass
class Measured:
    """What one run of the benchmark found, and the model of this machine that it gives."""

    recipe: Recipe
    seconds: dict[Point, list[float]]  # of a step, one a round
    all_reduce: Sequence[tuple[int, float]]  # (bytes, seconds) between two processes, small and large
    imbalance: float  # of two ranks: cost of the costliest over the mean

    def __post_init__(self) -> None:
        """Calibrates the model."""
        self.parameters = parameter_count(self.recipe, VOCAB_ROWS)
        self.best = {point: min(rounds) for point, rounds in self.seconds.items()}
        self.micro, self.update = fit_compute((FEW, self.best[ONE]), (MANY, self.best[ONE_MANY]))
        # A step beside another process over a step alone: cores share memory and clock.
        self.contention = max(1.0, self.best[BESIDE] / self.best[ONE])
        (small, quick), (large, slow) = self.all_reduce
        bandwidth = (large - small) / max(slow - quick, 1e-9)  # two ranks: as many bytes as the tensor has
        self.link = Link(bandwidth, max(quick - small / bandwidth, 0.0) / 2)

    def predict(self, point: Point) -> Step:
        """The model's step of two processes (or of one alone) on this machine."""
        flops = estimate(self.recipe, make_plan(self.recipe.curriculum), VOCAB_ROWS, None)["flops_per_token"]
        slower = self.contention if point.processes > 1 else 1.0
        speed, update = flops * MICRO_TOKENS / (self.micro * slower), self.update * slower
        cluster = Cluster(speed, 1.0, per_node=2, inside=self.link, between=self.link, update_seconds=update)
        work = Work(flops, MICRO_TOKENS, point.micro_batches, 4.0 * self.parameters, padding=0.0)
        return step_seconds(work, cluster, point.processes, self.imbalance)

    def off(self, point: Point) -> float:
        """By what share a prediction is off."""
        return self.predict(point).seconds / self.best[point] - 1


def write_recipe(folder: Path, corpus: Sequence[str], size: str) -> Path:
    """Writes the recipe that is trained: a model of `size`, shards of `corpus`, all inside `folder`."""
    keys = {"out_dir": folder / "out", "model.size": size, "model.vocab_rows": VOCAB_ROWS}
    keys |= {"model.vocab_file": folder / "vocab.txt", "data.vocab_size": VOCAB_ROWS, "data.corpus": corpus}
    keys |= {"data.shards_dir": folder / "shards", "data.max_seq_len": LENGTH, "data.dev_share": 0.1}
    keys |= {"batch.tokens": FEW * MICRO_TOKENS, "batch.micro_tokens": MICRO_TOKENS}
    keys |= {
        "curriculum.stages": [["knowledge_masking", "sentence_distance"]],
        "runtime.log_every": LOG_EVERY,
    }
    keys |= {"curriculum.steps_per_task": 1000, "runtime.eval_tokens": MICRO_TOKENS}
    keys |= {"runtime.eval_every": 100_000, "runtime.save_every": 100_000}
    return harness.write_recipe(folder / "recipe.yaml", keys)


def measure(args: argparse.Namespace, folder: Path) -> Measured:
    """Makes the shards and runs every point in turn. Raises RunFailed."""
    path = write_recipe(folder, args.corpus, args.size)
    run([sys.executable, "-m", "data_gen", path])
    recipe, seconds = load_recipe(path), {point: [] for point in POINTS}
    for number in range(args.rounds):
        for point in POINTS:
            steps = max(args.steps // (2 if point.micro_batches == MANY else 1), FEWEST_STEPS)
            seconds[point].append(train(path, point, steps, folder))
            say(f"round {number + 1}: {point.name}: {seconds[point][-1] * 1e3:.0f} ms a step")
    sizes = (4096, 4 * parameter_count(recipe, VOCAB_ROWS))  # of a flag, of all gradients
    command = harness.call_command("benchmarks.scaling", "time_all_reduce", sizes=sizes)
    all_reduce = [tuple(pair) for pair in harness.result_of(launch(TWO, *command[2:]))]
    tasks = select_tasks(recipe.task_names(), "curriculum.stages")
    return Measured(recipe, seconds, all_reduce, balance(recipe, tasks, 2)["imbalance"])


def train(recipe: Path, point: Point, steps: int, folder: Path) -> float:
    """Seconds of an optimizer step at a point, the median of the log lines of a training of `steps` steps; of
    unconnected runs the mean. Raises RunFailed."""
    tokens = MICRO_TOKENS * point.micro_batches

    def once(out: Path) -> float:
        shutil.rmtree(out, ignore_errors=True)
        overrides = [f"out_dir={out}", f"runtime.max_steps={steps}", f"batch.tokens={tokens}"]
        launch(point, "ernie2.pretrain", recipe, *overrides)
        return statistics.median(log_seconds(out / "train.jsonl", tokens))

    with ThreadPoolExecutor(point.beside) as pool:
        return statistics.fmean(pool.map(once, [folder / f"run_{number}" for number in range(point.beside)]))


def launch(point: Point, module: str, *arguments: object) -> Run:
    """Runs a module in the processes of a point, by the project's own launcher. Raises RunFailed."""
    environment = {"NPROC": str(point.processes), "ERNIE2_PYTHON": sys.executable, "NNODES": "1", "GPUS": ""}
    return run(["bash", "-euc", LAUNCH, "bash", module, *arguments], ROOT, environment)


def log_seconds(log: Path, tokens: int) -> list[float]:
    """Seconds of a step of `tokens` tokens, from each log line of train.jsonl after the warm-up."""
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    rates = {record["step"]: record["tokens_per_s"] for record in records}
    return [tokens / rate for rate in list(rates.values())[WARM_UP:]]


def time_all_reduce(sizes: Sequence[int]) -> list[tuple[int, float]]:
    """On every rank of a run: (bytes, median seconds of the slowest rank) of an all-reduce, float32."""
    import paddle
    import paddle.distributed as dist

    dist.init_parallel_env()
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(21):
        for size in sizes:
            tensor = paddle.ones([max(1, size // 4)], "float32")
            dist.barrier()
            begin = time.perf_counter()
            dist.all_reduce(tensor)
            float(tensor[0])  # has arrived
            slowest = paddle.to_tensor([time.perf_counter() - begin], "float64")
            dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
            seconds[size].append(float(slowest))
    # The first round opens the connections.
    return [(size, statistics.median(rounds[1:])) for size, rounds in seconds.items()]


def points_table(measured: Measured) -> list[str]:
    """Every point: measured, beside one process at the same step, and by the model."""
    rows = []
    for point, seconds in measured.seconds.items():
        rate = point.beside * MICRO_TOKENS * point.micro_batches / min(seconds)
        factor = point.beside * measured.best[Point(1, point.micro_batches)] / min(seconds)
        cells = [point.name, spread([1e3 * one for one in seconds], 0), f"{rate:,.0f}", f"{factor:.2f}"]
        step = measured.predict(point)
        text = f"compute {1e3 * step.compute:.0f} + waiting {1e3 * step.waiting:.0f}"
        text += f" + update {1e3 * step.update:.0f} + exchange {1e3 * step.exposed:.0f}"
        predicted = [f"{1e3 * step.seconds:.0f} ({text})", f"{measured.off(point):+.0%}"]
        rows.append(cells + (predicted if point in PREDICTED else ["calibrates", ""]))
    return table(["run", "ms a step, best [range]", "tokens/s in all", "factor", "model ms", "off"], rows)


def model_inputs(measured: Measured) -> list[str]:
    """What was measured for the model."""
    (small, quick), (large, slow) = measured.all_reduce
    times = f"{1e3 * slow:.1f} ms for {large / 1e6:.1f} MB, {1e3 * quick:.2f} ms for {small} bytes"
    speed = f"{measured.link.bandwidth / 1e9:.2f} GB/s, {1e6 * measured.link.latency:.0f} us a hop"
    rest = f"{1e3 * measured.update:.0f} ms for the rest of a step (norm, update, log)"
    return [
        f"- all-reduce alone, 2 processes, gloo: {times}: {speed}",
        f"- one process: {1e3 * measured.micro:.0f} ms for {MICRO_TOKENS:,} tokens, {rest}",
        f"- beside another one it takes {measured.contention:.2f} times as long",
        f"- imbalance of micro-batches, 2 ranks: {measured.imbalance:.3f}",
    ]


@cli
def main(argv: Sequence[str]) -> int:
    """Command line."""
    parser = harness.parser("benchmarks.scaling", __doc__)
    add, corpus = parser.add_argument, [str(ROOT / "examples/zh/encyclopedia_*.txt")]
    add("--corpus", nargs="+", default=corpus, help="text files, globs; default: examples/zh")
    add("--size", default="mini", choices=("tiny", "mini", "small"), help="of the model; default mini")
    add("--steps", type=harness.positive, default=20, help="optimizer steps of a training; default 20")
    args = parser.parse_args(argv)
    args.corpus = [str(Path(name).absolute()) for name in args.corpus]
    with harness.scratch_folder(args.out) as folder:
        facts = [*harness.machine_facts(), f"- the best of {args.rounds} rounds in turn"]
        measured = measure(args, folder)
    parts = [("Measured, and the model beside it", points_table(measured))]
    parts += [("The model's inputs, measured", model_inputs(measured)), *v100_parts()]
    harness.publish("benchmarks.scaling", argv, facts, parts, args.out)
    return int(any(abs(measured.off(point)) > TOLERANCE for point in PREDICTED))


if __name__ == "__main__":
    main()
