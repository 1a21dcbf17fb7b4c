"""A worker of benchmarks/train_step.py: PaddleNLP's ErnieForPretraining, fed and stepped as its run_pretrain.py does.

Arguments: SIZE BATCHES.npz. Run as a script: the package `ernie2` sets variables that must not reach this process.
"""

from __future__ import annotations

import itertools
import sys

import numpy as np
import paddle
from paddlenlp.transformers import ErnieConfig, ErnieForPretraining
from paddlenlp.transformers.ernie.modeling import ErniePretrainingCriterion
from train_step_worker import serve


def main(size: str, path: str) -> None:
    """Serves steps of a model of `size`: layers, width, heads, feed-forward width, commas between."""
    layers, width, heads, inner = map(int, size.split(","))
    config = ErnieConfig(vocab_size=18_000, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
                         intermediate_size=inner, hidden_act="gelu", max_position_embeddings=513, type_vocab_size=4,
                         task_type_vocab_size=16, use_task_id=True)
    paddle.seed(1)
    model, criterion = ErnieForPretraining(config), ErniePretrainingCriterion()
    decayed = {p.name for name, p in model.named_parameters() if not any(part in name for part in ("bias", "norm"))}
    optimizer = paddle.optimizer.AdamW(1e-4, beta1=0.9, beta2=0.999, parameters=model.parameters(), weight_decay=0.01,
                                       apply_decay_param_fun=decayed.__contains__,
                                       grad_clip=paddle.nn.ClipGradByGlobalNorm(1.0))
    data = np.load(path, allow_pickle=False)
    batches = itertools.cycle([{name: data[name][k] for name in data.files} for k in range(len(data["lengths"]))])
    model.train()

    def step() -> int:
        batch = next(batches)
        loss = loss_of(model, criterion, batch)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        float(loss)
        return int(batch["lengths"].sum())

    serve(step)


def loss_of(model: ErnieForPretraining, criterion: ErniePretrainingCriterion, batch: dict[str, np.ndarray]) -> paddle.Tensor:
    """Loss of a batch: masked LM and sentence label."""
    keys = np.arange(batch["token_ids"].shape[1])
    mask = ((keys >= batch["lengths"][:, None]) * -1e4).astype("float32")[:, None, None, :]
    # Positions that fill up are 0 with the label -1, which the criterion ignores: run_pretrain.py's own way.
    positions = np.maximum(batch["positions"], 0)
    scores, relation = model(paddle.to_tensor(batch["token_ids"]), paddle.to_tensor(batch["sentence_ids"]),
                             attention_mask=paddle.to_tensor(mask), masked_positions=paddle.to_tensor(positions))
    lm_loss, sentence_loss = criterion(scores, relation, paddle.to_tensor(batch["targets"][:, None]),
                                       paddle.to_tensor(batch["labels"][:, None]))
    return lm_loss + sentence_loss


if __name__ == "__main__":
    main(*sys.argv[1:])
