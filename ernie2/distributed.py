"""Fleet data parallel: start-up, ranks and small reductions. One process is the trivial case and needs no fleet.

Every loss is divided by its global count and gradients are summed (ernie2/gradients.py), so a step does not depend on how
its micro-batches are spread over ranks.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
from collections.abc import Iterator

import numpy as np
import paddle
import paddle.distributed as dist
from paddle.distributed import fleet

from ernie2 import roll_call
from ernie2.lifeline import PEER_LOST, Lifeline
from ernie2.strict import ConfigError


def init() -> tuple[int, int]:
    """Joins the run that paddle.distributed.launch started. Returns (rank, ranks); (0, 1) for a plain process."""
    if int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1:
        if paddle.get_device() == "cpu":
            # What fleet.init begins with. It then makes a group for each kind of parallelism, which nothing here needs and which
            # eight processes fail to connect over gloo (paddle 2.6 always, 3.3 now and then).
            dist.init_parallel_env()
        else:
            fleet.init(is_collective=True)
    return rank(), world_size()


@contextlib.contextmanager
def joined(limit: float, facts: dict[str, str]) -> Iterator[tuple[int, int, Lifeline | None]]:
    """A run's time together: the roll call, then joining, then a lifeline to the end. Nothing of it for a plain process.

    Args:
        limit: seconds that each step of the start-up may take.
        facts: what has to be the same everywhere, name -> digest ("code", "recipe", "shards").

    Yields:
        (rank, ranks, lifeline); the lifeline wants to know `reached("ready")`, and is None for a plain process.

    Raises:
        ConfigError: facts differ; names the rank.
        SystemExit: somebody is missing; the message on standard error says who.
    """
    endpoints = os.environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(",")
    number, count = int(os.environ.get("PADDLE_TRAINER_ID", "0")), int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
    if count == 1 or not endpoints[0]:
        yield (*init(), None)
        return
    try:
        lifeline = _call_the_roll(number, count, endpoints, limit, facts)
    except roll_call.Absent as error:
        sys.stderr.write(f"error: start-up: {error}\n")
        sys.exit(PEER_LOST)
    try:
        init()
        lifeline.reached("joined")
        yield number, count, lifeline
    except BaseException as error:
        lifeline.failed(error)
        raise
    lifeline.leave(0)


def _call_the_roll(number: int, count: int, endpoints: list[str], limit: float, facts: dict[str, str]) -> Lifeline:
    """All ranks meet rank 0 at the endpoint that the launcher kept free for it (Paddle itself uses another port)."""
    host, port = endpoints[0].rsplit(":", 1)
    mine = roll_call.hello(hashlib.sha256(",".join(endpoints).encode()).hexdigest(), number, facts=facts)
    if number:
        line = roll_call.answer((host, int(port)), limit, mine, "rank")
        chief = roll_call.expect_go(line, 2 * limit, "rank")  # rank 0 may itself wait for others
        return Lifeline(mine, {0: (line, chief["from"])}, limit)
    came = roll_call.gather(int(port), count, limit, mine, "rank", lambda i: f"expected on {endpoints[i].rsplit(':', 1)[0]}")
    for _, theirs in came.values():
        if unlike := roll_call.differences("rank", mine, theirs):
            roll_call.dismiss(came, unlike, 2)
            raise ConfigError(f"{unlike}; every node needs the same checkout, command and shards")
    for line, _ in came.values():
        line.send({"go": True, "from": mine})
    return Lifeline(mine, came, limit)


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
