"""The closed set of heads. Each returns sums and counts, never means: the mean is taken once, over ranks and
accumulation.

Shape letters: B samples, T tokens, H width, M predicted positions, A labelled tokens, C classes, V vocabulary
rows."""

from __future__ import annotations

from typing import NamedTuple

import paddle
from paddle import nn
from paddle.nn import functional as F

from ernie2 import cpu
from ernie2.encoder import EncoderConfig, LayerNorm, Linear


class HeadResult(NamedTuple):
    """A head's sums over a micro-batch."""

    loss_sum: paddle.Tensor
    """float32 (): cross-entropy summed over predictions."""
    correct: paddle.Tensor
    """float32 (): predictions that are right."""
    count: int
    """Predictions made."""


def _sums(logits: paddle.Tensor, labels: paddle.Tensor) -> HeadResult:
    """(N, C), (N) -> sums. The softmax runs in float32 whatever the precision of the model."""
    logits = logits.astype("float32")
    loss_sum = F.cross_entropy(logits, labels, reduction="sum")
    with paddle.no_grad():
        correct = (logits.argmax(-1) == labels).astype("float32").sum()
    return HeadResult(loss_sum, correct, labels.shape[0])


class MaskedLMHead(nn.Layer):
    """Transform, activation, LayerNorm and the transposed token embedding, at predicted positions."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.transform = Linear(config.hidden_size, config.hidden_size)
        self.activation = cpu.activation(config.hidden_act)
        self.layer_norm = LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)
        self.decoder_bias = self.create_parameter([config.vocab_size], is_bias=True)

    def logits(self, rows: paddle.Tensor, embedding: paddle.Tensor) -> paddle.Tensor:
        """(M, H), (V, H) -> (M, V)."""
        rows = self.layer_norm(self.activation(self.transform(rows)))
        return cpu.linear(rows, embedding, self.decoder_bias, transposed=True)

    def forward(self, rows: paddle.Tensor, labels: paddle.Tensor, embedding: paddle.Tensor) -> HeadResult:
        """(M, H), labels (M), (V, H) -> sums over the M predicted positions."""
        return _sums(self.logits(rows, embedding), labels)


class TokenHead(nn.Layer):
    """Classes for every labelled token, from its row of the sequence output; one a task."""

    def __init__(self, config: EncoderConfig, num_classes: int) -> None:
        super().__init__()
        self.dropout = config.hidden_dropout_prob
        self.classifier = Linear(config.hidden_size, num_classes)

    def forward(self, rows: paddle.Tensor, labels: paddle.Tensor) -> HeadResult:
        """(A, H), labels (A) -> sums."""
        return _sums(self.classifier(cpu.dropout(rows, self.dropout, self.training)), labels)

    def nothing(self) -> HeadResult:
        """Sums over no token at all, A = 0; their gradient is zero, not absent: the head learns on other
        ranks."""
        zero = sum((parameter.astype("float32") * 0.0).sum() for parameter in self.parameters())
        return HeadResult(zero, paddle.zeros([]), 0)


class SentenceHead(nn.Layer):
    """Classes for a sample, from the shared pooled output; one a task."""

    def __init__(self, config: EncoderConfig, num_classes: int) -> None:
        super().__init__()
        self.dropout = config.hidden_dropout_prob
        self.classifier = Linear(config.hidden_size, num_classes)

    def forward(self, pooled: paddle.Tensor, labels: paddle.Tensor) -> HeadResult:
        """(B, H), labels (B) -> sums."""
        return _sums(self.classifier(cpu.dropout(pooled, self.dropout, self.training)), labels)
