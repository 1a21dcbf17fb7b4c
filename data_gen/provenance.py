"""Which files shards are made of, and whether shards on disk are still what the recipe would make."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_gen.generators import load_generator
from data_gen.reading.formats import SOURCES
from data_gen.reading.streams import expand_paths
from data_gen.text.segmenters import load_segmenter
from ernie2.config import ConfigError, Recipe
from ernie2.disk import file_digest
from ernie2.shards import SPLITS, ShardReader, read_index
from ernie2.tasks import Task

KEYS = {name: source.key for name, source in SOURCES.items()}
DATA_VERSION = 1
"""Version of what the code makes of an input. Raise it when the bytes of shards change: those on disk are
then made anew. tests/test_provenance.py holds the digests."""


@dataclass(frozen=True)
class Inputs:
    """Input files of a recipe, globs resolved, each list in the order given and sorted within a glob."""

    corpus: tuple[Path, ...]
    query_log: tuple[Path, ...]
    marked_pairs: tuple[Path, ...]
    dictionaries: tuple[Path, ...]

    @classmethod
    def of(cls, recipe: Recipe, tasks: Sequence[Task]) -> Inputs:
        """Resolves the paths of a recipe. Raises ConfigError where a file is missing or a task has none to
        read."""
        data = recipe.data
        given = {"documents": data.corpus, "pairs": data.query_log, "marked_pairs": data.marked_pairs}
        for task in tasks:
            if not given[task.sources[0]]:
                key = KEYS[task.sources[0]]
                raise ConfigError(
                    f"{key}: empty, but task '{task.name}' reads {task.sources[0]}; give files, for example "
                    f"{key}='[FILE, ...]', or leave the task out of curriculum.stages"
                )
        inputs = cls(
            *(
                tuple(expand_paths(patterns, key)) if patterns else ()
                for key, patterns in (
                    ("data.corpus", data.corpus),
                    ("data.query_log", data.query_log),
                    ("data.marked_pairs", data.marked_pairs),
                    ("data.entity_dicts", data.entity_dicts),
                )
            )
        )
        inputs._check(recipe)
        return inputs

    def _check(self, recipe: Recipe) -> None:
        """Raises ConfigError for a dictionary that cannot be read, and for a file that is input and something
        else too."""
        for path in self.dictionaries:
            if not path.is_file() or not os.access(path, os.R_OK):
                raise ConfigError(
                    f"data.entity_dicts: {path} cannot be read; it is no file, or not yours to read"
                )
        other = {os.path.realpath(path): "a dictionary (data.entity_dicts)" for path in self.dictionaries}
        other[os.path.realpath(recipe.model.vocab_file)] = "the vocabulary (model.vocab_file)"
        shards = os.path.join(os.path.realpath(recipe.data.shards_dir), "")
        for source, key in KEYS.items():
            for path in map(os.path.realpath, self.paths(source)):  # realpath: a link may lead nowhere
                what = "in data.shards_dir" if path.startswith(shards) else other.get(path)
                if what:
                    raise ConfigError(
                        f"{key}: {path} is {what}; take it out of the input, or put one of them elsewhere"
                    )

    def paths(self, source: str) -> tuple[Path, ...]:
        """Input files of a source."""
        return {"documents": self.corpus, "pairs": self.query_log, "marked_pairs": self.marked_pairs}[source]

    def total_bytes(self, sources: Sequence[str]) -> int:
        """Bytes of text of these sources, unpacked."""
        return sum(unpacked_bytes(path) for source in dict.fromkeys(sources) for path in self.paths(source))


def unpacked_bytes(path: Path) -> int:
    """Bytes of text of a file, about; 0 where it cannot be read. Of a .gz, what its last four bytes say where
    that is likely (they are wrong where it was cut off, joined, or unpacks to 4 GB), of other compressed
    files three times their size."""
    size = _state(path)[0]
    if size and path.suffix == ".gz" and size < MOST_TRUSTED:
        with path.open("rb") as file:
            file.seek(max(size - 4, 0))
            said = int.from_bytes(file.read(4), "little")
        if size <= said <= 20 * size:
            return said
    return size * 3 if path.suffix in (".gz", ".bz2", ".zst") else size


def _state(path: Path) -> tuple[int, int]:
    """Size and time of change of a file; (0, 0) where it cannot be read: the readers count it, and go on."""
    try:
        state = path.stat()
    except OSError:
        return 0, 0
    return (state.st_size, state.st_mtime_ns) if stat.S_ISREG(state.st_mode) else (0, 0)


def origin(recipe: Recipe, task: Task, inputs: Inputs, vocab_digest: str) -> dict[str, Any]:
    """Everything a task's shards depend on: what index.json keeps and a later run compares."""
    return {
        **blocks_origin(recipe, inputs, task.sources, vocab_digest),
        "task_digest": task.digest(),
        "generator_digest": _digest(Path(load_generator(task, recipe.data.language).module.__file__)),
    }


def blocks_origin(
    recipe: Recipe, inputs: Inputs, sources: Sequence[str], vocab_digest: str
) -> dict[str, Any]:
    """What the annotation of the blocks of some sources depends on, whatever the task."""
    data, segmenter = recipe.data, "none"
    if data.language == "zh":
        found = load_segmenter(data.segmenter)
        segmenter = f"{found.name} {found.version}"
    return {
        "vocab_digest": vocab_digest,
        "input_digests": [_digest(path) for source in sources for path in inputs.paths(source)],
        "dictionary_digests": [_digest(path) for path in inputs.dictionaries],
        "data_version": DATA_VERSION,
        "seed": recipe.seed,
        "segmenter": segmenter,
        **{key: getattr(data, key) for key in SETTINGS},
    }


def _digest(path: Path) -> str:
    """sha256 of a file, computed once as long as it does not change: a corpus is large."""
    return _digest_of(path, *_state(path))


@functools.cache
def _digest_of(path: Path, size: int, modified: int) -> str:
    try:
        return file_digest(path) if modified else "cannot be read"
    except OSError:
        return "cannot be read"


MOST_TRUSTED = 200_000_000
"""Bytes of a .gz file below which what it says of its size cannot have passed 4 GB."""
SETTINGS = (
    "max_seq_len",
    "language",
    "lower_case",
    "dev_share",
    "encoding",
    "min_chars",
    "max_chars",
    "strip_html",
    "normalise_width",
    "simplify",
    "drop_near_duplicates",
)
"""Keys of `data` that change what is made."""

FILES_NAMED = 3
"""Changed files that a message names."""
_WORDS = {
    "vocab_digest": "the vocabulary",
    "task_digest": "the task's YAML",
    "input_digests": "the input files",
    "dictionary_digests": "the dictionaries",
    "data_version": "the code that makes the shards",
    "generator_digest": "the task's generator",
}


def is_imported(folder: Path) -> bool:
    """Whether the shards in `folder` were imported (data_gen.interchange): no recipe makes them."""
    try:
        return "imported" in read_index(folder)
    except ConfigError:
        return False


def stale(folder: Path, task: Task, wanted: dict[str, Any], inputs: Inputs) -> str | None:
    """Why the shards in `folder` have to be made (again); None where they are what the recipe would make."""
    if not folder.exists():
        return "no shards yet"
    try:
        index = read_index(folder)
        for split in SPLITS:
            ShardReader(folder, split, task)
    except ConfigError as error:
        return str(error)
    return what_changed(index, wanted, inputs)


def what_changed(before: dict[str, Any], wanted: dict[str, Any], inputs: Inputs) -> str | None:
    """The first difference between two origins, in words; None where there is none. `inputs`: the files of
    the second one."""
    for key, value in wanted.items():
        if before.get(key) != value:
            what = _WORDS.get(key)
            if what is None:
                return f"{'' if key == 'seed' else 'data.'}{key} changed from {before.get(key)} to {value}"
            return f"{what} changed" + (
                _which(set(value) - set(before.get(key) or ()), inputs) if key.endswith("digests") else ""
            )
    return None


def _which(digests: set[str], inputs: Inputs) -> str:
    """The files of these digests, which are new or not as they were, in brackets."""
    every = (*inputs.corpus, *inputs.query_log, *inputs.marked_pairs, *inputs.dictionaries)
    names = [path.name for path in dict.fromkeys(every) if _digest(path) in digests]
    if not names:
        return " (one was taken away, or their order is another)"
    more = f" and {len(names) - FILES_NAMED} more" if len(names) > FILES_NAMED else ""
    return f" ({', '.join(names[:FILES_NAMED])}{more})"
