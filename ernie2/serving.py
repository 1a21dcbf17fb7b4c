"""What a served model computes: predictions of a fine-tuned model's inputs, and words for [MASK]."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.nn import functional as F

from ernie2 import cpu
from ernie2.batching import cut_by_tokens, padded
from ernie2.encoder import EncoderConfig
from ernie2.finetune.data import by_length
from ernie2.finetune.features import build_features, decode
from ernie2.finetune.model import TASK_KEY, checkpoint_lower_case, load_finetuned, run_model
from ernie2.finetune.readers import QuestionSample, Split, TextSample, simplified, tagged
from ernie2.model import ErnieForPretraining
from ernie2.strict import ConfigError
from ernie2.tasks import Loss, Task
from ernie2.tokenizer import Tokenizer, Vocab
from ernie2.warm_start import start_from
from ernie2.weights import EMBEDDINGS, open_weights, read_object

MASK = "[MASK]"
MAX_WORDS, MAX_MASKS = 20, 32  # words for each [MASK], [MASK] of a text
CLOZE_TOKENS = 2048  # of a micro-batch: each [MASK] among them takes a vocabulary of floats

Kind = tuple[str, str, Callable[[list[Any]], list[dict]]]
"""Kind, what it is in words, inputs -> predictions."""


def finetuned(folder: Path) -> Kind | None:
    """A fine-tuned model or an export; None where the folder holds neither. Raises ConfigError."""
    config = folder / "config.json"
    if not config.is_file() or TASK_KEY not in read_object(config):
        return None
    model, task, tokenizer = load_finetuned(folder)
    micro_tokens = 512 if paddle.get_device() == "cpu" else 8192  # few texts of unlike length: less padding

    def samples(inputs: list[Any]) -> list[Any]:
        if task.kind == "span":
            made = [
                QuestionSample(f"input {n}", str(n), one.question, one.context)
                for n, one in enumerate(inputs)
            ]
            return [simplified(one) for one in made] if task.simplify else made
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
        outputs = run_model(model, part, task, tokenizer.vocab.pad_id, micro_tokens, "fp32")
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
    return "cloze", "words for [MASK]", _Cloze(model, tokenizer, config.max_position_embeddings)


class _Cloze:
    """Inputs of text and top_k -> {"words": best words of each run of adjacent masks}."""

    def __init__(self, model: ErnieForPretraining, tokenizer: Tokenizer, positions: int) -> None:
        self.model, self.tokenizer, self.vocab, self.positions = model, tokenizer, tokenizer.vocab, positions
        vocab, banned = self.vocab, np.zeros(len(tokenizer.vocab), np.float32)
        banned[[vocab.pad_id, vocab.cls_id, vocab.sep_id, vocab.mask_id, vocab.unk_id]] = -np.inf
        self.banned = paddle.to_tensor(banned)

    def __call__(self, inputs: list[Any]) -> list[dict]:
        """Raises ConfigError for a text without a mask, with too many, or too long."""
        rows = [self._encode(one.text) for one in inputs]
        lengths = np.array([*map(len, rows)])
        answers: list[Any] = [None] * len(rows)
        for numbers in cut_by_tokens(by_length(np.arange(len(rows)), lengths), lengths, CLOZE_TOKENS):
            for number, best in zip(numbers, self._fill([rows[n] for n in numbers]), strict=True):
                masks = np.flatnonzero(rows[number] == self.vocab.mask_id)
                gaps = np.flatnonzero(np.diff(masks) > 1) + 1
                words = zip(*(np.split(side, gaps) for side in best), strict=True)
                count = inputs[number].top_k
                answers[number] = {"words": [_best_words(*word, count, self.tokenizer) for word in words]}
        return answers

    def _encode(self, text: str) -> np.ndarray:
        vocab, most = self.vocab, self.positions
        first, *others = (self.tokenizer.encode(part).ids for part in text.split(MASK))
        parts = [[vocab.cls_id], first, *(x for part in others for x in ([vocab.mask_id], part))]
        ids = np.concatenate([*parts, [vocab.sep_id]]).astype(np.int64)
        if not 0 < len(others) <= MAX_MASKS or len(ids) > most:
            raise ConfigError(
                f"text: expected 1 to {MAX_MASKS} {MASK} and at most {most} tokens, found {len(others)} and "
                f"{len(ids)}"
            )
        return ids

    @paddle.no_grad()
    def _fill(self, rows: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Log-probabilities and tokens of the best words of each row's masks, both (masks, MAX_WORDS)."""
        batch = padded(rows, max(map(len, rows)), self.vocab.pad_id)
        masks = batch == self.vocab.mask_id
        ids, lengths = paddle.to_tensor(batch), paddle.to_tensor([*map(len, rows)])
        places = paddle.to_tensor(np.flatnonzero(masks))
        ernie, head = self.model.ernie, self.model.cls.predictions
        hidden = ernie.rows(ids, paddle.zeros_like(ids), 0, lengths, places)
        logits = head.logits(hidden, ernie.embeddings.word_embeddings.weight)[:, : len(self.vocab)]
        found = F.log_softmax(logits + self.banned).topk(min(MAX_WORDS, len(self.vocab) - 5))
        ends = np.cumsum(masks.sum(1))[:-1]
        return list(zip(*(np.split(side.numpy(), ends) for side in found), strict=True))


def _best_words(
    scores: np.ndarray, tokens: np.ndarray, count: int, tokenizer: Tokenizer
) -> list[dict[str, Any]]:
    """The best words of adjacent masks, taken as independent. scores: log-probabilities; both (masks, K)."""
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    for row in zip(scores.tolist(), tokens.tolist(), strict=True):
        longer = [
            (so_far + score, [*word, token])
            for so_far, word in beams
            for score, token in zip(*row, strict=True)
        ]
        beams = sorted(longer, key=lambda one: -one[0])[:MAX_WORDS]
    return [
        {"word": tokenizer.decode(word), "probability": float(np.exp(score))} for score, word in beams[:count]
    ]
