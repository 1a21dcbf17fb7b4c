"""Shards: folders of .npy files, described by index.json, written once and memory-mapped. No tensors here.

    <shards_dir>/<task>/{train,dev}/NNNNN.<field>.npy    ragged fields flat, with NNNNN.offsets.npy (N + 1)
    <shards_dir>/<task>/index.json                       written last: a folder without it is unfinished

Shapes: N samples in a shard, T tokens of one sample."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ernie2.config import Level
from ernie2.disk import write_json
from ernie2.strict import ConfigError
from ernie2.tasks import Task

FORMAT_VERSION = 1
LEVELS = get_args(Level)[1:]  # what can be masked together; basic masks single tokens and needs no ids
SPLITS = ("train", "dev")
IGNORED = -100
SENTENCE_TYPES = 4  # segments that sentence ids tell apart
OPEN_SHARDS = 32
"""Shards of a split that a reader keeps mapped."""


@dataclass
class Example:
    """One training example, unmasked and unpadded."""

    token_ids: np.ndarray
    """int (T), with [CLS] and [SEP]."""
    sentence_ids: np.ndarray
    """int8 (T): 0, 1, ... < sentence_type_vocab_size."""
    span_ids: dict[str, np.ndarray] | None = None
    """Level -> int16 (T); equal id = masked together, -1 = never masked. Required by head masked_lm."""
    token_labels: np.ndarray | None = None
    """int8 (T), -100 = ignored. Required by head token."""
    sentence_label: int | None = None
    """0 <= label < num_classes. Required by head sentence."""


class WrongExample(ConfigError):
    """An example breaks its task's contract in `field`."""

    def __init__(self, task: Task, field: str, got: object, expected: str) -> None:
        made = f"task {task.name}: generator {task.generator} made a wrong example"
        super().__init__(f"{made}: {field}: got {got}, expected {expected}")
        self.field = field


def check_example(example: Example, task: Task, vocab_size: int) -> None:
    """Checks an example against its task's contract. Raises WrongExample."""
    for fault in chain(_token_faults(example, vocab_size), _head_faults(example, task)):
        raise WrongExample(task, *fault)


def _token_faults(example: Example, vocab_size: int) -> Iterator[tuple[str, object, str]]:
    """(field, got, expected) of what every task's examples have."""
    ids, sentences = example.token_ids, example.sentence_ids
    if len(ids) == 0:
        yield "token_ids", "no tokens", "at least one"
    if ids.min() < 0 or ids.max() >= vocab_size:
        yield "token_ids", f"ids from {ids.min()} to {ids.max()}", f"0 to {vocab_size - 1}"
    if len(sentences) != len(ids):
        yield "sentence_ids", f"{len(sentences)} values", f"{len(ids)}, one a token"
    if sentences.min() < 0 or sentences.max() >= SENTENCE_TYPES:
        yield "sentence_ids", f"up to {sentences.max()}", f"0 to {SENTENCE_TYPES - 1}"


def _head_faults(example: Example, task: Task) -> Iterator[tuple[str, object, str]]:
    """(field, got, expected) of what the task's heads need."""
    length = len(example.token_ids)
    values = {
        f"span_ids[{level}]": (example.span_ids or {}).get(level) for level in LEVELS if task.has_masked_lm
    }
    if task.token_classes:
        values["token_labels"] = example.token_labels
    for name, found in values.items():
        if found is None or len(found) != length:
            yield name, "nothing" if found is None else f"{len(found)} values", f"{length} values"
    labels, label = example.token_labels, example.sentence_label
    if task.token_classes and not np.all((labels == IGNORED) | (labels >= 0) & (labels < task.token_classes)):
        yield "token_labels", sorted(set(labels.tolist())), f"0 to {task.token_classes - 1}, or {IGNORED}"
    if task.sentence_classes and (label is None or not 0 <= label < task.sentence_classes):
        yield "sentence_label", label, f"0 to {task.sentence_classes - 1}"


def task_fields(task: Task, vocab_size: int) -> dict[str, str]:
    """Field -> dtype of what a task's shards hold."""
    fields = {
        "offsets": "int64",
        "token_ids": "uint16" if vocab_size <= 65_536 else "int32",
        "sentence_ids": "int8",
    }
    if task.has_masked_lm:
        fields |= {f"span_ids_{level}": "int16" for level in LEVELS}
    if task.token_classes:
        fields["token_labels"] = "int8"
    if task.sentence_classes:
        fields["sentence_label"] = "int16"
    return fields


class ShardWriter:
    """Writes the examples of one task; until close() the folder does not exist under its name."""

    def __init__(
        self, folder: str | Path, task: Task, vocab_size: int, samples_per_shard: int = 50_000
    ) -> None:
        self.folder, self.samples_per_shard = Path(folder), samples_per_shard
        self.task, self.vocab_size = task, vocab_size
        self._tmp = self.folder.with_name(self.folder.name + ".tmp")
        shutil.rmtree(self._tmp, ignore_errors=True)
        for split in SPLITS:
            (self._tmp / split).mkdir(parents=True)
        self.fields = task_fields(task, vocab_size)
        self._buffer: dict[str, list[Example]] = {split: [] for split in SPLITS}
        self._shards: dict[str, list[dict]] = {split: [] for split in SPLITS}

    def write(self, split: str, example: Example) -> None:
        """Adds an example to `split`. Raises ConfigError when it breaks the task's contract."""
        check_example(example, self.task, self.vocab_size)
        self._buffer[split].append(example)
        if len(self._buffer[split]) >= self.samples_per_shard:
            self._flush(split)

    def close(self, index_extra: dict[str, Any]) -> dict[str, Any]:
        """Writes index.json and gives the folder its name, replacing an older one. Returns the index."""
        for split in SPLITS:
            self._flush(split)
        return finish_shards(self._tmp, self.folder, self.task, self.vocab_size, self._shards, index_extra)

    def abort(self) -> None:
        """Removes what was written."""
        shutil.rmtree(self._tmp, ignore_errors=True)

    def _flush(self, split: str) -> None:
        examples, self._buffer[split] = self._buffer[split], []
        if not examples:
            return
        stem = self._tmp / split / f"{len(self._shards[split]):05d}"
        lengths = [len(example.token_ids) for example in examples]
        arrays = {"offsets": np.concatenate([[0], np.cumsum(lengths)])}
        for name in self.fields:
            if name == "sentence_label":
                arrays[name] = np.array([example.sentence_label for example in examples])
            elif name.startswith("span_ids_"):
                level = name.removeprefix("span_ids_")
                arrays[name] = np.concatenate([example.span_ids[level] for example in examples])
            elif name != "offsets":
                arrays[name] = np.concatenate([getattr(example, name) for example in examples])
        arrays = {name: arrays[name].astype(dtype) for name, dtype in self.fields.items()}
        self._shards[split].append(write_shard(stem, arrays))


def write_shard(stem: Path, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Writes the fields of a shard.

    Args:
        stem: Folder and name, without the field.
        arrays: Field -> array, `offsets` among them, in the order of `task_fields`.

    Returns:
        Its entry in index.json: name, samples, tokens and the sha256 of its files in that order."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, np.lib.format.header_data_from_array_1_0(array))
        with stem.with_name(f"{stem.name}.{name}.npy").open("wb") as file:
            for part in (buffer.getvalue(), np.ascontiguousarray(array).data):
                file.write(part)
                digest.update(part)
    offsets = arrays["offsets"]
    return {
        "name": stem.name,
        "samples": len(offsets) - 1,
        "tokens": int(offsets[-1]),
        "digest": digest.hexdigest(),
    }


def finish_shards(
    made: Path,
    folder: Path,
    task: Task,
    vocab_size: int,
    shards: dict[str, list[dict[str, Any]]],
    index_extra: dict[str, Any],
) -> dict[str, Any]:
    """Writes index.json into `made`, which takes the name `folder` and the place of an older one; the index.
    made: folder of the shard files, {train,dev}/NNNNN.<field>.npy. shards: split -> what `write_shard`
    returned of each shard, in order. index_extra: further keys of the index."""
    index = {
        "format_version": FORMAT_VERSION,
        "task": task.name,
        "task_digest": task.digest(),
        "vocab_size": vocab_size,
        "fields": task_fields(task, vocab_size),
        "shards": shards,
        "samples": {split: sum(shard["samples"] for shard in shards[split]) for split in SPLITS},
        "tokens": {split: sum(shard["tokens"] for shard in shards[split]) for split in SPLITS},
        **index_extra,
    }
    write_json(made / "index.json", index)
    old = folder.with_name(folder.name + ".old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    made.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return index


class ShardReader:
    """One split of one task's shards, memory-mapped.

    Args:
        folder: <shards_dir>/<task>.
        split: "train" or "dev".
        task: the task as its YAML declares it now; the fields it needs must be there.
        vocab_digest: digest of the vocabulary in use; shards of another vocabulary are refused.

    Raises:
        ConfigError: missing, unfinished, foreign, truncated, or of another vocabulary; names the file."""

    def __init__(
        self, folder: str | Path, split: str, task: Task | None = None, vocab_digest: str | None = None
    ) -> None:
        self.folder, self.split = Path(folder), split
        self.index = read_index(self.folder)
        if vocab_digest is not None and self.index.get("vocab_digest") != vocab_digest:
            raise ConfigError(
                f"{self.folder}: these shards were made with another vocabulary than the recipe's "
                f"model.vocab_file; run data_gen again with this recipe, or name another data.shards_dir"
            )
        if task is not None and task.name != self.index["task"]:
            raise ConfigError(f"{self.folder}: holds task '{self.index['task']}', expected '{task.name}'")
        for name in task_fields(task, self.index["vocab_size"]) if task is not None else ():
            if name not in self.index["fields"]:
                raise ConfigError(
                    f"{self.folder}: lacks field '{name}' that {task.path} needs now; run data_gen again"
                )
        for shard in self.index["shards"][split]:
            self._check(shard)
        self._open: OrderedDict[int, dict[str, np.ndarray]] = OrderedDict()
        self.shard_tokens = np.array([shard["tokens"] for shard in self.index["shards"][split]], np.int64)
        self.shard_samples = np.array([shard["samples"] for shard in self.index["shards"][split]], np.int64)
        self.first_sample = np.concatenate([[0], np.cumsum(self.shard_samples)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self.first_sample[-1])

    def __getitem__(self, i: int) -> Example:
        """Sample i of the split; arrays are views of the memory map."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        number = int(np.searchsorted(self.first_sample, i, side="right")) - 1
        shard, j = self._shard(number), i - int(self.first_sample[number])
        a, b = int(shard["offsets"][j]), int(shard["offsets"][j + 1])
        spans = {level: shard[f"span_ids_{level}"][a:b] for level in LEVELS if f"span_ids_{level}" in shard}
        labels = shard.get("token_labels")
        sentence_label = shard.get("sentence_label")
        return Example(
            shard["token_ids"][a:b],
            shard["sentence_ids"][a:b],
            spans or None,
            None if labels is None else labels[a:b],
            None if sentence_label is None else int(sentence_label[j]),
        )

    @property
    def digest(self) -> str:
        """sha256 over the digests of the split's shards."""
        return hashlib.sha256(
            "".join(str(shard.get("digest")) for shard in self.index["shards"][self.split]).encode()
        ).hexdigest()

    @property
    def tokens(self) -> int:
        """Real tokens of the split."""
        return int(self.shard_tokens.sum())

    def array(self, shard: int, field: str) -> np.ndarray:
        """A whole field of shard number `shard`, memory-mapped."""
        return self._shard(shard)[field]

    def lengths(self) -> np.ndarray:
        """int64 (N): tokens of every sample of the split."""
        shards = self.index["shards"][self.split]
        return np.concatenate(
            [np.diff(self._load(shard, "offsets")) for shard in shards] or [np.zeros(0, np.int64)]
        )

    def most_sentences(self) -> int:
        """One more than the largest sentence id; reads all of them."""
        shards = range(len(self.shard_samples))
        return 1 + max((int(self.array(i, "sentence_ids").max(initial=0)) for i in shards), default=0)

    def _shard(self, number: int) -> dict[str, np.ndarray]:
        """The fields of a shard. Few are mapped at a time: the system allows a process some 65,000 maps."""
        if number not in self._open:
            shard = self.index["shards"][self.split][number]
            self._open[number] = {name: self._load(shard, name) for name in self.index["fields"]}
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]

    def _check(self, shard: dict[str, Any]) -> None:
        """Raises ConfigError where a file of the shard is missing or of another size than the index says."""
        for name, dtype in self.index["fields"].items():
            path, size = self._path(shard, name), self._length(shard, name) * np.dtype(dtype).itemsize
            try:
                header = path.stat().st_size - size
            except OSError as error:
                said = f"missing shard file ({error.strerror})"
                raise ConfigError(f"{path}: {said}; run data_gen again") from None
            if not 0 < header <= 1_024 or header % 64:
                said = f"truncated shard file, or not of {size} bytes as index.json says"
                raise ConfigError(f"{path}: {said}; run data_gen again")

    def _load(self, shard: dict[str, Any], name: str) -> np.ndarray:
        path, dtype = self._path(shard, name), np.dtype(self.index["fields"][name])
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(f"{path}: damaged shard file ({error}); run data_gen again") from None
        if array.shape != (self._length(shard, name),) or array.dtype != dtype:
            raise ConfigError(
                f"{path}: holds {array.shape} {array.dtype}, index.json says ({self._length(shard, name)},) "
                f"{dtype}; run data_gen again"
            )
        return np.asarray(array)

    def _path(self, shard: dict[str, Any], name: str) -> Path:
        return self.folder / self.split / f"{shard['name']}.{name}.npy"

    @staticmethod
    def _length(shard: dict[str, Any], name: str) -> int:
        return {"offsets": shard["samples"] + 1, "sentence_label": shard["samples"]}.get(
            name, shard["tokens"]
        )


def read_index(folder: Path) -> dict[str, Any]:
    """index.json of a task's shards. Raises ConfigError: missing, not JSON, of another format version."""
    path = folder / "index.json"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        said = "no finished shards there; make them with: python -m data_gen RECIPE.yaml"
        raise ConfigError(f"{path}: {said}") from None
    except OSError as error:
        said = f"cannot be read ({error.strerror}); take it away and run data_gen again"
        raise ConfigError(f"{path}: {said}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON ({error}); run data_gen again") from None
    if not isinstance(index, dict) or index.get("format_version") != FORMAT_VERSION:
        raise ConfigError(f"{path}: not a shard index of format version {FORMAT_VERSION}; run data_gen again")
    if not _is_whole(index):
        raise ConfigError(f"{path}: keys are missing or of the wrong kind; run data_gen again")
    return index


def _is_whole(index: dict[str, Any]) -> bool:
    """Whether an index has what a reader relies on."""
    fields, shards = index.get("fields"), index.get("shards")
    return (
        isinstance(index.get("task"), str)
        and _is_count(index.get("vocab_size"))
        and isinstance(fields, dict)
        and set(fields.values()) <= {"int8", "int16", "int32", "int64", "uint16"}
        and isinstance(shards, dict)
        and all(isinstance(shards.get(split), list) for split in SPLITS)
        and all(
            isinstance(one, dict)
            and re.fullmatch(r"\d+", str(one.get("name")))
            and _is_count(one.get("samples"))
            and _is_count(one.get("tokens"))
            for split in SPLITS
            for one in shards[split]
        )
        and isinstance(index.get("imported", {}), dict)
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0
