"""The product's own training step as a worker of benchmarks/train_step.py: recipe, shards, batches of like
length, prefetch, main loop.

python -m benchmarks.train_step_ours RECIPE.yaml"""

import itertools
import sys
import time

from benchmarks.train_step_peers import serve
from ernie2 import distributed, logs, pretrain
from ernie2.batching import prefetch
from ernie2.config import load_recipe
from ernie2.evaluate import Meter
from ernie2.run import prepare_run


def main(recipe: str) -> None:
    """Serves steps of a recipe."""
    logs.setup(rank=1)
    run = prepare_run(load_recipe(recipe), "benchmark")
    run.model.train()
    meter, stop, numbers = Meter(), distributed.Stop(), itertools.count()
    feed = prefetch(pretrain.micro_batches(run, run.plan.steps))

    def step() -> dict[str, float]:
        begin = time.perf_counter()
        batches = next(feed)
        wait = time.perf_counter() - begin
        float(pretrain.optimizer_step(run, next(numbers), batches, 1e-4, meter, stop))
        tokens, padded = (sum(getattr(b, name) for _, b in batches) for name in ("tokens", "padded_tokens"))
        return {"tokens": tokens, "padded": padded, "wait": wait}

    serve(step)


if __name__ == "__main__":
    main(sys.argv[1])
