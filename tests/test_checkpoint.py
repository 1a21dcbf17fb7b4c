"""Checkpoints: a kill at any instant leaves the last good one; other models, damaged files and poor warm
starts are refused."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from conftest import ROOT, write_tiny_shards
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ernie2 import checkpoint, out_dir, pretrain
from ernie2.checkpoint import (
    MASTER,
    MASTER_NAME,
    atomic_folder,
    checkpoints,
    optimizer_arrays,
    restore_optimizer,
)
from ernie2.config import Recipe, build
from ernie2.run import prepare_run
from ernie2.strict import ConfigError, apply_overrides
from ernie2.tokenizer import Vocab


def prepare(mapping: dict, *overrides: str):
    return prepare_run(build(Recipe, apply_overrides(mapping, overrides), "r.yaml"), "r.yaml")


def test_a_failed_save_leaves_the_old_folder(tmp_path):
    folder = tmp_path / "step_0000001"
    atomic_folder(folder, lambda tmp: (tmp / "a").write_text("good"))

    def fail(tmp: Path) -> None:
        (tmp / "a").write_text("half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        atomic_folder(folder, fail)
    assert (folder / "a").read_text() == "good" and [p.name for p in tmp_path.iterdir()] == ["step_0000001"]


def test_keeps_the_newest_and_ignores_leftovers(tiny_recipe, tmp_path):
    pretrain.train(
        prepare(tiny_recipe, "runtime.max_steps=10", "runtime.save_every=2", "runtime.keep_last=2")
    )
    assert [step for step, _ in checkpoints(tmp_path / "out")] == [8, 10]
    (tmp_path / "out" / "step_0000099.tmp-1").mkdir()
    (tmp_path / "out" / "step_0000098").mkdir()
    assert [step for step, _ in checkpoints(tmp_path / "out")] == [8, 10]


def test_another_model_is_refused(tiny_recipe):
    pretrain.train(prepare(tiny_recipe, "runtime.max_steps=2"))
    for override, words in (
        ("model.size=mini", "model.size: 'tiny' -> 'mini'"),
        ("seed=4", "seed 3"),
        ("curriculum.stages=[[cover],[order]]", "there, no parameter here"),
    ):
        with pytest.raises(ConfigError) as error:
            prepare(tiny_recipe, override)
        assert words in str(error.value) and "step_0000002" in str(error.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.hidden_act=gelu", "model.hidden_act: 'relu' -> 'gelu'"),
        ("model.layer_norm_eps=1e-12", "model.layer_norm_eps: 1e-05 -> "),
        ("batch.tokens=128", "batch.tokens: 256 -> 128"),
        ("batch.pool_batches=8", "batch.pool_batches: 4 -> 8"),
        ("curriculum.stages=[[cover, order, label]]", "curriculum.stages: "),
        ("curriculum.steps_per_task=30", "steps_per_task: 24 -> 30"),
    ],
)
def test_a_resume_with_another_model_or_place_in_the_data_is_refused(tiny_recipe, override, words):
    pretrain.train(prepare(tiny_recipe, "runtime.max_steps=30"))
    with pytest.raises(ConfigError) as error:
        prepare(tiny_recipe, override)
    assert words in str(error.value) and "model.init_from=" in str(error.value), error.value


def test_a_resume_on_other_shards_is_refused_and_other_changes_are_said(
    tiny_recipe, tiny_tasks, tiny_vocab, caplog, monkeypatch
):
    monkeypatch.setattr("ernie2.logs.logger.propagate", True)
    pretrain.train(prepare(tiny_recipe, "runtime.max_steps=3"))
    run = prepare(
        tiny_recipe,
        "lr.peak=1e-3",
        "runtime.max_steps=5",
        "batch.micro_tokens=64",
        "curriculum.steps_per_task=50",
    )
    assert run.start_step == 3
    for line in (
        "lr.peak: 0.002 -> 0.001",
        "runtime.max_steps: 3 -> 5",
        "batch.micro_tokens: 128 -> 64",
        "steps_per_task: 24 -> 50",
    ):
        assert f"changed since this checkpoint: {line}" in caplog.text.replace("curriculum.", "")
    write_tiny_shards(
        Path(tiny_recipe["data"]["shards_dir"]), tiny_tasks, Vocab.load(tiny_vocab), samples=130
    )
    with pytest.raises(
        ConfigError, match="the shards of cover, order, label in .* are not those it was trained on"
    ):
        prepare(tiny_recipe)


def damage(file: Path, how: str) -> None:
    """What a disk may do to a file."""
    if how == "gone":
        file.unlink()
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:-7])
    else:  # one bit in the middle
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "how", "words"),
    [
        ("model.safetensors", "bit", "sha256"),
        ("optimizer.safetensors", "cut", "bytes"),
        ("vocab.txt", "gone", "No such file"),
        ("recipe.yaml", "bit", "sha256"),
        ("trainer_state.json", "bit", "damaged|lacks"),
        ("trainer_state.json", "cut", "damaged"),
    ],
)
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    tiny_recipe, tmp_path, caplog, monkeypatch, name, how, words
):
    monkeypatch.setattr("ernie2.checkpoint.logger.propagate", True)
    pretrain.train(prepare(tiny_recipe, "runtime.max_steps=6", "runtime.save_every=2"))
    out = tmp_path / "out"
    whole = load_file(out / "step_0000006/model.safetensors")
    damage(out / "step_0000006" / name, how)
    run = prepare(tiny_recipe, "runtime.max_steps=6", "runtime.save_every=2")
    assert run.start_step == 4
    assert re.search(rf"step_0000006/{name}: .*({words}).*trying the checkpoint before it", caplog.text), (
        caplog.text
    )
    assert sorted(path.name for path in out.glob("step_*")) == [
        "step_0000002",
        "step_0000004",
        "step_0000006.damaged",
    ]
    pretrain.train(run)
    again = load_file(out / "step_0000006/model.safetensors")
    assert all(np.array_equal(again[key], whole[key]) for key in whole)


def test_with_nothing_but_damaged_checkpoints_the_run_refuses(tiny_recipe, tmp_path):
    """Weeks of training are not thrown away silently."""
    pretrain.train(prepare(tiny_recipe, "runtime.max_steps=2"))
    state = tmp_path / "out" / "step_0000002" / "trainer_state.json"
    for text, words in (("{bad", "damaged"), ("{}", "lacks step"), ("[1]", "lacks")):
        state.write_text(text, encoding="utf-8")
        with pytest.raises(
            ConfigError, match=f"trainer_state.json: {words}.*no other checkpoint is left: remove"
        ):
            prepare(tiny_recipe)
    assert state.exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [("fp16", "fp16"), ("bf16", "bf16"), ("fp32", "fp16"), ("fp16", "fp32"), ("fp16", "bf16")],
)
def test_a_run_goes_on_exactly_in_any_precision(
    tiny_recipe, tmp_path, half_on_cpu, before, after, caplog, monkeypatch
):
    """On disk weights (of half precision the master weights) and moments are float32; `label` is not trained
    yet."""
    monkeypatch.setattr("ernie2.run.logger.propagate", True)
    run, rng = prepare(tiny_recipe, f"runtime.precision={before}"), np.random.default_rng(0)
    weights = {
        name: rng.normal(0, 0.02, p.shape).astype(np.float32) for name, p in run.model.named_parameters()
    }
    moments = {
        f"{name}|{key}": rng.random(value.shape if "moment" in key else [1]).astype(np.float32)
        for name, value in weights.items()
        if ".label." not in name
        for key in ("moment1_0", "moment2_0", "beta1_pow_acc_0", "beta2_pow_acc_0")
    }
    for name, parameter in run.model.named_parameters():
        parameter.set_value(paddle.to_tensor(weights[name]).astype(parameter.dtype))
    masters = {f"{name}|{MASTER}": value for name, value in weights.items()}
    restore_optimizer(moments | masters, run.model, run.optimizer)
    pretrain.save(run, 3, 0)

    again = prepare(tiny_recipe, f"runtime.precision={after}")
    warm = prepare(
        tiny_recipe,
        f"runtime.precision={after}",
        f"out_dir={tmp_path / 'warm'}",
        f"model.init_from={tmp_path / 'out/step_0000003'}",
    )
    assert again.start_step == 3 and warm.start_step == 0
    assert ("checkpoint: runtime.precision: " in caplog.text) == (before != after)
    for one in (again, warm):
        for name, parameter in one.model.named_parameters():
            half = after != "fp32" and (after == "bf16" or "norm" not in name)
            assert parameter.dtype == getattr(
                paddle, {"fp16": "float16", "bf16": "bfloat16"}[after] if half else "float32"
            )
            rounded = paddle.to_tensor(weights[name]).astype(parameter.dtype)
            assert (parameter.astype("float32") == rounded.astype("float32")).all(), name
            if half:
                assert np.array_equal(one.optimizer._master_weights[parameter.name].numpy(), weights[name]), (
                    name
                )
    got = optimizer_arrays(again.model, again.optimizer).items()
    got = {key.replace(f"{MASTER_NAME}_", ""): array for key, array in got if not key.endswith(MASTER)}
    assert got.keys() == moments.keys() and all(np.array_equal(got[key], moments[key]) for key in got)


def test_an_out_dir_that_is_a_file(tiny_recipe, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="out_dir: .*file cannot be made a folder: File exists"):
        prepare(tiny_recipe, f"out_dir={tmp_path / 'file'}")


# ---- a full disk
# -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_disk_that_fills_up_harms_no_checkpoint(tiny_recipe, tmp_path, monkeypatch, error):
    pretrain.train(prepare(tiny_recipe, "runtime.max_steps=4"))
    real, writes = checkpoint.save_file, []

    def full(arrays: dict, path: str, metadata: dict | None = None) -> None:
        writes.append(path)
        real(arrays, path, metadata)
        if len(writes) == 2:
            raise error

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(
        ConfigError, match=r"the disk was full while writing the checkpoint of step 6: it takes \d\.\d MiB"
    ):
        pretrain.train(prepare(tiny_recipe, "runtime.max_steps=6"))
    assert checkpoint.what_is_wrong(tmp_path / "out/step_0000004") is None
    assert [path.name for path in (tmp_path / "out").glob("step_*")] == ["step_0000004"]
    assert pretrain.train(prepare(tiny_recipe, "runtime.max_steps=6"))["steps"] == 6


def test_missing_room_is_seen_beforehand(tiny_recipe, tmp_path, monkeypatch):
    run = prepare(tiny_recipe, "runtime.max_steps=2")
    monkeypatch.setattr(out_dir, "free_bytes", lambda folder: 3 << 20)
    with pytest.raises(
        ConfigError, match=r"checkpoint of step 2: it takes 9.\d MiB, 3.0 MiB are free, 6.\d MiB are missing"
    ):
        pretrain.train(run)
    with pytest.raises(ConfigError, match="no room for a single checkpoint"):
        prepare(tiny_recipe)


def test_a_real_small_disk(tiny_recipe, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", disk], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounting is not allowed here")
    settings = (f"out_dir={disk}/out", "runtime.save_every=2", "runtime.max_steps=6")
    try:
        pretrain.train(prepare(tiny_recipe, *settings, "runtime.max_steps=4"))
        first, second = prepare(tiny_recipe, *settings), prepare(tiny_recipe, *settings)
        (disk / "filler").write_bytes(b"x" * (shutil.disk_usage(disk).free - (1 << 20)))
        with pytest.raises(ConfigError, match="no room for the checkpoint of step 6.* missing; make room"):
            pretrain.train(first)
        monkeypatch.setattr(
            out_dir, "require_room", lambda *_: None
        )  # as if another process filled it meanwhile
        with pytest.raises(
            ConfigError, match="the disk was full while writing the checkpoint of step 6.* missing; make room"
        ):
            pretrain.train(second)
        assert [(step, checkpoint.what_is_wrong(folder)) for step, folder in checkpoints(disk / "out")] == [
            (2, None),
            (4, None),
        ]
        assert not list((disk / "out").glob("*.tmp-*"))
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)  # this process holds its lock


# ---- whose folder it is
# ----------------------------------------------------------------------------------------------


def test_a_second_run_is_refused_by_name(tiny_recipe, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        out_dir.hold(out, "out_dir")
        os.write(writer, b"x")
        signal.pause()
    os.read(reader, 1)
    try:
        assert out_dir.in_use(out) == f"process {child} on {os.uname().nodename}"
        with pytest.raises(
            ConfigError, match=f"r.yaml: out_dir: {out} is in use by another run .process {child} on"
        ):
            prepare(tiny_recipe)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert out_dir.in_use(out) is None  # a killed run holds nothing
    assert prepare(tiny_recipe).start_step == 0


def test_a_disk_without_locks_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("ernie2.out_dir.logger.propagate", True)

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    out_dir.hold(tmp_path, "r.yaml: out_dir")
    assert "cannot be locked (No locks available)" in caplog.text


def test_leftovers_of_dead_runs_are_removed(tiny_recipe, tmp_path):
    pretrain.train(prepare(tiny_recipe, "runtime.max_steps=4", "runtime.save_every=2"))
    out = tmp_path / "out"
    (out / "step_0000009.tmp-123").mkdir()
    (out / "step_0000009.tmp-123" / "model.safetensors").write_text("half")
    (out / "step_0000004").rename(out / "step_0000004.old-123")  # killed between the renames of a replacement
    shutil.copytree(out / "step_0000002", out / "step_0000002.old-123")
    (out / "mine.tmp-1").mkdir()
    assert prepare(tiny_recipe).start_step == 4
    assert {path.name for path in out.iterdir() if path.is_dir()} == {
        "mine.tmp-1",
        "step_0000002",
        "step_0000004",
    }


def test_warm_start(tiny_recipe, tmp_path):
    pretrain.train(prepare(tiny_recipe, "runtime.max_steps=2"))
    first = tmp_path / "out" / "step_0000002"
    new = [f"model.init_from={first}", f"out_dir={tmp_path / 'new'}"]
    run = prepare(tiny_recipe, *new)
    assert run.start_step == 0
    weight = load_file(first / "model.safetensors")["ernie.pooler.dense.weight"]
    assert np.array_equal(run.model.ernie.pooler.dense.weight.numpy(), weight)
    with pytest.raises(ConfigError, match="model.init_from.*is no checkpoint folder: no model.safetensors"):
        prepare(tiny_recipe, f"model.init_from={tmp_path / 'none'}", f"out_dir={tmp_path / 'new'}")
    (first / "vocab.txt").write_text("[PAD]\n[CLS]\n[SEP]\n[MASK]\n[UNK]\n")
    with pytest.raises(ConfigError, match="is not the vocabulary"):
        prepare(tiny_recipe, *new)


def test_mistakes_stop_before_the_first_step(tiny_recipe, tmp_path):
    for override, words in (
        ("model.vocab_file=none.txt", ["none.txt"]),
        ("data.shards_dir=none", ["none", "data_gen"]),
        ("curriculum.stages=[[covr]]", ["covr", "did you mean 'cover'"]),
        ("runtime.precision=fp16", ["runtime.precision", "GPU"]),
        ("model.task_type_vocab_size=4", ["label.yaml", "task_type_vocab_size"]),
    ):
        with pytest.raises(ConfigError) as error:
            prepare(tiny_recipe, override)
        for word in words:
            assert word in str(error.value), str(error.value)
        assert not (tmp_path / "out").exists()
    recipe = build(Recipe, tiny_recipe, "r.yaml")
    with pytest.raises(ConfigError, match="3 ranks share 2 micro-batches"):
        prepare_run(recipe, "r.yaml", rank=0, ranks=3)
    with pytest.raises(
        ConfigError, match="model.init_from: .*bad is no checkpoint folder: no model.safetensors"
    ):
        (tmp_path / "bad").mkdir()
        save_file({"x": np.zeros(1)}, str(tmp_path / "bad" / "other.safetensors"))
        prepare(tiny_recipe, f"model.init_from={tmp_path / 'bad'}")


DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from ernie2 import tasks
tasks.TASKS_DIR = Path({tasks!r})
from ernie2 import pretrain
from ernie2.strict import cli
if __name__ == "__main__":
    cli(pretrain.main)(sys.argv[1:])
"""


def test_killed_and_resumed_is_bit_for_bit(tiny_recipe, tmp_path):
    """30 steps equal 12 steps, kill -9, resume, 18 steps, through the command line."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump(tiny_recipe), encoding="utf-8")
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER.format(root=str(ROOT), tasks=str(tmp_path / "tasks")), encoding="utf-8")

    def start(out: str, *overrides: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, str(driver), str(recipe), f"out_dir={tmp_path / out}", *overrides],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )

    whole = start("whole", "runtime.max_steps=30")
    assert whole.wait() == 0, whole.stderr.read()
    killed = start("part", "runtime.save_every=12")
    for line in killed.stderr:
        if line.startswith("step 15/"):
            killed.send_signal(signal.SIGKILL)
            break
    killed.wait()
    assert checkpoints(tmp_path / "part")[-1][0] >= 12
    rest = start("part", "runtime.max_steps=30", "runtime.save_every=12")
    assert rest.wait() == 0, rest.stderr.read()
    a, b = (load_file(tmp_path / out / "step_0000030" / "model.safetensors") for out in ("whole", "part"))
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_sigterm_saves_and_leaves(tiny_recipe, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        yaml.safe_dump({**tiny_recipe, "curriculum": {"stages": [["cover"]], "steps_per_task": 100_000}})
    )
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER.format(root=str(ROOT), tasks=str(tmp_path / "tasks")), encoding="utf-8")
    process = subprocess.Popen([sys.executable, str(driver), str(recipe)], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("step 5/"):
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=30) == 0 and "stopped by SIGTERM" in rest
    assert checkpoints(tmp_path / "out")[-1][0] >= 5
