"""The optimizer's state as float32 arrays under names of ours: `<parameter>|<accumulator>` -> array. Whole on
disk, however many ranks shard it: a run may go on with another number of them, and in another precision."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import nn
from paddle.base.layer_helper import LayerHelper

from ernie2.gradients import GradientSums
from ernie2.precision import HALF

MASTER = "master_weight"
MASTER_NAME = "fp32_master_0"  # what Paddle appends to a parameter's name for its master weight, and there looks for its moments


def optimizer_arrays(model: nn.Layer, optimizer: paddle.optimizer.Optimizer,
                     sums: GradientSums | None = None) -> dict[str, np.ndarray]:
    """Moments, powers of the betas and master weights of every parameter.

    Where they are sharded every rank has to call this; rank 0 alone gets the others' arrays.
    """
    arrays = _own_arrays(model, optimizer)
    if sums is None or not sums.stage:
        return arrays
    kept = {name for name, parameter in model.named_parameters() if sums.owns(parameter)}
    mine = {key: array for key, array in arrays.items() if key.partition("|")[0] in kept}
    whole = dict(mine)
    for source in range(1, sums.ranks):
        whole |= _from_rank(mine, source, sums.rank)
    return whole if sums.rank == 0 else mine


def restore_optimizer(arrays: dict[str, np.ndarray], model: nn.Layer, optimizer: paddle.optimizer.Optimizer,
                      sums: GradientSums | None = None) -> None:
    """Puts back what `optimizer_arrays` gave; of sharded state each rank takes its own part.

    Whatever the precision was: Paddle's names of the moments follow each parameter's dtype now, and only
    half-precision parameters take their master weights.
    """
    parameters = dict(model.named_parameters())
    state: dict[str, Any] = {MASTER + "s": {}}
    restored = {}
    for key, array in arrays.items():
        name, _, accumulator = key.partition("|")
        parameter = parameters[name]
        if sums is not None and not sums.owns(parameter):
            continue
        half = parameter.dtype in HALF
        if accumulator != MASTER:
            restored[name] = parameter
            owner = f"{parameter.name}_{MASTER_NAME}" if half else parameter.name
            state[f"{owner}_{accumulator.removeprefix(f'{MASTER_NAME}_')}"] = paddle.to_tensor(array)
        elif half:
            master = state[MASTER + "s"][parameter.name] = paddle.to_tensor(array)
            master.name = f"{parameter.name}_{MASTER_NAME}"
    if not state[MASTER + "s"]:
        del state[MASTER + "s"]
    optimizer.set_state_dict(state)
    _hand_out(optimizer, list(restored.values()))


def _hand_out(optimizer: paddle.optimizer.Optimizer, parameters: list[paddle.Tensor]) -> None:
    """Gives the parameters their restored state now.

    Left to itself Paddle does so at a parameter's next step. Until then state_dict() does not know of it, so that the head of a
    task that rests between two checkpoints would lose its moments; and a head that is trained for the first time is refused.
    """
    optimizer.helper = LayerHelper(type(optimizer).__name__)  # as optimizer.step() does
    optimizer._create_accumulators(paddle.static.default_main_program().global_block(), parameters)


def _own_arrays(model: nn.Layer, optimizer: paddle.optimizer.Optimizer) -> dict[str, np.ndarray]:
    # Paddle's own names depend on the order in which parameters were made.
    names = sorted(((parameter.name, name) for name, parameter in model.named_parameters()), key=lambda pair: -len(pair[0]))
    arrays = {}
    state = optimizer.state_dict()
    for key, value in state.items():
        if isinstance(value, paddle.Tensor):
            paddle_name, name = next(pair for pair in names if key.startswith(pair[0] + "_"))
            arrays[f"{name}|{key[len(paddle_name) + 1:]}"] = value.numpy()
    by_paddle_name = dict(names)
    for key, value in state.get(MASTER + "s", {}).items():
        arrays[f"{by_paddle_name[key]}|{MASTER}"] = value.numpy()
    return arrays


def _from_rank(mine: dict[str, np.ndarray], source: int, rank: int) -> dict[str, np.ndarray]:
    """Sends `source`'s arrays to everybody as one flat piece; {} on ranks that have no use for them."""
    table = json.dumps([[key, list(array.shape)] for key, array in mine.items()]).encode() if rank == source else b""
    size = paddle.to_tensor([len(table), sum(array.size for array in mine.values())], dtype="int64")
    dist.broadcast(size, src=source)
    length, elements = (int(x) for x in size.numpy())
    words = paddle.to_tensor(np.frombuffer(table, np.uint8).astype(np.int32) if rank == source else np.zeros(length, np.int32))
    dist.broadcast(words, src=source)
    flat = (np.concatenate([array.astype(np.float32).ravel() for array in mine.values()] or [np.zeros(0, np.float32)])
            if rank == source else np.zeros(elements, np.float32))
    values = paddle.to_tensor(flat)
    if elements:
        dist.broadcast(values, src=source)
    if rank:
        return {}
    arrays, values, at = {}, values.numpy(), 0
    for key, shape in json.loads(words.numpy().astype(np.uint8).tobytes()):
        count = int(np.prod(shape))
        arrays[key] = values[at: at + count].reshape(shape)
        at += count
    return arrays
