"""Gradients of a run in several processes: summed in buckets while the backward pass still runs, sharded where asked for.

    stage 0   every rank sums all gradients and updates all parameters
    stage 1   a parameter's gradient is summed at its owner, who alone updates it, holds its moments and master weights, and
              sends it to the others
    stage 2   the same after every micro-batch, so that no rank keeps gradients of others: less memory, more traffic

Accumulation needs no traffic in stages 0 and 1: gradients travel with the last micro-batch of a step alone.
Those of half-precision parameters are added up in float32 and travel in half precision. Ours rather than
paddle.DataParallel and fleet's sharding optimizers because every loss is already divided by its global count, because a head
must not move on another task's step (theirs fill gradients that are not there with zeros, and moments follow), and because
it is the same on every version of paddle.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator

import numpy as np
import paddle
import paddle.distributed as dist

from ernie2 import optim
from ernie2.memory import BUCKET
from ernie2.precision import HALF

IN_FLIGHT = 4
"""Buckets under way at once; more would only keep memory."""


class GradientSums:
    """Sums the gradients of a model's parameters over all ranks.

    Args:
        parameters: of the whole model, the same list on every rank.
        stage: 0, 1 or 2, see above.
        rank: this process.
        ranks: processes.
        bucket_elements: about how many elements travel together.
    """

    def __init__(self, parameters: list[paddle.Tensor], stage: int, rank: int, ranks: int,
                 bucket_elements: int = BUCKET) -> None:
        self.stage, self.rank, self.ranks, self.bucket_elements = stage if ranks > 1 else 0, rank, ranks, bucket_elements
        sizes = [int(np.prod(parameter.shape)) for parameter in parameters]
        self.owner = dict(zip((parameter.name for parameter in parameters), owners(sizes, ranks), strict=True))
        self._buckets: list[list[paddle.Tensor]] = []
        self._armed, self._rounds = False, 0
        self._half: list[paddle.Tensor] = []
        self._earlier: dict[str, paddle.Tensor] = {}
        if ranks > 1:
            for parameter in parameters:
                parameter._register_backward_hook(self._hook(parameter.name))

    def owns(self, parameter: paddle.Tensor) -> bool:
        """Whether this rank updates the parameter."""
        return not self.stage or self.owner[parameter.name] == self.rank

    def begin(self, trained: list[paddle.Tensor], micro_batches: int) -> None:
        """Starts a step.

        Args:
            trained: the parameters that it moves, the same list on every rank.
            micro_batches: how many the rank with the most of them goes through.
        """
        self._half = [parameter for parameter in trained if parameter.dtype in HALF]
        self._earlier = {}
        if self.ranks == 1:
            return
        self._rounds = micro_batches if self.stage == 2 else 1
        # The backward pass reaches the last parameters first.
        self._buckets = _buckets(trained[::-1], self.bucket_elements, self.owner if self.stage else {})
        self._kept: dict[str, paddle.Tensor] = {}

    @contextlib.contextmanager
    def backward(self, last: bool) -> Iterator[None]:
        """Around the backward pass of a micro-batch; `last` of the step on this rank."""
        if self.ranks > 1 and (last or self.stage == 2):
            self._arm()
        yield
        if self._armed and not last:
            self._land()
        for parameter in () if last else self._half:
            self._earlier[parameter.name] = self._summed(parameter)
            parameter.clear_gradient(False)

    def finish(self) -> None:
        """Ends a step: every gradient is the sum over all ranks, where it is kept; elsewhere it is None.

        Called by every rank, even by one that broke its step off or had fewer micro-batches: the others wait for its part.
        """
        if self.ranks == 1:
            for parameter in self._half:
                optim.set_gradient(parameter, self._summed(parameter))
            return
        while self._rounds:
            if not self._armed:
                self._arm()
            self._land()
        for parameter in (parameter for bucket in self._buckets for parameter in bucket):
            if parameter.name in self._kept:  # the others were cleared when they left
                parameter.grad = self._kept[parameter.name]
        self._kept = {}

    def squared_norm(self, gradients: list[paddle.Tensor]) -> paddle.Tensor:
        """Sum of squares of all gradients of the step, on all ranks together, (). `gradients`: those this rank holds."""
        total = optim.squared_norm(gradients)
        if self.stage:
            dist.all_reduce(total)
        return total

    @paddle.no_grad()
    def share_updates(self, trained: list[paddle.Tensor]) -> None:
        """After the owners' update: gives every rank the new parameters. Nothing to do in stage 0."""
        if self.stage:
            waiting = [dist.broadcast(parameter, src=self.owner[parameter.name], sync_op=False) for parameter in trained]
            for task in waiting:
                task.wait()

    @paddle.no_grad()
    def _summed(self, parameter: paddle.Tensor) -> paddle.Tensor | None:
        """Its gradient; of a half-precision parameter in float32, with those of earlier micro-batches."""
        gradient, before = parameter.grad, self._earlier.pop(parameter.name, None)
        if gradient is None or parameter.dtype not in HALF:
            return before if gradient is None else gradient
        gradient = gradient.astype("float32")
        return gradient if before is None else before + gradient

    def _hook(self, name: str):  # noqa: ANN202 - paddle's hooks take nothing and return nothing
        def arrived(*_: object) -> None:
            if self._armed and name in self._missing:
                self._missing.discard(name)
                self._launch_complete()
        return arrived

    def _arm(self) -> None:
        self._armed, self._next = True, 0
        self._missing = {parameter.name for bucket in self._buckets for parameter in bucket}
        self._flights: deque[tuple[list[paddle.Tensor], paddle.Tensor, object]] = deque()

    def _launch_complete(self) -> None:
        """Sends off the buckets that are complete: in their order, so that it is the same on every rank."""
        while self._next < len(self._buckets) and not any(p.name in self._missing for p in self._buckets[self._next]):
            self._launch()

    @paddle.no_grad()
    def _launch(self) -> None:
        bucket = self._buckets[self._next]
        self._next += 1
        gradients = [self._summed(parameter) for parameter in bucket]
        # A rank whose samples gave a parameter no gradient adds zero.
        flat = paddle.concat([paddle.zeros([parameter.size]) if gradient is None else gradient.flatten()
                              for parameter, gradient in zip(bucket, gradients, strict=True)])
        if bucket[0].dtype in HALF:
            flat = flat.astype(bucket[0].dtype)
        flight = (dist.reduce(flat, dst=self.owner[bucket[0].name], sync_op=False) if self.stage else
                  dist.all_reduce(flat, sync_op=False))
        self._flights.append((bucket, flat, flight))
        for parameter in bucket:
            parameter.clear_gradient(False)  # what travels is enough
        if len(self._flights) > IN_FLIGHT:
            self._land_first()

    def _land(self) -> None:
        """Ends a round: sends off what is left and waits for all of it."""
        while self._next < len(self._buckets):
            self._launch()
        self._armed = False
        self._rounds -= 1
        while self._flights:
            self._land_first()

    @paddle.no_grad()
    def _land_first(self) -> None:
        """Waits for the bucket that left first, and keeps what belongs to this rank."""
        bucket, flat, flight = self._flights.popleft()
        flight.wait()
        if not self.owns(bucket[0]):
            return
        if flat.dtype in HALF:
            flat = flat.astype("float32")
        pieces = flat.split([int(np.prod(parameter.shape)) for parameter in bucket])
        for parameter, piece in zip(bucket, pieces, strict=True):
            piece, before = piece.reshape(parameter.shape), self._kept.get(parameter.name)
            self._kept[parameter.name] = piece if before is None else before + piece


def owners(sizes: list[int], ranks: int) -> list[int]:
    """The rank that keeps each parameter: the largest first, each to the rank that has least so far."""
    load, owner = [0] * ranks, [0] * len(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        owner[i] = load.index(min(load))
        load[owner[i]] += sizes[i]
    return owner


def _buckets(parameters: list[paddle.Tensor], limit: int, owner: dict[str, int]) -> list[list[paddle.Tensor]]:
    """Groups of one dtype, one owner and about `limit` elements. Every open group is in the order of its first parameter."""
    finished: list[list[paddle.Tensor]] = []
    open_groups: dict[tuple, tuple[list[paddle.Tensor], int]] = {}
    for parameter in parameters:
        key = (parameter.dtype, owner.get(parameter.name, 0))
        group, size = open_groups.pop(key, ([], 0))
        group.append(parameter)
        size += int(np.prod(parameter.shape))
        if size >= limit:
            finished.append(group)
        else:
            open_groups[key] = (group, size)
    return finished + [group for group, _ in open_groups.values()]
