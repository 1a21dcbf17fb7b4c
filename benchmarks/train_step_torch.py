"""A worker of benchmarks/train_step.py: transformers' ErnieForPreTraining on torch. Arguments: SIZE BATCHES.npz [bf16].

Run by the Python of another environment, which has torch, transformers and numpy and need not have anything else.
"""

from __future__ import annotations

import itertools
import sys

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from train_step_worker import serve
from transformers import ErnieConfig, ErnieForPreTraining


def main(size: str, path: str, precision: str = "fp32") -> None:
    """Serves steps of a model of `size`: layers, width, heads, feed-forward width, commas between."""
    layers, width, heads, inner = map(int, size.split(","))
    torch.manual_seed(1)
    model = ErnieForPreTraining(ErnieConfig(
        vocab_size=18_000, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner,
        hidden_act="gelu", max_position_embeddings=513, type_vocab_size=4, task_type_vocab_size=16, use_task_id=True))
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    plain = [name for name in parameters if "bias" in name or "norm" in name.lower()]
    optimizer = torch.optim.AdamW([{"params": [p for name, p in parameters.items() if name not in plain], "weight_decay": 0.01},
                                   {"params": [parameters[name] for name in plain], "weight_decay": 0.0}], lr=1e-4)
    data = np.load(path, allow_pickle=False)
    batches = itertools.cycle([{name: torch.from_numpy(data[name][k]) for name in data.files}
                               for k in range(len(data["lengths"]))])
    model.train()

    def step() -> int:
        batch = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = loss_of(model, batch, masked_rows=precision == "bf16")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        return int(batch["lengths"].sum())

    serve(step)


def loss_of(model: ErnieForPreTraining, batch: dict[str, torch.Tensor], masked_rows: bool) -> torch.Tensor:
    """Loss of a batch: masked LM and sentence label; `masked_rows`: the head sees predicted positions alone."""
    ids, lengths = batch["token_ids"], batch["lengths"]
    mask = (torch.arange(ids.shape[1])[None] < lengths[:, None]).long()
    there = batch["positions"] >= 0
    positions, targets = batch["positions"][there], batch["targets"][there]
    inputs = {"input_ids": ids, "token_type_ids": batch["sentence_ids"], "attention_mask": mask,
              "task_type_ids": torch.zeros_like(ids)}
    if masked_rows:
        out = model.ernie(**inputs)
        rows = out.last_hidden_state.reshape(-1, out.last_hidden_state.shape[-1])[positions]
        return (cross_entropy(model.cls.predictions(rows).float(), targets)
                + cross_entropy(model.cls.seq_relationship(out.pooler_output).float(), batch["labels"]))
    labels = torch.full([ids.numel()], -100)
    labels[positions] = targets
    return model(**inputs, labels=labels.reshape(ids.shape), next_sentence_label=batch["labels"]).loss


if __name__ == "__main__":
    main(*sys.argv[1:])
