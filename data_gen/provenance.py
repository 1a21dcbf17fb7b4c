"""Which files shards are made of, and whether shards on disk are still what the recipe would make."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_gen.documents import expand_paths
from data_gen.generators import load_generator
from ernie2.config import ConfigError, Recipe
from ernie2.shards import SPLITS, ShardReader, file_digest, read_index
from ernie2.tasks import Task

KEYS = {"documents": "data.corpus", "pairs": "data.query_log"}
NO_MATTER = ("__main__.py", "audit.py", "progress.py", "provenance.py", "show.py", "vocab.py")
"""Files of this package whose change does not change shards. A change of any other, or of the generator, may."""


@dataclass(frozen=True)
class Inputs:
    """Input files of a recipe, globs resolved, each list in the order given and sorted within a glob."""

    corpus: tuple[Path, ...]
    query_log: tuple[Path, ...]
    dictionaries: tuple[Path, ...]

    @classmethod
    def of(cls, recipe: Recipe, tasks: Sequence[Task]) -> Inputs:
        """Resolves the paths of a recipe. Raises ConfigError where a file is missing or a task has none to read."""
        given = {"documents": recipe.data.corpus, "pairs": recipe.data.query_log}
        for task in tasks:
            if not given[task.source]:
                key = KEYS[task.source]
                raise ConfigError(f"{key}: empty, but task '{task.name}' reads {task.source}; give files, for example "
                                  f"{key}='[FILE, ...]', or leave the task out of curriculum.stages")
        return cls(*(tuple(expand_paths(patterns, key)) if patterns else () for key, patterns in (
            ("data.corpus", recipe.data.corpus), ("data.query_log", recipe.data.query_log),
            ("data.entity_dicts", recipe.data.entity_dicts))))

    def paths(self, source: str) -> tuple[Path, ...]:
        """Input files of a source."""
        return {"documents": self.corpus, "pairs": self.query_log}[source]

    def total_bytes(self, sources: Sequence[str]) -> int:
        """Bytes of text of these sources, unpacked."""
        return sum(unpacked_bytes(path) for source in dict.fromkeys(sources) for path in self.paths(source))


def unpacked_bytes(path: Path) -> int:
    """Bytes of a file; of a .gz, what it unpacks to (by its trailer: right below 4 GB)."""
    if path.suffix != ".gz":
        return path.stat().st_size
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - 4, 0))
        return int.from_bytes(file.read(4), "little")


def origin(recipe: Recipe, task: Task, inputs: Inputs, vocab_digest: str) -> dict[str, Any]:
    """Everything a task's shards depend on: what index.json keeps and a later run compares."""
    module = load_generator(task, recipe.data.language).module
    package = Path(__file__).parent
    return {
        "vocab_digest": vocab_digest,
        "task_digest": task.digest(),
        "input_digests": [file_digest(path) for path in inputs.paths(task.source)],
        "dictionary_digests": [file_digest(path) for path in inputs.dictionaries],
        "code_digest": _joint_digest([Path(module.__file__), *sorted(package.glob("*.py"))]),
        "seed": recipe.seed,
        "max_seq_len": recipe.data.max_seq_len,
        "language": recipe.data.language,
        "lower_case": recipe.data.lower_case,
        "segmenter": f"{recipe.data.segmenter} {importlib.metadata.version(recipe.data.segmenter)}",
        "dev_share": recipe.data.dev_share,
        "encoding": recipe.data.encoding,
    }


def _joint_digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        if path.name not in NO_MATTER:
            digest.update(path.read_bytes())
    return digest.hexdigest()


_WORDS = {"vocab_digest": "the vocabulary", "task_digest": "the task's YAML", "input_digests": "the input files",
          "dictionary_digests": "the dictionaries", "code_digest": "the code that makes the shards"}


def stale(folder: Path, task: Task, wanted: dict[str, Any]) -> str | None:
    """Why the shards in `folder` have to be made (again); None where they are what the recipe would make."""
    if not folder.exists():
        return "not made yet"
    try:
        index = read_index(folder)
        for split in SPLITS:
            ShardReader(folder, split, task)
    except ConfigError as error:
        return str(error)
    for key, value in wanted.items():
        if index.get(key) != value:
            what = _WORDS.get(key)
            return f"{what} changed" if what else f"{key} changed from {index.get(key)} to {value}"
    return None
