"""The main loop: losses fall, logs and checkpoints are there, a resume is exact, ranks and accumulation do
not matter."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ernie2 import pretrain
from ernie2.config import Recipe, build
from ernie2.run import prepare_run
from ernie2.strict import apply_overrides


def run(mapping: dict, *overrides: str) -> tuple[dict, list[dict]]:
    recipe = build(Recipe, apply_overrides(mapping, overrides), "test")
    result = pretrain.train(prepare_run(recipe, "test"))
    lines = (Path(recipe.out_dir) / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return result, [json.loads(line) for line in lines]


def test_every_task_learns_and_outputs_are_there(tiny_recipe, tmp_path):
    result, records = run(tiny_recipe)
    assert result["steps"] == 24 + 18 - 18 + 48 and result["finished"]
    for task in ("cover", "order", "label"):
        losses = [record["loss"] for record in records if record["task"] == task]
        assert len(losses) == 24
        assert np.mean(losses[-4:]) < np.mean(losses[:4])
    evaluations = [json.loads(line) for line in (tmp_path / "out/eval.jsonl").read_text().splitlines()]
    assert [(e["stage"], e["task"]) for e in evaluations] == [
        (0, "cover"),
        (1, "cover"),
        (1, "order"),
        (2, "cover"),
        (2, "order"),
        (2, "label"),
    ]
    assert (
        result["tasks"]["label"]["dev"]["accuracy"]["token"]
        > result["tasks"]["label"]["dev"]["chance"]["token"]
    )
    folder = tmp_path / "out" / f"step_{result['steps']:07d}"
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "optimizer.safetensors",
        "config.json",
        "README.md",
        "tokenizer_config.json",
        "vocab.txt",
        "recipe.yaml",
        "trainer_state.json",
    }


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def test_resume_is_bit_for_bit(tiny_recipe, tmp_path):
    """12 steps, a fresh start of the model, 18 more: the same bits as 30 at once."""
    whole, part = f"out_dir={tmp_path / 'whole'}", f"out_dir={tmp_path / 'part'}"
    _, whole_log = run(tiny_recipe, whole, "runtime.max_steps=30")
    run(tiny_recipe, part, "runtime.max_steps=12")
    result, part_log = run(tiny_recipe, part, "runtime.max_steps=30")
    assert result["steps"] == 30
    a, b = weights(tmp_path / "whole/step_0000030"), weights(tmp_path / "part/step_0000030")
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name], b[name]), name
    assert [r["losses"] for r in part_log] == [r["losses"] for r in whole_log]
    assert [r["step"] for r in part_log] == list(range(1, 31))


def test_accumulation_does_not_change_the_curve(tiny_recipe, tmp_path):
    """The same global batch in 1, 2 or 4 micro-batches moves the weights once and the same way."""
    still = [
        "model.dropout=0.0",
        "runtime.max_steps=8",
        "curriculum.stages=[[plain]]",
        "batch.pool_batches=1",
    ]
    curves = [
        [
            record["loss"]
            for record in run(
                tiny_recipe, *still, f"batch.micro_tokens={micro}", f"out_dir={tmp_path / str(micro)}"
            )[1]
        ]
        for micro in (256, 128, 64)
    ]
    assert curves[0][0] - curves[0][-1] > 0.01
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5)
    np.testing.assert_allclose(curves[2], curves[0], rtol=1e-5)


def test_a_head_without_labels_in_a_micro_batch_has_a_gradient_of_zero(tiny_recipe):
    """Other ranks may have labels, and every rank needs the same gradients."""
    ready = prepare_run(build(Recipe, tiny_recipe, "test"), "test")
    batch = ready.dev_set("label").batches[0]
    none = np.zeros(0, np.int64)
    ready.model.train()
    heads = ready.model(replace(batch, token_positions=none, token_labels=none))
    assert float(heads["token"].loss_sum) == 0 and heads["token"].count == 0
    (heads["token"].loss_sum + heads["masked_lm"].loss_sum).backward()
    assert all(not p.grad.any() for p in ready.model.token_heads["label"].parameters())


@pytest.mark.parametrize("step", ["one_task", "all_tasks"])
def test_a_head_stays_where_it_is_on_another_tasks_step(tiny_recipe, tmp_path, step):
    """No decay, no momentum: `order`'s head is the same at the end of its last step and at the end of the
    run."""
    run(
        tiny_recipe,
        "curriculum.mode=continual",
        f"curriculum.step={step}",
        "runtime.keep_last=9",
        "curriculum.steps_per_task=6",
    )
    before, after = weights(tmp_path / "out/step_0000012"), weights(tmp_path / "out/step_0000018")
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert not any(name.startswith(("sentence_heads.order.", "ernie.pooler.")) for name in moved)
    assert any(name.startswith("token_heads.label.") for name in moved)
    assert any(name.startswith("ernie.encoder.") for name in moved)


def test_all_tasks_step_trains_every_active_task(tiny_recipe):
    _, records = run(
        tiny_recipe, "curriculum.step=all_tasks", "curriculum.mode=multitask", "curriculum.steps_per_task=4"
    )
    assert [record["task"] for record in records if record["step"] == 2] == ["cover", "label", "order"]


def test_recompute_changes_memory_alone(tiny_recipe, tmp_path):
    """Activations computed again in the backward pass: the same losses to rounding."""
    still = ["runtime.max_steps=6", "model.dropout=0.0"]
    curves = [
        [
            record["loss"]
            for record in run(tiny_recipe, *still, f"runtime.recompute={flag}", f"out_dir={tmp_path / flag}")[
                1
            ]
        ]
        for flag in ("false", "true")
    ]
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5)
