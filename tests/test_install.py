"""setup.py, the two sets of pins and ernie2/env.sh say the same; with ERNIE2_TEST_INSTALL=1 they really
install."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from ernie2.doctor import TESTED_PADDLE

ROOT = Path(__file__).resolve().parent.parent
MODULES = {
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "pytest-xdist": "xdist",
    "paddlepaddle": "paddle",
    "aistudio-sdk": "aistudio_sdk",
    "prometheus-client": "prometheus_client",
}
"""Packages that are imported by another name."""
CONSTRAINTS = {"": "constraints.txt", "2": "constraints-paddle2.txt"}
"""What setup.py's extras cpu and gpu end in, for 3.x and 2.6 -> the pins."""


@pytest.fixture()
def declared(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What setup.py hands to setuptools."""
    setuptools = pytest.importorskip("setuptools")
    arguments: dict = {}
    monkeypatch.setattr(setuptools, "setup", arguments.update)
    runpy.run_path(str(ROOT / "setup.py"))
    return arguments


def pins(suffix: str) -> dict[str, str]:
    """Package -> version, of the lines of a file of pins that hold for this Python."""
    found = {}
    for line in (ROOT / CONSTRAINTS[suffix]).read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        name, version, marker = re.fullmatch(
            r'([a-z0-9-]+)==([^ ;]+)( ; python_version >= "3.11")?', line
        ).groups()
        assert name not in found, f"{name} is pinned twice"
        if not marker or sys.version_info >= (3, 11):
            found[name] = version
    return found


def split(requirement: str) -> tuple[str, list[tuple[str, str]]]:
    """'numpy<=1.26.4' -> ('numpy', [('<=', '1.26.4')])"""
    name = re.match(r"[A-Za-z0-9-]+", requirement)[0]
    return name.lower(), re.findall(r"(==|<=|>=|<|>)([^,]+)", requirement)


def release(version: str) -> tuple[int, ...]:
    """'3.0.0b4' -> (3, 0, 0): what the comparisons here need."""
    return tuple(int(part) for part in re.match(r"[\d.]*\d", version)[0].split("."))


def holds(version: str, sign: str, bound: str) -> bool:
    """Whether a pinned version satisfies one comparison."""
    if sign == "==":
        return version == bound
    a, b = release(version), release(bound)
    return {"<=": a <= b, ">=": a >= b, "<": a < b, ">": a > b}[sign]


def test_the_extras(declared):
    extras = declared["extras_require"]
    assert set(extras) == {"cpu", "gpu", "cpu2", "gpu2", "data", "serve", "onnx", "ray", "test", "dev"}
    assert set(extras["dev"]) == {*extras["cpu"], *extras["test"]}
    for suffix in CONSTRAINTS:
        assert [name.replace("paddlepaddle", "paddlepaddle-gpu") for name in extras[f"cpu{suffix}"]] == [
            name for name in extras[f"gpu{suffix}"] if not name.startswith("nvidia-")
        ]


@pytest.mark.parametrize("suffix", CONSTRAINTS)
def test_every_dependency_is_pinned_within_its_bounds(declared, suffix):
    extras, pinned = declared["extras_require"], pins(suffix)
    for requirement in [
        *declared["install_requires"],
        *extras["test"],
        *extras[f"cpu{suffix}"],
        *extras[f"gpu{suffix}"],
    ]:
        name, bounds = split(requirement)
        assert name in pinned, f"{CONSTRAINTS[suffix]} does not pin {name}"
        for sign, bound in bounds:
            assert holds(pinned[name], sign, bound), (
                f"{requirement}, but {CONSTRAINTS[suffix]} pins {pinned[name]}"
            )
    assert pinned["paddlepaddle"] == pinned["paddlepaddle-gpu"]
    assert pinned["paddlepaddle"] in TESTED_PADDLE and len(TESTED_PADDLE) == len(CONSTRAINTS)


def test_the_two_sets_of_pins_differ_only_where_they_have_to():
    first, second = pins(""), pins("2")
    assert {name for name in first.keys() & second.keys() if first[name] != second[name]} == {
        "paddlepaddle",
        "paddlepaddle-gpu",
        "paddlenlp",
        "paddle2onnx",  # 2.x asks for paddle 3
        "protobuf",
    }


def test_pins_are_what_the_environment_of_the_scripts_has():
    names = {re.sub(r"[-_.]+", "-", d.metadata["Name"]).lower(): d.version for d in metadata.distributions()}
    pinned = pins("2" if (names.get("paddlepaddle-gpu") or names["paddlepaddle"]).startswith("2.") else "")
    different = {
        name: (version, names[name])
        for name, version in pinned.items()
        if names.get(name, version) != version
    }
    if different and Path(sys.prefix) not in (ROOT / ".venv", ROOT / ".venv-paddle2"):
        pytest.skip(f"an environment of another make: {different}")
    assert not different
    assert len(names.keys() & pinned.keys()) > 30


def test_the_scripts_look_for_what_setup_installs(declared):
    text = (ROOT / "ernie2/env.sh").read_text(encoding="utf-8")
    for variable, requirements in (
        ("ERNIE2_MODULES", [*declared["install_requires"], *declared["extras_require"]["cpu"]]),
        ("ERNIE2_TEST_MODULES", declared["extras_require"]["test"]),
    ):
        modules = re.search(rf'^{variable}="(.+)"$', text, re.MULTILINE)[1].split()
        assert set(modules) == {MODULES.get(name, name) for name, _ in map(split, requirements)}
    assert (
        declared["python_requires"] == ">=3.10,<3.13" and "(3, 10) <= sys.version_info[:2] < (3, 13)" in text
    )


def test_every_package_and_data_file_is_named(declared):
    folders = {
        path.parent.relative_to(ROOT)
        for top in ("ernie2", "data_gen")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert {str(folder).replace(os.sep, ".") for folder in folders} == set(declared["packages"])
    files = [
        path
        for top in ("ernie2", "data_gen")
        for path in (ROOT / top).rglob("*")
        if path.is_file()
        and path.suffix not in (".py", ".pyc")
        and not any(p.startswith(".") for p in path.parts)
    ]
    unnamed = [
        path
        for path in files
        if not any(
            path.match(f"{package.replace('.', '/')}/{pattern}")
            for package, patterns in declared["package_data"].items()
            for pattern in patterns
        )
    ]
    assert files and not unnamed
    assert declared["version"] == __import__("ernie2").__version__


def test_the_console_command_is_there(declared):
    assert declared["entry_points"] == {"console_scripts": ["ernie2=ernie2.__main__:console"]}
    assert callable(importlib.import_module("ernie2.__main__").console)


def test_licence_is_apache_2(declared):
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert (
        declared["license"] == "Apache-2.0"
        and "Apache License" in text
        and "Version 2.0, January 2004" in text
    )


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("ERNIE2_TEST_INSTALL") != "1", reason="downloads 0.6 GB; ERNIE2_TEST_INSTALL=1 runs it"
)
@pytest.mark.parametrize("suffix", CONSTRAINTS)
def test_really_installs(tmp_path, suffix):
    python = tmp_path / "venv/bin/python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    what = ["-c", CONSTRAINTS[suffix], "-e", f".[cpu{suffix},test]"]
    subprocess.run([python, "-m", "pip", "install", "-q", *what], cwd=ROOT, check=True)
    subprocess.run([python, "-m", "pip", "check"], check=True)
    code = "import ernie2.pretrain, data_gen.pipeline, pytest, xdist; from paddlenlp.transformers import ErnieModel"
    subprocess.run([python, "-c", code], cwd=tmp_path, check=True)
