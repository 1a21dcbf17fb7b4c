"""Fleet data parallel: start-up, ranks and small reductions. One process is the trivial case and needs no fleet.

Every loss is divided by its global count and gradients are summed (ernie2/gradients.py), so a step does not depend on how
its micro-batches are spread over ranks.
"""

from __future__ import annotations

import faulthandler
import os
import signal

import numpy as np
import paddle
import paddle.distributed as dist
from paddle.distributed import fleet


def init(limit: float = 600.0) -> tuple[int, int]:
    """Joins the run that paddle.distributed.launch started.

    Args:
        limit: seconds that it may take; then this process ends, with a traceback and exit code 1. While Paddle waits for
            a rank that has died, no Python thread runs (ernie2.watchdog's neither), so the timer is a thread in C.

    Returns:
        (rank, ranks); (0, 1) for a plain process.
    """
    if int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1:
        faulthandler.dump_traceback_later(limit, exit=True)
        if paddle.get_device() == "cpu":
            # What fleet.init begins with. It then makes a group for each kind of parallelism, which nothing here needs
            # and which eight processes fail to connect over gloo (paddle 2.6 always, 3.3 now and then).
            dist.init_parallel_env()
        else:
            fleet.init(is_collective=True)
        faulthandler.cancel_dump_traceback_later()
    return rank(), world_size()


class Stop:
    """SIGTERM, as all ranks agree on it: they get it at different instants, but have to leave at the same one."""

    def __init__(self) -> None:
        self.asked = False
        """SIGTERM came to this process."""
        self.agreed = False
        """Some process was asked to stop, and all know of it."""
        signal.signal(signal.SIGTERM, self._catch)

    def _catch(self, number: int, frame: object) -> None:
        self.asked = True

    def agree(self) -> bool:
        """Called by every rank at the same place: whether to leave."""
        self.agreed = self.agreed or any_rank(self.asked)
        return self.agreed


def any_rank(flag: bool) -> bool:
    """Whether any rank says so: a decision that all take alike."""
    return bool(sum_over_ranks(np.array([flag], np.int64))[0])


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank()


def world_size() -> int:
    """Processes in the run."""
    return dist.get_world_size()


def broadcast_parameters(model: paddle.nn.Layer) -> None:
    """Gives every rank the parameters of rank 0."""
    if world_size() > 1:
        for parameter in model.parameters():
            dist.broadcast(parameter, src=0)


def sum_over_ranks(values: np.ndarray) -> np.ndarray:
    """Sums small arrays of numbers over all ranks. float64 or int64 in, the same out."""
    if world_size() == 1 or not values.size:  # gloo refuses an empty one
        return values
    tensor = paddle.to_tensor(values)
    dist.all_reduce(tensor)
    return tensor.numpy()


def barrier() -> None:
    """Waits for every rank."""
    if world_size() > 1:
        dist.barrier()
