"""A worker of benchmarks/train_step.py: the product's own training step. Arguments: SIZE LENGTH TOKENS VOCAB FOLDER."""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.train_step_inputs import write_recipe
from benchmarks.train_step_worker import serve
from ernie2 import distributed, logs, pretrain
from ernie2.batching import prefetch
from ernie2.config import load_recipe
from ernie2.meter import Meter
from ernie2.setup_run import prepare_run


def main(size: str, length: int, tokens: int, vocab: Path, folder: Path) -> None:
    """Serves steps of a recipe."""
    recipe = load_recipe(write_recipe(folder, vocab, length, size=size, tokens=max(tokens, length)))
    recipe.out_dir = tempfile.mkdtemp(dir=folder)
    logs.setup(rank=1)
    run = prepare_run(recipe, "benchmark")
    run.model.train()
    meter, stop, numbers = Meter(), distributed.Stop(), itertools.count()
    feed = prefetch(pretrain.micro_batches(run, run.plan.steps))
    waited, real, padded = 0.0, 0, 0

    def step() -> int:
        nonlocal waited, real, padded
        asked = time.perf_counter()
        batches = next(feed)
        waited += time.perf_counter() - asked
        float(pretrain.optimizer_step(run, next(numbers), batches, 1e-4, meter, stop))
        tokens = sum(batch.tokens for _, batch in batches)
        real, padded = real + tokens, padded + sum(batch.padded_tokens for _, batch in batches)
        return tokens

    def shares(seconds: float) -> dict[str, float]:
        nonlocal waited, real, padded
        found = {"wait": waited / seconds, "padding": 1 - real / padded}
        waited, real, padded = 0.0, 0, 0
        return found

    serve(step, shares)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
