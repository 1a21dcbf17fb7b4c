"""Warm starts that cannot lie: what fits is copied, what is not there is said, what has to be there stops the
run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import write_tiny_shards
from finetuning import SETTINGS, write_checkpoint, write_data
from safetensors.numpy import load_file, save_file
from test_checkpoint import prepare
from test_finetune import TASKS

from ernie2 import pretrain
from ernie2.finetune import __main__ as finetune
from ernie2.finetune.job import prepare_job
from ernie2.finetune.model import build_model
from ernie2.strict import ConfigError
from ernie2.tokenizer import Vocab

EMBEDDING = "ernie.embeddings.{}_embeddings.weight"
WORD, POSITION, SENTENCE, TASK = (
    EMBEDDING.format(name) for name in ("word", "position", "token_type", "task_type")
)


@pytest.fixture()
def finetuned(tmp_path):
    """finetuned(change) -> parameters of a model for fine-tuning that starts from a checkpoint after
    change(its arrays)."""
    folder, data = (
        write_checkpoint(tmp_path / "tiny"),
        write_data(tmp_path / "data", "classification", train=16),
    )

    def start(change, *overrides: str) -> dict[str, np.ndarray]:
        arrays = load_file(folder / "model.safetensors")
        change(arrays)
        save_file(arrays, folder / "model.safetensors")
        job = prepare_job(
            TASKS / "chnsenticorp.yaml", [f"init_from={folder}", f"data_dir={data}", *SETTINGS, *overrides]
        )
        return {name: p.numpy() for name, p in build_model(job.task, job.start, 1).named_parameters()}

    return start


@pytest.fixture()
def pretrained(tiny_recipe, tmp_path):
    """The same for pre-training."""
    pretrain.train(prepare(tiny_recipe, "runtime.max_steps=1", f"out_dir={tmp_path / 'first'}"))
    folder = tmp_path / "first" / "step_0000001"

    def start(change, *overrides: str) -> dict[str, np.ndarray]:
        arrays = load_file(folder / "model.safetensors")
        change(arrays)
        save_file(arrays, folder / "model.safetensors")
        overrides = ["model.max_position_embeddings=null", f"model.init_from={folder}", *overrides]
        return {name: p.numpy() for name, p in prepare(tiny_recipe, *overrides).model.named_parameters()}

    return start


@pytest.fixture(params=["finetuned", "pretrained"])
def start(request):
    return request.getfixturevalue(request.param)


def cut(name: str, rows: int):
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays[name] = np.resize(arrays[name], (rows, *arrays[name].shape[1:]))

    return change


def test_a_checkpoint_without_task_embedding_gets_zeros_and_says_so(start, caplog, monkeypatch):
    monkeypatch.setattr("ernie2.logs.logger.propagate", True)
    caplog.set_level("INFO", "ernie2")
    parameters = start(lambda arrays: arrays.pop(TASK))
    assert len(parameters[TASK]) == 16 and not parameters[TASK].any()
    assert "the task embedding is missing: all 16 rows are 0" in caplog.text
    assert re.search(r"weights from .*: \d\d\.\d\d% of the encoder's [\d,]+ parameters", caplog.text)


LAST_LAYER = "ernie.encoder.layers.1."


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda arrays: arrays.pop(WORD), r"the token embedding is missing \(ernie.embeddings.word"),
        (
            lambda arrays: arrays.update({WORD: arrays[WORD][:, :7].copy()}),
            "the token embedding is of another shape",
        ),
        (lambda arrays: arrays.pop(POSITION), "the position embedding is missing"),
        (lambda arrays: arrays.pop(LAST_LAYER + "linear1.weight"), "the layer 1 is missing"),
        (
            lambda arrays: [arrays.pop(name) for name in list(arrays) if name.startswith(LAST_LAYER)],
            "layer 1 is missing",
        ),
        (
            lambda arrays: arrays.update({LAST_LAYER + "norm1.bias": np.zeros(3, np.float32)}),
            "the layer 1 is of another shape",
        ),
        (
            lambda arrays: arrays.update({"ernie.encoder.layers.2.norm1.bias": np.zeros(3, np.float32)}),
            "layer 2 has no place",
        ),
        (
            lambda arrays: arrays.update({"ernie.pooler.dense.bias": np.zeros(3, np.float32)}),
            "the pooler is of another shape",
        ),
        (
            lambda arrays: [arrays.pop(name) for name in list(arrays)] and arrays.update(x=np.zeros(3)),
            "token embedding is missing",
        ),
        (lambda arrays: arrays[LAST_LAYER + "norm1.bias"].fill(np.nan), "values that are not finite"),
        (
            lambda arrays: arrays.update({WORD: (arrays[WORD] * 50).astype(np.int8)}),
            "holds int8, expected floating-point",
        ),
        (
            lambda arrays: arrays.update({POSITION: np.array(3, np.float32)}),
            "the position embedding is of another shape",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_has_to_be_there_stops_the_run_by_name(start, request, change, words):
    key = "init_min_match=0" if "finetuned" in request.node.name else "model.init_min_match=0"
    with pytest.raises(ConfigError, match=words):
        start(change, key)


@pytest.mark.parametrize(
    ("name", "rows"), [(POSITION, 40), (POSITION, 100), (SENTENCE, 4), (SENTENCE, 2), (TASK, 3), (TASK, 40)]
)
def test_the_rows_of_a_checkpoint_are_taken(start, name, rows):
    kept: dict[str, np.ndarray] = {}
    parameters = start(lambda arrays: (cut(name, rows)(arrays), kept.update(arrays)))
    # The tiny tasks of pre-training need more: theirs are task ids up to 5 and sentence ids up to 1.
    assert len(parameters[name]) == max(
        rows, 6 if name == TASK and "cls.predictions.decoder_bias" in parameters else 0
    )
    assert np.array_equal(parameters[name][:rows], kept[name])


@pytest.mark.parametrize(
    ("key", "name", "there", "here"),
    [
        ("max_position_embeddings", POSITION, 32, 48),
        ("max_position_embeddings", POSITION, 48, 32),
        ("sentence_type_vocab_size", SENTENCE, 2, 4),
        ("task_type_vocab_size", TASK, 3, 16),
        ("vocab_rows", WORD, 300, 296),
    ],
)
def test_where_the_recipe_names_rows_those_that_are_there_are_copied(
    pretrained, caplog, monkeypatch, key, name, there, here
):
    monkeypatch.setattr("ernie2.logs.logger.propagate", True)
    kept: dict[str, np.ndarray] = {}
    parameters = pretrained(
        lambda arrays: (cut(name, there)(arrays), kept.update(arrays)), f"model.{key}={here}"
    )
    both, rest = min(there, here), parameters[name][there:]
    assert len(parameters[name]) == here and np.array_equal(parameters[name][:both], kept[name][:both])
    assert f"{there} rows there, {here} here" in caplog.text
    assert not rest.any() if name == TASK else np.array_equal(rest, kept[name][: len(rest)])


def test_what_is_not_used_may_hold_anything(start):
    """BERT-style files hold an int64 buffer of positions, and heads of other tasks."""
    parameters = start(
        lambda arrays: arrays.update(
            {"ernie.embeddings.position_ids": np.arange(8), "other.head": np.full(3, np.nan, np.float32)}
        )
    )
    assert np.isfinite(parameters[WORD]).all()


def test_another_function_of_the_same_weights_is_refused(pretrained):
    with pytest.raises(
        ConfigError, match="init_from: .* was trained with hidden_act relu, this model has gelu"
    ):
        pretrained(lambda arrays: None, "model.hidden_act=gelu")


def test_a_token_embedding_too_small_for_the_vocabulary(pretrained):
    with pytest.raises(ConfigError, match="the token embedding is of another shape"):
        pretrained(cut(WORD, 20))


def test_files_have_the_mode_that_umask_says(tmp_path):
    folder = write_checkpoint(tmp_path / "tiny")
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        (tmp_path / "tiny_vocab.txt").stat().st_mode & 0o777
    }


def test_fine_tuning_from_2_sentence_types_and_no_task_embedding(tmp_path: Path):
    folder, data = write_checkpoint(tmp_path / "tiny"), write_data(tmp_path / "data", "regression", train=16)
    arrays = load_file(folder / "model.safetensors")
    cut(SENTENCE, 2)(arrays)
    arrays.pop(TASK)
    save_file(arrays, folder / "model.safetensors")
    job = prepare_job(
        TASKS / "stsb.yaml",
        [f"init_from={folder}", f"data_dir={data}", f"out_dir={tmp_path / 'out'}", *SETTINGS, "max_steps=2"],
    )
    finetune.fine_tune(job)
    assert json.loads((tmp_path / "out/best/config.json").read_text())["type_vocab_size"] == 2


@pytest.mark.parametrize(("loss", "level"), [(2.0, "INFO"), (8.5, "WARNING")])
def test_the_first_loss_of_a_warm_start_is_compared(loss, level, caplog, monkeypatch):
    monkeypatch.setattr("ernie2.logs.logger.propagate", True)
    caplog.set_level("INFO", "ernie2")
    run = SimpleNamespace(
        start_step=0,
        recipe=SimpleNamespace(runtime=SimpleNamespace(log_every=10), model=SimpleNamespace(init_from="x")),
        model=SimpleNamespace(config=SimpleNamespace(vocab_size=18_000)),
    )
    pretrain.check_warm_start(run, 10, loss)
    pretrain.check_warm_start(run, 20, loss)
    (record,) = [one for one in caplog.records if "masked LM" in one.getMessage()]
    assert (
        record.levelname == level
        and f"begins at {loss:.2f}; without its weights it would at 9.80" in caplog.text
    )
    assert ("is the vocabulary theirs" in caplog.text) == (level == "WARNING")


def test_a_warm_start_says_how_it_begins(tiny_recipe, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("ernie2.logs.logger.propagate", True)
    caplog.set_level("INFO", "ernie2")
    pretrain.train(prepare(tiny_recipe, "runtime.max_steps=1", f"out_dir={tmp_path / 'first'}"))
    warm = [f"model.init_from={tmp_path / 'first/step_0000001'}", "model.max_position_embeddings=null"]
    warm += ["runtime.max_steps=1", "runtime.log_every=1", f"out_dir={tmp_path / 'second'}"]
    pretrain.train(prepare(tiny_recipe, *warm))
    assert "the masked LM begins at" in caplog.text


def test_an_extended_vocabulary_keeps_the_rows_it_had(tiny_recipe, tiny_tasks, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("ernie2.logs.logger.propagate", True)
    caplog.set_level("INFO", "ernie2")
    pretrain.train(prepare(tiny_recipe, "runtime.max_steps=1", f"out_dir={tmp_path / 'first'}"))
    folder = tmp_path / "first" / "step_0000001"
    tokens = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    longer = tmp_path / "longer.txt"
    longer.write_text("\n".join([*tokens, "新", "词"]) + "\n", encoding="utf-8")
    write_tiny_shards(tmp_path / "new_shards", tiny_tasks, Vocab.load(longer))
    warm = [f"model.init_from={folder}", "model.max_position_embeddings=null", f"model.vocab_file={longer}"]
    model = prepare(
        tiny_recipe, *warm, f"out_dir={tmp_path / 'second'}", f"data.shards_dir={tmp_path / 'new_shards'}"
    ).model
    rows, old = model.state_dict()[WORD].numpy(), load_file(folder / "model.safetensors")[WORD]
    assert len(rows) == len(tokens) + 2 and np.array_equal(rows[: len(tokens)], old[: len(tokens)])
    assert rows[len(tokens) :].any() and "2 tokens are new" in caplog.text
