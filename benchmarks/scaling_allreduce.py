"""The all-reduce alone, as the processes of a training do it: started by `benchmarks.scaling` through the project's launcher.

    python -m paddle.distributed.launch ... -m benchmarks.scaling_allreduce RESULT.json ROUNDS BYTES [BYTES ...]

Rank 0 writes {bytes: [seconds, ...]}, float32, each round the slowest rank's time. The sizes are taken in turn.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import paddle
import paddle.distributed as dist


def measure(sizes: Sequence[int], rounds: int) -> dict[int, list[float]]:
    """Bytes -> seconds of an all-reduce of so many, one a round."""
    tensors = {size: paddle.ones([max(1, size // 4)], "float32") for size in sizes}
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for number in range(rounds + 1):
        for size, tensor in tensors.items():
            dist.barrier()
            begin = time.perf_counter()
            dist.all_reduce(tensor)
            float(tensor[0])  # has arrived
            slowest = paddle.to_tensor([time.perf_counter() - begin], "float64")
            dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
            if number:  # the first opens the connections
                seconds[size].append(float(slowest))
            tensor.fill_(1.0)  # sums must not grow without limit
    return seconds


def main(argv: Sequence[str]) -> None:
    """Command line."""
    dist.init_parallel_env()
    result, rounds, sizes = Path(argv[0]), int(argv[1]), [int(size) for size in argv[2:]]
    seconds = measure(sizes, rounds)
    if dist.get_rank() == 0:
        result.write_text(json.dumps(seconds), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
