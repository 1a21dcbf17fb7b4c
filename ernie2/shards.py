"""Shards: self-describing folders of .npy files that are written once and memory-mapped ever after. No tensors here.

    <shards_dir>/<task>/{train,dev}/NNNNN.<field>.npy     ragged fields flat, with NNNNN.offsets.npy (N + 1)
    <shards_dir>/<task>/index.json                        written last, atomically: a folder without it is unfinished

Shapes: N samples in a shard, T tokens of one sample.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ernie2.strict import ConfigError
from ernie2.tasks import Task

FORMAT_VERSION = 1
LEVELS = ("word", "phrase", "entity")
SPLITS = ("train", "dev")
IGNORED = -100


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


def check_example(example: Example, task: Task, vocab_size: int, max_sentence_ids: int = 4) -> None:
    """Holds an example against its task's contract. Raises ConfigError naming task, field, got and expected."""

    def fail(name: str, got: object, expected: str) -> None:
        raise ConfigError(f"task {task.name}: generator {task.generator} made a wrong example: {name}: "
                          f"got {got}, expected {expected}")

    length = len(example.token_ids)
    if length == 0:
        fail("token_ids", "no tokens", "at least one")
    if example.token_ids.min() < 0 or example.token_ids.max() >= vocab_size:
        fail("token_ids", f"ids from {example.token_ids.min()} to {example.token_ids.max()}", f"0 to {vocab_size - 1}")
    if len(example.sentence_ids) != length:
        fail("sentence_ids", f"{len(example.sentence_ids)} values", f"{length}, one a token")
    if example.sentence_ids.min() < 0 or example.sentence_ids.max() >= max_sentence_ids:
        fail("sentence_ids", f"up to {example.sentence_ids.max()}", f"0 to {max_sentence_ids - 1}")
    if task.has_masked_lm:
        for level in LEVELS:
            spans = (example.span_ids or {}).get(level)
            if spans is None or len(spans) != length:
                fail(f"span_ids[{level}]", "nothing" if spans is None else f"{len(spans)} values", f"{length} values")
    if task.token_classes:
        labels = example.token_labels
        if labels is None or len(labels) != length:
            fail("token_labels", "nothing" if labels is None else f"{len(labels)} values", f"{length} values")
        if not np.all((labels == IGNORED) | (labels >= 0) & (labels < task.token_classes)):
            fail("token_labels", sorted(set(labels.tolist())), f"0 to {task.token_classes - 1}, or {IGNORED}")
    if task.sentence_classes:
        label = example.sentence_label
        if label is None or not 0 <= label < task.sentence_classes:
            fail("sentence_label", label, f"0 to {task.sentence_classes - 1}")


def task_fields(task: Task, vocab_size: int) -> dict[str, str]:
    """Field -> dtype of what a task's shards hold."""
    fields = {"offsets": "int64", "token_ids": "uint16" if vocab_size <= 65_536 else "int32", "sentence_ids": "int8"}
    if task.has_masked_lm:
        fields |= {f"span_ids_{level}": "int16" for level in LEVELS}
    if task.token_classes:
        fields["token_labels"] = "int8"
    if task.sentence_classes:
        fields["sentence_label"] = "int16"
    return fields


class ShardWriter:
    """Writes the examples of one task; close() finishes the folder, which until then does not exist under its name."""

    def __init__(self, folder: str | Path, task: Task, vocab_size: int, samples_per_shard: int = 50_000) -> None:
        self.folder, self.task, self.vocab_size = Path(folder), task, vocab_size
        self.samples_per_shard = samples_per_shard
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
        index = {
            "format_version": FORMAT_VERSION, "task": self.task.name, "task_digest": self.task.digest(),
            "vocab_size": self.vocab_size, "fields": self.fields, "shards": self._shards,
            "samples": {split: sum(s["samples"] for s in self._shards[split]) for split in SPLITS},
            "tokens": {split: sum(s["tokens"] for s in self._shards[split]) for split in SPLITS},
            **index_extra,
        }
        write_json(self._tmp / "index.json", index)
        if self.folder.exists():
            old = self.folder.with_name(self.folder.name + ".old")
            shutil.rmtree(old, ignore_errors=True)
            self.folder.rename(old)
            self._tmp.rename(self.folder)
            shutil.rmtree(old)
        else:
            self._tmp.rename(self.folder)
        return index

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
                arrays[name] = np.concatenate([example.span_ids[name.removeprefix("span_ids_")] for example in examples])
            elif name != "offsets":
                arrays[name] = np.concatenate([getattr(example, name) for example in examples])
        digest = hashlib.sha256()
        for name, dtype in self.fields.items():
            path = stem.with_suffix(f".{name}.npy")
            np.save(path, arrays[name].astype(dtype), allow_pickle=False)
            digest.update(path.read_bytes())
        self._shards[split].append({"name": stem.name, "samples": len(examples), "tokens": int(sum(lengths)),
                                    "digest": digest.hexdigest()})


class ShardReader:
    """One split of one task's shards, memory-mapped.

    Args:
        folder: <shards_dir>/<task>.
        split: "train" or "dev".
        task: the task as its YAML declares it now; the fields it needs must be there.
        vocab_digest: digest of the vocabulary in use; shards of another vocabulary are refused.

    Raises:
        ConfigError: folder missing or unfinished, foreign, truncated, or made with another vocabulary; names the file.
    """

    def __init__(self, folder: str | Path, split: str, task: Task | None = None, vocab_digest: str | None = None) -> None:
        self.folder, self.split = Path(folder), split
        self.index = read_index(self.folder)
        if vocab_digest is not None and self.index.get("vocab_digest") != vocab_digest:
            raise ConfigError(f"{self.folder}: these shards were made with another vocabulary than the recipe's "
                              f"model.vocab_file; run data_gen again with this recipe, or name another data.shards_dir")
        if task is not None and task.name != self.index["task"]:
            raise ConfigError(f"{self.folder}: holds task '{self.index['task']}', expected '{task.name}'")
        for name in task_fields(task, self.index["vocab_size"]) if task is not None else ():
            if name not in self.index["fields"]:
                raise ConfigError(f"{self.folder}: lacks field '{name}' that {task.path} needs now; run data_gen again")
        self._shards = [self._open(shard) for shard in self.index["shards"][split]]
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
        shard, j = self._shards[number], i - int(self.first_sample[number])
        a, b = int(shard["offsets"][j]), int(shard["offsets"][j + 1])
        spans = {level: shard[f"span_ids_{level}"][a:b] for level in LEVELS if f"span_ids_{level}" in shard}
        labels = shard.get("token_labels")
        sentence_label = shard.get("sentence_label")
        return Example(shard["token_ids"][a:b], shard["sentence_ids"][a:b], spans or None,
                       None if labels is None else labels[a:b],
                       None if sentence_label is None else int(sentence_label[j]))

    @property
    def tokens(self) -> int:
        """Real tokens of the split."""
        return int(self.shard_tokens.sum())

    def array(self, shard: int, field: str) -> np.ndarray:
        """A whole field of shard number `shard`, memory-mapped."""
        return self._shards[shard][field]

    def lengths(self) -> np.ndarray:
        """int64 (N): tokens of every sample of the split."""
        return np.concatenate([np.diff(shard["offsets"]) for shard in self._shards] or [np.zeros(0, np.int64)])

    def _open(self, shard: dict) -> dict[str, np.ndarray]:
        arrays = {}
        for name, dtype in self.index["fields"].items():
            path = self.folder / self.split / f"{shard['name']}.{name}.npy"
            expected = {"offsets": shard["samples"] + 1, "sentence_label": shard["samples"]}.get(name, shard["tokens"])
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise ConfigError(f"{path}: missing or truncated shard file ({error}); run data_gen again") from None
            if array.shape != (expected,) or array.dtype != np.dtype(dtype):
                raise ConfigError(f"{path}: holds {array.shape} {array.dtype}, index.json says ({expected},) {dtype}; "
                                  f"run data_gen again")
            arrays[name] = np.asarray(array)
        return arrays


def read_index(folder: Path) -> dict[str, Any]:
    """index.json of a task's shards. Raises ConfigError when missing, not JSON, or of another format version."""
    path = folder / "index.json"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no finished shards there; make them with: python -m data_gen RECIPE.yaml") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: not JSON ({error}); run data_gen again") from None
    if not isinstance(index, dict) or index.get("format_version") != FORMAT_VERSION:
        raise ConfigError(f"{path}: not a shard index of format version {FORMAT_VERSION}; run data_gen again")
    return index


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically: a reader sees the old file or the new one."""
    tmp = path.with_name(path.name + ".tmp")
    with tmp.open("w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    tmp.replace(path)


def file_digest(path: str | Path) -> str:
    """sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
