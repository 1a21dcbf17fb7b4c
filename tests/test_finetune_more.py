"""What practitioners expect of fine-tuning: several labels a row, dev loss, reports, early stopping, rates that
differ by layer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from finetuning import CHECK, SETTINGS, write_checkpoint, write_data
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from ernie2.finetune import __main__ as finetune
from ernie2.finetune.features import mean_loss
from ernie2.finetune.job import prepare_job
from ernie2.finetune.metrics import report, score
from ernie2.finetune.model import build_model, logits_of, micro_loss, run_model
from ernie2.finetune.readers import TextSample, read_split
from ernie2.finetune.task import FinetuneTask
from ernie2.optim import build_optimizer, layer_shares
from ernie2.predict import predict_file
from ernie2.schema import build
from ernie2.strict import ConfigError

TASKS = Path(__file__).resolve().parent.parent / "tasks" / "finetune"
LABELS = ["山", "水", "书"]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def several(**keys) -> FinetuneTask:
    base = {
        "name": "x",
        "kind": "classification",
        "labels": LABELS,
        "multi_label": True,
        "metrics": ["micro_f1"],
    }
    base |= {"files": {"train": "t.tsv", "dev": "d.tsv"}, "peak_lr": 1e-3, "epochs": 1, "batch_size": 4}
    return build(FinetuneTask, base | keys, "x.yaml")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("more") / "tiny")


def test_several_labels_are_learned_from_json_lines(checkpoint, tmp_path):
    """Each character of LABELS in a text is a label of its own."""
    rng = np.random.default_rng(1)
    for split, count in (("train", 256), ("dev", 64)):
        rows = []
        for _ in range(count):
            text = "".join(rng.choice(list("的说来去人" + "".join(LABELS)), 8))
            rows.append({"text_a": text, "label": [label for label in LABELS if label in text]})
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(text, encoding="utf-8")
    task = {
        "name": "signs",
        "kind": "classification",
        "multi_label": True,
        "labels": LABELS,
        "metrics": ["micro_f1", "macro_f1", "accuracy"],
        "files": {"train": "train.jsonl", "dev": "dev.jsonl"},
        "peak_lr": 1.0e-3,
        "epochs": 1,
        "batch_size": 16,
    }
    (tmp_path / "signs.yaml").write_text(yaml.safe_dump(task, allow_unicode=True), encoding="utf-8")
    out = tmp_path / "out"
    settings = [f"init_from={checkpoint}", f"data_dir={tmp_path}", f"out_dir={out}", *SETTINGS, "epochs=12"]
    result = finetune.fine_tune(prepare_job(tmp_path / "signs.yaml", settings))
    assert result["metrics"]["dev"]["micro_f1"] > 95 > 90 > result["majority"]["dev"]["micro_f1"]
    made = json.loads((out / "predictions/dev_report.json").read_text(encoding="utf-8"))
    assert list(made["classes"]) == LABELS and "confusion" not in made
    assert predict_file(out, tmp_path / "dev.jsonl", tmp_path / "p.jsonl") == 64
    found = lines(tmp_path / "p.jsonl")
    assert all(one["labels"] == [k for k, p in one["probabilities"].items() if p >= 0.5] for one in found)


def test_several_labels_are_read_and_checked(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("text_a\tlabel\n一\t水,山\n二\t\n三\t书, 书\n", encoding="utf-8")
    assert [one.label for one in read_split(path, "train", several()).samples] == [(0, 1), (), (2,)]
    path.write_text("text_a\tlabel\n一\t水,火\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="t.tsv:2: label '火' is not one of the task's labels"):
        read_split(path, "train", several())
    for keys, words in (
        ({"metrics": ["mcc"]}, "accuracy, micro_f1 or macro_f1 where multi_label"),
        ({"labels": ["a,b", "c"]}, "no comma where multi_label"),
        ({"class_weights": [1.0, 2.0, 1.0]}, "none where multi_label"),
    ):
        with pytest.raises(ConfigError, match=words):
            several(**keys)


def test_scores_of_several_labels_are_scikit_learns():
    rng = np.random.default_rng(2)
    wanted, found = rng.random((2, 50, 3)) < 0.4
    samples = [TextSample("", "", label=tuple(np.flatnonzero(row).tolist())) for row in wanted]
    records = [{"labels": [LABELS[i] for i in np.flatnonzero(row)]} for row in found]
    task = several(metrics=["micro_f1", "macro_f1", "accuracy"])
    got = score(task, samples, records)
    for average in ("micro", "macro"):
        assert got[f"{average}_f1"] == pytest.approx(100 * f1_score(wanted, found, average=average), abs=1e-3)
    assert got["accuracy"] == pytest.approx(100 * (wanted == found).all(1).mean(), abs=1e-3)


def test_a_report_is_scikit_learns():
    rng = np.random.default_rng(3)
    wanted, found = rng.integers(0, 3, (2, 80))
    task = several(multi_label=False, metrics=["accuracy"])
    samples = [TextSample("", "", label=int(label)) for label in wanted]
    made = report(task, samples, [{"label": LABELS[label]} for label in found])
    assert made["confusion"] == confusion_matrix(wanted, found).tolist()
    columns = precision_recall_fscore_support(wanted, found)
    for n, label in enumerate(LABELS):
        row = made["classes"][label]
        shares = [row["precision"] / 100, row["recall"] / 100, row["f1"] / 100, row["support"]]
        np.testing.assert_allclose(shares, [column[n] for column in columns], atol=1e-4)
    values = score(
        several(multi_label=False, metrics=["macro_f1", "micro_f1"]),
        samples,
        [{"label": LABELS[label], "probabilities": dict.fromkeys(LABELS, 0.3)} for label in found],
    )
    assert values["macro_f1"] == pytest.approx(100 * f1_score(wanted, found, average="macro"), abs=1e-3)


@pytest.mark.parametrize("kind", CHECK)
def test_the_loss_on_dev_is_that_of_training(kind, checkpoint, tmp_path):
    """Computed from the outputs as training computes it from a batch; written at every evaluation."""
    data = write_data(tmp_path / "data", kind, train=32)
    out = tmp_path / "out"
    settings = [f"init_from={checkpoint}", f"data_dir={data}", f"out_dir={out}", *SETTINGS, "epochs=1"]
    settings += ["max_query_len=6"] if kind == "span" else []
    job = prepare_job(TASKS / f"{CHECK[kind]}.yaml", settings)
    model = build_model(job.task, job.start, 1)
    part = job.data.dev[0]
    outputs = run_model(model, part, job.task, job.start.tokenizer.vocab.pad_id, 8192, "fp32")
    model.eval()
    parts, batches = job.batches(np.arange(len(job.data.train.features)))
    losses = [float(micro_loss(job.task, logits_of(model, b, job.task, "fp32"), b)) for b in batches]
    train = run_model(model, job.data.train, job.task, job.start.tokenizer.vocab.pad_id, 8192, "fp32")
    got = mean_loss(job.task, job.data.train.features, train)
    assert got == pytest.approx(sum(losses) / sum(b.count for b in batches), rel=1e-4)
    assert np.isfinite(mean_loss(job.task, part.features, outputs))
    finetune.fine_tune(job)
    rows = [row for row in lines(out / "metrics.jsonl") if "selection" in row]
    assert all(set(row["loss"]) == {"dev"} and row["loss"]["dev"] > 0 for row in rows)


def test_a_run_stops_that_gets_no_better(checkpoint, tmp_path):
    """At a learning rate that changes nothing the first evaluation is the best; the same after a restart."""
    data, out = write_data(tmp_path / "data", "classification", train=64), tmp_path / "out"
    settings = [f"init_from={checkpoint}", f"data_dir={data}", f"out_dir={out}", *SETTINGS]
    settings += ["peak_lr=1e-12", "epochs=20", "eval_every=2", "patience=3"]
    result = finetune.fine_tune(prepare_job(TASKS / "chnsenticorp.yaml", settings))
    assert result["runs"][0]["best_step"] == 2 and result["steps"] == 8
    assert "stale" not in result["runs"][0]


def test_layers_learn_at_their_own_rate(checkpoint, tmp_path):
    names = ["ernie.embeddings.word_embeddings.weight", "ernie.encoder.layers.0.norm1.bias"]
    names += ["ernie.encoder.layers.1.linear1.weight", "ernie.pooler.dense.weight", "classifier.weight"]
    assert list(layer_shares(names, 0.5).values()) == [0.125, 0.25, 0.5, 1.0, 1.0]
    layers = paddle.nn.LayerList([paddle.nn.Linear(2, 2), paddle.nn.Linear(2, 2)])
    model = paddle.nn.Layer()
    model.encoder = paddle.nn.Layer()
    model.encoder.layers = layers
    before = [layer.weight.numpy().copy() for layer in layers]
    optimizer = build_optimizer(model, 0.0, (0.9, 0.999), 1e-8, layer_decay=0.5)
    optimizer.set_lr(0.1)
    x = paddle.ones([1, 2])
    for layer in layers:
        x = layer(x)
    x.sum().backward()
    optimizer.step()
    moved = [np.abs(layer.weight.numpy() - old).max() for layer, old in zip(layers, before, strict=True)]
    np.testing.assert_allclose(moved, [0.025, 0.05], rtol=1e-3)  # Adam's first step is the learning rate
