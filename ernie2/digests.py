"""Digests of what has to be the same on every node: code, recipe, vocabulary, shards. No tensors here."""

import hashlib
import json
from pathlib import Path

from ernie2 import tasks
from ernie2.config import Recipe
from ernie2.disk import file_digest
from ernie2.schema import to_mapping

_SOURCES = sorted(Path(__file__).resolve().parent.rglob("*.py"))


def run_digests(recipe: Recipe) -> dict[str, str]:
    """Name -> sha256, or "none" where there is nothing yet; shards: of their indexes, which hold digests."""
    names, settings = recipe.task_names(), json.dumps(to_mapping(recipe), sort_keys=True)
    return {
        "code": _of_files(_SOURCES),
        "recipe": hashlib.sha256(settings.encode()).hexdigest(),
        "task files": _of_files([tasks.TASKS_DIR / f"{name}.yaml" for name in names]),
        "vocabulary": _of_files([Path(recipe.model.vocab_file)]),
        "shards": _of_files([Path(recipe.data.shards_dir) / name / "index.json" for name in names]),
    }


def command_digests(file: str, overrides: list[str]) -> dict[str, str]:
    """The same of a command that reads one file of settings."""
    return {
        "code": _of_files(_SOURCES),
        "task file": _of_files([Path(file)]),
        "settings": " ".join(overrides),
    }


def _of_files(paths: list[Path]) -> str:
    digests = {path: file_digest(path) if path.is_file() else "none" for path in paths}
    lines = "".join(f"{path.parent.name}/{path.name} {digest}\n" for path, digest in digests.items())
    return hashlib.sha256(lines.encode()).hexdigest() if {"none"} != {*digests.values()} else "none"
