"""RETRIES=n bash run_pretrain.sh: after a crash it starts again; after a mistake or when it was asked to stop
it does not. Several nodes: looked over first, and given up where they do not find each other."""
# ruff: noqa: F401, F811 - fixtures are imported to be named as arguments

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_scripts import FAILED, call, calls, checkout, start
from test_watchdog import freed_port

COUNT = 'echo x >>"$TMPDIR/starts"; n=$(grep -c x "$TMPDIR/starts"); '


@pytest.mark.parametrize(
    ("act", "code", "starts", "words"),
    [
        ("exit 0", 0, 1, []),
        ("exit 2", 2, 1, []),  # a mistake stays one
        (
            'if [ "$n" = 1 ]; then kill -KILL $$; fi',
            0,
            2,
            [
                "stopped with exit code 137 (killed, perhaps for want of memory)",
                "from the newest checkpoint: try 1 of RETRIES=2",
            ],
        ),
        (
            "exit 1",
            1,
            3,
            ["try 2 of RETRIES=2", "error: training stopped with exit code 1", "RETRIES=2 are used up"],
        ),
        (
            'if [ "$n" = 1 ]; then exit 75; fi; exit 2',
            2,
            2,
            ["(another process of the run stopped, or somebody was missing)"],
        ),
    ],
)
def test_after_a_crash_training_starts_again(call, tmp_path, act, code, starts, words):
    (tmp_path / "base/bin/installed").write_text("cpu\n")
    done = call("run_pretrain.sh", RETRIES="2", ERNIE2_RETRY_PAUSE="0", FAKE_PRETRAIN=COUNT + act)
    assert done.returncode == code, done.stderr
    assert [line.split()[2] for line in calls(tmp_path)] == [
        "ernie2.plan",
        "data_gen",
        *["ernie2.pretrain"] * starts,
    ]
    for word in words:
        assert word in done.stderr, done.stderr
    assert ("try 1" in done.stderr) == (starts > 1)


def test_a_launch_that_fails_starts_again_too(call, tmp_path):
    (tmp_path / "base/bin/installed").write_text("cpu\n")
    act = COUNT + 'if [ "$n" = 1 ]; then ' + FAILED.format(1, -9, 247) + "; fi"
    done = call(
        "run_pretrain.sh",
        NPROC="2",
        RETRIES="1",
        ERNIE2_RETRY_PAUSE="0",
        FAKE_LAUNCH=f"touch $logs/workerlog.0 $logs/workerlog.1; {act}",
    )
    assert done.returncode == 0 and "process 1 of this node failed first, with exit code 137" in done.stderr
    assert "try 1 of RETRIES=1" in done.stderr


def test_retries_is_a_number(call, tmp_path):
    (tmp_path / "base/bin/installed").write_text("cpu\n")
    done = call("run_pretrain.sh", RETRIES="many")
    assert done.returncode == 2 and "RETRIES: found 'many'" in done.stderr


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop_it_does_not_start_again(start, tmp_path, number, code, processes):
    (tmp_path / "base/bin/installed").write_text("cpu\n")
    act = f"{COUNT} trap 'exit {code}' TERM INT; touch $TMPDIR/up; while :; do sleep 0.1; done"
    process = start(
        "run_pretrain.sh",
        RETRIES="3",
        ERNIE2_RETRY_PAUSE="0",
        NPROC=processes,
        FAKE_PRETRAIN=act,
        FAKE_LAUNCH=act,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "up").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    assert (tmp_path / "starts").read_text().count("x") == 1 and "try 1" not in process.stderr.read()


def test_a_signal_in_the_pause_ends_it(start, tmp_path):
    (tmp_path / "base/bin/installed").write_text("cpu\n")
    process = start("run_pretrain.sh", RETRIES="3", ERNIE2_RETRY_PAUSE="60", FAKE_PRETRAIN=COUNT + "exit 1")
    for line in process.stderr:
        if "starts again" in line:
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 1 and (tmp_path / "starts").read_text().count("x") == 1


def test_a_sick_node_is_not_started(call, tmp_path):
    (tmp_path / "base/bin/installed").write_text("cpu\n")
    done = call("run_pretrain.sh", NNODES="2", MASTER="host:9", FAKE_DOCTOR="1")
    assert done.returncode == 1 and [line.split()[2] for line in calls(tmp_path)] == [
        "ernie2.plan",
        "ernie2.doctor",
    ]


@pytest.mark.parametrize(
    ("node", "modules"), [("0", ["ernie2.doctor", "data_gen"]), ("1", ["ernie2.doctor"])]
)
def test_launchers_that_do_not_find_each_other(call, tmp_path, node, modules):
    """Paddle's launcher itself would wait for ever. Node 0 alone makes shards."""
    (tmp_path / "base/bin/installed").write_text("cpu\n")
    cluster = {"NNODES": "4", "NODE_RANK": node, "MASTER": "host:9"}
    done = call("run_pretrain.sh", **cluster, ERNIE2_LAUNCH_LIMIT="1", FAKE_LAUNCH="exec sleep 60")
    assert done.returncode == 75 and "after 1 s (ERNIE2_LAUNCH_LIMIT)" in done.stderr
    assert "these have not come to MASTER=10.0.0.1:9: node 1, 3; see" in done.stderr
    made = [line.split()[2] for line in calls(tmp_path)]
    assert made == ["ernie2.plan", *modules, "paddle.distributed.launch"]


def test_two_nodes_with_one_number(call, tmp_path):
    """ERNIE issue 330: Paddle's launchers all fail with a TypeError; node 0's then serves on."""
    (tmp_path / "base/bin/installed").write_text("cpu\n")
    trouble = "TypeError: the JSON object must be str, bytes or bytearray, not NoneType"
    done = call(
        "run_pretrain.sh", NNODES="2", MASTER="host:9", FAKE_LAUNCH=f"echo '{trouble}'; exec sleep 60"
    )
    assert done.returncode == 2 and "error: NODE_RANK: two nodes have the same one" in done.stderr


def test_nodes_that_disagree_on_their_number(call, tmp_path):
    (tmp_path / "base/bin/installed").write_text("cpu\n")
    cluster = {"NNODES": "2", "NODE_RANK": "1", "MASTER": "host:9", "FAKE_MISSING": "0 with NNODES=3"}
    done = call("run_pretrain.sh", **cluster, FAKE_LAUNCH="exec sleep 60")
    words = "node 1 has 2, but at MASTER=10.0.0.1:9 there is node 0 with NNODES=3; give all the same"
    assert done.returncode == 2 and words in done.stderr


def test_who_came_is_read_from_the_launchers_own_store(tmp_path):
    """With the installed Paddle: node 0 of two waits for node 1, as its keys say; seen from a node of three."""
    port, root = freed_port(), Path(__file__).parents[1]
    launch = f"{sys.executable} -m paddle.distributed.launch --nnodes 2 --job_id NNODES=2 --rank 0 --log_dir {tmp_path}"
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PADDLE_")}
    node = subprocess.Popen(
        [*f"{launch} --master 127.0.0.1:{port} --host 127.0.0.1".split(), "none.py"],
        env=kept | {"CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    asked = f'ERNIE2_PYTHON={sys.executable}; source {root}/ernie2/launch.sh; NNODES="$1" ernie2_came'
    kept["MASTER"] = f"127.0.0.1:{port}"
    seen = {"2": "", "3": ""}
    end = time.monotonic() + 60
    try:
        while seen != {"2": "1", "3": "0 with NNODES=2"} and time.monotonic() < end:
            for nodes in seen:
                seen[nodes] = subprocess.check_output(
                    ["bash", "-c", asked, "_", nodes], env=kept, text=True
                ).strip()
    finally:
        node.kill()
    assert seen == {"2": "1", "3": "0 with NNODES=2"}
