"""The workers of benchmarks/train_step.py: a step of ours, PaddleNLP's or transformers' ERNIE.

    train_step_workers.py ours RECIPE.yaml
    train_step_workers.py PEER BATCHES.npz LAYERS WIDTH HEADS FEED_FORWARD_WIDTH

It is run by the Python of another environment too, which needs torch, transformers and numpy alone. Beside a
peer nothing of ernie2 is imported: the package sets variables that must not reach it."""

import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable

import numpy as np

SHARED = {
    "vocab_size": 18_000,
    "hidden_act": "gelu",
    "max_position_embeddings": 513,
    "type_vocab_size": 4,
    "task_type_vocab_size": 16,
    "use_task_id": True,
}
Step = Callable[[dict[str, np.ndarray]], None]
SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")


def serve(step: Callable[[], dict[str, float]]) -> None:
    """Answers each line of standard input, a number of steps, with a line of JSON:
    real tokens a second; waiting and padding in percent, where steps return seconds and tokens of it."""
    for line in sys.stdin:
        begin, sums = time.perf_counter(), Counter()
        for _ in range(int(line)):
            sums.update(step())
        seconds, tokens = time.perf_counter() - begin, sums["tokens"]
        padding = 100 - 100 * tokens / (sums["padded"] or tokens)
        answer = {"rate": tokens / seconds, "waiting": 100 * sums["wait"] / seconds, "padding": padding}
        print(json.dumps(answer), flush=True)


def our_step(recipe: str) -> Callable[[], dict[str, float]]:
    """The product's own step: recipe, shards, batches of like length, prefetch, main loop."""
    from ernie2 import distributed, logs, pretrain
    from ernie2.batching import prefetch
    from ernie2.config import load_recipe
    from ernie2.evaluate import Meter
    from ernie2.run import prepare_run

    logs.setup(rank=1)
    run = prepare_run(load_recipe(recipe), "benchmark")
    run.model.train()
    meter, stop, numbers = Meter(), distributed.Stop(), itertools.count()
    feed = prefetch(pretrain.micro_batches(run, run.plan.steps))

    def step() -> dict[str, float]:
        begin = time.perf_counter()
        batches = next(feed)
        wait = time.perf_counter() - begin
        float(pretrain.optimizer_step(run, next(numbers), batches, 1e-4, meter, stop))
        tokens, padded = (sum(getattr(b, name) for _, b in batches) for name in ("tokens", "padded_tokens"))
        return {"tokens": tokens, "padded": padded, "wait": wait}

    return step


def paddlenlp_step(sizes: dict[str, int]) -> Step:
    """PaddleNLP's ErnieForPretraining, fed and stepped as its run_pretrain.py does."""
    import paddle
    from paddlenlp.transformers import ErnieConfig, ErnieForPretraining
    from paddlenlp.transformers.ernie.modeling import ErniePretrainingCriterion

    paddle.seed(1)
    model, criterion = ErnieForPretraining(ErnieConfig(**sizes, **SHARED)), ErniePretrainingCriterion()
    decayed = {p.name for name, p in model.named_parameters() if not ("bias" in name or "norm" in name)}
    clip = paddle.nn.ClipGradByGlobalNorm(1.0)
    decay = {"weight_decay": 0.01, "apply_decay_param_fun": decayed.__contains__}
    optimizer = paddle.optimizer.AdamW(1e-4, parameters=model.parameters(), grad_clip=clip, **decay)
    model.train()

    def step(batch: dict[str, np.ndarray]) -> None:
        keys = np.arange(batch["token_ids"].shape[1])
        mask = ((keys >= batch["lengths"][:, None]) * -1e4).astype("float32")[:, None, None, :]
        # Positions that fill up are 0 with the label -1, which the criterion ignores: run_pretrain.py's way.
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
    groups = {0.0: [], 0.01: []}  # by weight decay
    for name, parameter in model.named_parameters():
        groups[0.0 if "bias" in name or "norm" in name.lower() else 0.01].append(parameter)
    optimizer = torch.optim.AdamW([{"params": p, "weight_decay": d} for d, p in groups.items()], lr=1e-4)
    model.train()

    def step(arrays: dict[str, np.ndarray]) -> None:
        batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
        ids, real = batch["token_ids"], batch["positions"] >= 0
        mask = (torch.arange(ids.shape[1])[None] < batch["lengths"][:, None]).long()
        inputs = {"input_ids": ids, "token_type_ids": batch["sentence_ids"], "attention_mask": mask}
        labels = torch.full([ids.numel()], -100)
        labels[batch["positions"][real]] = batch["targets"][real]
        inputs |= {"labels": labels.reshape(ids.shape), "next_sentence_label": batch["labels"]}
        loss = model(**inputs, task_type_ids=torch.zeros_like(ids)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


def peer_step(peer: str, path: str, *sizes: str) -> Callable[[], dict[str, float]]:
    """A step of a peer on the next of the batches in a file."""
    config = dict(zip(SIZES, map(int, sizes), strict=True))
    one_step = paddlenlp_step(config) if peer == "paddlenlp" else hf_step(config)
    data = dict(np.load(path, allow_pickle=False))
    numbers = itertools.cycle(range(len(data["lengths"])))

    def step() -> dict[str, float]:
        number = next(numbers)
        batch = {name: array[number] for name, array in data.items()}
        one_step(batch)
        return {"tokens": int(batch["lengths"].sum())}

    return step


if __name__ == "__main__":
    serve(our_step(sys.argv[2]) if sys.argv[1] == "ours" else peer_step(*sys.argv[1:]))
