"""The doctor: what it finds on a sound machine and on a sick one, and its exit code."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path

import pytest
from test_watchdog import freed_port

from ernie2 import doctor, out_dir
from ernie2.config import Recipe, build
from ernie2.strict import apply_overrides


def recipe(mapping: dict, *overrides: str) -> Recipe:
    return build(Recipe, apply_overrides(mapping, overrides), "t")


def states(found: Iterable[doctor.Finding], check: str) -> list[str]:
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
    for words in (
        "python",
        "paddle",
        "devices     CPU",
        "out_dir",
        "disk",
        "cover: 144 samples",
    ):
        assert words in text, text
    code, text = run(capsys, str(tiny_recipe_file), "--json")
    said = json.loads(text)
    assert said["ok"] and set(said["digests"]) == {"code", "recipe", "task files", "vocabulary", "shards"}
    assert {"check", "state", "found", "remedy"} == set(said["findings"][0])


def test_problems_have_a_remedy_and_exit_code_1(tiny_recipe_file: Path, capsys: pytest.CaptureFixture):
    code, text = run(capsys, str(tiny_recipe_file), "runtime.precision=fp16")
    assert code == 1 and "problem  devices" in text and "-> runtime.precision=fp32" in text


def test_versions():
    def installed(**changed: str | None) -> Iterable[doctor.Finding]:
        packages = {"paddlepaddle": "3.3.1"} | changed
        return doctor.versions({name: version for name, version in packages.items() if version})

    assert states(installed(), "paddle") == ["ok"]
    for version, state in (
        ("2.6.2", "ok"),
        ("3.0.0", "warning"),
        ("2.6.1", "warning"),
        ("9.9", "problem"),
        ("2.5.2", "problem"),
        (None, "problem"),
    ):
        assert states(installed(paddlepaddle=version), "paddle") == [state]
    assert "constraints-paddle2.txt" in list(installed(paddlepaddle="2.6.1"))[1].remedy


def test_memory_and_disk(tiny_recipe: dict, monkeypatch: pytest.MonkeyPatch):
    small, large = (
        recipe(tiny_recipe),
        recipe(tiny_recipe, "model.size=large", "batch.tokens=65536", "batch.micro_tokens=65536"),
    )
    assert doctor._fit(small, 1 << 30, 1).state == "ok"
    assert doctor._fit(large, 8 << 30, 1).state == "warning"
    assert states(doctor.folder(small), "disk") == ["ok"]
    for free, state in ((12 << 20, "warning"), (1 << 20, "problem")):
        monkeypatch.setattr(out_dir, "free_bytes", lambda folder, free=free: free)
        assert states(doctor.folder(recipe(tiny_recipe, "runtime.keep_last=9")), "disk") == [state]


def test_folder(tiny_recipe: dict, tmp_path: Path):
    path = tmp_path / "out"
    config = recipe(tiny_recipe)
    assert states(doctor.folder(config), "out_dir") == ["ok"] and not path.exists()
    path.mkdir()
    out_dir.hold(path, "out_dir")
    found, _ = doctor.folder(config)
    assert found.state == "problem" and f"process {os.getpid()} on" in found.found


def test_shards_that_are_missing_or_damaged(tiny_recipe: dict, tmp_path: Path):
    shutil.rmtree(tmp_path / "shards" / "cover")
    next((tmp_path / "shards/order/train").glob("*.token_ids.npy")).write_bytes(b"")
    found = {finding.found: finding.state for finding in doctor.shards(recipe(tiny_recipe))}
    assert found.pop("cover: not made yet") == found.pop("label: 144 samples") == "ok"
    ((damaged, state),) = found.items()
    assert "token_ids.npy" in damaged and state == "problem"


@pytest.mark.parametrize(
    ("node", "mine", "master", "state"),
    [
        ("0", "10.0.0.1", "10.0.0.1", "ok"),
        ("1", "10.0.0.2", "node0", "ok"),
        ("1", "127.0.1.1", "10.0.0.1", "problem"),
        ("0", "127.0.0.1", "127.0.0.1", "ok"),
    ],
)
def test_ports(monkeypatch: pytest.MonkeyPatch, node: str, mine: str, master: str, state: str):
    monkeypatch.setattr(socket, "gethostbyname", lambda name: mine)
    for name, value in (("NNODES", "2"), ("NODE_RANK", node), ("MASTER", f"{master}:{freed_port()}")):
        monkeypatch.setenv(name, value)
    assert states(doctor.ports(), "ports") == [state]


def test_a_port_in_use(monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("", 0)) as door:
        port = door.getsockname()[1]
        for node, state in (("0", "problem"), ("1", "ok")):
            for name, value in (("NNODES", "2"), ("NODE_RANK", node), ("MASTER", f"127.0.0.1:{port}")):
                monkeypatch.setenv(name, value)
            (found,) = doctor.ports()
            assert found.state == state and (node == "1" or "Address already in use" in found.found)
