"""Fine-tuning runs: learning on every kind, outputs, the protocol of several runs, mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from finetuning import CHECK, SETTINGS, write_checkpoint, write_data
from safetensors.numpy import load_file, save_file

from ernie2.finetune import __main__ as finetune
from ernie2.finetune.job import over_runs, prepare_job
from ernie2.finetune.metrics import majority
from ernie2.strict import ConfigError, cli

TASKS = Path(__file__).resolve().parent.parent / "tasks" / "finetune"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    return {kind: write_data(tmp_path_factory.mktemp("data") / kind, kind) for kind in CHECK}


def run(kind: str, checkpoint: Path, data_dir: Path, out_dir: Path, *extra: str) -> dict:
    name = CHECK[kind]
    lengths = ["max_query_len=6", "max_answer_len=4", "n_best=3"] if kind == "span" else []
    overrides = [
        f"init_from={checkpoint}",
        f"data_dir={data_dir}",
        f"out_dir={out_dir}",
        *SETTINGS,
        *lengths,
        *extra,
    ]
    return finetune.fine_tune(prepare_job(TASKS / f"{name}.yaml", overrides))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("kind", CHECK)
def test_every_kind_learns_and_writes_what_is_promised(kind, checkpoint, data, tmp_path):
    result = run(kind, checkpoint, data[kind], tmp_path, "epochs=12", "seed=2")
    losses = [record["loss"] for record in lines(tmp_path / "train.jsonl")]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    for split in ("dev", "test"):
        for metric, value in result["metrics"][split].items():
            # In this small world a dictionary of the training entities is never wrong.
            assert value > (80 if kind == "tagging" else result["majority"][split][metric] + 20)
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8")) == result
    evaluations = [record for record in lines(tmp_path / "metrics.jsonl") if "selection" in record]
    assert len(evaluations) == 12 and evaluations[-1]["step"] == result["steps"] == 120
    best = max(evaluations, key=lambda record: record["selection"])
    assert (
        result["runs"][0]["best_step"] == best["step"] and result["metrics"]["dev"] == best["metrics"]["dev"]
    )
    card = (tmp_path / "best/README.md").read_text(encoding="utf-8")
    for metric, value in result["metrics"]["test"].items():
        assert f"| test | {metric} | {value:.2f} |" in card
    assert "from_pretrained" in card and f"seed: {result['seed']}" in card
    assert {path.name for path in (tmp_path / "best").iterdir()} == {
        "model.safetensors",
        "config.json",
        "README.md",
        "tokenizer_config.json",
        "vocab.txt",
    }
    suffix = ".json" if kind == "span" else ".jsonl"
    assert {f"dev{suffix}", f"test{suffix}"} <= {path.name for path in (tmp_path / "predictions").iterdir()}
    assert yaml.safe_load((tmp_path / "task.yaml").read_text(encoding="utf-8"))["seed"] == 2


def test_the_same_seed_gives_the_same_run(checkpoint, data, tmp_path):
    args = ("classification", checkpoint, data["classification"])
    runs = [
        run(*args, tmp_path / str(i), "max_steps=6", "head_dropout=0.3", f"seed={seed}")
        for i, seed in enumerate((4, 4, 5))
    ]
    records = [
        [(r["loss"], r["grad_norm"]) for r in lines(tmp_path / str(i) / "train.jsonl")] for i in range(3)
    ]
    assert records[0] == records[1] != records[2]
    assert runs[0]["metrics"] == runs[1]["metrics"]
    one, two = (load_file(str(tmp_path / str(i) / "best" / "model.safetensors")) for i in (0, 1))
    assert all((one[name] == two[name]).all() for name in one)


@pytest.mark.parametrize("kind", CHECK)
def test_micro_batches_give_the_gradient_of_the_whole_batch(kind, checkpoint, data, tmp_path):
    norms = []
    for micro_tokens in (100_000, 64):
        out = tmp_path / str(micro_tokens)
        run(
            kind,
            checkpoint,
            data[kind],
            out,
            "max_steps=3",
            f"micro_tokens={micro_tokens}",
            "head_dropout=0.3",
        )
        norms.append([(r["grad_norm"], r["loss"]) for r in lines(out / "train.jsonl")])
    assert np.allclose(*norms, rtol=2e-4)


def test_several_runs_give_mean_median_and_std(checkpoint, data, tmp_path):
    result = run(
        "classification",
        checkpoint,
        data["classification"],
        tmp_path,
        "max_steps=4",
        "repeat=3",
        "peak_lr=0.001",
    )
    values = [entry["metrics"]["test"]["accuracy"] for entry in result["runs"]]
    assert [entry["seed"] for entry in result["runs"]] == [1, 2, 3]
    assert result["metrics"]["test"]["accuracy"] == pytest.approx(np.mean(values), abs=1e-3)
    assert result["median"]["test"]["accuracy"] == pytest.approx(np.median(values), abs=1e-3)
    assert result["std"]["test"]["accuracy"] == pytest.approx(np.std(values, ddof=1), abs=1e-3)
    assert (tmp_path / "best" / "model.safetensors").is_file()
    assert (
        not list(tmp_path.glob("run_*/best"))
        and len(list(tmp_path.glob("run_*/predictions/test.jsonl"))) == 3
    )
    best = tmp_path / f"run_{result['best_run']}" / "predictions" / "dev.jsonl"
    assert (tmp_path / "predictions" / "dev.jsonl").read_text() == best.read_text()
    assert {record["run"] for record in lines(tmp_path / "metrics.jsonl")} == {1, 2, 3}
    assert over_runs([{"dev": {"f1": 1.0}}, {"dev": {"f1": 4.0}}], np.mean) == {"dev": {"f1": 2.5}}


def test_evaluation_steps(checkpoint, data, tmp_path):
    args = ("classification", checkpoint, data["classification"])
    run(*args, tmp_path / "a", "max_steps=7", "eval_every=3")
    assert [r["step"] for r in lines(tmp_path / "a" / "metrics.jsonl") if "selection" in r] == [3, 6, 7]
    run(*args, tmp_path / "b", "epochs=2", "max_train_samples=40")
    assert [r["step"] for r in lines(tmp_path / "b" / "metrics.jsonl") if "selection" in r] == [3, 6]


def test_random_start_takes_the_configuration_only(checkpoint, data, tmp_path):
    overrides = [
        "init_from=none",
        f"config_from={checkpoint}",
        f"data_dir={data['classification']}",
        f"out_dir={tmp_path}",
        *SETTINGS,
        "max_steps=1",
        "peak_lr=1e-9",
        "weight_decay=0.0",
    ]
    finetune.fine_tune(prepare_job(TASKS / "chnsenticorp.yaml", overrides))
    warm = run(
        "classification",
        checkpoint,
        data["classification"],
        tmp_path / "warm",
        "max_steps=1",
        "peak_lr=1e-9",
        "weight_decay=0.0",
    )
    theirs = load_file(str(checkpoint / "model.safetensors"))
    name = "ernie.encoder.layers.0.linear1.weight"
    cold, kept = (
        load_file(str(folder / "best" / "model.safetensors"))[name]
        for folder in (tmp_path, tmp_path / "warm")
    )
    assert np.allclose(kept, theirs[name], atol=1e-6) and not np.allclose(cold, theirs[name], atol=1e-3)
    assert np.std(cold) == pytest.approx(0.02, rel=0.2) and warm["size"] is None


def test_a_missing_test_file_is_a_note_and_an_unlabelled_one_is_predicted(checkpoint, tmp_path):
    folder = write_data(tmp_path / "data", "classification", test=0)
    result = run("classification", checkpoint, folder, tmp_path / "a", "max_steps=2")
    assert "test" not in result["metrics"] and "test is skipped" in result["notes"][0]
    (folder / "test.tsv").write_text("text_a\n书好\n山坏\n", encoding="utf-8")
    result = run("classification", checkpoint, folder, tmp_path / "b", "max_steps=2")
    assert "test" not in result["metrics"] and "no labels" in result["notes"][0]
    assert len(lines(tmp_path / "b" / "predictions" / "test.jsonl")) == 2


def test_splits_that_differ_and_pair_tasks_without_a_second_text_are_refused(checkpoint, tmp_path):
    folder = write_data(tmp_path / "data", "classification")
    with pytest.raises(
        ConfigError, match=r"train\.tsv:1: no column 'text_b' in the header, found: label, text_a"
    ):
        prepare_job(TASKS / "lcqmc.yaml", [f"init_from={checkpoint}", f"data_dir={folder}", *SETTINGS])
    (folder / "dev.tsv").write_text("label\ttext_a\ttext_b\n1\t好\t坏\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"dev\.tsv:1: a second text in column 'text_b'"):
        run("classification", checkpoint, folder, tmp_path / "out")


@pytest.mark.parametrize("odd, share", [(1, "14.3%"), (6, "85.7%")])
def test_the_share_of_unknown_tokens_is_told_and_most_of_them_stop(checkpoint, tmp_path, caplog, odd, share):
    folder = write_data(tmp_path / "data", "classification")
    (folder / "dev.tsv").write_text(
        "label\ttext_a\n" + f"1\t{'們' * odd}{'好' * (7 - odd)}\n" * 4, encoding="utf-8"
    )
    overrides = [f"init_from={checkpoint}", f"data_dir={folder}", *SETTINGS]
    caplog.set_level("INFO", "ernie2")
    if odd == 1:
        prepare_job(TASKS / "chnsenticorp.yaml", overrides)
        assert f"{share} of the tokens of dev are [UNK]" in caplog.text and "0.0% [UNK]" in caplog.text
    else:
        with pytest.raises(
            ConfigError, match=rf"dev\.tsv: {share} of the tokens of dev are \[UNK\]: .*vocabulary"
        ):
            prepare_job(TASKS / "chnsenticorp.yaml", overrides)


@pytest.mark.parametrize("in_train", [False, True])
def test_minus_one_in_every_test_row_of_a_regression(checkpoint, tmp_path, in_train):
    folder = write_data(tmp_path / "data", "regression")
    (folder / "test.tsv").write_text("text_a\ttext_b\tlabel\n好\t坏\t-1\n好\t坏\t-1\n", encoding="utf-8")
    if in_train:
        with (folder / "train.tsv").open("a", encoding="utf-8") as file:
            file.write("坏\t坏\t-1\n")
    job = prepare_job(TASKS / "stsb.yaml", [f"init_from={checkpoint}", f"data_dir={folder}", *SETTINGS])
    assert job.data.test[0].labelled is in_train and len(job.data.notes) == (not in_train)


def test_several_dev_files_are_evaluated_each_by_itself(checkpoint, data, tmp_path):
    folder = write_data(tmp_path / "data", "classification")
    (folder / "m").mkdir()
    (folder / "m" / "dev.tsv").write_bytes((folder / "dev.tsv").read_bytes())
    args = ("classification", checkpoint, folder, tmp_path / "out", "max_steps=2")
    result = run(*args, "files.dev=[m/dev.tsv, dev.tsv]")
    assert set(result["metrics"]) == {"m_dev", "dev", "test"}
    for names in ("[m/dev.tsv, m_dev.tsv]", "[dev.tsv, test.tsv]"):
        (folder / "m_dev.tsv").write_bytes((folder / "test.tsv").read_bytes())
        with pytest.raises(ConfigError, match="several files of dev and test are called"):
            run(*args, f"files.dev={names}")


def test_majority_baselines(checkpoint, data):
    for kind, expected in (("regression", 0.0), ("tagging", 60.0), ("classification", 30.0), ("span", 10.0)):
        job = prepare_job(
            TASKS / f"{CHECK[kind]}.yaml",
            [f"init_from={checkpoint}", f"data_dir={data[kind]}", *SETTINGS, "max_query_len=6"],
        )
        value = list(majority(job.task, job.data.train.samples, job.data.dev[0].samples).values())[-1]
        assert expected <= value <= 100


def test_half_precision_pads_to_multiples_of_eight(checkpoint, data, half_on_cpu):
    """Training batches here; `run_model` pads the same way."""
    overrides = [f"init_from={checkpoint}", f"data_dir={data['tagging']}", *SETTINGS]
    plain, half = (
        prepare_job(TASKS / f"{CHECK['tagging']}.yaml", [*overrides, f"precision={precision}"])
        for precision in ("fp32", "fp16")
    )
    for numbers in plain.plan(1)[0]:
        for narrow, wide in zip(plain.batches(numbers)[1], half.batches(numbers)[1], strict=True):
            width = narrow.token_ids.shape[1]
            assert wide.token_ids.shape[1] == wide.targets.shape[1] == -(-width // 8) * 8
            assert np.array_equal(wide.token_ids[:, :width], narrow.token_ids)
            assert (wide.targets[:, width:] == -100).all()


@pytest.mark.parametrize(
    "change, message",
    [
        (["data_dir=nowhere"], r"data_dir: no folder 'nowhere'"),
        (["files.train=none.tsv"], r"files\.train: no file .*none\.tsv"),
        (["files.dev=none.tsv"], r"files\.dev: no file .*none\.tsv"),
        (["init_from=nowhere"], r"init_from: nowhere is no checkpoint folder"),
        (["max_seq_len=65"], r"max_seq_len: 65, but the encoder has 64 positions"),
        (["task_id=16"], r"task_id: 16, but the encoder has 16"),
        (["precision=bf16"], r"precision: bf16 needs a GPU"),
        (['labels=["0", "2"]'], r"train\.tsv:\d+: label '1' is not one of the task's labels"),
    ],
)
def test_bad_input_stops_before_anything_is_written(change, message, checkpoint, data, tmp_path, capsys):
    argv = [
        str(TASKS / "chnsenticorp.yaml"),
        f"init_from={checkpoint}",
        f"data_dir={data['classification']}",
        f"out_dir={tmp_path / 'out'}",
        *SETTINGS,
        *change,
    ]
    with pytest.raises(SystemExit) as stop:
        cli(finetune.main)(argv)
    assert stop.value.code == 2 and not (tmp_path / "out").exists()
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(message, error), error


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_attention_heads": 3}, "num_attention_heads: found 3, expected a divisor of 32"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers: found 2.5"),
        ({"hidden_size": "32"}, "hidden_size: found text '32'"),
        ({"hidden_act": None}, "hidden_act: found None"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob: found 1.5"),
        ({"layer_norm_eps": "x"}, "layer_norm_eps: found text 'x'"),
        ({"lower_case": "no"}, "lower_case: found 'no'"),
        (None, "config.json: not an encoder configuration: expected an object"),
    ],
)
def test_a_config_json_that_lies_is_named(data, tmp_path, changes, words):
    folder = write_checkpoint(tmp_path / "a")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(None if changes is None else config | changes))
    with pytest.raises(ConfigError, match=words):
        run("classification", folder, data["classification"], tmp_path / "out")


def test_a_checkpoint_of_one_sentence_type_reads_pairs(data, tmp_path):
    folder = write_checkpoint(tmp_path / "a")
    arrays = load_file(folder / "model.safetensors")
    name = "ernie.embeddings.token_type_embeddings.weight"
    save_file(arrays | {name: arrays[name][:1].copy()}, folder / "model.safetensors")
    run("regression", folder, data["regression"], tmp_path / "out", "max_steps=1")
    assert load_file(tmp_path / "out/best/model.safetensors")[name].shape == (2, 32)


def test_a_checkpoint_of_another_shape_is_refused(data, tmp_path):
    folder = write_checkpoint(tmp_path / "a")
    wider = write_checkpoint(tmp_path / "b", hidden=64)
    (folder / "model.safetensors").write_bytes((wider / "model.safetensors").read_bytes())
    with pytest.raises(
        ConfigError, match=r"init_from: .*the token embedding is of another shape, \[37, 64\]"
    ):
        run("classification", folder, data["classification"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
