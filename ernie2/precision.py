"""Half precision: on which devices it works, and the context in which a model computes in it."""

from __future__ import annotations

import contextlib

import paddle

from ernie2.strict import ConfigError

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
HALF = (paddle.float16, paddle.bfloat16)
CAPABILITY = {"fp16": (7, 0), "bf16": (8, 0)}
"""Compute capability from which Paddle's AMP works (its _is_gpu_float16_supported,
_is_gpu_bfloat16_supported). Below, and on a CPU, decorate() leaves everything in float32 without a word."""


def check_precision(precision: str, key: str) -> None:
    """Raises ConfigError naming `key` where the device in use does not compute in this precision."""
    if precision == "fp32":
        return
    device, found = paddle.get_device(), (0, 0)
    if device.startswith("gpu"):
        found = tuple(paddle.device.cuda.get_device_capability())
        device += " of compute capability {}.{}".format(*found)
    elif not paddle.is_compiled_with_cuda():
        device += " (this paddle is built without CUDA)"
    if found < CAPABILITY[precision]:
        other = "fp16 or fp32" if found >= CAPABILITY["fp16"] else "fp32"
        raise ConfigError(
            f"{key}: {precision} needs a GPU of compute capability {CAPABILITY[precision][0]}.0 "
            f"or more, but paddle computes on {device}; use {other}"
        )


def autocast(precision: str, level: str = "O2") -> contextlib.AbstractContextManager:
    """Paddle's AMP; with fp32 nothing. O2 suits half-precision weights, O1 float32 ones."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return paddle.amp.auto_cast(level=level, dtype=DTYPES[precision])
