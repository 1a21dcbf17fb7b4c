"""The same training however it is spread: ranks times accumulation, uneven shares, heads that some ranks do not reach."""
# ruff: noqa: F401, F811 - the fixture is imported to be named as an argument

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_checkpoint import DRIVER
from test_resume import Start, start

pytestmark = pytest.mark.slow

RATE = "lr.peak=1.28e-4"  # the paper's: rounding grows with it
EIGHT = ("batch.tokens=1024", "batch.micro_tokens=128", RATE)
SMALL_BUCKETS = DRIVER.replace("if __name__", """
import functools
import paddle
paddle.DataParallel = functools.partial(paddle.DataParallel, comm_buffer_size=0.05, last_comm_buffer_size=0.01)
if __name__""")


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "train.jsonl").read_text().splitlines()]


def test_the_same_curve_for_one_two_and_eight_ranks(start: Start, tmp_path: Path):
    """1 x 8, 2 x 4 and 8 x 1 (ranks x micro-batches of each), 50 steps in fp32, dropout and all: equal to 1e-5."""
    curves = {}
    for ranks in (1, 2, 8):
        out = tmp_path / f"out{ranks}"
        process = start(*EIGHT, "runtime.max_steps=50", f"out_dir={out}", NPROC=str(ranks), driver=SMALL_BUCKETS,
                        RETRIES="3")  # gloo sometimes fails to connect eight processes of one small machine
        assert process.wait(timeout=400) == 0, (tmp_path / "said").read_text()[-2000:]
        curves[ranks] = losses(out)
    assert len(curves[1]) == 50
    np.testing.assert_allclose(curves[2], curves[1], rtol=1e-5)
    np.testing.assert_allclose(curves[8], curves[1], rtol=1e-5)


def test_uneven_shares_and_a_resume_with_fewer_ranks(start: Start, tmp_path: Path):
    """Three micro-batches for two ranks (one has two, one has one), every stage of the curriculum, and a resume alone."""
    parts = ("batch.tokens=384", "batch.micro_tokens=128", "runtime.save_every=30", RATE)
    runs = {"whole": [("1", 40)], "shared": [("2", 30), ("1", 40)]}
    for out, steps in runs.items():
        for ranks, end in steps:
            process = start(*parts, f"runtime.max_steps={end}", f"out_dir={tmp_path / out}", NPROC=ranks, driver=SMALL_BUCKETS)
            assert process.wait(timeout=200) == 0, (tmp_path / "said").read_text()[-2000:]
    np.testing.assert_allclose(losses(tmp_path / "shared"), losses(tmp_path / "whole"), rtol=1e-5)
    whole, shared = (load_file(tmp_path / out / "step_0000030/optimizer.safetensors") for out in ("whole", "shared"))
    assert whole.keys() == shared.keys()
    for name, array in whole.items():
        np.testing.assert_allclose(shared[name], array, rtol=2e-3, atol=1e-7 + 1e-3 * np.abs(array).max(), err_msg=name)
