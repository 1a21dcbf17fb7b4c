"""The same training however it is spread: ranks times accumulation, uneven shares, heads that some ranks do
not reach."""
# ruff: noqa: F401, F811 - the fixture is imported to be named as an argument

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from safetensors.numpy import load_file
from test_checkpoint import DRIVER
from test_resume import Start, start

pytestmark = pytest.mark.slow

RATE = "lr.peak=1.28e-4"  # the paper's: rounding grows with it
EIGHT = ("batch.tokens=1024", "batch.micro_tokens=128", RATE)
AS_ON_A_GPU = DRIVER.replace(
    "if __name__",
    """
import functools
import paddle
from ernie2 import distributed
paddle.DataParallel = functools.partial(paddle.DataParallel, comm_buffer_size=0.05, last_comm_buffer_size=0.01)


class Replica(distributed.Replica):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.overlaps = True


distributed.Replica = Replica
if __name__""",
)
"""Gradients travel during the backward pass, in several buckets."""


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "train.jsonl").read_text().splitlines()]


def test_the_same_curve_for_one_two_and_eight_ranks(start: Start, tmp_path: Path):
    """1 x 8, 2 x 4 and 8 x 1 (ranks x micro-batches of each), 50 steps in fp32, dropout and all: equal to
    1e-5."""
    curves = {}
    for ranks in (1, 2, 8):
        out = tmp_path / f"out{ranks}"
        process = start(
            *EIGHT,
            "runtime.max_steps=50",
            f"out_dir={out}",
            NPROC=str(ranks),
            driver=AS_ON_A_GPU,
            RETRIES="3",
        )  # gloo sometimes fails to connect eight processes of one small machine
        assert process.wait(timeout=400) == 0, (tmp_path / "said").read_text()[-2000:]
        curves[ranks] = losses(out)
    assert len(curves[1]) == 50
    np.testing.assert_allclose(curves[2], curves[1], rtol=1e-5)
    np.testing.assert_allclose(curves[8], curves[1], rtol=1e-5)


def test_uneven_shares_and_a_resume_with_fewer_ranks(start: Start, tmp_path: Path):
    """Three micro-batches for two ranks (one has two, one has one), every stage of the curriculum, and a
    resume alone."""
    parts = ("batch.tokens=384", "batch.micro_tokens=128", "runtime.save_every=30", RATE)
    runs = {"whole": [("1", 40)], "shared": [("2", 30), ("1", 40)]}
    for out, steps in runs.items():
        for ranks, end in steps:
            process = start(*parts, f"runtime.max_steps={end}", f"out_dir={tmp_path / out}", NPROC=ranks)
            assert process.wait(timeout=200) == 0, (tmp_path / "said").read_text()[-2000:]
    np.testing.assert_allclose(losses(tmp_path / "shared"), losses(tmp_path / "whole"), rtol=1e-5)
    whole, shared = (
        load_file(tmp_path / out / "step_0000030/optimizer.safetensors") for out in ("whole", "shared")
    )
    assert whole.keys() == shared.keys()
    for name, array in whole.items():
        np.testing.assert_allclose(
            shared[name], array, rtol=2e-3, atol=1e-7 + 1e-3 * np.abs(array).max(), err_msg=name
        )


REPLICA = """
import ernie2  # noqa: F401 - its flags for paddle
import numpy as np
import paddle
from paddle.amp.auto_cast import amp_initialize

from ernie2 import distributed


class Model(paddle.nn.Layer):
    def __init__(self):
        super().__init__()
        self.trunk, self.heads = paddle.nn.Linear(4, 4), paddle.nn.LayerList([paddle.nn.Linear(4, 2) for _ in range(4)])
        for number, parameter in enumerate(self.parameters()):
            parameter.set_value(np.random.default_rng(number).standard_normal(parameter.shape).astype("float32"))

    def forward(self, x, head):
        for layer in (self.trunk, self.heads[head]):
            x = paddle.tanh(paddle.matmul(x, layer.weight.astype("float32")) + layer.bias.astype("float32"))
        return {"loss": (x.sum(), 1)}


def gradients(replica, micros, share):
    mine = [number for number, (rank, _) in enumerate(micros) if rank in share]
    for number in mine:
        x = paddle.to_tensor(np.random.default_rng(number).standard_normal((3, 4)).astype("float32"))
        with replica.micro_batch(last=number == mine[-1]):
            replica.backward(replica.forward(x, micros[number][1])["loss"][0])
    found = [None if p.grad is None else p.grad.astype("float32").numpy() for p in replica._parameters]
    for parameter in replica._parameters:
        parameter.clear_gradient(False)
    return found


rank, _ = distributed.init()
STEPS = [[(0, 0), (1, 0)],  # (rank, head) of the micro-batches of a step: one each
         [(0, 0), (1, 0), (0, 0)],  # uneven
         [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)],  # all tasks
         # another order, and another head in the last backward pass
         [(1, 1), (0, 0), (0, 1), (1, 0), (0, 1)],
         [(0, 3), (1, 3)]]
for dtype, tolerance in (("float32", 1e-6), ("bfloat16", 2e-2)):
    for overlaps in (True, False):
        model, alone = Model(), Model()
        if dtype != "float32":
            model, alone = amp_initialize([model, alone], dtype, None)
        replica = distributed.Replica(model)
        replica.overlaps = overlaps
        distributed.world_size = lambda: 1
        single = distributed.Replica(alone)
        distributed.world_size = paddle.distributed.get_world_size
        for micros in STEPS:
            for got, wanted in zip(gradients(replica, micros, {rank}), gradients(single, micros, {0, 1})):
                assert (got is None) == (wanted is None), (dtype, overlaps, micros)
                if wanted is not None:
                    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=3 * tolerance, err_msg=f"{dtype} {micros}")
print("same")
"""


def test_replicas_sum_gradients_and_leave_idle_heads_alone(tmp_path: Path):
    (tmp_path / "replica.py").write_text(REPLICA, encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "paddle.distributed.launch",
            "--nproc_per_node=2",
            f"--log_dir={tmp_path}",
            tmp_path / "replica.py",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = [(tmp_path / f"workerlog.{rank}").read_text() for rank in (0, 1)]
    assert done.returncode == 0 and all("same" in text for text in said), said
