"""What has to be the same on every node of a run: code, recipe, vocabulary, shards, each as a digest. No
tensors here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ernie2 import tasks
from ernie2.config import Recipe, to_mapping
from ernie2.disk import file_digest

PACKAGE = Path(__file__).resolve().parent


def code_digest() -> str:
    """sha256 over the library's sources."""
    return _of_files(sorted(PACKAGE.rglob("*.py")))


def run_digests(recipe: Recipe) -> dict[str, str]:
    """Name -> sha256, or "none" where there is nothing yet.

    Returns:
        code; recipe (as resolved, overrides included); task files; vocabulary; shards (the index of every
        task, which holds a digest of each shard)."""
    names = recipe.task_names()
    vocabulary = Path(recipe.model.vocab_file)
    return {
        "code": code_digest(),
        "recipe": hashlib.sha256(json.dumps(to_mapping(recipe), sort_keys=True).encode()).hexdigest(),
        "task files": _of_files([tasks.TASKS_DIR / f"{name}.yaml" for name in names]),
        "vocabulary": file_digest(vocabulary) if vocabulary.is_file() else "none",
        "shards": _of_files([Path(recipe.data.shards_dir) / name / "index.json" for name in names]),
    }


def command_digests(file: str, overrides: list[str]) -> dict[str, str]:
    """Name -> what has to be the same where a command reads one file of settings."""
    return {"code": code_digest(), "task file": _of_files([Path(file)]), "settings": " ".join(overrides)}


def _of_files(paths: list[Path]) -> str:
    """sha256 over names and contents; "none" where all are missing."""
    whole = hashlib.sha256()
    for path in paths:
        whole.update(
            f"{path.parent.name}/{path.name} {file_digest(path) if path.is_file() else 'none'}\n".encode()
        )
    return whole.hexdigest() if any(path.is_file() for path in paths) else "none"
