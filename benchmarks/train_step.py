"""Training steps beside peers: real tokens a second on the same text, sizes and losses (masked LM and a
sentence label).

    python -m benchmarks.train_step 'corpus/zh/*.txt.gz' --vocab vocab.txt \\
        --torch-python torch/bin/python --out benchmarks/results/train_step.md

Every peer is a process of its own, started once for a size and length; the rounds go in turn (A B C, A B C,
...), so that other load meets all alike. Peers get fixed-length padded batches, as PaddleNLP's
run_pretrain.py feeds them; ours is the product itself. A step is forward, backward, clipping to norm 1 and
AdamW in float32, dropout 0.1, gelu, task ids on. Padding does not count. Ends with 1 where a target is
missed.

    ours            ernie2.pretrain as it is
    paddlenlp       ErnieForPretraining and its criterion, masked positions alone in the head,
                    environment as pip leaves it; where paddlenlp is installed
    paddlenlp+env   the same with the variables that ernie2 sets (what of the gain is not our code)
    hf              transformers' ErnieForPreTraining on torch, sdpa attention, head on all positions;
                    with --torch-python"""

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import MISSED, ROOT, Results, Row, RunFailed, column, run
from ernie2.batching import Collator
from ernie2.config import SIZES
from ernie2.shards import ShardReader
from ernie2.strict import ConfigError, cli
from ernie2.tasks import select_tasks
from ernie2.tokenizer import Vocab

PADDED_TOKENS = {"mini": 4096, "small": 4096, "base": 2048}  # of a peer's batch
STEPS = {"mini": 4, "small": 2, "base": 1}  # of a round
WARM_STEPS = 3  # not timed: the first touch memory for the first time and make the moments
PEERS = ("paddlenlp", "paddlenlp+env", "hf")
TIMES = {"paddlenlp 128": 3.0, "paddlenlp 512": 6.0, "hf 128": 1.5, "hf 512": 3.0, "base paddlenlp 128": 2.7}
"""How many times as fast as a peer ours has to be."""
OUR_VARIABLES = ("FLAGS_use_stride_kernel", "FLAGS_use_mkldnn", "MKL_DEBUG_CPU_TYPE")
TASK = "sentence_reordering"  # both losses, and examples of like length as a document cut into passages gives
BATCHES = 12  # of a peer, again and again
VOCAB_ROWS = 18_000


class Worker:
    """A process that loads, and runs as many steps as it is asked for."""

    def __init__(self, command: Sequence[Any], environment: dict[str, str]) -> None:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log, "text": True}
        self._process = subprocess.Popen([*map(str, command)], cwd=ROOT, env=environment, **streams)

    def run(self, steps: int) -> SimpleNamespace:
        """Runs steps. Returns `rate`, real tokens a second, `waiting` and `padding`, %. Raises RunFailed."""
        with contextlib.suppress(BrokenPipeError):  # it has ended, as _answer says
            self._process.stdin.write(f"{steps}\n")
            self._process.stdin.flush()
        return SimpleNamespace(**self._answer())

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self._log.seek(0)
        raise RunFailed(f"exit code {self._process.wait()}: {harness.last_lines(self._log.read())}")


def write_recipe(folder: Path, args: argparse.Namespace, length: int, **settings: object) -> Path:
    """A recipe of the benchmark's one task, everything at its default but what is given."""
    name = f"{settings.get('model.size', 'data')}_{length}"
    keys = {"data.corpus": args.corpus, "data.shards_dir": folder / f"shards_{length}"}
    keys |= {"data.max_seq_len": length, "out_dir": folder / f"out_{name}", "model.hidden_act": "gelu"}
    keys |= {"model.vocab_file": args.vocab, "model.vocab_rows": VOCAB_ROWS}
    keys |= {"curriculum.stages": [[TASK]], "curriculum.steps_per_task": 1_000_000}
    return harness.write_recipe(folder / f"recipe_{name}.yaml", keys | settings)


def write_batches(shards: Path, vocab: Path, length: int, tokens: int, path: Path) -> float:
    """BATCHES padded batches of `tokens` tokens, examples in their order, masked as ours are. Returns the
    share of real tokens.

    Arrays: token_ids, sentence_ids (K, B, T); lengths, labels (K, B), labels 0 or 1 for a head of two
    classes; positions, targets (K, M): predicted positions in the flattened (B * T) tokens, -1 where a batch
    has fewer."""
    words, task = Vocab.load(vocab), select_tasks([TASK], "benchmark")[0]
    reader, collate = ShardReader(shards / TASK, "train", task, words.digest), Collator(words, 0.15)
    size, batches = tokens // length, []
    for k in range(BATCHES):
        examples = [reader[(k * size + i) % len(reader)] for i in range(size)]
        batches.append(collate(task, examples, ["word"], np.random.default_rng(k)))
    most = max(len(batch.mlm_labels) for batch in batches)

    def filled(arrays: Sequence[np.ndarray], width: int, value: int) -> np.ndarray:
        result = np.full((BATCHES, *arrays[0].shape[:-1], width), value)
        for row, array in zip(result, arrays, strict=True):
            row[..., : array.shape[-1]] = array
        return result

    places = [np.divmod(batch.mlm_positions, batch.token_ids.shape[1]) for batch in batches]
    arrays = {
        "token_ids": filled([batch.token_ids for batch in batches], length, words.pad_id),
        "sentence_ids": filled([batch.sentence_ids for batch in batches], length, 0),
        "lengths": np.stack([batch.lengths for batch in batches]),
        "labels": np.stack([batch.sentence_labels % 2 for batch in batches]),
        "positions": filled([row * length + column for row, column in places], most, -1),
        "targets": filled([batch.mlm_labels for batch in batches], most, -1),
    }
    np.savez(path, **arrays)
    return float(arrays["lengths"].mean() / length)


def commands(folder: Path, args: argparse.Namespace, size: str, length: int) -> dict[str, tuple]:
    """Command and environment of every worker. Peers must not meet the variables that ernie2 sets."""
    batches, tokens = folder / "batches.npz", PADDED_TOKENS[size]
    share = write_batches(folder / f"shards_{length}", args.vocab, length, tokens, batches)
    tokens = max(round(tokens * share), length)
    settings = {"model.size": size, "batch.tokens": tokens, "batch.micro_tokens": tokens}
    recipe = write_recipe(folder, args, length, **settings)
    threads = str(os.cpu_count())
    clean = {key: value for key, value in os.environ.items() if key not in OUR_VARIABLES}
    clean |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TRANSFORMERS_OFFLINE": "1"}
    script, peer = ROOT / "benchmarks/train_step_workers.py", [batches, *SIZES[size]]
    found = {"ours": ([sys.executable, script, "ours", recipe], clean | {"PYTHONPATH": str(ROOT)})}
    if importlib.util.find_spec("paddlenlp"):
        tuned = clean | {key: os.environ[key] for key in OUR_VARIABLES if key in os.environ}
        found["paddlenlp"] = ([sys.executable, script, "paddlenlp", *peer], clean)
        found["paddlenlp+env"] = ([sys.executable, script, "paddlenlp", *peer], tuned)
    if args.torch_python:
        found["hf"] = ([args.torch_python, script, "hf", *peer], clean)
    return found


def measure(results: Results, case: str, known: dict[str, tuple], rounds: int, steps: int) -> None:
    """All rounds of a size and length; series are named "mini 128 ours"."""
    workers = {name: Worker(*command) for name, command in known.items()}
    try:
        for name, worker in workers.items():
            results.measure(f"{case} {name} warming up", worker.run, WARM_STEPS)
        for _ in range(rounds):
            for name, worker in workers.items():
                results.measure(f"{case} {name}", worker.run, steps)
    finally:
        for worker in workers.values():
            worker.close()


def rows_of(results: Results, size: str, length: int) -> Iterator[Row]:
    """Targets and what was measured."""
    case, row, median = f"{size} {length}", results.row, statistics.median
    for peer in PEERS:
        times = TIMES.get(f"{size} {peer} {length}", TIMES.get(f"{peer} {length}"))
        what, wanted = f"{case}, times as fast as {peer}", f">= {times:g}" if times else ""
        yield row(what, (f"{case} ours", f"{case} {peer}"), ratios, wanted, best=median)
    for name, most in (("waiting", 1), ("padding", 3)):
        yield row(f"{case}, {name}", (f"{case} ours",), column(name), f"<= {most} %", best=median)
    for name in ("ours", *PEERS):
        yield row(f"{case}, {name}", (f"{case} {name}",), column("rate"), "tokens/s", 0, median)


def ratios(ours: Sequence[SimpleNamespace], theirs: Sequence[SimpleNamespace]) -> list[float]:
    """How many times as fast, round by round."""
    return [one.rate / other.rate for one, other in zip(ours, theirs)]


@cli
def main(argv: Sequence[str]) -> int:
    """Command line."""
    parser = harness.parser("benchmarks.train_step", __doc__)
    add, results = parser.add_argument, Results()
    add("corpus", nargs="+", help="text files, globs; documents separated by blank lines")
    add("--vocab", type=Path, required=True, help="vocabulary")
    add("--sizes", nargs="+", choices=PADDED_TOKENS, default=list(PADDED_TOKENS))
    add("--lengths", nargs="+", type=harness.positive, default=[128, 512])
    add("--torch-python", type=Path, help="Python of an environment with torch and transformers")
    args = parser.parse_args(argv)
    if args.torch_python and not args.torch_python.is_file():
        raise ConfigError(f"--torch-python: {args.torch_python}: no such file; name a Python with torch")
    args.vocab, args.corpus = args.vocab.absolute(), [Path(path).absolute() for path in args.corpus]
    with harness.scratch_folder(args.out) as folder:
        facts = harness.machine_facts()
        for length in args.lengths:
            run([sys.executable, "-m", "data_gen", write_recipe(folder, args, length)])
            for size in args.sizes:
                known = commands(folder, args, size, length)
                measure(results, f"{size} {length}", known, args.rounds, STEPS[size])
    rows = [row for size in args.sizes for length in args.lengths for row in rows_of(results, size, length)]
    facts.append(f"- median [range] of {args.rounds} rounds in turn, float32, {os.cpu_count()} threads")
    harness.publish("benchmarks.train_step", argv, facts, [harness.targets(rows)], args.out)
    return int(any(row.verdict == MISSED for row in rows))


if __name__ == "__main__":
    main()
