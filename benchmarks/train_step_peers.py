"""The peers of benchmarks/train_step.py: a step of PaddleNLP's or transformers' ERNIE. A script: SIZE
BATCHES.npz PEER.

It is run by the Python of another environment too, which has torch, transformers and numpy and need not have
anything else. Nothing of ernie2 is imported: the package sets variables that must not reach peers."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SHARED = {
    "hidden_act": "gelu",
    "max_position_embeddings": 513,
    "type_vocab_size": 4,
    "task_type_vocab_size": 16,
    "use_task_id": True,
}
Step = Callable[[dict[str, np.ndarray]], None]


def serve(step: Callable[[], int], more: Callable[[float], dict[str, Any]] = lambda seconds: {}) -> None:
    """Says `ready`, then answers each line of standard input, a number of steps, with one line of JSON.

    Args:
        step: Does a step to its end and returns its real tokens.
        more: Seconds of the steps -> what else to answer."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        tokens = sum(step() for _ in range(int(line)))
        seconds = time.perf_counter() - begin
        print(json.dumps({"tokens": tokens, "seconds": seconds, **more(seconds)}), flush=True)


def paddlenlp_step(sizes: dict[str, int]) -> Step:
    """PaddleNLP's ErnieForPretraining, fed and stepped as its run_pretrain.py does."""
    import paddle
    from paddlenlp.transformers import ErnieConfig, ErnieForPretraining
    from paddlenlp.transformers.ernie.modeling import ErniePretrainingCriterion

    paddle.seed(1)
    model, criterion = ErnieForPretraining(ErnieConfig(**sizes, **SHARED)), ErniePretrainingCriterion()
    decayed = {p.name for name, p in model.named_parameters() if not ("bias" in name or "norm" in name)}
    optimizer = paddle.optimizer.AdamW(
        1e-4,
        parameters=model.parameters(),
        weight_decay=0.01,
        apply_decay_param_fun=decayed.__contains__,
        grad_clip=paddle.nn.ClipGradByGlobalNorm(1.0),
    )
    model.train()

    def step(batch: dict[str, np.ndarray]) -> None:
        keys = np.arange(batch["token_ids"].shape[1])
        mask = ((keys >= batch["lengths"][:, None]) * -1e4).astype("float32")[:, None, None, :]
        # Positions that fill up are 0 with the label -1, which the criterion ignores: run_pretrain.py's own
        # way.
        positions = np.maximum(batch["positions"], 0)
        inputs = map(paddle.to_tensor, (batch["token_ids"], batch["sentence_ids"]))
        masks = {"attention_mask": paddle.to_tensor(mask), "masked_positions": paddle.to_tensor(positions)}
        labels = [paddle.to_tensor(batch[name][:, None]) for name in ("targets", "labels")]
        loss = sum(criterion(*model(*inputs, **masks), *labels))
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        float(loss)

    return step


def hf_step(sizes: dict[str, int]) -> Step:
    """transformers' ErnieForPreTraining on torch."""
    import torch
    from transformers import ErnieConfig, ErnieForPreTraining

    torch.manual_seed(1)
    model = ErnieForPreTraining(ErnieConfig(**sizes, **SHARED))
    parameters = dict(model.named_parameters())
    plain = {name for name in parameters if "bias" in name or "norm" in name.lower()}
    groups = [
        {"params": [p for name, p in parameters.items() if name not in plain], "weight_decay": 0.01},
        {"params": [parameters[name] for name in plain], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-4)
    model.train()

    def loss_of(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        ids, there = batch["token_ids"], batch["positions"] >= 0
        mask = (torch.arange(ids.shape[1])[None] < batch["lengths"][:, None]).long()
        positions, targets = batch["positions"][there], batch["targets"][there]
        inputs = {"input_ids": ids, "token_type_ids": batch["sentence_ids"], "attention_mask": mask}
        inputs["task_type_ids"] = torch.zeros_like(ids)
        labels = torch.full([ids.numel()], -100)
        labels[positions] = targets
        return model(**inputs, labels=labels.reshape(ids.shape), next_sentence_label=batch["labels"]).loss

    def step(batch: dict[str, np.ndarray]) -> None:
        loss = loss_of({name: torch.from_numpy(array) for name, array in batch.items()})
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


def main(size: str, path: str, peer: str) -> None:
    """Serves steps of a model of `size`: layers, width, heads, feed-forward width, commas between."""
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    sizes = {"vocab_size": 18_000, **dict(zip(names, map(int, size.split(",")), strict=True))}
    one_step = paddlenlp_step(sizes) if peer == "paddlenlp" else hf_step(sizes)
    data = np.load(path, allow_pickle=False)
    arrays = {name: data[name] for name in data.files}
    batches = itertools.cycle(
        [{name: array[k] for name, array in arrays.items()} for k in range(len(arrays["lengths"]))]
    )

    def step() -> int:
        batch = next(batches)
        one_step(batch)
        return int(batch["lengths"].sum())

    serve(step)


if __name__ == "__main__":
    main(*sys.argv[1:])
