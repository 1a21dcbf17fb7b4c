"""Files that a reader sees whole or not at all, digests, locks, sizes for people. No tensors here."""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

TEMPORARY = ".tmp"  # how the names of files end that are being written


@contextlib.contextmanager
def replacing(path: Path, sync: bool = True) -> Iterator[Path]:
    """Yields the name to write a file under, which then replaces `path`; after an error it is removed.

    sync: wait until the bytes are on the disk: even a power loss leaves the old file or the new one."""
    temporary = path.with_name(f"{path.name}.{os.uname().nodename}-{os.getpid()}{TEMPORARY}")
    try:
        yield temporary
        as_umask_says(temporary)
        if sync:
            sync_to_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, sync: bool = True) -> None:
    """Writes a text file in UTF-8, whole or not at all."""
    with replacing(path, sync) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, whole or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_json_lines(path: Path, records: Iterable[Any]) -> None:
    """Writes one JSON value a line, whole or not at all."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def sync_to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(path: Path) -> IO[str] | str:
    """Takes a lock until the returned file is closed, however its process ends; or says who holds it already.

    Raises OSError where the file cannot be written, or the disk knows no locks."""
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        return file.read(200).strip() or "it has just started"
    file.truncate(0)
    file.write(f"process {os.getpid()} on {os.uname().nodename}")
    file.flush()
    return file


def as_umask_says(path: str | Path) -> None:
    """Gives a file that was made privately (safetensors, tempfile) the mode that open() gives a new one."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)


def file_digest(path: str | Path) -> str:
    """sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def size(count: float) -> str:
    """`3.4 GiB`: a number of bytes as a reader wants it."""
    for unit, bytes_in in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if count >= bytes_in:
            return f"{count / bytes_in:.1f} {unit}"
    return f"{count / 1024:.0f} KiB"
