"""The encoder: equal to PaddleNLP's ErnieModel at either epsilon, the CPU's own ways equal to the
library's."""

from __future__ import annotations

import json

import numpy as np
import paddle
import pytest

from ernie2 import attention, cpu
from ernie2.checkpoint import restore_weights, save_model
from ernie2.config import SIZES, ModelConfig
from ernie2.encoder import EncoderConfig, ErnieEncoder
from ernie2.model import ErnieForPretraining, initialise
from ernie2.strict import ConfigError
from ernie2.tasks import Loss, Task


def tiny_config(**keys) -> EncoderConfig:
    return EncoderConfig(
        **{
            "vocab_size": 50,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 40,
            **keys,
        }
    )


@pytest.fixture()
def inputs():
    rng = np.random.default_rng(0)
    lengths = np.array([17, 11, 17, 5])
    ids = rng.integers(5, 50, (4, 17))
    ids[np.arange(17) >= lengths[:, None]] = 0
    return ids, np.where(np.arange(17) > 6, 1, 0) * np.ones((4, 1), np.int64), lengths


def encode(model, inputs, task_id=3):
    ids, sentence_ids, lengths = inputs
    model.eval()
    sequence, pooled = model(
        paddle.to_tensor(ids), paddle.to_tensor(sentence_ids), task_id, paddle.to_tensor(lengths)
    )
    return sequence.numpy(), pooled.numpy()


@pytest.mark.parametrize("act", ["relu", "gelu"])
def test_a_checkpoint_loads_in_paddlenlp_and_gives_our_outputs(tmp_path, inputs, tiny_vocab, act):
    """`ErnieModel.from_pretrained(folder)` as it is: 1e-5 at the same LayerNorm epsilon.

    PaddleNLP forces 1e-12 on every LayerNorm while initialising, whatever config.json says; Baidu's code has
    1e-5."""
    from paddlenlp.transformers import ErnieModel

    config = tiny_config(hidden_act=act)
    model = ErnieForPretraining(
        config, [Task("x", 0, "documents", "a.b", [Loss("masked_lm"), Loss("sentence", 3)])]
    )
    initialise(model, 0.2, 1)
    save_model(tmp_path / "step", model, config, tiny_vocab)
    theirs = ErnieModel.from_pretrained(str(tmp_path / "step"))
    theirs.eval()
    ids, sentence_ids, lengths = inputs
    assert (
        theirs.config.layer_norm_eps == 1e-5 and theirs.config.use_task_id and theirs.config.hidden_act == act
    )
    for epsilon in (1e-5, 1e-12):
        for layer in [*theirs.sublayers(), *model.sublayers()]:
            if isinstance(layer, paddle.nn.LayerNorm):
                layer._epsilon = epsilon
        sequence, pooled = encode(model.ernie, inputs)
        mask = np.arange(17)[None] < lengths[:, None]
        got, got_pooled = theirs(
            paddle.to_tensor(ids),
            paddle.to_tensor(sentence_ids),
            attention_mask=paddle.to_tensor(mask.astype(np.int64)),
            task_type_ids=paddle.full(ids.shape, 3, "int64"),
        )
        assert np.abs(got.numpy() - sequence)[mask].max() < 1e-5
        assert np.abs(got_pooled.numpy() - pooled).max() < 1e-5
    assert np.abs(sequence).max() > 0.5


def test_padding_does_not_change_real_tokens(inputs):
    model = ErnieEncoder(tiny_config())
    initialise(model, 0.2, 1)
    sequence, _ = encode(model, inputs)
    ids, sentence_ids, lengths = inputs
    alone, _ = encode(model, (ids[1:2, :11], sentence_ids[1:2, :11], lengths[1:2]))
    np.testing.assert_allclose(sequence[1, :11], alone[0], atol=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
def test_the_rows_that_heads_read_are_those_of_all_rows(inputs, recompute):
    """Outputs and all gradients, where a position is wanted twice too: what nobody reads changes nothing."""
    ids, sentence_ids, lengths = map(paddle.to_tensor, inputs)
    positions = paddle.to_tensor(np.array([0, ids.shape[1], 3, 3, ids.shape[1] + 5]))
    found = []
    for few in (False, True):
        model = ErnieEncoder(
            tiny_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), recompute
        )
        initialise(model, 0.2, 1)
        model.train()
        rows = model.rows(ids, sentence_ids, 0, lengths, positions if few else None)
        rows = rows if few else paddle.gather(rows, positions)
        (rows * rows * rows).sum().backward()
        # The bias of the keys has no gradient but rounding: a softmax does not move when all its inputs do.
        found.append(
            [
                rows.numpy(),
                *(
                    weight.grad.numpy()
                    for name, weight in model.named_parameters()
                    if "pooler" not in name and not name.endswith("k_proj.bias")
                ),
            ]
        )
    for whole, few in zip(*found, strict=True):
        np.testing.assert_allclose(few, whole, rtol=1e-3, atol=1e-4 * np.abs(whole).max())


def test_task_and_sentence_embeddings_matter(inputs):
    model = ErnieEncoder(tiny_config())
    initialise(model, 0.2, 1)
    ids, sentence_ids, lengths = inputs
    assert np.abs(encode(model, inputs, 0)[1] - encode(model, inputs, 5)[1]).max() > 1e-3
    assert np.abs(encode(model, inputs)[1] - encode(model, (ids, 0 * sentence_ids, lengths))[1]).max() > 1e-3


@pytest.mark.parametrize("transposed", [False, True])
def test_cpu_ways_equal_the_library(transposed):
    """Outputs and all gradients of linear, gelu and layer_norm, with the switch off and on."""
    rng = np.random.default_rng(1)
    arrays = [
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((7, 6), (5, 6) if transposed else (6, 5), (5,), (5,), (5,))
    ]
    results = []
    for enabled in (False, True):
        cpu.prepare(enabled)
        x, weight, bias, gain, shift = (paddle.to_tensor(array, stop_gradient=False) for array in arrays)
        y = cpu.layer_norm(cpu.activation("gelu")(cpu.linear(x, weight, bias, transposed)), gain, shift, 1e-5)
        (y * y * y).sum().backward()
        results.append([y.numpy(), *(tensor.grad.numpy() for tensor in (x, weight, bias, gain, shift))])
    cpu.prepare(False)
    for library, ours in zip(*results):
        np.testing.assert_allclose(ours, library, rtol=2e-4, atol=2e-4)


def test_cpu_gelu_equals_the_library_far_from_zero():
    """Output and gradient where exp and erf end, with the switch off and on."""
    results = []
    for enabled in (False, True):
        cpu.prepare(enabled)
        x = paddle.to_tensor(
            np.array([-200, -14, -6, -3, -1e-20, 0, 1e-3, 2, 5, 13, 200], np.float32), stop_gradient=False
        )
        y = cpu.activation("gelu")(x)
        y.backward(paddle.full_like(y, 2.0))
        results.append([y.numpy(), x.grad.numpy()])
    cpu.prepare(False)
    for library, ours in zip(*results):
        np.testing.assert_allclose(ours, library, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("dropped", [0.0, 0.3])
def test_cpu_attention_and_residual_equal_the_library(padded, dropped, monkeypatch):
    """Outputs and all gradients of attention and of x + dropout(y), with the switch off and on; dropout with
    the same masks."""
    rng = np.random.default_rng(2)
    arrays = [rng.standard_normal((2, 3, 5, 4)).astype(np.float32) for _ in range(4)]
    mask = (
        paddle.to_tensor(np.array([0, 0, 0, 0, -1e4], np.float32).reshape([1, 1, 1, 5])) if padded else None
    )
    masks = {
        shape: (rng.random(shape) >= dropped).astype(np.float32) / (1 - dropped)
        for shape in ((2, 3, 5, 5), (2, 3, 5, 4))
    }
    monkeypatch.setattr(cpu, "_mask", lambda shape, p: paddle.to_tensor(masks[tuple(shape)]))
    monkeypatch.setattr(
        cpu, "dropout", lambda x, p, training: x * paddle.to_tensor(masks[tuple(x.shape)]) if p else x
    )
    results = []
    for enabled in (False, True):
        cpu.prepare(enabled)
        q, k, v, x = (paddle.to_tensor(array, stop_gradient=False) for array in arrays)
        y = cpu.add_dropped(x, cpu.attention(q, k, v, mask, dropped, True), dropped, True)
        (y * y * y).sum().backward()
        results.append([y.numpy(), *(tensor.grad.numpy() for tensor in (q, k, v, x))])
    cpu.prepare(False)
    for library, ours in zip(*results):
        np.testing.assert_allclose(ours, library, rtol=2e-4, atol=2e-4)


def faulty(fault: str):
    """The plain way with one fault."""

    def kernel(
        qkv: paddle.Tensor, mask: paddle.Tensor | None, dropout: float, training: bool
    ) -> paddle.Tensor:
        if fault == "unaligned masks" and mask is not None and qkv.shape[1] % 8:
            raise ValueError("attn_bias is not aligned")
        if fault == "dropout" and dropout and training:
            raise ValueError("no such kernel")
        return attention._plain(qkv, mask, dropout, training or fault == "dropout in evaluation")

    return kernel


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("none", None),
        ("unaligned masks", "not aligned"),
        ("dropout", "no such kernel"),
        ("dropout in evaluation", "with 13 tokens, dropout 0.1, training=False"),
    ],
)
def test_the_trial_of_an_attention_kernel(fault, words):
    problem = attention._trial(faulty(fault), 2, 8, "fp32")
    assert problem is None if words is None else words in problem


@pytest.mark.parametrize(
    ("found", "elsewhere", "chosen", "words"),
    [
        ((None, 1.0), False, "flash", "why it is tried"),
        ((None, 3.0), False, "plain", "flash takes 3000.00"),
        (("no such kernel", None), False, "plain", "failed its trial: no such kernel"),
        ((None, 1.0), True, "plain", "on another rank"),
    ],
    ids=["faster", "slower", "wrong", "not everywhere"],
)
def test_the_fastest_right_kernel_is_taken_by_all_ranks(monkeypatch, found, elsewhere, chosen, words):
    said = []
    monkeypatch.setattr(attention, "choice", attention._Choice())
    monkeypatch.setattr(attention, "_candidate", lambda precision: ("flash", "why it is tried"))
    monkeypatch.setattr(attention, "measure", lambda name, *_: found if name == "flash" else (None, 2.0))
    monkeypatch.setattr(attention.distributed, "any_rank", lambda flag: flag or elsewhere)
    monkeypatch.setattr(attention.logger, "info", lambda text, *words: said.append(text % words))
    assert attention.choose("fp16", 2, 8, 32) == chosen == attention.choice.name
    assert words in said[0]


def test_a_kernel_is_timed():
    problem, seconds = attention.measure("plain", "fp32", 2, 8, 32)
    assert problem is None and 0 < seconds < 60


def test_fused_attention_never_drops_in_evaluation_and_sees_no_unaligned_mask(monkeypatch):
    """Paddle 2.6's scaled_dot_product_attention ignores `training` where there is no mask."""

    def fused(q, k, v, attn_mask=None, dropout_p=0.0, attn_bias=None, p=0.0, training=True):  # noqa: ANN001, ANN202
        assert dropout_p + p == (0.1 if training else 0.0)
        assert attn_bias is None or attn_bias.shape[3] % 8 == 0
        return q

    module = pytest.importorskip("paddle.incubate.nn.memory_efficient_attention")
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", fused)
    monkeypatch.setattr(module, "memory_efficient_attention", fused)
    for length in (13, 24):
        qkv = paddle.randn([2, length, 3, 2, 4])
        for kernel in (attention._flash, attention._memory_efficient):
            for training in (True, False):
                assert kernel(qkv, None, 0.1, training).shape == [2, length, 2, 4]
        out = attention._memory_efficient(qkv, paddle.zeros([2, 1, 1, length]), 0.1, True)
        assert out.shape == [2, length, 2, 4]


@pytest.mark.parametrize("enabled", [False, True])
def test_dropout_rate_expectation_and_seed(enabled):
    cpu.prepare(enabled)
    x = paddle.ones([400, 500])
    cpu.seed(1, 2, 3)
    first = cpu.dropout(x, 0.1, True).numpy()
    cpu.seed(1, 2, 3)
    again = cpu.dropout(x, 0.1, True).numpy()
    cpu.seed(1, 2, 4)
    other = cpu.dropout(x, 0.1, True).numpy()
    cpu.prepare(False)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert (first == 0).mean() == pytest.approx(0.1, abs=0.004) and first.mean() == pytest.approx(
        1, abs=0.004
    )
    assert cpu.dropout(x, 0.1, False) is x


def test_first_weights_do_not_depend_on_other_heads():
    first, second = ErnieEncoder(tiny_config()), ErnieEncoder(tiny_config())
    initialise(first, 0.02, 7)
    initialise(second, 0.02, 8)
    weight = first.encoder.layers[0].linear1.weight.numpy()
    assert np.abs(weight).max() <= 0.04 + 1e-6 and weight.std() == pytest.approx(0.0176, abs=0.002)
    assert not np.array_equal(weight, second.encoder.layers[0].linear1.weight.numpy())
    initialise(second, 0.02, 7)
    assert np.array_equal(weight, second.encoder.layers[0].linear1.weight.numpy())


def test_released_sizes():
    assert SIZES["base"] == (12, 768, 12, 3072) and SIZES["large"] == (24, 1024, 16, 4096)
    config = EncoderConfig.from_recipe(ModelConfig(vocab_file="v", vocab_rows=18_000), 17_964, 0)
    assert (
        config.vocab_size,
        config.type_vocab_size,
        config.task_type_vocab_size,
        config.layer_norm_eps,
    ) == (18_000, 4, 16, 1e-5)
    with pytest.raises(ConfigError, match="vocab_rows"):
        EncoderConfig.from_recipe(ModelConfig(vocab_file="v", vocab_rows=100), 17_964, 0)


def test_what_is_restored_is_the_very_model(tmp_path, tiny_vocab):
    model = ErnieEncoder(tiny_config())
    save_model(tmp_path / "a", model, tiny_config(), tiny_vocab)
    restore_weights(model, tmp_path / "a")
    with pytest.raises(
        ConfigError, match=r"linear1.weight is \[32, 64\] there, \[64, 64\] here; and \d+ more|another model"
    ):
        restore_weights(ErnieEncoder(tiny_config(hidden_size=64)), tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(ConfigError, match="not a safetensors file"):
        restore_weights(model, tmp_path / "a")
    assert json.loads((tmp_path / "a" / "config.json").read_text())["type_vocab_size"] == 4
    with pytest.raises(ConfigError, match="no such file"):
        EncoderConfig.from_json(tmp_path / "none.json")
