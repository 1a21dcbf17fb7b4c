"""ernie2.weights and ernie2.convert: every released kind read under PaddleNLP's names, and written for others."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from finetuning import CHARACTERS, SETTINGS, write_data
from safetensors.numpy import load_file, save_file
from test_finetune import TASKS

from ernie2 import convert as command
from ernie2.checkpoint import save_model
from ernie2.encoder import EncoderConfig
from ernie2.finetune.job import prepare_job
from ernie2.finetune.model import build_model, head_keys
from ernie2.model import ErnieForFinetuning, ErnieForPretraining, initialise
from ernie2.strict import ConfigError
from ernie2.tasks import Loss, Task
from ernie2.tokenizer import SPECIAL_TOKENS, Tokenizer, Vocab
from ernie2.warm_start import start_from
from ernie2.weights import hf_name, open_weights, read_pdparams, renamed

HF_PYTHON = os.environ.get("ERNIE2_HF_PYTHON", "")
TEXTS = [
    "书山在水北，人去上海",
    "张王李赵是谁？",
    "好山好水好书",
    "北京的人说书坏，上海的人说书好",
    "哪里是海",
]
LAYER = "encoder.layers.0."
SPELLINGS = {
    # PaddleNLP's name: (Hugging Face's, dygraph's, fluid's), written down from their code
    "embeddings.word_embeddings.weight": (
        "embeddings.word_embeddings.weight",
        "word_emb.weight",
        "word_embedding",
    ),
    "embeddings.position_embeddings.weight": (
        "embeddings.position_embeddings.weight",
        "pos_emb.weight",
        "pos_embedding",
    ),
    "embeddings.token_type_embeddings.weight": (
        "embeddings.token_type_embeddings.weight",
        "sent_emb.weight",
        "sent_embedding",
    ),
    "embeddings.task_type_embeddings.weight": (
        "embeddings.task_type_embeddings.weight",
        None,
        "task_embedding",
    ),
    "embeddings.layer_norm.weight": (
        "embeddings.LayerNorm.weight",
        "ln.weight",
        "pre_encoder_layer_norm_scale",
    ),
    "embeddings.layer_norm.bias": ("embeddings.LayerNorm.bias", "ln.bias", "pre_encoder_layer_norm_bias"),
    "pooler.dense.weight": ("pooler.dense.weight", "pooler.weight", "pooled_fc.w_0"),
    "pooler.dense.bias": ("pooler.dense.bias", "pooler.bias", "pooled_fc.b_0"),
}
for ours, hf, dygraph, fluid in (
    ("self_attn.q_proj", "attention.self.query", "attn.q", "multi_head_att_query_fc"),
    ("self_attn.k_proj", "attention.self.key", "attn.k", "multi_head_att_key_fc"),
    ("self_attn.v_proj", "attention.self.value", "attn.v", "multi_head_att_value_fc"),
    ("self_attn.out_proj", "attention.output.dense", "attn.o", "multi_head_att_output_fc"),
    ("linear1", "intermediate.dense", "ffn.i", "ffn_fc_0"),
    ("linear2", "output.dense", "ffn.o", "ffn_fc_1"),
    ("norm1", "attention.output.LayerNorm", "ln1", "post_att_layer_norm"),
    ("norm2", "output.LayerNorm", "ln2", "post_ffn_layer_norm"),
):
    for number in (0, 1):
        for end, short in (("weight", "w_0"), ("bias", "b_0")):
            last = f"_{'scale' if end == 'weight' else 'bias'}" if "norm" in ours else f".{short}"
            SPELLINGS[f"encoder.layers.{number}.{ours}.{end}"] = (
                f"encoder.layer.{number}.{hf}.{end}",
                f"encoder_stack.block.{number}.{dygraph}.{end}",
                f"encoder_layer_{number}_{fluid}{last}",
            )
SPELLINGS = {f"ernie.{ours}": theirs for ours, theirs in SPELLINGS.items()} | {
    "cls.predictions.transform.weight": (
        "cls.predictions.transform.dense.weight",
        "mlm.weight",
        "mask_lm_trans_fc.w_0",
    ),
    "cls.predictions.transform.bias": (
        "cls.predictions.transform.dense.bias",
        "mlm.bias",
        "mask_lm_trans_fc.b_0",
    ),
    "cls.predictions.layer_norm.weight": (
        "cls.predictions.transform.LayerNorm.weight",
        "mlm_ln.weight",
        "mask_lm_trans_layer_norm_scale",
    ),
    "cls.predictions.layer_norm.bias": (
        "cls.predictions.transform.LayerNorm.bias",
        "mlm_ln.bias",
        "mask_lm_trans_layer_norm_bias",
    ),
    "cls.predictions.decoder_bias": ("cls.predictions.bias", "mlm_bias", "mask_lm_out_fc.b_0"),
}
FAMILIES = ("hf", "dygraph", "fluid")


def convert(arguments: list[str]) -> int:
    """The command's exit code."""
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    return stop.value.code


def vocabulary(folder: Path) -> Path:
    path = folder / "vocab.txt"
    path.write_text("\n".join([*SPECIAL_TOKENS, *CHARACTERS]) + "\n", encoding="utf-8")
    return path


def small(**keys) -> EncoderConfig:
    tokens = len(SPECIAL_TOKENS) + len(CHARACTERS)
    return EncoderConfig(tokens, 32, 2, 2, 128, "relu", 0.0, 0.0, 64, **keys)


@pytest.fixture()
def ours(tmp_path) -> tuple[ErnieForPretraining, Path]:
    """A pre-training model with large random weights, everywhere not 0 or 1, and its checkpoint."""
    model = ErnieForPretraining(small(), [Task("x", 0, "documents", "a.b", [Loss("masked_lm")])])
    initialise(model, 0.2, 3)
    for number, parameter in enumerate(model.parameters()):
        if parameter.ndim == 1:
            noise = np.random.default_rng(number).normal(0, 0.2, parameter.shape)
            parameter.set_value(parameter + paddle.to_tensor(noise.astype(np.float32)))
    model.eval()
    save_model(tmp_path / "ours", model, model.config, vocabulary(tmp_path))
    return model, tmp_path / "ours"


def inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids, sentence ids (B, T) and lengths (B) of the texts as pairs."""
    tokenizer = Tokenizer(Vocab(list([*SPECIAL_TOKENS, *CHARACTERS])), True)
    rows = []
    for first, second in zip(TEXTS, TEXTS[1:], strict=False):
        parts = [tokenizer.encode(text).ids.tolist() for text in (first, second)]
        vocab = tokenizer.vocab
        rows.append(([vocab.cls_id, *parts[0], vocab.sep_id, *parts[1], vocab.sep_id], len(parts[0]) + 2))
    width = max(len(ids) for ids, _ in rows)
    ids, sentences = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    for row, (tokens, border) in enumerate(rows):
        ids[row, : len(tokens)], sentences[row, border : len(tokens)] = tokens, 1
    return ids, sentences, np.array([len(tokens) for tokens, _ in rows])


def outputs(model: ErnieForPretraining) -> list[np.ndarray]:
    """Sequence output and masked-LM logits of real tokens, pooled output."""
    ids, sentences, lengths = inputs()
    sequence, pooled = model.ernie(*map(paddle.to_tensor, (ids, sentences)), 0, paddle.to_tensor(lengths))
    real = np.arange(ids.shape[1]) < lengths[:, None]
    rows = paddle.to_tensor(sequence.numpy()[real])
    logits = model.cls.predictions.logits(rows, model.ernie.embeddings.word_embeddings.weight)
    return [rows.numpy(), logits.numpy(), pooled.numpy()]


def as_family(model: ErnieForPretraining, family: str, folder: Path, config: EncoderConfig) -> Path:
    """The model as a folder of another family, by Paddle's own writers."""
    arrays = {name: parameter.numpy() for name, parameter in model.named_parameters()}
    named = {
        names[FAMILIES.index(family)]: arrays[ours]
        for ours, names in SPELLINGS.items()
        if names[FAMILIES.index(family)]
    }
    folder.mkdir()
    shutil.copyfile(vocabulary(folder.parent), folder / "vocab.txt")
    keys = config.to_json() | {"sent_type_vocab_size": config.type_vocab_size}
    if family == "hf":
        named = {
            f"{'' if name.startswith('cls') else 'ernie.'}{name}": np.ascontiguousarray(array.T)
            if array.ndim == 2 and "embeddings" not in name
            else array
            for name, array in named.items()
        }
        save_file(named, folder / "model.safetensors", {"format": "pt"})
    elif family == "dygraph":
        named = {name: paddle.to_tensor(array) for name, array in named.items()}
        paddle.save(
            named | {"pooler_heads.0.nsp.weight": paddle.ones([2])}, str(folder / "saved_weights.pdparams")
        )
    else:
        core = paddle.base.core
        write = getattr(core, "save_dense_tensor", None) or core.save_lod_tensor
        (folder / "params").mkdir()
        for name, array in named.items():
            kept = paddle.to_tensor(array)  # the writer sees its memory alone
            write(kept.value().get_tensor(), str(folder / "params" / name))
        (folder / "params" / "learning_rate_0").write_bytes(b"of the optimizer")
    if family != "hf":
        for key in ("type_vocab_size", "layer_norm_eps", "intermediate_size", "task_type_vocab_size"):
            keys.pop(key)
    (folder / ("config.json" if family == "hf" else "ernie_config.json")).write_text(json.dumps(keys))
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_is_read_and_computes_the_same(ours, tmp_path, family, capsys):
    """init_from takes the folder as it is; convert gives one of ours, bit for bit the same weights."""
    model, folder = ours
    if family == "dygraph":  # it has no task embedding
        model.ernie.embeddings.task_type_embeddings.weight.set_value(paddle.zeros([16, 32]))
    theirs = as_family(model, family, tmp_path / family, model.config)
    wanted = outputs(model)
    convert([str(theirs), str(tmp_path / "back"), "--to", "ernie2"])
    told = capsys.readouterr().out
    assert f"kind {family}" in told and ("16 rows of 0" in told) == (family == "dygraph")
    for source in (theirs, tmp_path / "back"):
        other = ErnieForPretraining(model.config, [Task("x", 0, "documents", "a.b", [Loss("masked_lm")])])
        start_from(other, source, model.config.vocab_size, 1.0 if family != "dygraph" else 0.9, "init_from")
        other.eval()
        for got, want in zip(outputs(other), wanted, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-5)
    assert EncoderConfig.from_json(tmp_path / "back" / "config.json") == model.config
    before, after = (
        load_file(folder / "model.safetensors"),
        load_file(tmp_path / "back" / "model.safetensors"),
    )
    for name in before:
        np.testing.assert_array_equal(after[name], model.state_dict()[name].numpy())


@pytest.mark.parametrize("family", FAMILIES)
def test_fine_tuning_starts_from_every_kind(ours, tmp_path, family):
    model, _ = ours
    theirs = as_family(model, family, tmp_path / family, model.config)
    data = write_data(tmp_path / "data", "classification", train=16)
    job = prepare_job(TASKS / "chnsenticorp.yaml", [f"init_from={theirs}", f"data_dir={data}", *SETTINGS])
    built = build_model(job.task, job.start, 1)
    name = "ernie.encoder.layers.1.linear2.weight"
    np.testing.assert_array_equal(built.state_dict()[name].numpy(), model.state_dict()[name].numpy())


def test_names_are_those_of_the_families():
    for ours, names in SPELLINGS.items():
        for family, name in zip(FAMILIES, names, strict=True):
            if name:
                assert renamed(name, family) == ours, name
        bare = hf_name(ours)
        assert bare.removeprefix("ernie.") == names[0], ours
    assert (
        renamed("bert.encoder.layer.11.output.LayerNorm.gamma", "hf")
        == "ernie.encoder.layers.11.norm2.weight"
    )
    assert renamed("cls_out_w", "fluid") is None and hf_name("token_heads.x.weight") == "token_heads.x.weight"


def test_a_paddlenlp_pdparams_folder(ours, tmp_path):
    model, folder = ours
    paddle.save(model.state_dict(), str(folder / "model_state.pdparams"))
    (folder / "model.safetensors").unlink()
    arrays = open_weights(folder).arrays()
    assert all(np.array_equal(arrays[name], p.numpy()) for name, p in model.named_parameters())


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/ernie2_was_here",)


def _reduce(callable_name: str, arguments: bytes) -> bytes:
    return b"\x80\x02c" + callable_name.encode() + arguments + b"R."


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps({"a": Evil()}),
        _reduce("builtins\neval\n", b"(X\x05\x00\x00\x001 + 1t"),
        _reduce("numpy\nndarray\n", b"((J\x00\x00\x00\x7ftt"),  # an array of 2 GB
        _reduce("numpy.core.multiarray\nscalar\n", b"(t"),
        b"\x80\x02cpaddle\nload\n.",
        pickle.dumps(np.array([1, "x"], object)),
        pickle.dumps({"a": np.array([{"b": 1}], object)}),
        pickle.dumps({"a": np.array(["text"])}),
        pickle.dumps({1: np.zeros(2)}),
        pickle.dumps([np.zeros(2)]),
        pickle.dumps({"a": np.zeros(2)})[:-20],
        b"",
        b"\x80\x05\x8e" + struct.pack("<Q", 1 << 60),
        os.urandom(100),
    ],
    ids=lambda data: str(len(data)),
)
def test_a_hostile_pdparams_is_refused(tmp_path, data):
    path = tmp_path / "model_state.pdparams"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="model_state.pdparams: "):
        read_pdparams(path)
    assert not Path("/tmp/ernie2_was_here").exists()


def test_a_damaged_fluid_variable_is_named(ours, tmp_path):
    model, _ = ours
    theirs = as_family(model, "fluid", tmp_path / "fluid", model.config)
    path = theirs / "params" / "pooled_fc.w_0"
    whole = path.read_bytes()
    for data in (whole[:-4], whole[:10], b"", b"\x01" + whole[1:], os.urandom(200)):
        path.write_bytes(data)
        with pytest.raises(ConfigError, match="pooled_fc.w_0: not a variable"):
            open_weights(theirs).arrays()


def test_what_cannot_be_converted_is_refused(ours, tmp_path, capsys):
    _, folder = ours
    (tmp_path / "empty").mkdir()
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "pytorch_model.bin").touch()
    cases = {
        "empty": "is no checkpoint folder: no model.safetensors, model_state.pdparams, saved_weights.pdparams or word",
        "torch": "safe_serialization=True",
    }
    for name, words in cases.items():
        assert convert([str(tmp_path / name), str(tmp_path / "new"), "--to", "hf"]) == 2
        assert words in capsys.readouterr().err
    assert convert([str(folder), str(folder), "--to", "hf"]) == 2
    assert "exists; name a new folder" in capsys.readouterr().err
    arrays = load_file(folder / "model.safetensors")
    arrays["ernie.pooler.dense.bias"][0] = np.nan
    save_file(arrays, folder / "model.safetensors")
    assert convert([str(folder), str(tmp_path / "new"), "--to", "hf"]) == 2
    assert "ernie.pooler.dense.bias holds no finite" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.fixture()
def sorter(tmp_path) -> tuple[ErnieForFinetuning, Path]:
    """A fine-tuned model of three classes."""
    model = ErnieForFinetuning(small(), "classification", 3)
    initialise(model, 0.3, 7)
    model.eval()
    keys = head_keys("classification", ["差", "中", "好"])
    save_model(tmp_path / "best", model, model.config, vocabulary(tmp_path), keys)
    return model, tmp_path / "best"


def test_paddlenlp_opens_what_we_save(sorter, tmp_path):
    """AutoTokenizer, AutoModelForSequenceClassification and Taskflow, as it is."""
    from paddlenlp import Taskflow
    from paddlenlp.transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, folder = sorter
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    theirs = AutoModelForSequenceClassification.from_pretrained(str(folder))
    theirs.eval()
    assert theirs.config.id2label == {0: "差", 1: "中", 2: "好"} and theirs.config.num_labels == 3
    for layer in [*theirs.sublayers(), *model.sublayers()]:
        if isinstance(layer, paddle.nn.LayerNorm):
            layer._epsilon = 1e-5
    for text in TEXTS:
        one = tokenizer(text, return_tensors="pd")
        encoded = Tokenizer(Vocab.load(folder / "vocab.txt")).encode(text).ids
        assert one["input_ids"].numpy()[0, 1:-1].tolist() == encoded.tolist()
        got = theirs(**one).numpy()
        np.testing.assert_allclose(got, model(one["input_ids"], one["token_type_ids"]).numpy(), atol=1e-5)
    flow = Taskflow("text_classification", task_path=str(folder), is_static_model=False)
    assert flow(TEXTS[0])[0]["predictions"][0]["label"] in "差中好"


@pytest.mark.skipif(not HF_PYTHON, reason="ERNIE2_HF_PYTHON names no Python with transformers and torch")
def test_hugging_face_opens_what_we_convert_and_the_other_way(ours, sorter, tmp_path):
    """transformers, in an environment of its own: the same outputs of a pre-trained and a fine-tuned model, and
    its own checkpoints of ERNIE and BERT under our encoder."""
    for name, (_, folder) in (("ours", ours), ("best", sorter)):
        convert([str(folder), str(tmp_path / f"hf_{name}"), "--to", "hf"])
    ids, sentences, lengths = inputs()
    np.savez(tmp_path / "inputs.npz", ids=ids, sentences=sentences, lengths=lengths)
    script = Path(__file__).with_name("hugging_face.py")
    subprocess.run(
        [HF_PYTHON, script, tmp_path], check=True, env=os.environ | {"PYTHONPATH": ""}, timeout=300
    )
    found = np.load(tmp_path / "outputs.npz")
    sequence, logits, pooled = outputs(ours[0])
    np.testing.assert_allclose(found["ours_logits"], logits, atol=2e-5)
    classes = sorter[0](*map(paddle.to_tensor, (ids, sentences)), 0, paddle.to_tensor(lengths)).numpy()
    np.testing.assert_allclose(found["best_logits"], classes, atol=1e-5)
    for family in ("ernie", "bert"):
        shutil.copyfile(tmp_path / "vocab.txt", tmp_path / family / "vocab.txt")
        weights = open_weights(tmp_path / family)
        config = EncoderConfig.from_keys(weights.config() | {"task_type_vocab_size": 3}, "config.json")
        model = ErnieForPretraining(config, [Task("x", 0, "documents", "a.b", [Loss("masked_lm")])])
        start_from(model, tmp_path / family, config.vocab_size, 0.9, "init_from")
        model.eval()
        sequence, logits, _ = outputs(model)
        np.testing.assert_allclose(found[f"{family}_sequence"], sequence, atol=1e-5)
        np.testing.assert_allclose(found[f"{family}_logits"], logits, atol=2e-5)


def test_the_command_is_one_of_ernie2(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "ernie2", "convert", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "--to" in done.stdout
