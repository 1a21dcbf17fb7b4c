"""The work folder beside the shards: what an interrupted run has finished, kept for the next one.

    <shards_dir>/.lock                          held by the run at work
    <shards_dir>/.work/blocks.<source>/<block>.json    what reading and annotating a block came to
                                                and <block>.hits.json: numbers of the dictionary entries found
    <shards_dir>/.work/<task>/<block>.json      what a task made of it, with <block>.spill, its examples
    <shards_dir>/.work/<task>/shards/           shards being merged
    <shards_dir>/.work/<task>/merged/           what each of them holds
    <shards_dir>/.work/<name>/origin.json       what the above depends on

A .json file is written when the work it tells of is done. The folder is gone when all shards are.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ernie2.disk import lock
from ernie2.strict import ConfigError, make_folder

WORK = ".work"


def blocks_room(work: Path, source: str) -> Path:
    """Folder of what reading and annotating the blocks of a source came to."""
    return work / f"blocks.{source}"


def write_note(path: Path, value: Any) -> None:
    """Writes JSON under another name first: a file that has its name is whole. Not synced: power loss costs the work."""
    tmp = path.with_name(f"{path.name}.{os.uname().nodename}-{os.getpid()}.tmp")
    tmp.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    tmp.replace(path)


def read_note(path: Path) -> Any:
    """What write_note wrote; None where there is no such file, or none that can be read (after a power loss)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


@contextlib.contextmanager
def locked(shards: Path) -> Iterator[None]:
    """Keeps other runs out of a shards folder. Raises ConfigError where one is at work."""
    make_folder(shards, "data.shards_dir")
    try:
        held = lock(shards / ".lock")
    except OSError as error:
        raise ConfigError(f"data.shards_dir: {shards} cannot be written ({error.strerror}); name another folder") from None
    if isinstance(held, str):
        raise ConfigError(f"{shards}: another run is making shards there ({held}); wait for it, stop it, "
                          f"or name another data.shards_dir")
    with held:
        yield


def open_room(room: Path, origin: dict[str, Any]) -> dict[str, Any] | None:
    """Makes a folder of the work folder ready; throws away what depends on something else than `origin`.

    Returns:
        The origin of the finished work that was thrown away, or None where there was none.
    """
    path = room / "origin.json"
    before = read_note(path)
    if before != json.loads(json.dumps(origin)):
        had_work = len(list(room.glob("*.json"))) > 1
        shutil.rmtree(room, ignore_errors=True)
        room.mkdir(parents=True)
        write_note(path, origin)
        return before if had_work else None
    for left in room.rglob("*.tmp"):  # of a process that was killed while it wrote a note, among the shards too
        left.unlink(missing_ok=True)
    return None


def remove_files(paths: Iterable[Path]) -> None:
    """Takes files away that are of no more use; what resists is left to `sweep`."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def sweep(work: Path, finished: Iterable[str]) -> None:
    """Takes away the rooms of tasks whose shards are finished, and the work folder where no other task's is left."""
    for name in finished:
        shutil.rmtree(work / name, ignore_errors=True)
    if work.exists() and all(room.name.startswith("blocks.") for room in work.iterdir()):
        shutil.rmtree(work)
