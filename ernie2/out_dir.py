"""The folder of a run: one run at a time, no left-overs, space on its disk. No tensors here."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ernie2.disk import TEMPORARY, lock, size
from ernie2.logs import logger
from ernie2.strict import ConfigError

LOCK = ".lock"
ORIGIN = "origin.json"  # in the folder of a fine-tuning: what its numbers depend on
LEFTOVER = re.compile(r"(step_\d{7,}|best)\.(tmp|old)-\d+")
HALF_WRITTEN = re.compile(rf".+-\d+{re.escape(TEMPORARY)}")
_FULL = (errno.ENOSPC, errno.EDQUOT)

_held: dict[Path, IO[str]] = {}  # open until the process ends: the system frees a lock whatever that end is


def hold(out_dir: Path, key: str) -> None:
    """Keeps other runs out of `out_dir` until this process ends. Raises ConfigError naming who holds it."""
    path = out_dir.resolve()
    if path in _held:
        return
    try:
        held = lock(path / LOCK)
    except OSError as error:  # some network disks know no locks
        unlocked = "%s: %s cannot be locked (%s): take care yourself that no other run uses it"
        return logger.warning(unlocked, key, out_dir, error.strerror)
    if isinstance(held, str):
        remedy = "wait for it, stop it, or name another out_dir"
        raise ConfigError(f"{key}: {out_dir} is in use by another run ({held}); {remedy}")
    _held[path] = held


def in_use(out_dir: Path) -> str | None:
    """Who holds `out_dir`; None where nobody does."""
    with contextlib.suppress(OSError):
        held = lock(out_dir / LOCK) if (out_dir / LOCK).exists() else None
        return held if isinstance(held, str) else None
    return None


def clean(out_dir: Path) -> None:
    """Removes what dead runs left half-written. Call it while holding the folder.

    A checkpoint that was about to be replaced when its run died gets its name back."""
    for path in sorted(out_dir.iterdir()):
        match = LEFTOVER.fullmatch(path.name)
        if HALF_WRITTEN.fullmatch(path.name) and path.is_file():
            path.unlink()
        elif match and match[2] == "old" and not (out_dir / match[1]).exists():
            path.rename(out_dir / match[1])
            logger.warning("%s: brought back; the run that was replacing it died", out_dir / match[1])
        elif match:
            shutil.rmtree(path, ignore_errors=True)
            logger.info("%s: removed; a run that died left it half-written", path)


def remove(folder: Path) -> None:
    """Removes a folder so that a kill in the middle leaves no half of it under its name."""
    gone = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def free_bytes(folder: Path) -> int:
    """Bytes that this user can write on the disk of a folder, or of where it would be made."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _full(folder: Path, problem: str, needed: int) -> ConfigError:
    free = free_bytes(folder)
    found = f"it takes {size(needed)}, {size(free)} are free" if needed else f"{size(free)} are free"
    found += f", {size(needed - free)} are missing" if needed > free else " (a quota may be lower)"
    remedy = "make room and start the same command again, or name an out_dir on another disk"
    return ConfigError(f"{folder}: {problem}: {found}; {remedy}")


def require_room(folder: Path, needed: int, what: str) -> None:
    """Raises ConfigError, saying how much is missing, where `needed` bytes do not fit on a folder's disk."""
    if free_bytes(folder) < needed:
        raise _full(folder, f"no room for {what}", needed)


@contextlib.contextmanager
def full_disk_named(folder: Path, what: str, needed: int = 0) -> Iterator[None]:
    """Turns "no space left" (also over a quota, or from the safetensors library) into a ConfigError."""
    try:
        yield
    except Exception as error:
        if getattr(error, "errno", None) in _FULL or any(f"os error {n}" in str(error) for n in _FULL):
            raise _full(folder, f"the disk was full while writing {what}", needed) from None
        raise
