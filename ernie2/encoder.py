"""The shared encoder: token + position + sentence + task embeddings and a post-norm Transformer (paper
section 3.2, 4.1).

Shape letters: B samples, T tokens of the longest one, H width, A heads, D = H / A, V vocabulary rows.
Parameter names are those of paddlenlp.transformers.ErnieModel, so that a checkpoint loads there as it is."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Literal

import paddle
from paddle import nn
from pydantic.dataclasses import dataclass

from ernie2 import attention, cpu
from ernie2.config import SIZES, ModelConfig
from ernie2.schema import Checks, Dropout, NotNegative, Positive, Section, build, require
from ernie2.strict import ConfigError
from ernie2.weights import read_object


@dataclass
class EncoderConfig(Section):
    """What config.json of a checkpoint says, under PaddleNLP's ErnieConfig names."""

    vocab_size: Positive[int]
    hidden_size: Positive[int] = 768
    num_hidden_layers: Positive[int] = 12
    num_attention_heads: Positive[int] = 12
    intermediate_size: Positive[int] = 3072
    hidden_act: Literal["relu", "gelu"] = "relu"
    hidden_dropout_prob: Dropout = 0.1
    attention_probs_dropout_prob: Dropout = 0.1
    max_position_embeddings: Positive[int] = 513
    type_vocab_size: NotNegative[int] = 4
    task_type_vocab_size: NotNegative[int] = 16
    initializer_range: NotNegative[float] = 0.02
    layer_norm_eps: Positive[float] = 1e-5
    pad_token_id: NotNegative[int] = 0

    def _checks(self) -> Checks:
        heads = self.num_attention_heads
        yield require(
            self.hidden_size % heads == 0, "num_attention_heads", heads, f"a divisor of {self.hidden_size}"
        )

    @classmethod
    def from_recipe(cls, model: ModelConfig, vocab_size: int, pad_id: int) -> EncoderConfig:
        """The encoder that a recipe's model section describes."""
        layers, width, heads, inner = SIZES[model.size]
        rows = model.vocab_rows or vocab_size
        if "vocab_rows" in model.unnamed:  # those of init_from, whose vocabulary may have been extended
            rows = max(rows, vocab_size)
        if rows < vocab_size:
            raise ConfigError(
                f"model.vocab_rows: a token embedding of {rows} rows (those of model.init_from where the "
                f"recipe names none) cannot hold the vocabulary's {vocab_size} tokens"
            )
        return cls(
            rows,
            width,
            layers,
            heads,
            inner,
            model.hidden_act,
            model.dropout,
            model.dropout,
            model.max_position_embeddings,
            model.sentence_type_vocab_size,
            model.task_type_vocab_size,
            model.initializer_range,
            model.layer_norm_eps,
            pad_id,
        )

    @classmethod
    def from_json(cls, path: str | Path) -> EncoderConfig:
        """Reads config.json of a checkpoint. Raises ConfigError when missing or not of this kind."""
        return cls.from_keys(read_object(Path(path)), str(path))

    @classmethod
    def from_keys(cls, keys: dict, where: str) -> EncoderConfig:
        """The encoder that the keys of a config.json describe; further ones are passed over."""
        return build(
            cls, {field.name: keys[field.name] for field in fields(cls) if field.name in keys}, where
        )

    def to_json(self) -> dict:
        """Keys for config.json, readable by PaddleNLP's ErnieConfig."""
        return {
            "model_type": "ernie",
            "architectures": ["ErnieModel"],
            "use_task_id": True,
            "pool_act": "tanh",
            **asdict(self),
        }


class Linear(nn.Linear):
    """nn.Linear over the last axis, by the way that is fast on this device."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(..., I) -> (..., O)."""
        if x.ndim == 2:
            return cpu.linear(x, self.weight, self.bias)
        flat = x.reshape([-1, x.shape[-1]])
        return cpu.linear(flat, self.weight, self.bias).reshape([*x.shape[:-1], self.weight.shape[1]])


class LayerNorm(nn.LayerNorm):
    """nn.LayerNorm over the last axis, by the way that is fast on this device."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(..., H) -> (..., H)."""
        return cpu.layer_norm(x, self.weight, self.bias, self._epsilon)


class Embeddings(nn.Layer):
    """Token + position + sentence + task embedding, LayerNorm, dropout."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.task_type_embeddings = nn.Embedding(config.task_type_vocab_size, width)
        self.layer_norm = LayerNorm(width, epsilon=config.layer_norm_eps)
        self.dropout = config.hidden_dropout_prob

    def forward(self, token_ids: paddle.Tensor, sentence_ids: paddle.Tensor, task_id: int) -> paddle.Tensor:
        """int64 (B, T) twice -> (B * T, H). One task id over all positions (paper figure 3)."""
        positions = paddle.arange(token_ids.shape[1], dtype="int64")
        task = self.task_type_embeddings(paddle.full([1, 1], task_id, "int64"))
        x = self.word_embeddings(token_ids) + self.token_type_embeddings(sentence_ids)
        x = x + (self.position_embeddings(positions).unsqueeze(0) + task)
        return cpu.dropout(self.layer_norm(x.reshape([-1, x.shape[-1]])), self.dropout, self.training)


class SelfAttention(nn.Layer):
    """Multi-head self-attention."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads, self.dropout = config.num_attention_heads, config.attention_probs_dropout_prob
        self.q_proj, self.k_proj = Linear(width, width), Linear(width, width)
        self.v_proj, self.out_proj = Linear(width, width), Linear(width, width)

    def forward(
        self,
        x: paddle.Tensor,
        length: int,
        mask: paddle.Tensor | None,
        positions: paddle.Tensor | None = None,
    ) -> paddle.Tensor:
        """(B * T, H), T, additive mask (B, 1, 1, T) or None, positions (P) or None for all -> (P, H)."""
        rows, width = x.shape
        parts = (self.q_proj, self.k_proj, self.v_proj)
        # One product of all three: parameters of their own, so that checkpoints have PaddleNLP's names.
        qkv = cpu.linear(
            x,
            paddle.concat([part.weight for part in parts], axis=1),
            paddle.concat([part.bias for part in parts]),
        )
        qkv = qkv.reshape([rows // length, length, 3, self.heads, width // self.heads])
        mixed = attention.attend(qkv, mask, self.dropout, self.training)
        return self.out_proj(_at(mixed.reshape([rows, width]), positions))


class Layer(nn.Layer):
    """Attention and feed-forward, each with residual, dropout and LayerNorm after it."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.linear1 = Linear(config.hidden_size, config.intermediate_size)
        self.linear2 = Linear(config.intermediate_size, config.hidden_size)
        self.norm1 = LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)
        self.norm2 = LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)
        self.activation = cpu.activation(config.hidden_act)
        self.dropout = config.hidden_dropout_prob

    def forward(
        self,
        x: paddle.Tensor,
        length: int,
        mask: paddle.Tensor | None,
        positions: paddle.Tensor | None = None,
    ) -> paddle.Tensor:
        """(B * T, H), T, additive mask (B, 1, 1, T) or None, positions (P) or None for all -> (P, H).

        All tokens are attended to; what comes after attention is computed at the positions alone."""
        mixed = self.self_attn(x, length, mask, positions)
        x = self.norm1(cpu.add_dropped(_at(x, positions), mixed, self.dropout, self.training))
        inner = self.linear2(self.activation(self.linear1(x)))
        return self.norm2(cpu.add_dropped(x, inner, self.dropout, self.training))


def _at(x: paddle.Tensor, positions: paddle.Tensor | None) -> paddle.Tensor:
    """Rows (P, H) of (B * T, H); without positions all of them."""
    return x if positions is None else paddle.gather(x, positions)


class Transformer(nn.Layer):
    """The stack of layers."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.layers = nn.LayerList([Layer(config) for _ in range(config.num_hidden_layers)])


class Pooler(nn.Layer):
    """tanh of a linear map of [CLS]; shared by every sentence head."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)

    def forward(self, first: paddle.Tensor) -> paddle.Tensor:
        """The rows of [CLS], (B, H) -> (B, H)."""
        return paddle.tanh(self.dense(first))


class ErnieEncoder(nn.Layer):
    """Embeddings, Transformer and pooler."""

    def __init__(self, config: EncoderConfig, recompute: bool = False) -> None:
        super().__init__()
        self.config, self.recompute = config, recompute
        self.embeddings = Embeddings(config)
        self.encoder = Transformer(config)
        self.pooler = Pooler(config)

    def forward(
        self,
        token_ids: paddle.Tensor,
        sentence_ids: paddle.Tensor,
        task_id: int = 0,
        lengths: paddle.Tensor | None = None,
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Encodes a padded batch.

        Args:
            token_ids: int64 (B, T), T at most max_position_embeddings.
            sentence_ids: int64 (B, T).
            task_id: row of the task embedding, one for the batch.
            lengths: int64 (B), real tokens of each sample; None = nothing is padded.

        Returns:
            Sequence output (B, T, H) and pooled output (B, H)."""
        x = self.rows(token_ids, sentence_ids, task_id, lengths).reshape([*token_ids.shape, -1])
        return x, self.pooler(x[:, 0])

    def rows(
        self,
        token_ids: paddle.Tensor,
        sentence_ids: paddle.Tensor,
        task_id: int = 0,
        lengths: paddle.Tensor | None = None,
        positions: paddle.Tensor | None = None,
    ) -> paddle.Tensor:
        """The sequence output where it is wanted: the last layer's feed-forward is not computed for what no
        head reads.

        Args:
            token_ids, sentence_ids, task_id, lengths: as of `forward`. positions: int64 (P), P at least 1, in
            the flattened (B * T) tokens, any of them several times; None = all in order.

        Returns:
            (P, H)."""
        mask = None
        if lengths is not None:
            keys = paddle.arange(token_ids.shape[1], dtype="int64").unsqueeze(0)
            # -1e4 rather than minus infinity: representable in fp16, and what PaddleNLP's ErnieModel uses.
            mask = ((keys >= lengths.unsqueeze(1)).astype("float32") * -1e4).unsqueeze([1, 2])
        length, last = token_ids.shape[1], self.encoder.layers[-1]
        x = self.embeddings(token_ids, sentence_ids, task_id)
        for layer in self.encoder.layers:
            wanted = positions if layer is last else None
            if self.recompute and self.training:
                x = paddle.distributed.fleet.utils.recompute(layer, x, length, mask, wanted)
            else:
                x = layer(x, length, mask, wanted)
        return x
