"""A worker of benchmarks/train_step.py: the product's own training step. Arguments: SIZE LENGTH TOKENS VOCAB FOLDER."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.train_step_inputs import write_recipe
from ernie2 import distributed, logs, pretrain
from ernie2.batching import prefetch
from ernie2.config import load_recipe
from ernie2.meter import Meter
from ernie2.setup_run import prepare_run


def main(size: str, length: int, tokens: int, vocab: Path, folder: Path) -> None:
    """Answers each line of standard input, a number of steps, with one line of JSON."""
    recipe = load_recipe(write_recipe(folder, vocab, length, size=size, tokens=max(tokens, length)))
    recipe.out_dir = tempfile.mkdtemp(dir=folder)
    logs.setup(rank=1)
    run = prepare_run(recipe, "benchmark")
    run.model.train()
    meter, stop, step = Meter(), distributed.Stop(), 0
    feed = prefetch(pretrain.micro_batches(run, run.plan.steps))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        begin, waited, real, padded = time.perf_counter(), 0.0, 0, 0
        for _ in range(int(line)):
            asked = time.perf_counter()
            batches = next(feed)
            waited += time.perf_counter() - asked
            norm = pretrain.optimizer_step(run, step, batches, 1e-4, meter, stop)
            step += 1
            real += sum(batch.tokens for _, batch in batches)
            padded += sum(batch.padded_tokens for _, batch in batches)
        float(norm)
        seconds = time.perf_counter() - begin
        print(json.dumps({"tokens": real, "seconds": seconds, "wait": waited / seconds, "padding": 1 - real / padded}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
