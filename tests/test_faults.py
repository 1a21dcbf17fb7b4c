"""Steps that are not numbers: skipped without a trace in the weights, dumped, counted, and stopped as the
recipe says."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from safetensors.numpy import load_file

from ernie2 import pretrain
from ernie2.batching import Batch
from ernie2.config import Recipe, build
from ernie2.model import ErnieForPretraining
from ernie2.optim import LossScaler
from ernie2.run import Run, prepare_run
from ernie2.strict import ConfigError, apply_overrides

BRIEF = (
    "runtime.max_steps=12",
    "runtime.save_every=1",
    "runtime.keep_last=99",
    "curriculum.stages=[[order]]",
)


def prepare(mapping: dict, *overrides: str) -> Run:
    return prepare_run(build(Recipe, apply_overrides(mapping, overrides), "r.yaml"), "r.yaml")


def records(out: Path) -> list[dict]:
    return [
        json.loads(line, parse_constant=pytest.fail)
        for line in (out / "train.jsonl").read_text().splitlines()
    ]


def same(a: Path, b: Path, file: str) -> bool:
    first, second = load_file(a / file), load_file(b / file)
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


class Poison:
    """Makes the second micro-batch's loss, or the summed gradients, something else at given steps (from
    1)."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        losses: dict[int, float] | None = None,
        head: str = "sentence",
        gradients: dict[int, float] | None = None,
    ) -> None:
        self.losses, self.gradients, self.head = losses or {}, gradients or {}, head
        self.step = self.micro = 0
        self._seed, self._forward = pretrain.cpu.seed, ErnieForPretraining.forward
        self._norm = pretrain.clip_by_global_norm
        monkeypatch.setattr(pretrain.cpu, "seed", self.seed)
        poison = self

        def forward(model: ErnieForPretraining, batch: Batch) -> dict:
            return poison.forward(model, batch)

        monkeypatch.setattr(ErnieForPretraining, "forward", forward)
        monkeypatch.setattr(pretrain, "clip_by_global_norm", self.norm)

    def seed(self, *parts: int) -> None:
        self.step, self.micro = parts[2] + 1, parts[4]
        self._seed(*parts)

    def forward(self, model: ErnieForPretraining, batch: Batch) -> dict:
        heads = self._forward(model, batch)
        if model.training and self.micro == 1 and self.step in self.losses:
            value, result = self.losses[self.step], heads[self.head]
            # An added infinity leaves the gradients finite.
            loss = result.loss_sum + value if value == float("inf") else result.loss_sum * value
            heads[self.head] = result._replace(loss_sum=loss)
        return heads

    def norm(self, parameters: list, *others: object) -> paddle.Tensor:
        if self.step in self.gradients:
            parameters[0].grad.multiply_(parameters[0].grad * 0 + self.gradients[self.step])
        return self._norm(parameters, *others)


def test_a_bad_step_leaves_no_trace(tiny_recipe: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Poison(monkeypatch, {5: float("nan"), 6: float("inf"), 9: float("nan")})
    result = pretrain.train(prepare(tiny_recipe, *BRIEF))
    out = tmp_path / "out"
    assert result["finished"] and result["steps"] == 12
    for step, before in ((5, 4), (6, 4), (9, 8)):
        for file in ("model.safetensors", "optimizer.safetensors"):
            assert same(out / f"step_{step:07d}", out / f"step_{before:07d}", file), (step, file)
    assert not same(out / "step_0000007", out / "step_0000006", "model.safetensors")
    lines = {record["step"]: record for record in records(out)}
    assert sorted(lines) == [1, 2, 3, 4, 7, 8, 10, 11, 12]
    assert [lines[step]["skipped_steps"] for step in (4, 7, 8, 10)] == [0, 2, 2, 3]
    assert result["tokens"] == sum(record["tokens"] for record in lines.values())


def test_the_count_survives_a_resume(tiny_recipe: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Poison(monkeypatch, {3: float("nan")})
    pretrain.train(prepare(tiny_recipe, *BRIEF, "runtime.max_steps=4"))
    pretrain.train(prepare(tiny_recipe, *BRIEF, "runtime.max_steps=6"))
    assert records(tmp_path / "out")[-1]["skipped_steps"] == 1


def test_the_batch_is_kept(
    tiny_recipe: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    Poison(monkeypatch, {5: float("nan")}, head="masked_lm")
    run = prepare(tiny_recipe, *BRIEF)
    monkeypatch.setattr("ernie2.faults.logger.propagate", True)
    pretrain.train(run)
    text = next(message for message in caplog.messages if "step skipped" in message)
    for words in (
        "step 5: masked_lm loss of task order is not a number in 1 micro-batch",
        "learning rate 0.002",
        "gradient norm nan",
        "out/faults/step_0000005.rank0.npz",
        "1 in a row (runtime.max_bad_steps allows 3)",
    ):
        assert words in text, text
    with np.load(tmp_path / "out/faults/step_0000005.rank0.npz", allow_pickle=False) as kept:
        assert int(kept["step"]) == 5 and str(kept["1.task"]) == "order" and "0.task" not in kept
        samples = run.streams["order"].batch(4)[1]
        batch = run.streams["order"].micro_batch(4, 1, samples, ["basic", "phrase", "entity"], run.collate)
        for name in ("token_ids", "mlm_labels", "sentence_labels", "lengths"):
            assert np.array_equal(kept[f"1.{name}"], getattr(batch, name)), name
        assert np.isnan(kept["1.loss.masked_lm"]) and kept["1.loss.sentence"] > 0


def test_too_many_in_a_row_stop_the_run(tiny_recipe: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Poison(monkeypatch, {3: float("nan"), 5: float("nan"), 6: float("nan")})
    with pytest.raises(ConfigError) as error:
        pretrain.train(prepare(tiny_recipe, *BRIEF, "runtime.max_bad_steps=1"))
    for words in (
        "step 6: sentence loss of task order is not a number",
        "2 bad steps in a row, runtime.max_bad_steps allows 1",
        "lr.peak",
        "faults/step_0000006.rank0.npz",
    ):
        assert words in str(error.value), str(error.value)
    newest = load_file(tmp_path / "out/step_0000005/model.safetensors")
    assert all(np.isfinite(array).all() for array in newest.values())
    with pytest.raises(ConfigError, match="step 3: .*runtime.max_bad_steps allows 0"):
        pretrain.train(
            prepare(tiny_recipe, *BRIEF, "runtime.max_bad_steps=0", f"out_dir={tmp_path / 'strict'}")
        )


def test_a_gradient_that_is_no_number(tiny_recipe: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Poison(monkeypatch, gradients={4: float("inf")})
    with pytest.raises(
        ConfigError, match="step 4: the gradient of task order is not a number, though the losses are"
    ):
        pretrain.train(prepare(tiny_recipe, *BRIEF, "runtime.max_bad_steps=0"))
    with np.load(tmp_path / "out/faults/step_0000004.rank0.npz", allow_pickle=False) as kept:
        assert {"0.task", "1.task"} <= set(kept)  # which of them it was cannot be told


def test_a_dump_that_cannot_be_written_hides_nothing(
    tiny_recipe: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    Poison(monkeypatch, {2: float("nan")})
    (tmp_path / "out").mkdir()
    (tmp_path / "out/faults").write_text("in the way")
    with pytest.raises(ConfigError, match=r"step 2: sentence loss .*could not be kept in .*File exists"):
        pretrain.train(prepare(tiny_recipe, *BRIEF, "runtime.max_bad_steps=0"))


# ---- loss scaling, forced on a CPU
# ----------------------------------------------------------------------------------


def scaled(run: Run, scaler: LossScaler) -> Run:
    run.scaler = run.bad_steps.scaler = scaler
    return run


def test_a_scaled_loss_trains_as_an_unscaled_one(tiny_recipe: dict, tmp_path: Path):
    for clip in ("1.0", "0.0"):
        outs = [f"out_dir={tmp_path / name}{clip}" for name in ("plain", "scaled")]
        pretrain.train(prepare(tiny_recipe, *BRIEF, f"optimizer.clip_norm={clip}", outs[0]))
        pretrain.train(
            scaled(
                prepare(tiny_recipe, *BRIEF, f"optimizer.clip_norm={clip}", outs[1]), LossScaler(True, 1024.0)
            )
        )
        plain, other = (records(tmp_path / f"{name}{clip}") for name in ("plain", "scaled"))
        for key in ("loss", "grad_norm"):
            np.testing.assert_allclose([r[key] for r in other], [r[key] for r in plain], rtol=1e-5)
        assert other[-1]["loss_scale"] == 1024.0 and plain[-1]["loss_scale"] == 1.0


def test_overflows_shrink_the_scale_and_are_no_faults(
    tiny_recipe: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    Poison(monkeypatch, gradients=dict.fromkeys((2, 3, 4, 5, 6), float("inf")))
    run = scaled(prepare(tiny_recipe, *BRIEF, "runtime.max_bad_steps=0"), LossScaler(True, 1000.0))
    pretrain.train(run)
    lines = records(tmp_path / "out")
    assert [line["step"] for line in lines] == [1, *range(7, 13)] and lines[-1]["skipped_steps"] == 5
    assert lines[-1]["loss_scale"] == pytest.approx(1000 * 0.8**2) and not (tmp_path / "out/faults").exists()
    assert same(tmp_path / "out/step_0000006", tmp_path / "out/step_0000001", "optimizer.safetensors")
    state = json.loads((tmp_path / "out/step_0000006/trainer_state.json").read_text())
    assert state["scaler"] == {"scale": 1000 * 0.8 * 0.8, "good": 0, "overflows": 1}


def test_a_nan_loss_is_a_fault_with_loss_scaling_too(tiny_recipe: dict, monkeypatch: pytest.MonkeyPatch):
    Poison(monkeypatch, {3: float("nan")})
    with pytest.raises(ConfigError, match="step 3: sentence loss"):
        pretrain.train(
            scaled(prepare(tiny_recipe, *BRIEF, "runtime.max_bad_steps=0"), LossScaler(True, 1024.0))
        )


def test_the_floor_of_the_loss_scale(tiny_recipe: dict, monkeypatch: pytest.MonkeyPatch):
    Poison(monkeypatch, gradients=dict.fromkeys(range(2, 99), float("inf")))
    with pytest.raises(
        ConfigError, match=r"runtime.min_loss_scale: the loss scale fell to 0.96, below 1.*lr.peak.*bf16"
    ):
        pretrain.train(scaled(prepare(tiny_recipe, *BRIEF), LossScaler(True, 1.5)))


# ---- SIGTERM
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "name", "call", "left_at"),
    [
        (pretrain.cpu, "seed", 19, 9),  # before the first of the two micro-batches of step 10
        (pretrain, "evaluate", 5, 14),
    ],
)  # after the second of three tasks, in the second evaluation
def test_sigterm_in_the_middle_of_something(
    tiny_recipe: dict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    call: int,
    left_at: int,
):
    """It leaves at once, and the run that goes on writes what an undisturbed one does, to the bit."""
    settings = (
        "runtime.max_steps=30",
        "runtime.eval_every=7",
        "curriculum.mode=multitask",
        "runtime.save_every=50",
    )
    pretrain.train(prepare(tiny_recipe, *settings, f"out_dir={tmp_path / 'whole'}"))
    real, calls = getattr(owner, name), []

    def hit(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, hit)
        result = pretrain.train(prepare(tiny_recipe, *settings))
    out = tmp_path / "out"
    assert not result["finished"] and len(calls) == call
    assert [path.name for path in out.glob("step_*")] == [f"step_{left_at:07d}"]
    result = pretrain.train(prepare(tiny_recipe, *settings))
    assert result["finished"] and set(result["tasks"]) == {"cover", "order", "label"}
    assert same(out / "step_0000030", tmp_path / "whole/step_0000030", "model.safetensors")
    assert (out / "eval.jsonl").read_text() == (tmp_path / "whole/eval.jsonl").read_text()
    assert [r["losses"] for r in records(out)] == [r["losses"] for r in records(tmp_path / "whole")]


def test_a_finished_run_started_again_keeps_its_results(tiny_recipe: dict, tmp_path: Path):
    first = pretrain.train(prepare(tiny_recipe, *BRIEF))
    evaluations = (tmp_path / "out/eval.jsonl").read_text()
    again = pretrain.train(prepare(tiny_recipe, *BRIEF))
    assert again["tasks"] == first["tasks"] and again["tokens"] == first["tokens"]
    assert (tmp_path / "out/eval.jsonl").read_text() == evaluations


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("(ResourceExhausted) Out of memory error on GPU 0")]
)
def test_a_run_that_finds_no_memory_says_what_to_set(
    tiny_recipe: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error
):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump(apply_overrides(tiny_recipe, ["batch.tokens=512"])), encoding="utf-8")

    def fail(run: Run) -> dict:
        raise error

    monkeypatch.setattr(pretrain, "train", fail)
    with pytest.raises(
        ConfigError, match=r"found no memory: .*batch\.micro_tokens=64 .*runtime\.recompute=true"
    ):
        pretrain.main([str(recipe)])
    monkeypatch.setattr(pretrain, "train", lambda run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pretrain.main([str(recipe)])
