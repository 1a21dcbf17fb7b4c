"""Data parallelism on 1 and 2 processes of this machine, the model of docs/scaling.md beside it, and what it says of V100s.

    python -m benchmarks.scaling [--corpus 'corpus/*.txt.gz'] [--rounds 3] [--out benchmarks/results/scaling.md]

A mini recipe is trained, started as run_pretrain.sh does it, at every point in turn (A, B, C, A, B, C, ...). One process
of one thread calibrates the model, together with the all-reduce alone and two unconnected runs at once; what two processes
reach is then predicted and compared. Given is the best round, which other load disturbs least, of the medians of the rounds'
log lines. Predictions for V100s come from public figures, no GPU is measured. Needs 2 cores and about 3 minutes a round.
Ends with 1 where a prediction for this machine is off by more than 25%.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import scaling_runs as runs
from benchmarks.datagen import scratch_folder
from benchmarks.processes import ROOT, RunFailed
from benchmarks.report import machine_facts
from benchmarks.scaling_report import report
from benchmarks.scaling_runs import Point
from benchmarks.scaling_v100 import RANKS
from ernie2.config import Recipe
from ernie2.curriculum import make_plan
from ernie2.memory import parameter_count
from ernie2.plan import estimate
from ernie2.scaling import Cluster, Link, Step, Work, fit_compute, step_seconds
from ernie2.strict import ConfigError, cli, make_folder

FEW, MANY = 2, 8  # micro-batches of a step
ONE, ONE_MANY, BESIDE = Point(1, 1, FEW), Point(1, 1, MANY), Point(1, 1, FEW, beside=2)
TWO, TWO_MANY, THREADS = Point(2, 1, FEW), Point(2, 1, MANY), Point(1, 2, FEW)
POINTS = (ONE, TWO, ONE_MANY, TWO_MANY, BESIDE, THREADS)
ALL_REDUCE_ROUNDS = 20
TOLERANCE = 0.25
DEFAULT_CORPUS = ROOT / "examples/zh/encyclopedia_*.txt"


@dataclass
class Measured:
    """What one run of the benchmark found."""

    recipe: Recipe
    seconds: dict[Point, list[float]] = field(default_factory=lambda: {point: [] for point in POINTS})
    """Of a step, one a round."""
    all_reduce: dict[int, float] = field(default_factory=dict)
    """Bytes -> seconds between two processes."""
    imbalances: dict[int, float] = field(default_factory=dict)
    """Ranks -> cost of the costliest over the mean; 2 with the mini recipe, RANKS with the paper's batch."""
    input_rate: float = 0.0
    """Tokens a second that a process masks and pads."""

    @property
    def parameters(self) -> int:
        """Of the model."""
        return parameter_count(self.recipe, runs.VOCAB_ROWS)

    def best(self, point: Point) -> float:
        """Seconds of a step at a point, in the round that other load disturbed least."""
        return min(self.seconds[point])

    def tokens_per_s(self, point: Point) -> float:
        """Real tokens a second at a point, over all its processes."""
        return self.recipe.batch.micro_tokens * point.micro_batches / self.best(point)


@dataclass(frozen=True)
class Calibration:
    """The model's figures of this machine, from one process and from the all-reduce alone."""

    micro: float
    """Seconds of a micro-batch on one thread, nothing else running."""
    update: float
    """Seconds that a step takes besides."""
    contention: float
    """Time of a step beside another process over its time alone: the cores share memory and clock."""
    link: Link
    """Between two processes."""

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
    recipe = measured.recipe
    flops = estimate(recipe, make_plan(recipe.curriculum), runs.VOCAB_ROWS, None)["flops_per_token"]
    work = Work(flops, recipe.batch.micro_tokens, point.micro_batches, gradient_bytes=4.0 * measured.parameters,
                padding=0.0)
    slower = found.contention if point.processes > 1 else 1.0
    cluster = Cluster(flops * recipe.batch.micro_tokens / (found.micro * slower), memory_bandwidth=1.0, per_node=2,
                      inside=found.link, between=found.link, update_seconds=found.update * slower)
    return step_seconds(work, cluster, point.processes, measured.imbalances.get(point.processes, 1.0))


def measure(args: argparse.Namespace, folder: Path) -> Measured:
    """Makes the shards and runs every point in turn."""
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{(time.monotonic() - started) / 60:5.1f} min] {text}", flush=True)

    path = runs.write_recipe(folder, args.corpus, args.shards, args.vocab, args.size, args.micro_tokens)
    if args.shards is None:
        runs.make_shards(path)
    measured = Measured(runs.load(path))
    sizes = (4096, 4 * measured.parameters)
    for number in range(args.rounds):
        for point in POINTS:
            steps = args.steps if point.micro_batches == FEW else max(args.steps // 2, (runs.WARM_UP + 2) * runs.LOG_EVERY)
            measured.seconds[point].append(runs.train(path, point, steps, folder))
            say(f"round {number + 1}: {point.name}: {measured.seconds[point][-1] * 1e3:.0f} ms a step")
    measured.all_reduce = runs.all_reduce(sizes, ALL_REDUCE_ROUNDS, folder)
    say(f"all-reduce alone: {', '.join(f'{size} bytes {1e3 * seconds:.2f} ms' for size, seconds in measured.all_reduce.items())}")
    measured.imbalances[2] = runs.imbalance(measured.recipe, 2)
    measured.input_rate = runs.input_rate(measured.recipe)
    paper = ["batch.tokens=393216", "batch.micro_tokens=6144", "batch.pool_batches=4", "model.size=base"]
    if args.shards is None:  # samples of 512 tokens, as the paper has them
        paper += ["data.max_seq_len=512", f"data.shards_dir={folder / 'shards_512'}"]
        runs.make_shards(path, paper)
    for ranks in RANKS:
        micro = 8192 if ranks <= 48 else 6144
        measured.imbalances[ranks] = runs.imbalance(runs.load(path, [*paper, f"batch.micro_tokens={micro}"]), ranks, steps=8)
    say("imbalance: " + ", ".join(f"{ranks} ranks {value:.3f}" for ranks, value in measured.imbalances.items()))
    return measured


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", nargs="+", default=[str(DEFAULT_CORPUS)], help="text files, globs; default: examples/zh")
    parser.add_argument("--shards", type=Path, metavar="DIR", help=f"shards of {' and '.join(runs.TASKS)}, in place of --corpus")
    parser.add_argument("--vocab", type=Path, metavar="FILE", help="their vocabulary")
    parser.add_argument("--size", default="mini", choices=("tiny", "mini", "small"), help="of the model; default mini")
    parser.add_argument("--micro-tokens", type=int, default=1024, help="tokens of a micro-batch; default 1024")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of a training; default 20")
    parser.add_argument("--rounds", type=int, default=3, help="how often every point is measured; default 3")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where the temporary folder goes; default: the system's")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="report to write")
    args = parser.parse_args(argv)
    least = (runs.WARM_UP + 2) * runs.LOG_EVERY
    for option, value, smallest in (("--rounds", args.rounds, 1), ("--steps", args.steps, least),
                                    ("--micro-tokens", args.micro_tokens, runs.LENGTH)):
        if value < smallest:
            raise ConfigError(f"{option}: found {value}, expected {smallest} or more")
    if (args.shards is None) != (args.vocab is None):
        raise ConfigError("--shards and --vocab: found one of them; give both, or neither and --corpus")
    args.corpus = [str(Path(name).absolute()) for name in args.corpus]
    for name in ("shards", "vocab"):
        if getattr(args, name) is not None:
            setattr(args, name, getattr(args, name).absolute())
    if args.out is not None:
        make_folder(args.out.parent, "--out")
    return args


@cli
def main(argv: Sequence[str]) -> int:
    """Command line."""
    args = parse_args(argv)
    with scratch_folder(args.scratch) as folder:
        facts = machine_facts(folder)
        try:
            measured = measure(args, folder)
        except RunFailed as error:
            sys.stderr.write(f"error: {error}\n")
            return 1
    facts.append(f"- load average at the end {os.getloadavg()[0]:.2f}")
    found = Calibration.of(measured)
    rows = [(point, measured.seconds[point], predict(measured, found, point)) for point in (ONE, ONE_MANY, TWO, TWO_MANY)]
    text = report(measured, found, rows, facts, argv)
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
    return int(any(abs(step.seconds / min(seconds) - 1) > TOLERANCE for point, seconds, step in rows))


if __name__ == "__main__":
    main()
