"""The product's own training step as a worker of benchmarks/train_step.py, and the same examples as padded
batches for peers.

python -m benchmarks.train_step_ours SIZE LENGTH TOKENS VOCAB FOLDER"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import harness
from benchmarks.train_step_peers import serve
from ernie2.batching import Collator, prefetch
from ernie2.config import load_recipe
from ernie2.shards import ShardReader
from ernie2.strict import ConfigError
from ernie2.tasks import select_tasks
from ernie2.tokenizer import Vocab

TASK = "sentence_reordering"
"""Both losses, and examples of like length as a document cut into passages gives."""
BATCHES = 12
VOCAB_ROWS = 18_000


def write_recipe(
    folder: Path, vocab: Path, length: int, corpus: Sequence[str] = (), **settings: object
) -> Path:
    """A recipe of the benchmark's one task, everything at its default but what is given."""
    keys = {
        "out_dir": folder / "out",
        "model.vocab_file": vocab,
        "model.vocab_rows": VOCAB_ROWS,
        "model.hidden_act": "gelu",
        "data.shards_dir": folder / f"shards_{length}",
        "data.corpus": corpus,
        "data.max_seq_len": length,
        "curriculum.stages": [[TASK]],
        "curriculum.steps_per_task": 1_000_000,
        **settings,
    }
    return harness.write_recipe(folder / f"recipe_{length}_{settings.get('model.size', 'data')}.yaml", keys)


def make_shards(folder: Path, corpus: Sequence[str], vocab: Path, length: int) -> None:
    """Shards of one length, by the project's own data generation. Raises ConfigError where it fails."""
    recipe = write_recipe(folder, vocab, length, [Path(path).absolute() for path in corpus])
    try:
        harness.run([sys.executable, "-m", "data_gen", recipe])
    except harness.RunFailed as error:
        raise ConfigError(f"data generation at {length} tokens: {error}") from None


def real_share(shards: Path, length: int) -> float:
    """Real tokens over padded tokens when every example is padded to `length`."""
    index = json.loads((shards / TASK / "index.json").read_text(encoding="utf-8"))
    return index["tokens"]["train"] / (index["samples"]["train"] * length)


def write_batches(shards: Path, vocab: Path, length: int, tokens: int, path: Path) -> None:
    """BATCHES padded batches of `tokens` tokens, examples in their order, masked as ours are.

    Arrays: token_ids, sentence_ids (K, B, T); lengths, labels (K, B), labels 0 or 1 for a head of two
    classes; positions, targets (K, M): predicted positions in the flattened (B * T) tokens, -1 where a batch
    has fewer."""
    words, task = Vocab.load(vocab), select_tasks([TASK], "benchmark")[0]
    reader, collate = ShardReader(shards / TASK, "train", task, words.digest), Collator(words, 0.15)
    size, arrays = tokens // length, []
    for k in range(BATCHES):
        examples = [reader[(k * size + i) % len(reader)] for i in range(size)]
        batch = collate(task, examples, ["word"], np.random.default_rng(k))
        width = batch.token_ids.shape[1]
        spare = ((0, 0), (0, length - width))
        arrays.append(
            {
                "token_ids": np.pad(batch.token_ids, spare, constant_values=words.pad_id),
                "sentence_ids": np.pad(batch.sentence_ids, spare),
                "lengths": batch.lengths,
                "labels": batch.sentence_labels % 2,
                "positions": batch.mlm_positions // width * length + batch.mlm_positions % width,
                "targets": batch.mlm_labels,
            }
        )
    most = max(len(one["targets"]) for one in arrays)
    for one in arrays:
        for name in ("positions", "targets"):
            one[name] = np.pad(one[name], (0, most - len(one[name])), constant_values=-1)
    np.savez(path, **{name: np.stack([one[name] for one in arrays]) for name in arrays[0]})


def main(size: str, length: int, tokens: int, vocab: Path, folder: Path) -> None:
    """Serves steps of a recipe."""
    from ernie2 import distributed, logs, pretrain  # here: benchmarks.train_step needs no paddle
    from ernie2.evaluate import Meter
    from ernie2.run import prepare_run

    tokens = max(tokens, length)
    settings = {"model.size": size, "batch.tokens": tokens, "batch.micro_tokens": tokens}
    recipe = load_recipe(write_recipe(folder, vocab, length, **settings))
    recipe.out_dir = tempfile.mkdtemp(dir=folder)
    logs.setup(rank=1)
    run = prepare_run(recipe, "benchmark")
    run.model.train()
    meter, stop, numbers = Meter(), distributed.Stop(), itertools.count()
    feed = prefetch(pretrain.micro_batches(run, run.plan.steps))
    waited, real, padded = 0.0, 0, 0

    def step() -> int:
        nonlocal waited, real, padded
        asked = time.perf_counter()
        batches = next(feed)
        waited += time.perf_counter() - asked
        float(pretrain.optimizer_step(run, next(numbers), batches, 1e-4, meter, stop))
        tokens = sum(batch.tokens for _, batch in batches)
        real, padded = real + tokens, padded + sum(batch.padded_tokens for _, batch in batches)
        return tokens

    def shares(seconds: float) -> dict[str, float]:
        nonlocal waited, real, padded
        found = {"wait": waited / seconds, "padding": 1 - real / padded}
        waited, real, padded = 0.0, 0, 0
        return found

    serve(step, shares)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
