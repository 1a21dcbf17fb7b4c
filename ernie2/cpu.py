"""What only a CPU needs to be fast, behind one switch (flags that paddle reads at its import are in
`ernie2/__init__.py`).

Paddle's CPU kernels sum bias and LayerNorm gradients and draw dropout masks on one slow thread, stretch a
smaller operand at a third of numpy's speed, copy strided views element by element and give freed memory back
to the system at once. On any other device every function here is the library's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import paddle
from paddle.autograd import PyLayer
from paddle.nn import functional as F
from paddle.utils.dlpack import from_dlpack

from ernie2 import paddle_version
from ernie2.malloc import keep_freed_memory

paddle_version.check(paddle.__version__)


class _Switch:
    """Whether the CPU's own ways are taken. `enabled` is the one switch; tests turn it."""

    def __init__(self) -> None:
        self.enabled = False
        self.masks: list[np.random.BitGenerator] = [np.random.SFC64(0)]
        """What dropout is drawn from: one for the whole batch, or one for each of its samples."""


switch = _Switch()


def prepare(enabled: bool = True) -> None:
    """Turns the CPU's own ways on where paddle computes on a CPU, and makes malloc keep freed memory."""
    switch.enabled = enabled and paddle.get_device() == "cpu"
    if switch.enabled:
        keep_freed_memory()


def seed(*parts: int) -> None:
    """Seeds every random draw of a forward pass (dropout) from whole numbers, on any device."""
    state = np.random.SeedSequence(parts)
    paddle.seed(int(state.generate_state(1)[0]))
    switch.masks = [np.random.SFC64(state)]


def seed_samples(parts: tuple[int, ...], samples: Iterable[int]) -> None:
    """As `seed`, so that each sample's dropout depends on its own number alone, not on those it travels with.

    So it is on a CPU, for arrays of equally many elements a sample. Other devices draw for the batch as a
    whole."""
    samples = [int(sample) for sample in samples]
    seed(*parts, samples[0])
    if switch.enabled:
        switch.masks = [np.random.SFC64(np.random.SeedSequence((*parts, sample))) for sample in samples]


class _Shared:
    """A tensor of the CPU as numpy takes it without a copy, to write into as well."""

    TYPES = {paddle.float32: "=f4", paddle.float64: "=f8"}

    def __init__(self, tensor: paddle.Tensor) -> None:
        self.tensor = tensor if tensor.is_contiguous() else tensor.contiguous()
        self.__array_interface__ = {
            "data": (self.tensor.data_ptr(), False),
            "shape": tuple(tensor.shape),
            "version": 3,
            "typestr": self.TYPES[tensor.dtype],
        }


def _stretched(
    operation: np.ufunc, x: paddle.Tensor, y: paddle.Tensor, out: paddle.Tensor | None = None
) -> paddle.Tensor:
    """operation(x, y), y of fewer elements; `out`: where it goes, x itself for one."""
    out = paddle.empty_like(x) if out is None else out
    with np.errstate(all="ignore"):  # a loss that is not a number is dealt with once, at the end of its step
        operation(np.asarray(_Shared(x)), np.asarray(_Shared(y)), out=np.asarray(_Shared(out)))
    return out


class _Linear(PyLayer):
    """x @ weight + bias, whose bias gradient is a matrix product: 25 to 100 times faster than paddle's sum on
    a CPU."""

    @staticmethod
    def forward(ctx, x, weight, bias, transposed):  # noqa: ANN001, ANN205 - paddle's signature
        ctx.save_for_backward(x, weight)
        ctx.transposed = transposed
        out = paddle.matmul(x, weight, transpose_y=transposed)
        return _stretched(np.add, out, bias, out)

    @staticmethod
    def backward(ctx, dy):  # noqa: ANN001, ANN205
        x, weight = ctx.saved_tensor()
        ones = paddle.ones([1, dy.shape[0]], dy.dtype)
        dx = paddle.matmul(dy, weight, transpose_y=not ctx.transposed)
        left, right = (dy, x) if ctx.transposed else (x, dy)
        return dx, paddle.matmul(left, right, transpose_x=True), paddle.matmul(ones, dy).reshape([-1])


def linear(
    x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor, transposed: bool = False
) -> paddle.Tensor:
    """x (N, I) @ weight (I, O) + bias (O) -> (N, O); `transposed`: the weight is (O, I), as a tied embedding
    is."""
    if switch.enabled and paddle.is_grad_enabled() and not weight.stop_gradient:
        return _Linear.apply(x, weight, bias, transposed)
    return paddle.matmul(x, weight, transpose_y=transposed) + bias


class _LayerNorm(PyLayer):
    """LayerNorm over the last axis of (N, H), whose backward takes row means as matrix products."""

    @staticmethod
    def forward(ctx, x, weight, bias, epsilon):  # noqa: ANN001, ANN205 - paddle's signature
        ctx.save_for_backward(x, weight)
        ctx.epsilon = epsilon
        return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)

    @staticmethod
    def backward(ctx, dy):  # noqa: ANN001, ANN205
        x, weight = ctx.saved_tensor()
        mean_of = paddle.full([dy.shape[1], 1], 1.0 / dy.shape[1], dy.dtype)
        ones = paddle.ones([1, dy.shape[0]], dy.dtype)
        normal = _stretched(np.subtract, x, paddle.matmul(x, mean_of))
        scale = paddle.rsqrt(paddle.matmul(normal * normal, mean_of) + ctx.epsilon)
        _stretched(np.multiply, normal, scale, normal)
        dx, slope = _stretched(np.multiply, dy, weight), dy * normal
        d_weight, d_bias = paddle.matmul(ones, slope).reshape([-1]), paddle.matmul(ones, dy).reshape([-1])
        mean, along = (
            paddle.matmul(dx, mean_of),
            paddle.matmul(_stretched(np.multiply, slope, weight, slope), mean_of),
        )
        _stretched(np.subtract, dx, mean, dx).subtract_(_stretched(np.multiply, normal, along, normal))
        return _stretched(np.multiply, dx, scale, dx), d_weight, d_bias


def layer_norm(x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor, epsilon: float) -> paddle.Tensor:
    """LayerNorm over the last axis of (..., H)."""
    if switch.enabled and paddle.is_grad_enabled() and not weight.stop_gradient:
        return _LayerNorm.apply(x.reshape([-1, x.shape[-1]]), weight, bias, epsilon).reshape(x.shape)
    return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)


class _Gelu(PyLayer):
    """x * P(X < x) of a normal X; what the backward pass multiplies by is made of the same terms, and kept
    instead of x."""

    LOG_DENSITY = -0.5 * math.log(2 * math.pi)

    @staticmethod
    def forward(ctx, x):  # noqa: ANN001, ANN205 - paddle's signature
        part = x.scale(2**-0.5)
        below = paddle.erf(part).scale_(0.5, 0.5)
        slope = part.multiply_(part).scale_(-1.0, _Gelu.LOG_DENSITY).exp_().multiply_(x).add_(below)
        ctx.save_for_backward(slope)
        return below.multiply_(x)

    @staticmethod
    def backward(ctx, dy):  # noqa: ANN001, ANN205
        (slope,) = ctx.saved_tensor()
        return slope.multiply_(dy)


def _gelu(x: paddle.Tensor) -> paddle.Tensor:
    if switch.enabled and paddle.is_grad_enabled() and not x.stop_gradient:
        return _Gelu.apply(x)
    return F.gelu(x)


def activation(name: str) -> Callable[[paddle.Tensor], paddle.Tensor]:
    """An activation by its name in paddle.nn.functional."""
    return _gelu if name == "gelu" else getattr(F, name)


def scale_(x: paddle.Tensor, factor: paddle.Tensor) -> None:
    """x *= factor, (), in place; x float32: half precision has no room for 1 / loss scale.

    Other devices leave the factor where it is: to read it would make them wait."""
    if switch.enabled:
        x.scale_(float(factor))
    else:
        x.multiply_(factor)


def squared_norm(x: paddle.Tensor) -> paddle.Tensor:
    """Sum of squares in float32, shape (1, 1)."""
    flat = x.astype("float32").reshape([1, -1])
    return paddle.matmul(flat, flat, transpose_y=True)


def dropout(x: paddle.Tensor, p: float, training: bool) -> paddle.Tensor:
    """Dropout that keeps the expectation. On a CPU p is rounded to 256ths (0.1 -> 26/256) and scaled
    accordingly."""
    if not training or p == 0:
        return x
    if not switch.enabled:
        return F.dropout(x, p, training=True)
    return x * _mask(x.shape, p)


def _mask(shape: list[int], p: float) -> paddle.Tensor:
    """What dropout multiplies by: 0, or what keeps the expectation."""
    threshold = max(1, round(p * 256))
    share = int(np.prod(shape)) // len(switch.masks)
    draws = [one.random_raw((share + 7) // 8).view(np.uint8)[:share] for one in switch.masks]
    bits = (draws[0] if len(draws) == 1 else np.concatenate(draws)).reshape(shape)
    mask = np.multiply(bits >= threshold, np.float32(256 / (256 - threshold)), dtype=np.float32)
    return from_dlpack(mask.__dlpack__())  # shares its memory: paddle.to_tensor would copy


class _AddDropped(PyLayer):
    """x + dropout(y), the sum taken in place."""

    @staticmethod
    def forward(ctx, x, y, p):  # noqa: ANN001, ANN205 - paddle's signature
        mask = _mask(y.shape, p)
        ctx.save_for_backward(mask)
        return (y * mask).add_(x)

    @staticmethod
    def backward(ctx, dy):  # noqa: ANN001, ANN205
        (mask,) = ctx.saved_tensor()
        return dy, mask.multiply_(dy)


def add_dropped(x: paddle.Tensor, y: paddle.Tensor, p: float, training: bool) -> paddle.Tensor:
    """x + dropout(y), of one shape: a residual connection."""
    if switch.enabled and training and p and paddle.is_grad_enabled():
        return _AddDropped.apply(x, y, p)
    return x + dropout(y, p, training)


def _scores(q: paddle.Tensor, k: paddle.Tensor, mask: paddle.Tensor | None) -> paddle.Tensor:
    """What the softmax is taken of, (B, A, T, T)."""
    q = q * q.shape[-1] ** -0.5
    if mask is None:
        return paddle.matmul(q, k, transpose_y=True)
    if not switch.enabled:
        return paddle.matmul(q, k, transpose_y=True) + mask.astype(q.dtype)
    # A CPU adds it as one more column of the product: paddle's sum of two shapes takes ten times as long as
    # the product.
    column = mask.transpose([0, 1, 3, 2]).expand([*q.shape[:3], 1])
    return paddle.matmul(
        paddle.concat([q, paddle.ones_like(column)], -1), paddle.concat([k, column], -1), transpose_y=True
    )


class _Attention(PyLayer):
    """Attention whose backward pass works in place and takes the softmax's row sums over D instead of over
    T."""

    @staticmethod
    def forward(ctx, q, k, v, mask, p):  # noqa: ANN001, ANN205 - paddle's signature
        probabilities = F.softmax(_scores(q, k, mask))
        kept = probabilities * _mask(probabilities.shape, p) if p else probabilities
        out = paddle.matmul(kept, v)
        ctx.save_for_backward(q, k, v, probabilities, kept, out)
        ctx.masked = mask is not None
        return out

    @staticmethod
    def backward(ctx, dy):  # noqa: ANN001, ANN205
        q, k, v, probabilities, kept, out = ctx.saved_tensor()
        dv = paddle.matmul(kept, dy, transpose_x=True)
        sums = paddle.matmul(
            dy * out, paddle.ones([dy.shape[-1], 1], dy.dtype)
        )  # of probability times its gradient, over T
        ds = paddle.matmul(dy, v, transpose_y=True).multiply_(kept)
        ds.subtract_(
            probabilities.multiply_(sums)
        )  # neither `kept` nor `probabilities`, which may be the same, is needed again
        scale = q.shape[-1] ** -0.5
        grads = (paddle.matmul(ds, k).scale_(scale), paddle.matmul(ds, q, transpose_x=True).scale_(scale), dv)
        return (*grads, None) if ctx.masked else grads


def attention(
    q: paddle.Tensor, k: paddle.Tensor, v: paddle.Tensor, mask: paddle.Tensor | None, p: float, training: bool
) -> paddle.Tensor:
    """Scaled dot-product attention by matrix products: (B, A, T, D) three times, mask (B, 1, 1, T) or None ->
    (B, A, T, D)."""
    p = p if training else 0.0
    if switch.enabled and paddle.is_grad_enabled() and not q.stop_gradient:
        return _Attention.apply(q, k, v, mask, p)
    return paddle.matmul(dropout(F.softmax(_scores(q, k, mask)), p, training), v)
