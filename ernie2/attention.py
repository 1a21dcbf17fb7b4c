"""Scaled dot-product attention by the best kernel that this device has and that proves right on it.

Shape letters: B samples, T tokens, A heads, D = H / A."""

from __future__ import annotations

import time

import paddle
from paddle.nn import functional as F

from ernie2 import cpu, distributed
from ernie2.logs import logger
from ernie2.precision import DTYPES, autocast

FLASH_CAPABILITY = 8
"""FlashAttention 2 is compiled for compute capability 8.0 and above; a V100 is 7.0."""
ALIGNED = 8
"""The memory-efficient kernel takes a mask only of such a T (cutlass' check_supported: bias_strideM)."""
TIMED_TOKENS, TIMED_PASSES = 8_192, 5
TOLERANCE = 2e-2
"""Largest difference from the plain way, of values of size 1 in half precision, that passes the trial."""


class _Choice:
    """The kernel in use. Set once by `choose`, before the first step."""

    def __init__(self) -> None:
        self.name, self.dtype = "plain", "float32"


choice = _Choice()


def choose(precision: str, heads: int, width: int, length: int) -> str:
    """Picks the kernel for this run and says why. Returns its name: flash, memory_efficient or plain.

    A fused kernel is taken only where forward and backward passes give what the plain way gives, in less
    time, on every rank's device. `length`: tokens of a sample, for the time."""
    name, why = _candidate(precision)
    choice.dtype = DTYPES[precision]
    if name != "plain":
        problem = _slower_or_wrong(name, precision, heads, width, length)
        if distributed.any_rank(problem is not None):  # kernels draw dropout in ways of their own
            name, why = "plain", problem or f"{name} is slower or wrong on another rank"
    choice.name = name
    logger.info("attention: %s (%s)", name, why)
    return name


def _slower_or_wrong(name: str, precision: str, heads: int, width: int, length: int) -> str | None:
    problem, seconds = measure(name, precision, heads, width, length)
    if problem:
        return f"{name} failed its trial: {problem}"
    plain = measure("plain", precision, heads, width, length)[1]
    if seconds < plain:
        return None
    return f"{1e3 * plain:.2f} ms of {TIMED_TOKENS:,} tokens; {name} takes {1e3 * seconds:.2f}"


def measure(
    name: str, precision: str, heads: int, width: int, length: int
) -> tuple[str | None, float | None]:
    """(what is wrong with a kernel on this device, or None; seconds of a training pass over TIMED_TOKENS)."""
    kernel = _KERNELS[name]
    if name != "plain" and (problem := _trial(kernel, heads, width // heads, precision)):
        return problem, None
    samples = max(TIMED_TOKENS // length, 1)
    times = []
    for _ in range(TIMED_PASSES):
        started = time.perf_counter()
        made = _pass(kernel, heads, width // heads, precision, length, True, 0.1, True, samples)
        float(made[-1].reshape([-1])[0])  # waits for the device
        times.append(time.perf_counter() - started)
    return None, min(times)


def _candidate(precision: str) -> tuple[str, str]:
    if not paddle.get_device().startswith("gpu"):
        return "plain", "matrix products and softmax; the fused kernels are for GPUs"
    if precision == "fp32":
        return "plain", "the fused kernels are for fp16 and bf16"
    major, minor = paddle.device.cuda.get_device_capability()
    if major >= FLASH_CAPABILITY:
        return "flash", f"FlashAttention 2, compute capability {major}.{minor}"
    if major == 7:
        return (
            "memory_efficient",
            f"compute capability {major}.{minor}; FlashAttention 2 begins at {FLASH_CAPABILITY}.0",
        )
    return "plain", f"compute capability {major}.{minor}; the fused kernels begin at 7.0"


def attend(qkv: paddle.Tensor, mask: paddle.Tensor | None, dropout: float, training: bool) -> paddle.Tensor:
    """Attention of every token to all tokens of its sample.

    Args:
        qkv: queries, keys and values, (B, T, 3, A, D).
        mask: added to the scores, (B, 1, 1, T); None = nothing is padded.
        dropout: of the attention probabilities.
        training: whether dropout applies.

    Returns:
        (B, T, A, D)."""
    if choice.name != "plain":  # under O1 a product with a float32 bias is float32
        qkv = qkv.astype(choice.dtype)
    return _KERNELS[choice.name](qkv, mask, dropout, training)


def _plain(qkv: paddle.Tensor, mask: paddle.Tensor | None, dropout: float, training: bool) -> paddle.Tensor:
    q, k, v = qkv.transpose([2, 0, 3, 1, 4]).unbind(0)
    return cpu.attention(q, k, v, mask, dropout, training).transpose([0, 2, 1, 3])


def _flash(qkv: paddle.Tensor, mask: paddle.Tensor | None, dropout: float, training: bool) -> paddle.Tensor:
    q, k, v = qkv.unbind(2)
    if mask is not None:
        mask = mask.astype(q.dtype).expand([q.shape[0], 1, q.shape[1], q.shape[1]])
    # Paddle 2.6 does not pass `training` on where there is no mask.
    dropout = dropout if training else 0.0
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, training=training)


def _memory_efficient(
    qkv: paddle.Tensor, mask: paddle.Tensor | None, dropout: float, training: bool
) -> paddle.Tensor:
    from paddle.incubate.nn.memory_efficient_attention import memory_efficient_attention

    if mask is not None and qkv.shape[1] % ALIGNED:
        return _plain(qkv, mask, dropout, training)
    q, k, v = qkv.unbind(2)
    if mask is not None:
        mask = mask.astype(q.dtype).expand([q.shape[0], q.shape[2], q.shape[1], q.shape[1]])
    return memory_efficient_attention(
        q, k, v, attn_bias=mask, p=dropout if training else 0.0, training=training
    )


_KERNELS = {"plain": _plain, "flash": _flash, "memory_efficient": _memory_efficient}


TRIALS = [
    (length, padded, dropout, training)
    for length in (13, 24)
    for padded in (False, True)
    for dropout, training in ((0.0, True), (0.1, True), (0.1, False))
]


def _trial(kernel, heads: int, width: int, precision: str) -> str | None:  # noqa: ANN001 - one of _KERNELS
    """What is wrong with a kernel on this device; None where nothing is.

    Where dropout applies it is only asked for finite numbers: each kernel draws its own."""
    try:
        for length, padded, dropout, training in TRIALS:
            for mine, theirs in zip(
                *(
                    _pass(way, heads, width, precision, length, padded, dropout, training)
                    for way in (_plain, kernel)
                ),
                strict=True,
            ):
                difference = float((mine - theirs).abs().max() / mine.abs().max())
                if not difference < (float("inf") if dropout and training else TOLERANCE):
                    return (
                        f"it differs from the plain way by {difference:.2g} with {length} tokens"
                        f"{', padding' * padded}, dropout {dropout}, training={training}"
                    )
    except Exception as error:  # noqa: BLE001 - whatever a missing kernel raises, the plain way is there
        return str(error).strip().splitlines()[-1][:200] if str(error).strip() else type(error).__name__
    return None


def _pass(
    way,
    heads: int,
    width: int,
    precision: str,
    length: int,
    padded: bool,  # noqa: ANN001
    dropout: float,
    training: bool,
    samples: int = 2,
) -> list[paddle.Tensor]:
    """Output, and in training gradient, under autocast, in float32; all samples but the first are padded."""
    paddle.seed(7)
    qkv = paddle.randn([samples, length, 3, heads, width]).astype(DTYPES[precision])
    qkv.stop_gradient = not training
    lengths = paddle.to_tensor([length] + [length // 2 + 1] * (samples - 1)).reshape([samples, 1, 1, 1])
    beyond = paddle.arange(length).reshape([1, 1, 1, length]) >= lengths
    mask = beyond.astype("float32") * -1e4 if padded else None
    with autocast(precision):
        out = way(qkv, mask, dropout, training)
    if not training:
        return [out.astype("float32")]
    out.astype("float32").square().sum().backward()
    return [out.astype("float32"), qkv.grad.astype("float32")]
