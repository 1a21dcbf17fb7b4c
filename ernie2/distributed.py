"""Data parallel training: start-up, ranks and small reductions. One process needs none of it.

Losses are divided by global counts and gradients are summed: how micro-batches are spread over ranks does not
matter."""

import contextlib
import faulthandler
import os
import signal
from collections.abc import Iterator

import numpy as np
import paddle
import paddle.distributed as dist
from paddle.distributed import fleet
from paddle.distributed import get_rank as rank
from paddle.distributed import get_world_size as world_size
from paddle.distributed.fleet.utils.hybrid_parallel_util import fused_allreduce_gradients

from ernie2.precision import HALF


def init(limit: float = 600.0) -> tuple[int, int]:
    """Joins the run that paddle.distributed.launch started. Returns (rank, ranks): alone (0, 1).

    After `limit` seconds this process ends, with a traceback and exit code 1: while Paddle waits for a rank
    that has died no Python thread runs (ernie2.watchdog's neither), so the timer is a thread in C."""
    if int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1:
        faulthandler.dump_traceback_later(limit, exit=True)
        if paddle.get_device() == "cpu":
            # fleet.init would add a group for each kind of parallelism, which nothing here needs and which
            # eight processes fail to connect over gloo (paddle 2.6 always, 3.3 now and then).
            dist.init_parallel_env()
        else:
            fleet.init(is_collective=True)
        faulthandler.cancel_dump_traceback_later()
    return rank(), world_size()


def card() -> str:
    """Kind of the GPU that this process computes on, or cpu: what all ranks must have alike."""
    if not paddle.is_compiled_with_cuda() or not paddle.device.cuda.device_count():
        return "cpu"
    number = int(os.environ.get("FLAGS_selected_gpus", "0").split(",")[0] or 0)
    found = paddle.device.cuda.get_device_properties(number)
    return f"{found.name}, {found.major}.{found.minor}"


class Stop:
    """SIGTERM: ranks get it at different instants (`asked`), but have to leave at the same one (`agreed`)."""

    def __init__(self) -> None:
        self.asked = self.agreed = False
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "asked", True))

    def agree(self) -> bool:
        """Called by every rank at the same place: whether to leave."""
        self.agreed = self.agreed or any_rank(self.asked)
        return self.agreed


def sum_over_ranks(values: np.ndarray) -> np.ndarray:
    """Sums small arrays of numbers over all ranks. float64 or int64 in, the same out."""
    if world_size() == 1 or not values.size:  # gloo refuses an empty one
        return values
    tensor = paddle.to_tensor(values)
    dist.all_reduce(tensor)
    return tensor.numpy()


def any_rank(flag: bool) -> bool:
    """Whether any rank says so: a decision that all take alike."""
    return bool(sum_over_ranks(np.array([flag], np.int64))[0])


def barrier() -> None:
    """Waits for every rank."""
    if world_size() > 1:
        dist.barrier()


class Replica:
    """A rank's copy of the model: micro-batches accumulate on it, Paddle sums their gradients over the ranks.

    Parameters that no rank's loss depends on (heads of other tasks) keep no gradient, so that an optimizer
    leaves them alone. Gradients of half precision travel as they are, but those of several micro-batches are
    added in float32, where small ones do not vanish. Every rank gets rank 0's parameters. Recomputed layers
    hide theirs from paddle.DataParallel."""

    def __init__(self, model: paddle.nn.Layer, recompute: bool = False) -> None:
        self.ranks = world_size()
        self.overlaps = not recompute and paddle.get_device() != "cpu"
        """Whether gradients travel during the last backward pass, or after it. Gloo would gain nothing, and
        where a rank dies it throws what Paddle's backward pass does not catch: the others abort unnamed."""
        self.forward = paddle.DataParallel(model, find_unused_parameters=True) if self.ranks > 1 else model
        self._parameters = model.parameters()
        self._half = [parameter for parameter in self._parameters if parameter.dtype in HALF]
        self._sums: dict[str, paddle.Tensor] = {}

    @contextlib.contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        """Around forward and backward; the `last` of a step on this rank waits for those of all ranks.

        The parameters that get a gradient in a step have to be the same on every rank."""
        if last and self.ranks > 1 and self.overlaps:
            self._put_back()
            yield
            return
        with contextlib.nullcontext() if self.ranks == 1 else self.forward.no_sync():
            yield
        self._set_aside()
        if last and self.ranks == 1:
            self._put_back("float32")
        elif last:
            self._put_back()
            fused_allreduce_gradients(self._parameters, None)

    def backward(self, loss: paddle.Tensor) -> None:
        """Backward pass of a share of the step's loss. Paddle takes the mean over the ranks, not the sum."""
        (loss * self.ranks if self.ranks > 1 else loss).backward()

    @paddle.no_grad()
    def _set_aside(self) -> None:
        """Adds gradients of half precision to the float32 sums."""
        for parameter in self._half:
            if parameter.grad is not None:
                gradient, before = parameter.grad.astype("float32"), self._sums.get(parameter.name)
                self._sums[parameter.name] = gradient if before is None else before + gradient
                parameter.clear_gradient(False)

    @paddle.no_grad()
    def _put_back(self, dtype: str | None = None) -> None:
        """Makes the sums gradients again, in the parameter's own dtype if no other is asked for."""
        for parameter in self._half:
            if parameter.name in self._sums:
                parameter.grad = self._sums.pop(parameter.name).astype(dtype or parameter.dtype)
