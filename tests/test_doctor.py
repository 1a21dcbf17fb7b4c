"""The doctor: what it finds on a sound machine and on a sick one, what nodes are compared in, and its exit code."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_lifeline import freed_port, in_child

from ernie2 import doctor, doctor_checks, out_dir
from ernie2.config import Recipe, build
from ernie2.strict import ConfigError, apply_overrides


def recipe(mapping: dict, *overrides: str) -> Recipe:
    return build(Recipe, apply_overrides(mapping, overrides), "t")


def states(found: list[doctor_checks.Finding], check: str) -> list[str]:
    return [finding.state for finding in found if finding.check == check]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher around."""
    for name in ("NNODES", "NODE_RANK", "MASTER", "PADDLE_TRAINERS_NUM", "NPROC"):
        monkeypatch.delenv(name, raising=False)


def run(capsys: pytest.CaptureFixture, *argv: str) -> tuple[int, str]:
    code = doctor.main(list(argv))
    return code, capsys.readouterr().out


def test_a_sound_machine(tiny_recipe_file: Path, capsys: pytest.CaptureFixture):
    code, text = run(capsys, str(tiny_recipe_file))
    assert code == 0 and "problem" not in text and "digests: code " in text
    for words in ("python", "paddle", "devices   CPU", "out_dir", "disk", "cover 144, order 144, label 144 samples"):
        assert words in text, text
    code, text = run(capsys, str(tiny_recipe_file), "--json")
    said = json.loads(text)
    assert said["ok"] and set(said["digests"]) == {"code", "recipe", "task files", "vocabulary", "shards"}
    assert {"check", "state", "found", "remedy", "number"} == set(said["findings"][0])


def test_problems_have_a_remedy_and_exit_code_1(tiny_recipe_file: Path, capsys: pytest.CaptureFixture):
    code, text = run(capsys, str(tiny_recipe_file), "runtime.precision=fp16")
    assert code == 1 and "problem  devices" in text and "-> runtime.precision=fp32" in text


def test_versions(monkeypatch: pytest.MonkeyPatch):
    def installed(**changed: str | None) -> list[doctor_checks.Finding]:
        real = {"paddlepaddle": doctor_checks.TESTED_PADDLE[0], "numpy": "1.26.4"}
        monkeypatch.setattr(doctor_checks, "NEEDED", ("numpy",))
        monkeypatch.setattr(doctor_checks, "_version", {**real, **changed}.get)
        return doctor_checks.versions()

    assert states(installed(), "paddle") == ["ok"] and states(installed(), "packages") == ["ok"]
    assert states(installed(paddlepaddle="2.6.2"), "paddle") == ["ok"] == states(installed(paddlepaddle="2.6.2"), "packages")
    for version, state in (("3.0.0", "warning"), ("2.6.1", "warning"), ("9.9", "problem"), ("2.5.2", "problem"), (None, "problem")):
        assert states(installed(paddlepaddle=version), "paddle") == [state]
    assert "constraints-paddle2.txt" in installed(paddlepaddle="2.6.1")[1].remedy
    assert states(installed(numpy="2.0"), "packages") == ["warning"]
    assert states(installed(numpy=None), "packages") == ["problem"]


def test_memory_and_disk(tiny_recipe: dict, monkeypatch: pytest.MonkeyPatch):
    small, large = recipe(tiny_recipe), recipe(tiny_recipe, "model.size=large", "batch.tokens=65536", "batch.micro_tokens=65536")
    assert doctor_checks._fit(small, 1 << 30, 1).state == "ok"
    assert doctor_checks._fit(large, 8 << 30, 1).state == "warning"
    assert states(doctor_checks.disk(small), "disk") == ["ok"]
    for free, state in ((12 << 20, "warning"), (1 << 20, "problem")):
        monkeypatch.setattr(out_dir, "free_bytes", lambda folder, free=free: free)
        assert states(doctor_checks.disk(recipe(tiny_recipe, "runtime.keep_last=9")), "disk") == [state]


def test_folder_and_checkpoints(tiny_recipe: dict, tmp_path: Path):
    path = tmp_path / "out"
    config = recipe(tiny_recipe)
    assert states(doctor_checks.folder(config), "out_dir") == ["ok"] and not path.exists()
    for step in (1, 2):
        (path / f"step_{step:07d}").mkdir(parents=True)
        (path / f"step_{step:07d}" / "trainer_state.json").write_text("{")
    (found,) = [finding for finding in doctor_checks.folder(config) if finding.check == "checkpoints"]
    assert found.state == "warning" and "step_0000002/trainer_state.json: damaged" in found.found
    shutil.rmtree(path / "step_0000001")
    assert states(doctor_checks.folder(config), "checkpoints") == ["problem"]
    out_dir.hold(path, "out_dir")
    assert f"process {os.getpid()} on" in doctor_checks.folder(config)[0].found


def test_shards_that_are_missing_or_damaged(tiny_recipe: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.rmtree(tmp_path / "shards" / "cover")
    next((tmp_path / "shards/order/train").glob("*.token_ids.npy")).write_bytes(b"")
    corpus = tmp_path / "corpus.txt"
    corpus.write_bytes(b"x" * 3_000_000)
    found = doctor_checks.shards(recipe(tiny_recipe, f"data.corpus={corpus}"))
    assert sorted(finding.state for finding in found) == ["ok", "ok", "problem"]
    assert "token_ids.npy" in next(finding.found for finding in found if finding.state == "problem")
    assert "still to be made: cover; 17.2 MiB wanted" in found[-1].found
    monkeypatch.setattr(out_dir, "free_bytes", lambda folder: 1 << 20)
    assert doctor_checks.shards(recipe(tiny_recipe, f"data.corpus={corpus}"))[-1].state == "warning"


@pytest.mark.parametrize(("node", "mine", "master", "state"), [
    ("0", "10.0.0.1", "10.0.0.1:9", "ok"), ("0", "10.0.0.1", "node0:9", "problem"), ("1", "10.0.0.2", "node0:9", "ok"),
    ("1", "127.0.1.1", "10.0.0.1:9", "problem"), ("0", "127.0.0.1", "127.0.0.1:9", "ok")])
def test_addresses(monkeypatch: pytest.MonkeyPatch, node: str, mine: str, master: str, state: str):
    """Paddle's launcher on node 0 serves only where MASTER is literally its own address, and else waits for ever."""
    monkeypatch.setattr(socket, "gethostbyname", lambda name: mine)
    for name, value in (("NNODES", "2"), ("NODE_RANK", node), ("MASTER", master)):
        monkeypatch.setenv(name, value)
    assert states(doctor_checks.addresses(), "address") == [state]


# ---- several nodes ---------------------------------------------------------------------------------------------------

Nodes = Callable[..., tuple[list[int], list[str]]]


@pytest.fixture()
def nodes(tiny_recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    """nodes([arguments of node 0], [of node 1], ...) -> exit codes and what each said."""
    monkeypatch.setattr(doctor, "examine", lambda recipe: [doctor_checks.Finding("own", "ok", "well")])

    def start(*arguments: list[str], count: int | None = None) -> tuple[list[int], list[str]]:
        monkeypatch.setenv("NNODES", str(count or len(arguments)))
        monkeypatch.setenv("MASTER", f"127.0.0.1:{freed_port()}")
        waits = []
        for number, more in enumerate(arguments):
            monkeypatch.setenv("NODE_RANK", str(number))
            waits.append(in_child(lambda more=more: doctor.main([str(tiny_recipe_file), *more]), tmp_path / f"node{number}"))
        return [wait() for wait in waits], [(tmp_path / f"node{number}").read_text() for number in range(len(arguments))]

    return start


@pytest.fixture()
def after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module for --then."""
    (tmp_path / "said_after.py").write_text("import sys\nprint('afterwards', *sys.argv[2:])\nsys.exit(len(sys.argv) > 3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "said_after"


def test_equal_nodes_go_on_together(nodes: Nodes, tmp_path: Path, after: str):
    codes, texts = nodes(*[["seed=4", "--then", after]] * 3)
    assert codes == [0, 0, 0], texts
    assert "node 2   digests  as on node 0" in texts[0] and "node 1   clock    within" in texts[0]
    assert "afterwards seed=4" in texts[0] and "afterwards" not in texts[1]
    assert not (tmp_path / "out").exists()  # the doctor leaves nothing behind


def test_what_differs_is_named_and_stops_all(nodes: Nodes, after: str):
    codes, texts = nodes(["--then", after], ["seed=9"])
    assert codes == [1, 1]
    assert "problem  node 1   digests  node 1 (process" in texts[0] and "has another recipe than node 0 (process" in texts[0]
    assert "error: node 0 stopped: the doctor found problems" in texts[1] and "afterwards" not in texts[0]


def test_a_failure_of_node_0s_work_reaches_all(nodes: Nodes, after: str):
    codes, texts = nodes(["seed=4", "name=t", "--then", after], ["seed=4", "name=t"])
    assert codes == [1, 1] and "said_after ended with exit code 1" in texts[1]


def test_another_disk_and_another_clock(nodes: Nodes, monkeypatch: pytest.MonkeyPatch):
    real, parent = time.time, os.getpid()
    monkeypatch.setattr(doctor.time, "time", lambda: real() + 30 * (os.environ["NODE_RANK"] == "1" and os.getpid() != parent))
    monkeypatch.setattr(doctor, "_token", lambda folder: (Path("/nowhere/token"), False))
    codes, texts = nodes([], [])
    assert codes == [1, 1] and "30.0 s ahead of node 0" in texts[0] and "does not see what node 0 writes" in texts[0]


def test_missing_nodes_are_named(nodes: Nodes):
    codes, texts = nodes(["runtime.startup_limit=1"], ["runtime.startup_limit=1"], count=4)
    assert codes == [1, 1]
    assert "after 1 s 2 of 4 are missing: node 2 (no word from it at 127.0.0.1" in texts[0] and "node 3" in texts[0]
    assert "node 0 says: after 1 s 2 of 4 are missing" in texts[1]


def test_master_is_needed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NNODES", "2")
    for master in ("", "host", "host:port"):
        monkeypatch.setenv("MASTER", master)
        with pytest.raises(ConfigError, match="MASTER: found"):
            doctor.party()
