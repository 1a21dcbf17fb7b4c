"""Fleet data parallel: start-up, ranks and reductions. One process is the trivial case and needs no fleet.

Gradients are sums over all ranks (every loss is already divided by its global count), so a step does not depend on how
its micro-batches are spread over ranks.
"""

from __future__ import annotations

import os

import numpy as np
import paddle
import paddle.distributed as dist
from paddle.distributed import fleet

BUCKET_ELEMENTS = 8 << 20  # gradients travel in flat pieces of this many elements


def init() -> tuple[int, int]:
    """Joins the run that paddle.distributed.launch started. Returns (rank, ranks); (0, 1) for a plain process."""
    if int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1:
        fleet.init(is_collective=True)
    return rank(), world_size()


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
    if world_size() == 1:
        return values
    tensor = paddle.to_tensor(values)
    dist.all_reduce(tensor)
    return tensor.numpy()


def sum_gradients(parameters: list[paddle.Tensor]) -> None:
    """Sums the gradients of `parameters` over all ranks, in flat pieces, in place.

    The list must be the same on every rank; a rank whose samples gave a parameter no gradient adds zero.
    """
    if world_size() == 1:
        return
    for bucket in _buckets(parameters):
        flat = paddle.concat([paddle.zeros_like(parameter).flatten() if parameter.grad is None else parameter.grad.flatten()
                              for parameter in bucket])
        dist.all_reduce(flat)
        pieces = flat.split([int(np.prod(parameter.shape)) for parameter in bucket])
        for parameter, piece in zip(bucket, pieces, strict=True):
            parameter.grad = piece.reshape(parameter.shape)


def barrier() -> None:
    """Waits for every rank."""
    if world_size() > 1:
        dist.barrier()


def _buckets(parameters: list[paddle.Tensor]) -> list[list[paddle.Tensor]]:
    """Groups of one dtype and at most BUCKET_ELEMENTS elements, in order."""
    buckets: list[list[paddle.Tensor]] = []
    size = 0
    for parameter in parameters:
        count = int(np.prod(parameter.shape))
        if not buckets or size + count > BUCKET_ELEMENTS or buckets[-1][0].dtype != parameter.dtype:
            buckets.append([])
            size = 0
        buckets[-1].append(parameter)
        size += count
    return buckets
