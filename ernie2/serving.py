"""What a served model computes: predictions of a fine-tuned model's inputs, and words for [MASK]."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ernie2 import cpu
from ernie2.encoder import EncoderConfig
from ernie2.finetune.features import build_features, decode
from ernie2.finetune.model import TASK_KEY, checkpoint_lower_case, load_finetuned, run_model
from ernie2.finetune.readers import QuestionSample, Split, TextSample, tagged
from ernie2.model import ErnieForPretraining
from ernie2.strict import ConfigError
from ernie2.tasks import Loss, Task
from ernie2.tokenizer import Tokenizer, Vocab
from ernie2.warm_start import start_from
from ernie2.weights import EMBEDDINGS, open_weights, read_object

MICRO_TOKENS = 8192
MASK = "[MASK]"
_BEAM = 8  # candidates a position of a word of several tokens

Kind = tuple[str, str, Callable[[list[Any]], list[dict]]]
"""Kind, what it is in words, inputs -> predictions."""


def finetuned(folder: Path) -> Kind | None:
    """A fine-tuned model or an export; None where the folder holds neither. Raises ConfigError."""
    config = folder / "config.json"
    if not config.is_file() or TASK_KEY not in read_object(config):
        return None
    model, task, tokenizer = load_finetuned(folder)

    def samples(inputs: list[Any]) -> list[Any]:
        if task.kind == "span":
            return [
                QuestionSample(f"input {n}", str(n), one.question, one.context)
                for n, one in enumerate(inputs)
            ]
        rows = []
        for number, one in enumerate(inputs):
            where, pair = f"input {number}", one.text_b is not None
            if pair != bool(task.pair) and task.pair is not None:
                wanted = "needs text_b too" if task.pair else "has a text_b, which this model does not read"
                raise ConfigError(f"{where} {wanted}")
            texts = [one.text_a, one.text_b]
            if task.drop_spaces:
                texts = [text and text.replace(" ", "") for text in texts]
            rows.append(TextSample(where, *texts, line=number))
        return [tagged(row, task, False, Counter()) for row in rows] if task.kind == "tagging" else rows

    def compute(inputs: list[Any]) -> list[dict]:
        part = Split("request", Path("request"), samples(inputs), False, Counter())
        part.features = build_features(part.samples, tokenizer, task, part.counts)
        part.lengths = np.array([len(feature.token_ids) for feature in part.features], np.int64)
        outputs = run_model(model, part, task, tokenizer.vocab.pad_id, MICRO_TOKENS, "fp32")
        records = decode(task, part.samples, part.features, outputs)
        return [{key: value for key, value in one.items() if key not in ("line", "id")} for one in records]

    return task.kind, f"{task.name}: {task.kind}", compute


def cloze(folder: Path) -> Kind:
    """A pre-training checkpoint of any kind that ernie2.weights reads, with its masked-LM head.

    Raises ConfigError: there is none, or it has no such head."""
    weights = open_weights(folder)
    if "cls.predictions.transform.weight" not in weights.shapes():
        raise ConfigError(
            f"{folder}: neither fine-tuned nor with a masked-LM head: there is nothing it could answer"
        )
    vocab = Vocab.load(weights.vocab_file)
    tokenizer = Tokenizer(vocab, checkpoint_lower_case(weights))
    rows = {key: weights.shapes()[name][0] for key, name in EMBEDDINGS.items() if name in weights.shapes()}
    keys = {"task_type_vocab_size": 1} | weights.config() | rows
    config = EncoderConfig.from_keys(keys, str(weights.config_file))
    config = replace(config, task_type_vocab_size=max(config.task_type_vocab_size, 1))
    cpu.prepare()
    model = ErnieForPretraining(config, [Task("cloze", 0, "documents", "no.generator", [Loss("masked_lm")])])
    start_from(model, folder, len(vocab), 0.9, "MODEL")
    model.eval()
    special = [vocab.pad_id, vocab.cls_id, vocab.sep_id, vocab.mask_id, vocab.unk_id]

    @paddle.no_grad()
    def fill(text: str, count: int) -> dict[str, Any]:
        parts = [tokenizer.encode(part).ids.tolist() for part in text.split(MASK)]
        ids = [vocab.cls_id, *parts[0]]
        for part in parts[1:]:
            ids += [vocab.mask_id, *part]
        ids.append(vocab.sep_id)
        if len(parts) < 2 or len(ids) > config.max_position_embeddings:
            most = config.max_position_embeddings
            raise ConfigError(
                f"text: expected one {MASK} or more and at most {most} tokens, found {len(ids)}"
            )
        places = [place for place, token in enumerate(ids) if token == vocab.mask_id]
        batch = paddle.to_tensor(np.array([ids]))
        hidden = model.ernie.rows(batch, paddle.zeros_like(batch), 0, None, paddle.to_tensor(places))
        logits = model.cls.predictions.logits(hidden, model.ernie.embeddings.word_embeddings.weight)
        logits = logits.numpy()[:, : len(vocab)]
        logits[:, special] = -np.inf
        scores = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        words = np.split(np.arange(len(places)), np.flatnonzero(np.diff(places) > 1) + 1)
        return {"words": [_best_words(scores[word], count, tokenizer) for word in words]}

    return "cloze", "words for [MASK]", lambda inputs: [fill(one.text, one.top_k) for one in inputs]


def _best_words(scores: np.ndarray, count: int, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The best words of adjacent masks, taken as independent. scores: log-probabilities (masks, V)."""
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    for row in scores:
        best = np.argsort(-row)[: max(count, _BEAM)].tolist()
        beams = [(score + float(row[token]), [*tokens, token]) for score, tokens in beams for token in best]
        beams = sorted(beams, key=lambda one: -one[0])[: max(count, _BEAM)]
    return [
        {"word": tokenizer.decode(tokens), "probability": float(np.exp(score))}
        for score, tokens in beams[:count]
    ]
