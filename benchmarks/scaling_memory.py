"""Whether the plan's estimate of activations holds: peak memory of a forward and backward pass beside `ernie2.memory`.

    python -m benchmarks.scaling_memory [--sizes mini small] [--lengths 128 512] [--recompute] [--library]

A CPU's resident memory is read as the kernel's high-water mark (VmHWM), for two micro-batches of one model, each in a
process of its own; their difference over the difference of their tokens is what a token keeps. Weights, gradients and the
interpreter fall out of it. `--library` leaves paddle's own functions in place of ernie2.cpu, as on a GPU. Freed memory is
kept, as a GPU's allocator keeps it: glibc's changing thresholds would make the peak a matter of the threads' timing. Linux.
Ends with 1 where an estimate is off by more than 25%.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.processes import run
from ernie2.batching import Batch
from ernie2.config import SIZES, BatchConfig, CurriculumConfig, DataConfig, LrConfig, ModelConfig, Recipe, RuntimeConfig
from ernie2.malloc import keep_freed_memory
from ernie2.memory import PADDING, estimate_memory
from ernie2.strict import cli
from ernie2.tasks import Task, select_tasks

TOLERANCE = 0.25
VOCAB_ROWS = {"tiny": 8_000, "mini": 8_000, "small": 18_000, "base": 18_000, "large": 18_000}
TASK = "knowledge_masking"


def recipe_of(size: str, length: int, tokens: int, recompute: bool = False, act: str = "relu", precision: str = "fp32") -> Recipe:
    """The recipe whose estimate is checked: one task, micro-batches of `tokens` tokens, samples of `length`."""
    return Recipe(name="memory", out_dir="out", lr=LrConfig(peak=1e-4),
                  model=ModelConfig(vocab_file="vocab.txt", size=size, hidden_act=act, vocab_rows=VOCAB_ROWS[size]),
                  data=DataConfig(shards_dir="shards", max_seq_len=length), batch=BatchConfig(tokens=tokens, micro_tokens=tokens),
                  curriculum=CurriculumConfig(stages=[[TASK]], steps_per_task=1),
                  runtime=RuntimeConfig(precision=precision, recompute=recompute))


def peak_bytes(recipe: Recipe, library: bool) -> int:
    """Growth of resident memory in one forward and backward pass, at its peak. Gradients are made in it."""
    from ernie2 import cpu  # here: the process that starts others needs no paddle
    from ernie2.encoder import EncoderConfig
    from ernie2.model import ErnieForPretraining

    cpu.prepare(enabled=not (library or recipe.runtime.recompute))
    keep_freed_memory()
    task = select_tasks([TASK], "benchmark")[0]
    rows = recipe.model.vocab_rows
    model = ErnieForPretraining(EncoderConfig.from_recipe(recipe.model, rows, 0), [task], recipe.runtime.recompute)
    model.train()
    batch = random_batch(recipe, task)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM starts anew
    model(batch)["masked_lm"].loss_sum.backward()
    return _status("VmHWM") - before


def random_batch(recipe: Recipe, task: Task) -> Batch:
    """A micro-batch of random tokens with data.mask_prob of them predicted; a token of each sample is padding."""
    rng, length, rows = np.random.default_rng(0), recipe.data.max_seq_len, recipe.model.vocab_rows
    shape = (recipe.batch.micro_tokens // length, length)
    count = shape[0] * length
    positions = np.sort(rng.choice(count, int(recipe.data.mask_prob * count), replace=False)).astype(np.int64)
    none = np.zeros(0, np.int64)
    return Batch(task, rng.integers(0, rows, shape), np.zeros(shape, np.int64), np.full(shape[0], length - 1), positions,
                 rng.integers(0, rows, len(positions)), none, none, none)


def bytes_per_token(size: str, length: int, few: int, many: int, recompute: bool = False, library: bool = False,
                    act: str = "relu") -> tuple[float, float]:
    """(measured, estimated) bytes that a padded token keeps, from micro-batches of `few` and `many` tokens."""
    measured, estimated = [], []
    for tokens in (few, many):
        arguments = json.dumps([size, length, tokens, recompute, library, act])
        measured.append(int(run([sys.executable, "-m", "benchmarks.scaling_memory", "--one", arguments]).output.split()[-1]))
        memory = estimate_memory(recipe_of(size, length, tokens, recompute, act), VOCAB_ROWS[size])
        activations = memory.activations
        if library:  # what a GPU keeps, in numbers of four bytes
            half = recipe_of(size, length, tokens, recompute, act, "fp16")
            activations = 2 * estimate_memory(half, VOCAB_ROWS[size]).activations
        estimated.append((activations + memory.logits) / PADDING)
    return (measured[1] - measured[0]) / (many - few), (estimated[1] - estimated[0]) / (many - few)


def _status(key: str) -> int:
    """Bytes of an entry of /proc/self/status."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(rf"^{key}:\s+(\d+)", text, re.MULTILINE)[1]) * 1024


@cli
def main(argv: Sequence[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling_memory", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["mini", "small"], help="of the model; default mini small")
    parser.add_argument("--lengths", nargs="+", type=int, default=[128, 512], help="tokens of a sample; default 128 512")
    parser.add_argument("--recompute", action="store_true", help="with runtime.recompute=true")
    parser.add_argument("--library", action="store_true", help="without ernie2.cpu, as on a GPU")
    parser.add_argument("--act", choices=("relu", "gelu"), default="relu", help="model.hidden_act")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        size, length, tokens, recompute, library, act = json.loads(args.one)
        print(peak_bytes(recipe_of(size, length, tokens, recompute, act), library))
        return 0
    print("| size | length | measured kB a token | estimated | |\n|---|---|---|---|---|")
    missed = False
    for size in args.sizes:
        for length in args.lengths:
            measured, estimated = bytes_per_token(size, length, 1024, 3072, args.recompute, args.library, args.act)
            off = estimated / measured - 1
            missed = missed or abs(off) > TOLERANCE
            print(f"| {size} | {length} | {measured / 1e3:.1f} | {estimated / 1e3:.1f} | {off:+.0%} |", flush=True)
    return int(missed)


if __name__ == "__main__":
    main()
