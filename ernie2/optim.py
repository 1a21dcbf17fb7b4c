"""AdamW groups, learning-rate schedules and gradient clipping.

Schedules are pure functions of the step (from 0), so that a resume needs no scheduler state.
"""

from __future__ import annotations

import math

import paddle
from paddle import nn

from ernie2 import cpu
from ernie2.config import LrConfig
from ernie2.curriculum import Plan, Turn


def decays(name: str, parameter: paddle.Tensor) -> bool:
    """Whether weight decay applies: matrices and embeddings yes, LayerNorm and biases no."""
    return parameter.ndim >= 2


def build_optimizer(model: nn.Layer, weight_decay: float, betas: tuple[float, float] | list[float], eps: float,
                    multi_precision: bool = False) -> paddle.optimizer.AdamW:
    """AdamW with decoupled decay of matrices and embeddings. Parameters without a gradient are left alone by a step."""
    decayed = {parameter.name for name, parameter in model.named_parameters() if decays(name, parameter)}
    return paddle.optimizer.AdamW(
        learning_rate=0.0, parameters=model.parameters(), beta1=betas[0], beta2=betas[1], epsilon=eps,
        weight_decay=weight_decay, apply_decay_param_fun=decayed.__contains__, multi_precision=multi_precision)


def schedule(kind: str, step: int, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Learning rate of step `step` (from 0).

    noam: linear to the peak at step `warmup_steps`, then peak * sqrt(warmup_steps / step): the released code's
    `noam_decay(1 / (warmup * lr^2), warmup)`. linear: warm-up, then linearly to 0 at total_steps. constant: warm-up, then
    the peak.
    """
    number = step + 1
    if number <= warmup_steps:
        return peak * number / warmup_steps
    if kind == "noam":
        return peak * math.sqrt(max(warmup_steps, 1) / number)
    if kind == "linear":
        return peak * max(total_steps - step, 0) / max(total_steps - warmup_steps, 1)
    return peak


def learning_rate(config: LrConfig, plan: Plan, step: int, turns: list[Turn]) -> float:
    """Learning rate of a pre-training step, counted from what `lr.restart` names."""
    if config.restart == "stage":
        stage = plan.stage_of(step)
        since, total = step - stage.first_step, stage.steps
    elif config.restart == "task":
        since = turns[0].batch
        total = sum(stage.shares.get(turns[0].task, 0) for stage in plan.stages)
    else:
        since, total = step, plan.steps
    return schedule(config.schedule, since, config.peak, config.warmup_steps, total)


@paddle.no_grad()
def clip_by_global_norm(parameters: list[paddle.Tensor], clip_norm: float) -> paddle.Tensor:
    """Scales all gradients so that their global norm is at most clip_norm (0 = only measure). Returns the norm before, ()."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = paddle.add_n([cpu.squared_norm(gradient) for gradient in gradients]).sqrt().reshape([])
    if clip_norm:
        scale = clip_norm / paddle.clip(norm, min=clip_norm)  # stays on the device; exactly 1 below the limit
        for gradient in gradients:
            gradient.multiply_(scale.astype(gradient.dtype))
    return norm
