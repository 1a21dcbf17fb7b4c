"""The optimizer's state goes through a checkpoint whole: of tasks that rest, of heads not trained yet, of
master weights."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from ernie2 import pretrain
from ernie2.checkpoint import optimizer_arrays, restore_optimizer
from ernie2.config import Recipe, build
from ernie2.optim import build_optimizer
from ernie2.run import prepare_run
from ernie2.strict import apply_overrides


def train(mapping: dict, *overrides: str) -> None:
    pretrain.train(prepare_run(build(Recipe, apply_overrides(mapping, overrides), "r.yaml"), "r.yaml"))


def test_a_task_that_rests_between_two_checkpoints_keeps_its_moments(tiny_recipe, tmp_path):
    """`order` is trained in steps 50 and 56, and not between the second and the third checkpoint."""
    stages = [51, 53, 60]
    for step in stages:
        train(tiny_recipe, f"runtime.max_steps={step}")
    first, second, third = (
        load_file(tmp_path / f"out/step_{step:07d}/optimizer.safetensors") for step in stages
    )
    assert first.keys() == second.keys() == third.keys()
    resting = [key for key in first if key.startswith("sentence_heads.order.")]
    assert len(resting) == 8 and all(np.array_equal(first[key], second[key]) for key in resting)
    train(tiny_recipe, f"out_dir={tmp_path / 'whole'}", "runtime.max_steps=60")
    whole = load_file(tmp_path / "whole/step_0000060/optimizer.safetensors")
    assert all(np.array_equal(third[key], whole[key]) for key in whole)


def test_a_head_is_trained_for_the_first_time_after_a_resume(tiny_recipe, tmp_path):
    """`label` comes for the first time in step 39, the first one after the resume; `order` follows later."""
    for step in (38, 40):
        train(tiny_recipe, f"runtime.max_steps={step}")
    keys = [set(load_file(tmp_path / f"out/step_{step:07d}/optimizer.safetensors")) for step in (38, 40)]
    new = {key.split("|")[0] for key in keys[1] - keys[0]}
    assert new == {"token_heads.label.classifier.weight", "token_heads.label.classifier.bias"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_master_weights_and_their_moments(dtype: str):
    def half() -> tuple[paddle.nn.Layer, paddle.optimizer.Optimizer]:
        model = paddle.nn.Sequential(paddle.nn.Linear(4, 3), paddle.nn.Linear(3, 2)).to(dtype=dtype)
        return model, build_optimizer(model, 0.01, (0.9, 0.98), 1e-8, multi_precision=True)

    model, optimizer = half()
    wanted = {}
    for number, (name, parameter) in enumerate(model.named_parameters()):
        full = np.full(parameter.shape, 0.1 * number, np.float32)
        wanted[f"{name}|master_weight"] = full
        for i in (1, 2):
            wanted[f"{name}|fp32_master_0_moment{i}_0"] = full + i
            wanted[f"{name}|fp32_master_0_beta{i}_pow_acc_0"] = np.full(1, 0.5, np.float32)
    restore_optimizer(wanted, model, optimizer)
    got = optimizer_arrays(model, optimizer)
    assert got.keys() == wanted.keys() and all(np.array_equal(got[key], wanted[key]) for key in wanted)

    other, its_optimizer = half()
    restore_optimizer(got, other, its_optimizer)
    again = optimizer_arrays(other, its_optimizer)
    assert again.keys() == got.keys() and all(np.array_equal(again[key], got[key]) for key in got)
