"""What the audit reads beside the samples: whether the files are whole, what was left out and changed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

KEPT = 3
"""Texts kept of each reason."""

CODES = {
    # what cleaning changed
    "bom": "byte order mark at the beginning of a file, taken out",
    "broken_character": "characters that stand for lost ones, taken out",
    "control_character": "control characters, taken out",
    "cr_line_ends": "files whose lines end in CR alone, read as lines",
    "crlf": "line ends of CR and LF, made LF",
    "full_width": "runs of full-width letters and digits, made half-width (data.normalise_width)",
    "html": "tags, comments and entities of HTML, taken out or replaced",
    "invisible_character": "zero-width and other invisible characters, taken out",
    "line_break": "odd line breaks inside a line, made a space",
    "odd_space": "tabs, ideographic and other odd spaces, made plain ones",
    "traditional": "lines with traditional characters, made simplified (data.simplify)",
    "white_space": "surplus spaces, taken out",
    # what was set aside or cut
    "empty_file": "files with nothing in them",
    "long_document": "documents of more than 4 MB, cut into several",
    "chinese_page": "Chinese pages of an English corpus",
    "long_sentence": "sentences too long for one example, cut",
    "near_duplicate": "documents that nearly equal an earlier one, left out (data.drop_near_duplicates)",
    "relevance_0": "query log: rows judged irrelevant, set aside, as the class of random titles is drawn",
    "odd_title": "JSON objects whose title or desc is no string: read without it",
    # what was left out
    "bad_json": "lines that are no JSON object",
    "bad_label": "query log: clicked or relevance is none of the values it may have",
    "binary": "zero bytes: not text",
    "doubled_key": "JSON objects in which a key stands twice",
    "damaged_file": "compressed files that end early or do not unpack",
    "empty_document": "documents with no text left after cleaning",
    "empty_marker": "marked pairs without a connective",
    "empty_query": "query log: rows without a query",
    "empty_sentence": "marked pairs of which a sentence is empty",
    "empty_title": "query log: rows without a title",
    "line_too_long": "lines of more than 16 MB",
    "no_text": "JSON objects without a field that holds text",
    "no_tokens": "items of which no token is left",
    "too_long": "documents of more than data.max_chars characters",
    "too_short": "documents of fewer than data.min_chars characters",
    "unreadable_file": "files that cannot be opened or read",
    "wrong_columns": "rows with more or fewer columns than the header",
}
"""Code -> what was found, and what became of it. docs/data.md has the settings."""


def in_words(code: str) -> str:
    """What a code means; empty for one that says it itself, or is not known."""
    if code.startswith("not_"):
        return f"bytes that are not {code.removeprefix('not_')}: see data.encoding"
    return CODES.get(code, "")


def damaged_files(folder: Path, index: dict[str, Any], digests: bool) -> list[str]:
    """What is wrong with the files of a task's shards, each by name.

    Args:
        folder: <shards_dir>/<task>.
        index: Its index.json.
        digests: Whether to read all files and compare their digests, not their headers and offsets alone."""
    found = []
    for split, shards in index["shards"].items():
        for shard in shards:
            paths = {name: folder / split / f"{shard['name']}.{name}.npy" for name in index["fields"]}
            wrong = [
                fault
                for name, path in paths.items()
                if (fault := _damage(path, name, index["fields"][name], shard))
            ]
            if digests and not wrong and _digest(list(paths.values())) != shard["digest"]:
                wrong = [
                    f"{folder / split / shard['name']}.*.npy: not the bytes that were written (sha256 "
                    f"differs from index.json)"
                ]
            found += wrong
    return found


def _damage(path: Path, name: str, dtype: str, shard: dict[str, Any]) -> str | None:
    expected = {"offsets": shard["samples"] + 1, "sentence_label": shard["samples"]}.get(
        name, shard["tokens"]
    )
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

    The file has a row for each reject {task, file, line, reason, text}. Other lines are passed over: nothing
    depends on this file."""
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
            if text not in reject.examples and len(reject.examples) < KEPT:
                reject.examples.append(text)
    return found
