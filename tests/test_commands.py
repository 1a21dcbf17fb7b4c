"""The commands: one name for all of them, and nothing on standard error at the start that is paddle's own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from ernie2.__main__ import COMMANDS


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """A command as a user types it, with no filter of warnings around it."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=kept | environment,
        text=True,
        capture_output=True,
        check=False,
    )


def test_help_lists_every_command_with_what_it_does():
    done = run("ernie2", "--help")
    assert done.returncode == 0 and done.stdout == run("ernie2").stdout
    listed = {line.split()[0]: line for line in done.stdout.splitlines()[2:]}
    assert list(listed) == list(COMMANDS)
    assert all(f"python -m {module} " in listed[name] for name, module in COMMANDS.items())


def test_a_sub_command_is_the_module():
    arguments = ("plan", "tasks/recipes/table7.yaml", "--json")
    done, module = run("ernie2", *arguments), run(f"ernie2.{arguments[0]}", *arguments[1:])
    assert done.returncode == 0 and (done.stdout, done.stderr) == (module.stdout, module.stderr)
    failed = run("ernie2", "plan", "nowhere.yaml")
    assert failed.returncode == 2 and failed.stderr == "error: nowhere.yaml: no such file\n"


def test_an_unknown_command_names_the_nearest():
    done = run("ernie2", "pretran")
    assert done.returncode == 2
    assert done.stderr == "error: ernie2: unknown command pretran; did you mean 'pretrain'?\n"


@pytest.mark.core
@pytest.mark.parametrize("module", COMMANDS.values())
def test_commands_start_without_warnings(module):
    done = run(module, "--help", OMP_NUM_THREADS="2")
    assert done.returncode == 0 and f"python -m {module}" in done.stdout
    assert done.stderr == ""


@pytest.mark.core
def test_all_else_that_is_said_while_paddle_is_imported_passes(tmp_path):
    paddle = tmp_path / "paddle.py"
    paddle.write_text(
        "import sys\nprint('PLEASE USE OMP_NUM_THREADS WISELY.\\nno such device', file=sys.stderr)\nraise "
        "ImportError('bad')"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import ernie2, paddle"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.stderr.startswith("no such device\nTraceback") and "ImportError: bad" in done.stderr
    assert "WISELY" not in done.stderr
