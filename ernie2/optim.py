"""AdamW groups, learning-rate schedules, gradient clipping and loss scaling.

Schedules are pure functions of the step (from 0), so that a resume needs no scheduler state."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import paddle
from paddle import nn

from ernie2 import cpu
from ernie2.config import LrConfig
from ernie2.curriculum import Plan, Turn
from ernie2.precision import HALF
from ernie2.strict import ConfigError


def decays(name: str, parameter: paddle.Tensor) -> bool:
    """Whether weight decay applies: matrices and embeddings yes, LayerNorm and biases no."""
    return parameter.ndim >= 2


def build_optimizer(
    model: nn.Layer,
    weight_decay: float,
    betas: tuple[float, float] | list[float],
    eps: float,
    multi_precision: bool = False,
    layer_decay: float = 1.0,
) -> paddle.optimizer.AdamW:
    """AdamW with decoupled decay of matrices and embeddings. Parameters without a gradient are left alone by
    a step. layer_decay: a layer's learning rate as a share of that above it, the embeddings below all."""
    shares = layer_shares([name for name, _ in model.named_parameters()], layer_decay)
    for name, parameter in model.named_parameters():
        parameter.optimize_attr["learning_rate"] = shares[name]
    decayed = {parameter.name for name, parameter in model.named_parameters() if decays(name, parameter)}
    return paddle.optimizer.AdamW(
        learning_rate=0.0,
        parameters=model.parameters(),
        beta1=betas[0],
        beta2=betas[1],
        epsilon=eps,
        weight_decay=weight_decay,
        apply_decay_param_fun=decayed.__contains__,
        multi_precision=multi_precision,
    )


def layer_shares(names: Sequence[str], layer_decay: float) -> dict[str, float]:
    """Parameter -> its learning rate as a share of the head's: layer_decay once for each layer below it."""
    layer = {name: int(found[1]) for name in names if (found := re.search(r"encoder\.layers\.(\d+)\.", name))}
    top = max(layer.values(), default=-1) + 1
    below = {
        name: top - layer[name] if name in layer else (top + 1) * ("embeddings." in name) for name in names
    }
    return {name: layer_decay**count for name, count in below.items()}


def schedule(kind: str, step: int, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Learning rate of step `step` (from 0).

    noam: linear to the peak at step `warmup_steps`, then peak * sqrt(warmup_steps / step): the released
    code's `noam_decay(1 / (warmup * lr^2), warmup)`. linear: warm-up, then linearly to 0 at total_steps.
    constant: warm-up, then the peak. released: Baidu's fine-tuning (optimization.py), the peak where there is
    no warm-up, else step / warmup_steps of it, then 1 - step / total_steps."""
    if kind == "released":
        if step < warmup_steps:
            return peak * step / warmup_steps
        return peak * max(1 - step / total_steps, 0) if warmup_steps else peak
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


def squared_norm(gradients: list[paddle.Tensor]) -> paddle.Tensor:
    """Sum of all squares in float32, (); 0 of none."""
    return paddle.add_n(
        [cpu.squared_norm(gradient) for gradient in gradients] or [paddle.zeros([1, 1])]
    ).reshape([])


@paddle.no_grad()
def clip_by_global_norm(
    parameters: list[paddle.Tensor], clip_norm: float, loss_scale: float = 1.0
) -> paddle.Tensor:
    """Takes the loss scale out of all gradients and scales them so that their global norm is at most
    clip_norm.

    Half-precision gradients become float32 first: without the loss scale small ones would be 0 in fp16.

    Args:
        parameters: those without a gradient are left out.
        clip_norm: the limit; 0 = only measure.
        loss_scale: what the loss was multiplied by.

    Returns:
        The norm before clipping, without the loss scale, (). Not finite where a gradient is not."""
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.dtype in HALF:
            gradient = parameter.grad.astype("float32")
            parameter.clear_gradient(False)  # what is there can only be overwritten by its like
            parameter.grad = gradient
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = squared_norm(gradients).sqrt() / loss_scale
    if clip_norm or loss_scale != 1.0:
        # Stays on the device; exactly 1 / loss_scale below the limit.
        scale = (clip_norm / paddle.clip(norm, min=clip_norm) if clip_norm else paddle.ones([])) / loss_scale
        for gradient in gradients:
            cpu.scale_(gradient, scale)
    return norm


class LossScaler:
    """Dynamic loss scaling: half-precision gradients are computed of a scaled loss, so that small ones do not
    vanish.

    Released code (PAPER section 5): from 102,400, x2 after 100 good steps in a row, x0.8 after 2 overflows in
    a row. At most 2**24, the default max_loss_scale of NVIDIA's Apex. A number on the host, not on the
    device, so that every rank has the same and a checkpoint holds it exactly.

    Args:
        enabled: False for fp32 and bf16: the scale is 1 and nothing changes.
        first: the first scale.
        floor: the run stops where the scale would fall below this."""

    GROW_AFTER, GROW_BY, SHRINK_AFTER, SHRINK_BY, LARGEST = 100, 2.0, 2, 0.8, 2.0**24

    def __init__(self, enabled: bool, first: float = 102_400.0, floor: float = 1.0) -> None:
        self.enabled, self.scale, self.floor = enabled, first if enabled else 1.0, floor
        self.good = self.overflows = 0

    def scaled(self, loss: paddle.Tensor) -> paddle.Tensor:
        """The loss to take gradients of."""
        return loss * self.scale if self.enabled else loss

    def update(self, overflow: bool) -> None:
        """Counts a step. Raises ConfigError where the scale falls below the floor."""
        if not self.enabled:
            return
        self.good, self.overflows = (0, self.overflows + 1) if overflow else (self.good + 1, 0)
        if self.good == self.GROW_AFTER:
            self.scale, self.good = min(self.scale * self.GROW_BY, self.LARGEST), 0
        if self.overflows == self.SHRINK_AFTER:
            self.scale, self.overflows = self.scale * self.SHRINK_BY, 0
        if self.scale < self.floor:
            raise ConfigError(
                f"runtime.min_loss_scale: the loss scale fell to {self.scale:.3g}, below {self.floor:g}: "
                "gradients "
                f"overflow fp16 however small the loss is made; the run diverges: lower lr.peak, or use "
                f"runtime.precision=bf16 or fp32"
            )

    def state_dict(self) -> dict[str, float]:
        """What a resume needs; nothing where it is not enabled."""
        return (
            {} if not self.enabled else {"scale": self.scale, "good": self.good, "overflows": self.overflows}
        )

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Goes on where `state_dict` was taken; after a run without loss scaling there is nothing to go on
        with."""
        if self.enabled and state:
            self.scale, self.good, self.overflows = (
                state["scale"],
                int(state["good"]),
                int(state["overflows"]),
            )
