"""The text of the training-step benchmark: shards for ours, fixed-length padded batches of the same examples for peers."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.processes import run
from ernie2.batching import Collator
from ernie2.shards import ShardReader
from ernie2.tasks import select_tasks
from ernie2.tokenizer import Vocab

TASK = "sentence_reordering"
"""Both losses, and examples of like length as a document cut into passages gives."""
BATCHES = 12
VOCAB_ROWS = 18_000


def write_recipe(folder: Path, vocab: Path, length: int, corpus: Sequence[str] = (), **settings: object) -> Path:
    """A recipe of the benchmark's one task, everything at its default but what is given."""
    recipe = {
        "name": "train_step", "out_dir": str(folder / "out"), "seed": 1,
        "model": {"vocab_file": str(vocab), "vocab_rows": VOCAB_ROWS, "hidden_act": "gelu", "size": settings.get("size", "mini")},
        "data": {"shards_dir": str(folder / f"shards_{length}"), "corpus": list(corpus), "max_seq_len": length},
        "curriculum": {"stages": [[TASK]], "steps_per_task": 1_000_000}, "lr": {"peak": 1e-4},
        "batch": {"tokens": settings.get("tokens", 4096), "micro_tokens": settings.get("tokens", 4096)}}
    path = folder / f"recipe_{length}_{settings.get('size', 'data')}.yaml"
    path.write_text(json.dumps(recipe, ensure_ascii=False), encoding="utf-8")  # JSON is YAML
    return path


def make_shards(folder: Path, corpus: Sequence[str], vocab: Path, length: int) -> None:
    """Shards of one length, by the project's own data generation."""
    recipe = write_recipe(folder, vocab, length, [str(Path(path).absolute()) for path in corpus])
    run([sys.executable, "-m", "data_gen", str(recipe)])


def real_share(shards: Path, length: int) -> float:
    """Real tokens over padded tokens when every example is padded to `length`."""
    index = json.loads((shards / TASK / "index.json").read_text(encoding="utf-8"))
    return index["tokens"]["train"] / (index["samples"]["train"] * length)


def write_batches(shards: Path, vocab: Path, length: int, tokens: int, path: Path) -> None:
    """BATCHES padded batches of `tokens` tokens, examples in their order, masked as ours are.

    Arrays: token_ids, sentence_ids (K, B, T); lengths, labels (K, B), labels 0 or 1 for a head of two classes;
    positions, targets (K, M): predicted positions in the flattened (B * T) tokens, -1 where a batch has fewer.
    """
    words, task = Vocab.load(vocab), select_tasks([TASK], "benchmark")[0]
    reader, collate = ShardReader(shards / TASK, "train", task, words.digest), Collator(words, 0.15)
    size = tokens // length
    arrays: dict[str, list[np.ndarray]] = {name: [] for name in ("token_ids", "sentence_ids", "lengths", "labels")}
    predicted = []
    for k in range(BATCHES):
        examples = [reader[(k * size + i) % len(reader)] for i in range(size)]
        batch = collate(task, examples, ["word"], np.random.default_rng(k))
        width = batch.token_ids.shape[1]
        spare = ((0, 0), (0, length - width))
        arrays["token_ids"].append(np.pad(batch.token_ids, spare, constant_values=words.pad_id))
        arrays["sentence_ids"].append(np.pad(batch.sentence_ids, spare))
        arrays["lengths"].append(batch.lengths)
        arrays["labels"].append(batch.sentence_labels % 2)
        predicted.append((batch.mlm_positions // width * length + batch.mlm_positions % width, batch.mlm_labels))
    most = max(len(positions) for positions, _ in predicted)
    for name, column in (("positions", 0), ("targets", 1)):
        arrays[name] = [np.pad(pair[column], (0, most - len(pair[column])), constant_values=-1) for pair in predicted]
    np.savez(path, **{name: np.stack(parts) for name, parts in arrays.items()})
