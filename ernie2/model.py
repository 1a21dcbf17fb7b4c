"""The two models: one encoder with the pre-training heads, one encoder with an application's head.

Shape letters: B samples, T tokens, H width, C classes."""

from __future__ import annotations

import hashlib

import numpy as np
import paddle
from paddle import nn

from ernie2 import cpu
from ernie2.batching import Batch
from ernie2.encoder import EncoderConfig, ErnieEncoder, Linear
from ernie2.heads import HeadResult, MaskedLMHead, SentenceHead, TokenHead
from ernie2.tasks import Task


class PretrainingHeads(nn.Layer):
    """The shared masked-LM head (PaddleNLP's name: predictions)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.predictions = MaskedLMHead(config)


class ErnieForPretraining(nn.Layer):
    """Shared encoder, one shared masked-LM head, and a token or sentence head for each task that has one."""

    def __init__(self, config: EncoderConfig, tasks: list[Task], recompute: bool = False) -> None:
        super().__init__()
        self.config = config
        self.ernie = ErnieEncoder(config, recompute)
        self.cls = PretrainingHeads(config)
        self.token_heads = nn.LayerDict(
            {task.name: TokenHead(config, task.token_classes) for task in tasks if task.token_classes}
        )
        self.sentence_heads = nn.LayerDict(
            {
                task.name: SentenceHead(config, task.sentence_classes)
                for task in tasks
                if task.sentence_classes
            }
        )

    def forward(self, batch: Batch) -> dict[str, HeadResult]:
        """Runs a micro-batch through the encoder and the heads of its task. Head -> sums and counts."""
        task, rows = batch.task, self._rows(batch)
        results = {}
        if task.has_masked_lm:
            results["masked_lm"] = self.cls.predictions(
                rows["masked_lm"],
                paddle.to_tensor(batch.mlm_labels),
                self.ernie.embeddings.word_embeddings.weight,
            )
        if "token" in rows:
            results["token"] = self.token_heads[task.name](
                rows["token"], paddle.to_tensor(batch.token_labels)
            )
        elif task.token_classes and self.training:
            results["token"] = self.token_heads[task.name].nothing()
        if task.sentence_classes:
            pooled = self.ernie.pooler(rows["sentence"])
            results["sentence"] = self.sentence_heads[task.name](
                pooled, paddle.to_tensor(batch.sentence_labels)
            )
        return results

    def _rows(self, batch: Batch) -> dict[str, paddle.Tensor]:
        """Head -> the rows of the sequence output that it reads, (M, H), (A, H) or (B, H)."""
        task, (samples, length) = batch.task, batch.token_ids.shape
        wanted = {}
        if task.has_masked_lm:
            wanted["masked_lm"] = batch.mlm_positions
        if task.token_classes and len(batch.token_labels):
            wanted["token"] = batch.token_positions
        if task.sentence_classes:
            wanted["sentence"] = np.arange(samples) * length
        if not wanted:
            return {}
        padded = batch.tokens < batch.padded_tokens
        # A labelled token may be a predicted one too: it is computed once.
        positions, places = np.unique(np.concatenate([*wanted.values()]), return_inverse=True)
        rows = self.ernie.rows(
            paddle.to_tensor(batch.token_ids),
            paddle.to_tensor(batch.sentence_ids),
            task.task_id,
            paddle.to_tensor(batch.lengths) if padded else None,
            paddle.to_tensor(positions),
        )
        parts = np.split(places, np.cumsum([len(some) for some in wanted.values()])[:-1])
        return {
            head: paddle.gather(rows, paddle.to_tensor(part))
            for head, part in zip(wanted, parts, strict=True)
        }


class ErnieForFinetuning(nn.Layer):
    """Shared encoder and one application's head (paper section 3.3).

    Args:
        config: the encoder's.
        kind: classification | regression | tagging | span.
        num_labels: classes of classification and tagging.
        head_dropout: dropout before the head. Released: 0.1."""

    def __init__(
        self, config: EncoderConfig, kind: str, num_labels: int = 1, head_dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.config, self.kind, self.dropout = config, kind, head_dropout
        self.ernie = ErnieEncoder(config)
        outputs = {"classification": num_labels, "regression": 1, "tagging": num_labels, "span": 2}[kind]
        self.classifier = Linear(config.hidden_size, outputs)

    def forward(
        self,
        token_ids: paddle.Tensor,
        sentence_ids: paddle.Tensor,
        task_id: int = 0,
        lengths: paddle.Tensor | None = None,
    ) -> paddle.Tensor | tuple[paddle.Tensor, paddle.Tensor]:
        """Logits: (B, C) classification, (B) regression, (B, T, C) tagging, start and end (B, T) each for
        span."""
        if self.kind in ("classification", "regression"):
            samples, length = token_ids.shape
            first = self.ernie.rows(
                token_ids, sentence_ids, task_id, lengths, paddle.arange(samples, dtype="int64") * length
            )
            logits = self.classifier(cpu.dropout(self.ernie.pooler(first), self.dropout, self.training))
            return logits.squeeze(-1) if self.kind == "regression" else logits
        sequence = self.ernie.rows(token_ids, sentence_ids, task_id, lengths).reshape([*token_ids.shape, -1])
        logits = self.classifier(cpu.dropout(sequence, self.dropout, self.training))
        return logits if self.kind == "tagging" else (logits[:, :, 0], logits[:, :, 1])


def initialise(model: nn.Layer, std: float, seed: int) -> None:
    """Sets first weights: matrices and embeddings normal within two standard deviations, biases 0, LayerNorm
    1 and 0.

    Drawn from (seed, name) by numpy, so they are the same on every rank, device and version of paddle, and a
    model with one head more has the same encoder."""
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            value = np.full(parameter.shape, float("norm" in name and name.endswith("weight")), np.float32)
        else:
            key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
            rng = np.random.default_rng([seed, key])
            value = rng.standard_normal(parameter.shape, np.float32)
            while (outside := np.abs(value) > 2).any():
                value[outside] = rng.standard_normal(int(outside.sum()), np.float32)
            value *= std
        parameter.set_value(value)
