"""The range of paddle's versions: what is outside is refused by name, and paddle 2.6's own zlib does no
harm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import paddle
import pytest
from conftest import CORE, ROOT

from ernie2 import paddle_version


def run(code: str) -> subprocess.CompletedProcess:
    """A new interpreter: what has been imported here already would hide what comes first there."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("version", ["2.6.0", "2.6.2", "3.0.0", "3.3.1", "3.10.0", paddle.__version__])
def test_inside(version: str):
    paddle_version.check(version)


@pytest.mark.parametrize("version", ["2.5.2", "2.60.0", "4.0.0", "0.0.0"])
def test_outside(version: str):
    with pytest.raises(
        ImportError, match=rf"paddle {version}: ernie2 is tested with 2\.6\.x and 3\.x; pip install -c constr"
    ):
        paddle_version.check(version)


def test_outside_is_refused_at_import():
    done = run("import paddle; paddle.__version__ = '2.5.2'; import ernie2.pretrain")
    assert (
        done.returncode == 1
        and "ImportError: paddle 2.5.2: ernie2 is tested with 2.6.x and 3.x" in done.stderr
    ), done.stderr


def test_pythons_zlib_works_beside_paddles():
    """Compressed data and the dumps of bad steps (np.savez_compressed) are read and written with paddle
    loaded."""
    done = run("import ernie2, paddle, gzip; print(gzip.decompress(gzip.compress(b'as it was')))")
    assert done.stdout == "b'as it was'\n", done.stderr


def test_every_file_of_the_core_is_there():
    assert {path.stem for path in Path(__file__).parent.glob("test_*.py")} >= CORE
