"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ernie2 import out_dir
from ernie2.disk import TEMPORARY, replacing, size, write_json, write_json_lines, write_text


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "page.html"
    write_text(path, "old")
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_is_that_of_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "a") as temporary:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))  # as safetensors and tempfile do
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


def test_what_a_kill_left_half_written_is_removed_with_the_next_run(tmp_path):
    child = os.fork()
    if not child:
        with replacing(tmp_path / "runs.json") as temporary:
            temporary.write_text("[")
            os._exit(0)
    os.waitpid(child, 0)
    (tmp_path / f"mine{TEMPORARY}").touch()
    assert len(list(tmp_path.iterdir())) == 2
    out_dir.clean(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / f"mine{TEMPORARY}"]


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"名": 1.5})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "名": 1.5\n}\n'
    write_json_lines(tmp_path / "a.jsonl", ({"n": n} for n in range(2)))
    assert [json.loads(line) for line in Path(tmp_path / "a.jsonl").read_text().splitlines()] == [
        {"n": 0},
        {"n": 1},
    ]


def test_size():
    assert [size(n) for n in (500, 3 << 20, 3.5 * 2**30)] == ["0 KiB", "3.0 MiB", "3.5 GiB"]
