"""Runs that are killed, and runs of two processes: where they go on, who is told of it, and that nothing
shows in the weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT
from safetensors.numpy import load_file
from test_checkpoint import DRIVER
from test_scripts import SETTLED
from test_watchdog import freed_port

from ernie2.checkpoint import checkpoints
from ernie2.strict import apply_overrides

pytestmark = pytest.mark.slow

KILLER = DRIVER.replace(
    "if __name__",
    """
import os, random, shutil, signal, time
import ernie2.checkpoint, ernie2.logs


def train(arguments, arm):
    # A child of a process that has paddle, but has computed nothing: it costs no start-up.
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
            arm()
            pretrain.main(arguments)
            os._exit(0)
        finally:
            os._exit(1)
    return child


def at_call(owner, name, number):
    # Dies at the number-th call of a function: half of them before it, half after.
    real, calls = getattr(owner, name), []

    def call(*arguments, **named):
        calls.append(1)
        if len(calls) == number and number % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **named)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return lambda: setattr(owner, name, call)


POINTS = [(os, "fsync", 60), (Path, "rename", 9), (shutil, "rmtree", 9), (ernie2.checkpoint, "save_file", 14),
          (ernie2.checkpoint, "write_json", 14), (pretrain, "evaluate", 9), (pretrain, "save", 7),
          (ernie2.logs.RunLog, "_write", 60), (pretrain, "optimizer_step", 50), (ernie2.logs, "reopen", 2)]


def main(recipe, out, seed, whole_seconds):
    draw, kills, tries, where = random.Random(seed), 0, 0, {{}}
    while kills < 20 and tries < 60:
        tries += 1
        point = draw.choice([*POINTS, *[None] * 6])
        if point is None:
            child = train([recipe, "out_dir=" + out], lambda: None)
            time.sleep(draw.uniform(0.1, 0.8) * whole_seconds)
            os.kill(child, signal.SIGKILL)
        else:
            child = train([recipe, "out_dir=" + out], at_call(*point[:2], draw.randint(1, point[2])))
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            kills += 1
            where[point[1] if point else "clock"] = where.get(point[1] if point else "clock", 0) + 1
            continue
        assert os.waitstatus_to_exitcode(status) == 0
        shutil.rmtree(out)  # it came to its end: from the beginning
    assert kills == 20, kills
    _, status = os.waitpid(train([recipe, "out_dir=" + out], lambda: None), 0)
    assert status == 0
    print(where)


if __name__""",
).replace(
    "cli(pretrain.main)(sys.argv[1:])",
    """
    begin = time.monotonic()
    _, status = os.waitpid(train([sys.argv[1], "out_dir=" + sys.argv[2]], lambda: None), 0)
    assert status == 0
    main(sys.argv[1], sys.argv[3], int(sys.argv[4]), time.monotonic() - begin)
""",
)


def test_killed_at_20_random_instants(tiny_recipe, tmp_path):
    """Inside a save, between stages, during an evaluation, at any time: the same bits in weights, moments and
    logs."""
    mapping = apply_overrides(
        tiny_recipe, ["runtime.save_every=5", "runtime.eval_every=9", "runtime.keep_last=2"]
    )
    recipe, driver, log = tmp_path / "r.yaml", tmp_path / "driver.py", tmp_path / "log"
    recipe.write_text(yaml.safe_dump(mapping), encoding="utf-8")
    driver.write_text(
        KILLER.format(root=str(ROOT), tasks=str(tmp_path / "tasks"), log=str(log)), encoding="utf-8"
    )
    done = subprocess.run(
        [sys.executable, driver, recipe, tmp_path / "whole", tmp_path / "part", "7"],
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr + log.read_text()
    for name in ("model.safetensors", "optimizer.safetensors"):
        a, b = (load_file(tmp_path / out / "step_0000072" / name) for out in ("whole", "part"))
        assert a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a), name
    whole, part = (
        [json.loads(line) for line in (tmp_path / out / "train.jsonl").read_text().splitlines()]
        for out in ("whole", "part")
    )
    assert [(r["step"], r["losses"], r["tokens"]) for r in part] == [
        (r["step"], r["losses"], r["tokens"]) for r in whole
    ]
    assert (tmp_path / "part/eval.jsonl").read_text() == (tmp_path / "whole/eval.jsonl").read_text()
    tasks = [json.loads((tmp_path / out / "result.json").read_text())["tasks"] for out in ("whole", "part")]
    assert tasks[0] == tasks[1]
    assert not [
        path for path in (tmp_path / "part").iterdir() if ".tmp-" in path.name or ".old-" in path.name
    ]


# ---- two processes, as run_pretrain.sh starts them
# ------------------------------------------------------------------

POISONED = DRIVER.replace(
    "if __name__",
    """
import os
from ernie2.model import ErnieForPretraining
real, steps = ErnieForPretraining.forward, []


def forward(model, batch):
    # Rank 1's loss alone is no number, in its steps 4 and 5.
    heads = real(model, batch)
    if model.training:
        steps.append(1)
        if os.environ["PADDLE_TRAINER_ID"] == "1" and len(steps) in (4, 5):
            result = heads["masked_lm"]
            heads["masked_lm"] = result._replace(loss_sum=result.loss_sum * float("nan"))
    return heads


ErnieForPretraining.forward = forward
if __name__""",
)
START = """
set -euo pipefail
source {root}/ernie2/env.sh
cd {folder}
ernie2_environment
ernie2_processes
ernie2_train_again driver "$@"
"""
Start = Callable[..., subprocess.Popen]


@pytest.fixture()
def start(tiny_recipe: dict, tmp_path: Path) -> Start:
    """start("key=value", ..., NPROC="2") starts the tiny run as run_pretrain.sh does, its output in
    tmp_path/said<said>."""
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(tiny_recipe), encoding="utf-8")
    (tmp_path / "start.sh").write_text(START.format(root=ROOT, folder=tmp_path), encoding="utf-8")

    def run(*overrides: str, driver: str = DRIVER, said: str = "", **environment: str) -> subprocess.Popen:
        (tmp_path / "driver.py").write_text(
            driver.format(root=str(ROOT), tasks=str(tmp_path / "tasks")), encoding="utf-8"
        )
        kept = {
            key: value
            for key, value in os.environ.items()
            if key not in SETTLED and not key.startswith("PADDLE_")
        }
        kept |= {
            "ERNIE2_PYTHON": sys.executable,
            "OMP_NUM_THREADS": "1",
            "NPROC": "2",
            "TMPDIR": str(tmp_path),
            "PYTHONPATH": str(tmp_path),
            "ERNIE2_RETRY_PAUSE": "0",
            **environment,
        }
        with (tmp_path / f"said{said}").open("w") as output:
            return subprocess.Popen(
                ["bash", tmp_path / "start.sh", str(tmp_path / "r.yaml"), *overrides],
                env=kept,
                stdout=output,
                stderr=output,
            )

    return run


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def ranks_of(out: Path) -> list[int]:
    """Process numbers of the run that writes to `out`, by rank."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words, environment = (
                (entry / "cmdline").read_bytes().split(b"\0"),
                (entry / "environ").read_bytes(),
            )
        except OSError:
            continue
        if f"out_dir={out}".encode() in words and b"PADDLE_TRAINER_ID=" in environment:
            found[int(environment.split(b"PADDLE_TRAINER_ID=")[1].split(b"\0")[0])] = int(entry.name)
    return [found[rank] for rank in sorted(found)]


LONG = "curriculum.steps_per_task=100000"


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_takes_the_other_along_and_is_named(start: Start, tmp_path: Path, victim: int):
    out = tmp_path / "out"
    process = start(LONG, f"out_dir={out}")
    wait_for(lambda: (out / "train.jsonl").exists() and (out / "train.jsonl").read_text().count("\n") > 5)
    numbers = ranks_of(out)
    assert len(numbers) == 2
    os.kill(numbers[victim], signal.SIGKILL)
    begin = time.monotonic()
    assert process.wait(timeout=60) == 137 and time.monotonic() - begin < 60
    assert not any(Path(f"/proc/{number}").exists() for number in numbers)
    said = (tmp_path / "said").read_text()
    assert f"error: process {victim} of this node failed first, with exit code 137" in said, said
    (log,) = tmp_path.glob(f"ernie2.*/workerlog.{1 - victim}")
    assert f"error: rank {victim} (process {numbers[victim]} on" in log.read_text()
    assert "Traceback" not in said


def test_after_a_crash_it_starts_again_from_the_newest_checkpoint(start: Start, tmp_path: Path):
    out = tmp_path / "out"
    process = start("runtime.save_every=5", f"out_dir={out}", RETRIES="2")
    wait_for(lambda: checkpoints(out))
    os.kill(ranks_of(out)[1], signal.SIGKILL)
    assert process.wait(timeout=200) == 0
    said = (tmp_path / "said").read_text()
    assert (
        "training stopped with exit code 137 (killed, perhaps for want of memory); in 0 s it starts again"
        in said
    ), said
    assert "try 1 of RETRIES=2" in said and f"resuming from {out}/step_" in said
    assert json.loads((out / "result.json").read_text())["finished"]


def test_two_processes_leave_together_at_sigterm(start: Start, tmp_path: Path):
    """The signal reaches one process alone: both leave after the same step, with a checkpoint, within 30
    s."""
    out = tmp_path / "out"
    process = start(LONG, f"out_dir={out}")
    wait_for(lambda: (out / "train.jsonl").exists() and (out / "train.jsonl").read_text().count("\n") > 5)
    begin = time.monotonic()
    os.kill(ranks_of(out)[1], signal.SIGTERM)
    assert process.wait(timeout=60) == 0 and time.monotonic() - begin < 30
    assert "stopped by SIGTERM after step" in (tmp_path / "said").read_text()
    ((step, _),) = checkpoints(out)
    assert step == json.loads((out / "train.jsonl").read_text().splitlines()[-1])["step"]


def test_a_bad_step_of_one_rank_is_skipped_by_both(start: Start, tmp_path: Path):
    out = tmp_path / "out"
    assert (
        start(
            "runtime.max_steps=8",
            "runtime.save_every=1",
            "runtime.keep_last=9",
            f"out_dir={out}",
            driver=POISONED,
        ).wait(timeout=120)
        == 0
    )
    said = (tmp_path / "said").read_text()
    assert "step 4: masked_lm loss of task cover is not a number in 1 micro-batch" in said, said
    assert {path.name for path in (out / "faults").glob("*.npz")} == {
        "step_0000004.rank1.npz",
        "step_0000005.rank1.npz",
    }
    arrays = [load_file(out / f"step_{step:07d}/optimizer.safetensors") for step in (3, 5, 6)]
    assert all(np.array_equal(arrays[0][name], arrays[1][name]) for name in arrays[0])
    assert not all(np.array_equal(arrays[1][name], arrays[2][name]) for name in arrays[0])
    last = json.loads((out / "train.jsonl").read_text().splitlines()[-1])
    assert last["skipped_steps"] == 2 and np.isfinite(last["loss"])


def test_too_many_bad_steps_are_a_mistake_and_not_tried_again(start: Start, tmp_path: Path):
    process = start("runtime.max_bad_steps=1", f"out_dir={tmp_path / 'out'}", driver=POISONED, RETRIES="3")
    assert process.wait(timeout=120) == 2
    said = (tmp_path / "said").read_text()
    assert said.count("error:") == 1 and "2 bad steps in a row" in said and "try 1" not in said, said


def test_another_number_of_processes_goes_on_alike(start: Start, tmp_path: Path):
    """12 steps alone and 18 in two processes follow the curve of 30 alone, to rounding."""
    curves = {}
    for out, parts in (("whole", (("1", 30),)), ("part", (("1", 12), ("2", 20), ("1", 30)))):
        for processes, steps in parts:
            assert (
                start(f"runtime.max_steps={steps}", f"out_dir={tmp_path / out}", NPROC=processes).wait(
                    timeout=120
                )
                == 0
            )
        lines = (tmp_path / out / "train.jsonl").read_text().splitlines()
        curves[out] = [json.loads(line)["loss"] for line in lines]
    assert len(curves["part"]) == 30
    np.testing.assert_allclose(curves["part"], curves["whole"], rtol=1e-5)


def test_two_nodes_start_again_together(start: Start, tmp_path: Path):
    """Two launchers, as on two machines under Slurm: the death of node 1's process ends node 0's too, and both
    go on from the checkpoint."""
    out = tmp_path / "out"
    step = {"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "n[4-5]"}
    step |= {"NPROC": "1", "MASTER": f"127.0.0.1:{freed_port()}", "RETRIES": "1"}
    nodes = [
        start("runtime.save_every=5", f"out_dir={out}", said=str(node), SLURM_NODEID=str(node), **step)
        for node in range(2)
    ]
    wait_for(lambda: checkpoints(out))
    victim = ranks_of(out)[1]
    os.kill(victim, signal.SIGKILL)
    assert [node.wait(timeout=200) for node in nodes] == [0, 0]
    first, second = ((tmp_path / f"said{node}").read_text() for node in range(2))
    assert (
        f"error: rank 1 (process {victim} on" in first
        and "stopped with exit code 75 (another process" in first
    ), first
    assert "stopped with exit code 137 (killed" in second and "try 1 of RETRIES=1" in second, second
    assert f"resuming from {out}/step_" in first and json.loads((out / "result.json").read_text())["finished"]
