"""Data parallelism on 1 and 2 processes of this machine, the model of docs/scaling.md beside it, and what it
says of V100s.

    python -m benchmarks.scaling [--corpus 'corpus/*.txt.gz'] [--rounds 3] [--out
    benchmarks/results/scaling.md]

A mini recipe is trained, started as run_pretrain.sh does it, at every point in turn (A, B, C, A, B, C, ...).
One process of one thread calibrates the model, together with the all-reduce alone and two unconnected runs at
once; what two processes reach is then predicted and compared. Given is the best round, which other load
disturbs least, of the medians of the rounds' log lines. Predictions for V100s come from public figures, no
GPU is measured. Needs 2 cores and about 3 minutes a round. Ends with 1 where a prediction for this machine is
off by more than 25%."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import harness
from benchmarks import scaling_runs as runs
from benchmarks.harness import ROOT, RunFailed, say, spread, table
from benchmarks.scaling_model import Cluster, Link, Step, Work, fit_compute, step_seconds
from benchmarks.scaling_runs import Point
from benchmarks.scaling_v100 import RANKS, v100_parts
from ernie2.config import Recipe, load_recipe
from ernie2.curriculum import make_plan
from ernie2.plan import balance, estimate, parameter_count
from ernie2.strict import ConfigError, cli, make_folder
from ernie2.tasks import select_tasks

FEW, MANY = 2, 8  # micro-batches of a step
ONE, ONE_MANY, BESIDE = Point(1, 1, FEW), Point(1, 1, MANY), Point(1, 1, FEW, beside=2)
TWO, TWO_MANY, THREADS = Point(2, 1, FEW), Point(2, 1, MANY), Point(1, 2, FEW)
POINTS = (ONE, TWO, ONE_MANY, TWO_MANY, BESIDE, THREADS)
CALIBRATES, PREDICTED = (ONE, ONE_MANY), (TWO, TWO_MANY)
TOLERANCE = 0.25


@dataclass
class Measured:
    """What one run of the benchmark found."""

    recipe: Recipe
    seconds: dict[Point, list[float]] = field(default_factory=dict)  # of a step, one a round
    all_reduce: dict[int, float] = field(default_factory=dict)  # bytes -> seconds between two processes
    imbalances: dict[int, float] = field(default_factory=dict)
    """Ranks -> cost of the costliest over the mean; 2 with the mini recipe, RANKS with the paper's batch."""

    @property
    def parameters(self) -> int:
        """Of the model."""
        return parameter_count(self.recipe, runs.VOCAB_ROWS)

    def best(self, point: Point) -> float:
        """Seconds of a step at a point, in the round that other load disturbed least."""
        return min(self.seconds[point])


@dataclass(frozen=True)
class Calibration:
    """The model's figures of this machine, from one process and from the all-reduce alone."""

    micro: float  # seconds of a micro-batch on one thread, nothing else running
    update: float  # seconds that a step takes besides
    contention: (
        float  # time of a step beside another process over its time alone: cores share memory and clock
    )
    link: Link  # between two processes

    @classmethod
    def of(cls, measured: Measured) -> Calibration:
        """From the points ONE, ONE_MANY and BESIDE, and the two sizes of all-reduce."""
        micro, update = fit_compute((FEW, measured.best(ONE)), (MANY, measured.best(ONE_MANY)))
        (small, quick), (large, slow) = sorted(measured.all_reduce.items())
        bandwidth = (large - small) / max(slow - quick, 1e-9)  # two ranks: as many bytes as the tensor has
        contention = max(1.0, measured.best(BESIDE) / measured.best(ONE))
        return cls(micro, update, contention, Link(bandwidth, max(quick - small / bandwidth, 0.0) / 2))


def predict(measured: Measured, found: Calibration, point: Point) -> Step:
    """The model's step of two processes (or of one alone) on this machine."""
    recipe, count = measured.recipe, point.processes
    flops = estimate(recipe, make_plan(recipe.curriculum), runs.VOCAB_ROWS, None)["flops_per_token"]
    tokens, gradients = recipe.batch.micro_tokens, 4.0 * measured.parameters
    slower = found.contention if count > 1 else 1.0
    speed, update = flops * tokens / (found.micro * slower), found.update * slower
    cluster = Cluster(speed, 1.0, per_node=2, inside=found.link, between=found.link, update_seconds=update)
    work = Work(flops, tokens, point.micro_batches, gradients, padding=0.0)
    return step_seconds(work, cluster, count, measured.imbalances.get(count, 1.0))


def measure(args: argparse.Namespace, folder: Path) -> Measured:
    """Makes the shards and runs every point in turn. Raises RunFailed."""
    path = runs.write_recipe(folder, args.corpus, args.size, args.micro_tokens)
    runs.make_shards(path)
    measured = Measured(load_recipe(path))
    for number in range(args.rounds):
        for point in POINTS:
            steps = args.steps if point.micro_batches == FEW else max(args.steps // 2, runs.FEWEST_STEPS)
            seconds = runs.train(path, point, steps, folder)
            measured.seconds.setdefault(point, []).append(seconds)
            say(f"round {number + 1}: {point.name}: {seconds * 1e3:.0f} ms a step")
    measured.all_reduce = runs.all_reduce((4096, 4 * measured.parameters), folder)
    measured.imbalances[2] = imbalance(measured.recipe, 2)
    # The paper's batch and samples of 512 tokens.
    paper = ["batch.tokens=393216", "batch.micro_tokens=6144", "batch.pool_batches=4", "model.size=base"]
    paper += ["data.max_seq_len=512", f"data.shards_dir={folder / 'shards_512'}"]
    runs.make_shards(path, paper)
    for ranks in RANKS:
        recipe = load_recipe(path, [*paper, f"batch.micro_tokens={8192 if ranks <= 48 else 6144}"])
        measured.imbalances[ranks] = imbalance(recipe, ranks)
    return measured


def imbalance(recipe: Recipe, ranks: int) -> float:
    """Cost of a step's costliest rank over the mean rank's, as the samples in the shards fall."""
    return balance(recipe, select_tasks(recipe.task_names(), "curriculum.stages"), ranks)["imbalance"]


def measured_table(measured: Measured) -> list[str]:
    """Every point: milliseconds of a step, tokens a second, factor over one process of one thread at the same
    step."""
    base, rows = {FEW: measured.best(ONE), MANY: measured.best(ONE_MANY)}, []
    for point, seconds in measured.seconds.items():
        rate = point.beside * measured.recipe.batch.micro_tokens * point.micro_batches / min(seconds)
        factor = point.beside * base[point.micro_batches] / min(seconds)
        rows.append([point.name, spread([1e3 * one for one in seconds], 0), f"{rate:,.0f}", f"{factor:.2f}"])
    return table(["run", "ms a step, best [range of rounds]", "tokens/s in all", "factor"], rows)


def inputs_table(measured: Measured, found: Calibration) -> list[str]:
    """What was measured for the model."""
    (small, quick), (large, slow) = sorted(measured.all_reduce.items())
    times = f"{1e3 * slow:.1f} ms for {large / 1e6:.1f} MB, {1e3 * quick:.2f} ms for {small / 1e3:.1f} kB"
    speed = f"{found.link.bandwidth / 1e9:.2f} GB/s, {1e6 * found.link.latency:.0f} us a hop"
    millions = measured.parameters / 1e6
    size = f"{4 * millions:.1f} MB a step ({millions:.2f} M parameters, float32)"
    tokens = measured.recipe.batch.micro_tokens
    imbalances = [f"{ranks} ranks {value:.3f}" for ranks, value in measured.imbalances.items()]
    rows = [
        ["gradients that travel, one process", size],
        ["all-reduce alone, 2 processes, gloo", f"{times}: {speed}"],
        ["micro-batch on one thread", f"{1e3 * found.micro:.0f} ms for {tokens:,} tokens"],
        ["rest of a step on one thread", f"{1e3 * found.update:.0f} ms (norm, update, log)"],
        ["contention", f"{found.contention:.2f} (a run beside another one, over a run alone)"],
        ["imbalance of micro-batches", ", ".join(imbalances)],
    ]
    return table(["input of the model", "measured"], rows)


def check_table(measured: Measured, found: Calibration) -> list[str]:
    """Measured beside predicted."""
    rows = []
    for point in (*CALIBRATES, *PREDICTED):
        step, real = predict(measured, found, point), measured.best(point)
        parts = {
            "compute": step.compute,
            "waiting": step.waiting,
            "update": step.update,
            "exchange": step.exposed,
        }
        words = " + ".join(f"{name} {1e3 * value:.0f}" for name, value in parts.items() if value)
        kind, off = "predicted" if point in PREDICTED else "calibrates", step.seconds / real - 1
        rows.append(
            [point.name, kind, f"{1e3 * real:.0f}", f"{1e3 * step.seconds:.0f} ({words})", f"{off:+.0%}"]
        )
    return table(["run", "", "measured ms", "model ms", "off"], rows)


def report(measured: Measured, found: Calibration, about: Sequence[str]) -> str:
    """The whole report in Markdown."""
    parts = [
        ("Measured", measured_table(measured)),
        ("The model's inputs, measured", inputs_table(measured, found)),
        ("The model beside the measurement", check_table(measured, found)),
        *v100_parts(measured.imbalances),
    ]
    return harness.page(
        "Scaling: data parallelism measured on this machine, predicted for V100s", about, parts
    )


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """The command line, checked."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks.scaling", description=__doc__, formatter_class=raw)
    add, corpus = parser.add_argument, [str(ROOT / "examples/zh/encyclopedia_*.txt")]
    add("--corpus", nargs="+", default=corpus, help="text files, globs; default: examples/zh")
    add("--size", default="mini", choices=("tiny", "mini", "small"), help="of the model; default mini")
    add("--micro-tokens", type=int, default=1024, help="tokens of a micro-batch; default 1024")
    add("--steps", type=int, default=20, help="optimizer steps of a training; default 20")
    add("--rounds", type=int, default=3, help="how often every point is measured; default 3")
    add("--scratch", type=Path, metavar="DIR", help="where the temporary folder goes; default: the system's")
    add("--out", type=Path, metavar="FILE.md", help="report to write")
    args = parser.parse_args(argv)
    least = {"rounds": 1, "steps": runs.FEWEST_STEPS, "micro_tokens": runs.LENGTH}
    for name, smallest in least.items():
        if getattr(args, name) < smallest:
            option, found = name.replace("_", "-"), getattr(args, name)
            raise ConfigError(f"--{option}: found {found}, expected {smallest} or more")
    args.corpus = [str(Path(name).absolute()) for name in args.corpus]
    if args.out is not None:
        make_folder(args.out.parent, "--out")
    return args


@cli
def main(argv: Sequence[str]) -> int:
    """Command line."""
    args = parse_args(argv)
    with harness.scratch_folder(args.scratch) as folder:
        facts = harness.machine_facts(folder)
        try:
            measured = measure(args, folder)
        except RunFailed as error:
            sys.stderr.write(f"error: {error}\n")
            return 1
    found = Calibration.of(measured)
    docs = "[docs/scaling.md](../../docs/scaling.md)"
    how = f"the best of {args.rounds} rounds in turn. The model and its limits: {docs}."
    harness.publish(report(measured, found, harness.about("benchmarks.scaling", argv, how, facts)), args.out)
    off = [predict(measured, found, point).seconds / measured.best(point) - 1 for point in PREDICTED]
    return int(any(abs(one) > TOLERANCE for one in off))


if __name__ == "__main__":
    main()
