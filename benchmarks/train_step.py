"""Training steps beside peers: real tokens a second on the same text, sizes and losses (masked LM and a
sentence label).

    python -m venv torch && torch/bin/pip install torch transformers numpy
    python -m benchmarks.train_step 'corpus/zh/*.txt.gz' --vocab vocab.txt \\
        --torch-python torch/bin/python --out benchmarks/results/train_step.md

Every peer is a process of its own, started once for a size and length; the rounds go in turn (A B C, A B C,
...), so that other load meets all alike. Peers get fixed-length padded batches, as PaddleNLP's
run_pretrain.py feeds them; ours is the product itself: recipe, shards, batches of like length, prefetch, main
loop. A step is forward, backward, clipping to norm 1 and AdamW in float32, dropout 0.1, gelu, task ids on.
Padding does not count. Ends with 1 where a target is missed.

    ours            ernie2.pretrain as it is
    paddlenlp       ErnieForPretraining and its criterion, masked positions alone in the head,
                    environment as pip leaves it
    paddlenlp+env   the same with the variables that ernie2 sets (what of the gain is not our code)
    hf              transformers' ErnieForPreTraining on torch, sdpa attention, head on all positions;
                    needs --torch-python"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import MISSED, NOT_RUN, ROOT, Found, Row, RunFailed, at_least, at_most, say, spread
from benchmarks.train_step_ours import make_shards, real_share, write_batches
from ernie2.config import SIZES
from ernie2.strict import ConfigError, cli, make_folder

PADDED_TOKENS = {"mini": 4096, "small": 4096, "base": 2048}
STEPS = {"mini": 4, "small": 2, "base": 1}  # of a round
WARM_STEPS = 3  # not timed: the first touch memory for the first time and make the moments
PEERS = ("paddlenlp", "paddlenlp+env", "hf")
TARGETS = {
    ("paddlenlp", 128): 3.0,
    ("paddlenlp", 512): 6.0,
    ("hf", 128): 1.5,
    ("hf", 512): 3.0,
}  # times as fast
BASE_PADDLENLP_128 = 2.7
MOST_WAITING, MOST_PADDING = 1.0, 3.0  # %
OUR_VARIABLES = ("FLAGS_use_stride_kernel", "FLAGS_use_mkldnn", "MKL_DEBUG_CPU_TYPE")


class Worker:
    """A process that loads, says so, and runs as many steps as it is told."""

    def __init__(self, command: Sequence[Any], environment: dict[str, str]) -> None:
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.log}
        command = [*map(str, command)]
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **streams)
        self._answer()

    def run(self, steps: int) -> dict[str, Any]:
        """Runs steps. Returns `tokens` (real), `seconds`, and what else the worker says. Raises RunFailed."""
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self.log.seek(0)
        raise RunFailed(f"exit code {self.process.wait()}: {harness.last_lines(self.log.read())}")


@dataclass
class Case:
    """A size and a length, and what was measured."""

    size: str
    length: int
    share: float  # real tokens over padded tokens of the peers' batches
    found: Found = field(default_factory=Found)

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.size} {self.length}"

    def rates(self, name: str) -> list[float]:
        """Real tokens a second, round by round."""
        return [one["tokens"] / one["seconds"] for one in self.found.runs.get(name, ())]

    def target(self, peer: str) -> float | None:
        """How many times as fast as the peer ours has to be."""
        is_base = (self.name, peer) == ("base 128", "paddlenlp")
        return BASE_PADDLENLP_128 if is_base else TARGETS.get((peer, self.length))


def commands(
    case: Case, args: argparse.Namespace, folder: Path
) -> dict[str, tuple[list[Any], dict[str, str]]]:
    """Command and environment of every worker. Peers must not meet the variables that ernie2 sets."""
    tokens, batches = PADDED_TOKENS[case.size], folder / f"{case.name}.npz"
    write_batches(folder / f"shards_{case.length}", args.vocab, case.length, tokens, batches)
    clean = {key: value for key, value in os.environ.items() if key not in OUR_VARIABLES}
    threads = str(args.threads)
    clean |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TRANSFORMERS_OFFLINE": "1"}
    tuned = clean | {key: os.environ[key] for key in OUR_VARIABLES if key in os.environ}
    tokens = round(tokens * case.share)
    ours = [
        sys.executable,
        "-m",
        "benchmarks.train_step_ours",
        case.size,
        case.length,
        tokens,
        args.vocab,
        folder,
    ]
    peers = [ROOT / "benchmarks/train_step_peers.py", ",".join(map(str, SIZES[case.size])), batches]
    return {
        "ours": (ours, clean | {"PYTHONPATH": str(ROOT)}),
        "paddlenlp": ([sys.executable, *peers, "paddlenlp"], clean),
        "paddlenlp+env": ([sys.executable, *peers, "paddlenlp"], tuned),
        "hf": ([args.torch_python, *peers, "hf"], clean),
    }


def measure(case: Case, args: argparse.Namespace, folder: Path) -> None:
    """All rounds of a case."""
    known, workers = commands(case, args, folder), {}
    try:
        for name in ("ours", *args.peers):
            try:
                workers[name] = Worker(*known[name])
                workers[name].run(WARM_STEPS)
            except RunFailed as error:
                case.found.faults[name] = str(error)
        for number in range(args.rounds):
            for name, worker in workers.items():
                case.found.measure(name, worker.run, STEPS[case.size])
            rates = {name: case.rates(name) for name in workers}
            words = ", ".join(f"{name} {found[-1]:,.0f}" for name, found in rates.items() if found)
            say(f"{case.name} round {number + 1}: {words} tokens/s")
    finally:
        for worker in workers.values():
            worker.close()


def rows_of(case: Case) -> Iterator[Row]:
    """Targets and what was measured."""
    for peer in PEERS:
        what, wanted = f"{case.name}, times as fast as {peer}", case.target(peer)
        ratios = [ours / theirs for ours, theirs in zip(case.rates("ours"), case.rates(peer))]
        if ratios and wanted:
            yield at_least(what, wanted, ratios, best=statistics.median)
        elif ratios:
            yield Row(what, "", spread(ratios, best=statistics.median))
        elif peer in case.found.faults:
            yield Row(what, "", f"not run: {case.found.faults[peer]}", NOT_RUN)
    if "ours" not in case.found.runs:
        yield case.found.failed(f"{case.name}, ours", "", ["ours"])
        return
    for what, key, most in (("waiting for data", "wait", MOST_WAITING), ("padding", "padding", MOST_PADDING)):
        yield at_most(
            f"{case.name}, {what}", most, [100 * statistics.fmean(case.found.values("ours", key))], "%"
        )


def rates_table(cases: Sequence[Case]) -> list[str]:
    """Real tokens a second, median [range]."""
    rows = []
    for case in cases:
        rates = [case.rates(name) for name in ("ours", *PEERS)]
        cells = [spread(one, 0, best=statistics.median) if one else "–" for one in rates]
        rows.append([case.name, f"{case.share:.2f}", *cells])
    return harness.table(["size, tokens", "real share", "ours", *PEERS], rows)


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """The command line, checked."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m benchmarks.train_step", description=__doc__, formatter_class=raw
    )
    add = parser.add_argument
    add("corpus", nargs="+", help="text files, globs; documents separated by blank lines")
    add("--vocab", type=Path, required=True, help="vocabulary")
    add("--sizes", nargs="+", choices=PADDED_TOKENS, default=list(PADDED_TOKENS))
    add("--lengths", nargs="+", type=int, default=[128, 512])
    add("--peers", nargs="*", choices=PEERS, help="default: all that can be run here")
    add("--torch-python", type=Path, help="Python of an environment with torch and transformers")
    add("--rounds", type=int, default=3)
    add("--threads", type=int, default=os.cpu_count(), help="of each process; default: all cores")
    add("--out", type=Path, metavar="FILE.md", help="report to write")
    args = parser.parse_args(argv)
    if args.peers is None:
        args.peers = [peer for peer in PEERS if peer != "hf" or args.torch_python]
    elif "hf" in args.peers and not args.torch_python:
        raise ConfigError(
            "--peers: hf needs --torch-python, the Python of an environment with torch and transformers"
        )
    args.vocab = args.vocab.absolute()
    if args.out is not None:
        make_folder(args.out.parent, "--out")
    return args


@cli
def main(argv: Sequence[str]) -> int:
    """Command line."""
    args, cases = parse_args(argv), []
    with harness.scratch_folder(None) as folder:
        facts = harness.machine_facts(folder)
        for length in args.lengths:
            make_shards(folder, args.corpus, args.vocab, length)
            for size in args.sizes:
                cases.append(Case(size, length, real_share(folder / f"shards_{length}", length)))
                measure(cases[-1], args, folder)
    cases.sort(key=lambda case: list(PADDED_TOKENS).index(case.size))
    how = (
        f"median [range] of {args.rounds} rounds in turn, real tokens a second, float32, "
        f"{args.threads} threads. What each column is: the head of that file."
    )
    rows = [row for case in cases for row in rows_of(case)]
    about = [*harness.about("benchmarks.train_step", argv, how, facts), *harness.targets(rows)]
    parts = [("Real tokens a second", rates_table(cases))]
    harness.publish(harness.page("Training steps beside peers", about, parts), args.out)
    return int(any(row.verdict == MISSED for row in rows))


if __name__ == "__main__":
    main()
