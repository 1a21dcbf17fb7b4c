"""Half precision: the device it needs, and gradients of several micro-batches."""

from __future__ import annotations

import contextlib

import paddle
import pytest
from paddle.amp.auto_cast import amp_initialize

from ernie2 import distributed, precision, pretrain
from ernie2.config import Recipe, build
from ernie2.optim import clip_by_global_norm
from ernie2.run import Run, prepare_run
from ernie2.strict import ConfigError


@pytest.mark.parametrize(
    ("wanted", "capability", "message"),
    [
        ("fp32", None, None),
        ("fp16", (7, 0), None),
        ("bf16", (8, 0), None),
        ("bf16", (9, 0), None),
        (
            "fp16",
            None,
            "runtime.precision: fp16 needs a GPU of compute capability 7.0 .* computes on cpu.*; use fp32$",
        ),
        ("bf16", None, "8.0 or more, but paddle computes on cpu.*use fp32$"),
        ("fp16", (6, 1), "but paddle computes on gpu:0 of compute capability 6.1; use fp32$"),
        ("bf16", (7, 5), "but paddle computes on gpu:0 of compute capability 7.5; use fp16 or fp32$"),
    ],
)
def test_half_precision_needs_a_gpu_in_use_that_has_it(monkeypatch, wanted, capability, message):
    """Paddle built for GPUs, with none in use, trained "fp16" in float32 on the CPU."""
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0" if capability else "cpu")
    monkeypatch.setattr(paddle.device.cuda, "get_device_capability", lambda *_: capability)
    if message is None:
        return precision.check_precision(wanted, "runtime.precision")
    with pytest.raises(ConfigError, match=message):
        precision.check_precision(wanted, "runtime.precision")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gradients_of_micro_batches_are_added_in_float32(dtype):
    """In half precision 1 + 2**-12 is 1, however often; a head that no micro-batch reaches keeps no
    gradient."""
    model = amp_initialize(
        [paddle.nn.Sequential(paddle.nn.Linear(3, 2), paddle.nn.Linear(2, 2))], dtype, None
    )[0]
    replica, parameter = distributed.Replica(model), model[0].weight
    for _ in range(2):  # nothing of a step is left in the next
        for micro in range(65):
            with replica.micro_batch(last=micro == 64):
                replica.backward((parameter.astype("float32") * (1.0 if micro == 0 else 2.0**-12)).sum())
        clip_by_global_norm(model.parameters(), 0.0, 2.0)
        assert parameter.grad.dtype == paddle.float32 and (parameter.grad == (1 + 2.0**-6) / 2).all()
        assert model[1].weight.grad is None
        for one in model.parameters():
            one.clear_gradient(False)


def test_evaluation_computes_in_the_precision_of_training(tiny_recipe, monkeypatch):
    inside = []

    @contextlib.contextmanager
    def autocast(run: Run):
        inside.append(run)
        yield
        inside.pop()

    monkeypatch.setattr(Run, "autocast", autocast)
    monkeypatch.setattr(pretrain, "evaluate", lambda *_: list(inside))
    run = prepare_run(build(Recipe, tiny_recipe, "r.yaml"), "r.yaml")
    assert pretrain.evaluate_all(run, 0, pretrain.distributed.Stop()) == {"cover": [run]}
