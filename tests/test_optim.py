"""Optimizer: which parameters decay, the noam peak, restarts, clipping."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle.amp.auto_cast import amp_initialize

from ernie2.config import CurriculumConfig, LrConfig
from ernie2.curriculum import Turn, make_plan
from ernie2.encoder import EncoderConfig
from ernie2.model import ErnieForPretraining, initialise
from ernie2.optim import LossScaler, build_optimizer, clip_by_global_norm, decays, learning_rate, schedule
from ernie2.strict import ConfigError
from ernie2.tasks import Loss, Task

CONFIG = EncoderConfig(40, 16, 1, 2, 32)
TASK = Task("x", 0, "documents", "a.b", [Loss("masked_lm"), Loss("sentence", 3)])


def test_decay_touches_matrices_and_embeddings_and_nothing_else():
    """With zero gradients an update is decay alone (ERNIE `develop` had it the wrong way round)."""
    model = ErnieForPretraining(CONFIG, [TASK])
    initialise(model, 0.5, 1)
    optimizer = build_optimizer(model, 0.1, [0.9, 0.98], 1e-8)
    before = {name: parameter.numpy() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = paddle.zeros_like(parameter)
    optimizer.set_lr(0.5)
    optimizer.step()
    for name, parameter in model.named_parameters():
        expected = before[name] * (1 - 0.5 * 0.1 if decays(name, parameter) else 1)
        np.testing.assert_allclose(parameter.numpy(), expected, rtol=1e-6, err_msg=name)
    decayed = {name for name, parameter in model.named_parameters() if decays(name, parameter)}
    assert all("norm" not in name and not name.endswith("bias") for name in decayed)
    assert {"ernie.embeddings.word_embeddings.weight", "ernie.encoder.layers.0.linear1.weight"} <= decayed


def test_noam_peaks_at_lr_exactly():
    rates = [schedule("noam", step, 1.28e-4, 4000, 0) for step in range(20_000)]
    assert max(rates) == rates[3999] == 1.28e-4
    assert rates[0] == pytest.approx(1.28e-4 / 4000) and rates[15_999] == pytest.approx(1.28e-4 / 2)


def test_linear_and_constant():
    assert [schedule("linear", step, 1.0, 2, 6) for step in range(7)] == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    assert [schedule("linear", step, 1.0, 0, 4) for step in (0, 2)] == [1.0, 0.5]
    assert [schedule("constant", step, 1.0, 2, 6) for step in (0, 5)] == [0.5, 1.0]


@pytest.mark.parametrize(("warmup", "steps"), [(0, 50), (5, 50), (10, 37)])
def test_the_released_schedule(warmup: int, steps: int):
    """A plain re-statement of ERNIE's optimization.py: a step counter from 0, linear_warmup_decay where there is
    a warm-up (polynomial_decay to 0 of power 1 after it), a constant otherwise."""
    for counter in range(steps + 5):
        if not warmup:
            wanted = 3e-5
        elif counter < warmup:
            wanted = 3e-5 * (counter / warmup)
        else:
            wanted = 3e-5 * (1 - min(counter, steps) / steps)
        assert schedule("released", counter, 3e-5, warmup, steps) == pytest.approx(wanted, abs=1e-18)


def test_restarts():
    plan = make_plan(CurriculumConfig(stages=[["a"], ["b"]], steps_per_task=30))
    second = plan.stages[1].first_step

    def rate(restart: str, step: int) -> float:
        return learning_rate(
            LrConfig(peak=1.0, warmup_steps=10, restart=restart), plan, step, plan.turns(step)
        )

    assert rate("stage", second) == pytest.approx(0.1)
    assert rate("never", second) == pytest.approx((10 / (second + 1)) ** 0.5)
    step = next(s for s in range(plan.steps) if plan.turns(s) == [Turn("b", 4)])
    assert rate("task", step) == pytest.approx(0.5)


def test_clipping():
    parameters = [paddle.create_parameter(shape, "float32") for shape in ([3, 4], [5])]
    rng = np.random.default_rng(0)
    gradients = [rng.standard_normal(parameter.shape).astype(np.float32) for parameter in parameters]
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    for limit, factor in ((0.5, 0.5 / norm), (1e3, 1.0), (0.0, 1.0)):
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = paddle.to_tensor(gradient)
        assert float(clip_by_global_norm(parameters, limit)) == pytest.approx(norm, rel=1e-6)
        for parameter, gradient in zip(parameters, gradients):
            np.testing.assert_allclose(parameter.grad.numpy(), gradient * factor, rtol=1e-5)


def test_clipping_takes_the_loss_scale_out():
    parameter = paddle.create_parameter([3, 4], "float32")
    gradient = np.random.default_rng(0).standard_normal([3, 4]).astype(np.float32)
    norm = float(np.sqrt((gradient**2).sum()))
    for limit, factor in ((0.5, 0.5 / norm), (1e3, 1.0), (0.0, 1.0)):
        parameter.grad = paddle.to_tensor(gradient * 1024)
        assert float(clip_by_global_norm([parameter], limit, 1024.0)) == pytest.approx(norm, rel=1e-6)
        np.testing.assert_allclose(parameter.grad.numpy(), gradient * factor, rtol=1e-5)


def test_small_fp16_gradients_survive_the_loss_scale():
    """Divided by 102,400 in fp16, 1.3% of these would become 0; the median error would be 0.3%."""
    model = ErnieForPretraining(CONFIG, [TASK])
    initialise(model, 0.3, 1)
    ids = paddle.to_tensor(np.random.default_rng(0).integers(0, 40, [4, 16]))
    sequence, pooled = model.ernie(ids, paddle.zeros_like(ids))
    weights = paddle.to_tensor(np.cos(np.arange(4 * 16 * 16, dtype=np.float32)).reshape([4, 16, 16]))
    ((sequence * weights).mean() + pooled.mean()).backward()
    exact = {name: p.grad.numpy() / 1000 for name, p in model.named_parameters() if p.grad is not None}
    amp_initialize([model], "float16", None)
    parameters = {
        name: p for name, p in model.named_parameters() if name in exact and p.dtype == paddle.float16
    }
    for name, parameter in parameters.items():
        parameter.clear_gradient(False)
        parameter.grad = paddle.to_tensor(exact[name] * 102_400).astype("float16")
    wanted = np.concatenate([p.grad.astype("float32").numpy().ravel() for p in parameters.values()]) / 102_400
    norm = clip_by_global_norm(list(parameters.values()), 1.0, 102_400.0)
    assert float(norm) == pytest.approx(
        np.sqrt(sum((exact[name] ** 2).sum() for name in parameters)), rel=1e-3
    )
    got = np.concatenate(
        [parameter.grad.astype("float32").numpy().ravel() for parameter in parameters.values()]
    )
    there = wanted != 0
    assert there.sum() > 1_000 and (got[there] != 0).all()
    assert np.median(np.abs(got - wanted)[there] / np.abs(wanted[there])) < 1e-3


def test_loss_scale_has_a_limit():
    scaler = LossScaler(True)
    for _ in range(2_000):
        scaler.update(False)
    assert scaler.scale == 2.0**24


def test_loss_scale_grows_and_shrinks_as_released():
    """102,400; x2 after 100 good steps in a row, x0.8 after 2 overflows in a row."""
    scaler = LossScaler(True)
    for overflow in [False] * 99 + [True] + [False] * 99 + [True, False, True]:
        scaler.update(overflow)
        assert scaler.scale == 102_400
    scaler.update(True)
    assert scaler.scale == 102_400 * 0.8
    for _ in range(100):
        scaler.update(False)
    assert scaler.scale == 102_400 * 1.6
    again = LossScaler(True)
    again.load_state_dict(scaler.state_dict())
    assert again.state_dict() == scaler.state_dict()


def test_loss_scale_stops_at_its_floor():
    scaler = LossScaler(True, 2.0, floor=1.5)
    for _ in range(3):
        scaler.update(True)
    assert scaler.scale == 1.6
    with pytest.raises(ConfigError, match="runtime.min_loss_scale: the loss scale fell to 1.28, below 1.5"):
        scaler.update(True)


def test_without_loss_scaling_nothing_changes():
    scaler, loss = LossScaler(False), paddle.ones([])
    for _ in range(300):
        scaler.update(True)
    scaler.load_state_dict({})
    assert scaler.scale == 1.0 and scaler.scaled(loss) is loss and scaler.state_dict() == {}
