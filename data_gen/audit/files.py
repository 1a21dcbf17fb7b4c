"""What the audit reads beside the samples: whether the files are whole, and what was rejected on the way to them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

EXAMPLES = 3
"""Rejected texts kept of each reason."""


def damaged_files(folder: Path, index: dict[str, Any], digests: bool) -> list[str]:
    """What is wrong with the files of a task's shards, each by name.

    Args:
        folder: <shards_dir>/<task>.
        index: Its index.json.
        digests: Whether to read all files and compare their digests; otherwise their headers and offsets alone.
    """
    found = []
    for split, shards in index["shards"].items():
        for shard in shards:
            paths = {name: folder / split / f"{shard['name']}.{name}.npy" for name in index["fields"]}
            wrong = [fault for name, path in paths.items()
                     if (fault := _damage(path, name, index["fields"][name], shard))]
            if digests and not wrong and _digest(list(paths.values())) != shard["digest"]:
                wrong = [f"{folder / split / shard['name']}.*.npy: not the bytes that were written (sha256 differs from "
                         f"index.json)"]
            found += wrong
    return found


def _damage(path: Path, name: str, dtype: str, shard: dict[str, Any]) -> str | None:
    expected = {"offsets": shard["samples"] + 1, "sentence_label": shard["samples"]}.get(name, shard["tokens"])
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        return f"{path}: missing"
    except (OSError, ValueError, EOFError) as error:
        return f"{path}: truncated, or not a shard file ({error})"
    if array.shape != (expected,) or array.dtype != np.dtype(dtype):
        return f"{path}: holds {array.shape} {array.dtype}, index.json says ({expected},) {dtype}"
    if name == "offsets" and (array[0] != 0 or array[-1] != shard["tokens"] or (np.diff(array) <= 0).any()):
        return f"{path}: offsets do not rise from 0 to {shard['tokens']}"
    return None


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@dataclass
class Reject:
    """One reason for which text was left out."""

    count: int = 0
    """Items, as far as the file tells: it keeps only the first of each reason."""
    examples: list[str] = field(default_factory=list)
    """`file:line: text` of the first few."""


def read_rejects(path: Path) -> dict[tuple[str | None, str], Reject]:
    """(task, or None for the reading of the input; reason) -> what <shards_dir>/rejects.jsonl tells about it.

    The file has a row for each reject {task, file, line, reason, text}. Other lines are passed over: nothing depends on
    this file.
    """
    found: dict[tuple[str | None, str], Reject] = {}
    if not path.is_file():
        return found
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if not isinstance(row, dict) or not isinstance(row.get("reason"), str):
                continue
            task = row.get("task")
            reject = found.setdefault((task if isinstance(task, str) else None, row["reason"]), Reject())
            where = ":".join(str(row[key]) for key in ("file", "line") if row.get(key) is not None)
            text = ": ".join(filter(None, (where, str(row.get("text") or ""))))
            reject.count += 1
            if text not in reject.examples and len(reject.examples) < EXAMPLES:
                reject.examples.append(text)
    return found
