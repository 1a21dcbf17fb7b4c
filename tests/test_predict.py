"""predict: the contract's records for every kind, in the order of the input, equal to what evaluation
wrote."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from finetuning import CHECK, SETTINGS, write_checkpoint, write_data

from ernie2 import predict
from ernie2.finetune import __main__ as finetune
from ernie2.finetune.job import prepare_job
from ernie2.predict import predict_file
from ernie2.strict import ConfigError, cli

TASKS = Path(__file__).resolve().parent.parent / "tasks" / "finetune"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, tuple[Path, Path]]:
    """Kind -> (out_dir of a short run, its data)."""
    root = tmp_path_factory.mktemp("models")
    checkpoint = write_checkpoint(root / "tiny")
    found = {}
    for kind, name in CHECK.items():
        data, out = write_data(root / f"{kind}_data", kind, train=64), root / kind
        more = {"span": ["max_query_len=6", "n_best=3"], "tagging": ["epochs=12"]}  # entities are found
        finetune.fine_tune(
            prepare_job(
                TASKS / f"{name}.yaml",
                [
                    f"init_from={checkpoint}",
                    f"data_dir={data}",
                    f"out_dir={out}",
                    *SETTINGS,
                    "epochs=3",
                    *more.get(kind, []),
                ],
            )
        )
        found[kind] = out, data
    return found


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("kind", CHECK)
def test_predictions_are_those_of_the_best_checkpoint(kind, models, tmp_path):
    out, data = models[kind]
    suffix = ".json" if kind == "span" else ".jsonl"
    target = tmp_path / f"p{suffix}"
    source = next(data.glob("test.*"))
    assert predict_file(out / "best", source, target) == 32
    assert json.dumps(lines(target)) == json.dumps(lines(out / "predictions" / f"test{suffix}"))


def test_classification_records(models, tmp_path):
    source = tmp_path / "in.tsv"
    source.write_text("text_a\n书好山\n\u2028坏\n" + "人" * 99 + "\n", encoding="utf-8")
    predict_file(models["classification"][0], source, tmp_path / "o.jsonl")
    records = lines(tmp_path / "o.jsonl")
    assert len(records) == 3
    for record in records:
        assert set(record) == {"line", "label", "probabilities"} and set(record["probabilities"]) == {
            "0",
            "1",
        }
        assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert record["probabilities"][record["label"]] == max(record["probabilities"].values())


def test_regression_records(models, tmp_path):
    source = tmp_path / "in.tsv.gz"
    source.write_bytes(gzip.compress("text_b\ttext_a\tlabel\n书\t好好\tunknown\n".encode()))
    predict_file(models["regression"][0], source, tmp_path / "o.jsonl")
    (record,) = lines(tmp_path / "o.jsonl")
    assert set(record) == {"line", "score"} and record["line"] == 2 and isinstance(record["score"], float)


def test_tagging_records_have_a_tag_for_every_character(models, tmp_path):
    texts = ["张三 在北京", "", "张三在" * 30]
    source = tmp_path / "in.tsv"
    source.write_text(
        "text_a\tid\n" + "".join(f"{text}\t{i}\n" for i, text in enumerate(texts)), encoding="utf-8"
    )
    predict_file(models["tagging"][0], source, tmp_path / "o.jsonl")
    records = lines(tmp_path / "o.jsonl")
    assert [(record["text"], record["id"], record["line"]) for record in records] == [
        (text, str(i), i + 2) for i, text in enumerate(texts)
    ]
    assert records[0]["entities"] and records[2]["entities"]
    for record in records:
        assert len(record["tags"]) == len(record["text"])
        for entity in record["entities"]:
            assert record["text"][entity["start"] : entity["end"]] == entity["text"]
            assert record["tags"][entity["start"]] == f"B-{entity['type']}"
            assert set(record["tags"][entity["start"] + 1 : entity["end"]]) <= {f"I-{entity['type']}"}
        tagged = sum(entity["end"] - entity["start"] for entity in record["entities"])
        assert tagged == sum(tag != "O" for tag in record["tags"])


def test_span_answers_and_nbest(models, tmp_path):
    out, data = models["span"]
    predict_file(out, data / "dev.json", tmp_path / "a.json", tmp_path / "n.json")
    answers, nbest = (
        json.loads((tmp_path / name).read_text(encoding="utf-8")) for name in ("a.json", "n.json")
    )
    articles = json.loads((data / "dev.json").read_text(encoding="utf-8"))["data"]
    contexts = {q["id"]: p["context"] for a in articles for p in a["paragraphs"] for q in p["qas"]}
    assert list(answers) == list(contexts) == list(nbest)
    for qid, context in contexts.items():
        assert answers[qid] == nbest[qid][0]["text"] and answers[qid] in context
        assert sum(one["probability"] for one in nbest[qid]) == pytest.approx(1, abs=1e-4)


def test_questions_need_no_answers(models, tmp_path):
    source = tmp_path / "q.json"
    source.write_text(
        json.dumps(
            {"data": [{"paragraphs": [{"context": "书在北京", "qas": [{"id": 7, "question": "在哪里？"}]}]}]}
        ),
        encoding="utf-8",
    )
    predict_file(models["span"][0], source, tmp_path / "a.json")
    assert set(json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))) == {"7"}


@pytest.mark.parametrize(
    "kind, name, text, extra, message",
    [
        ("classification", "in.json", "{}", [], "a classification model reads .tsv files"),
        ("span", "in.tsv", "text_a\n", [], "a span model reads .json files"),
        ("classification", "in.tsv", "text\n甲\n", [], "in.tsv:1: no column 'text_a'"),
        ("classification", "in.tsv", "text_a\n甲\n", ["--nbest", "n.json"], "--nbest: only span models"),
        (
            "classification",
            "in.csv",
            "text_a,label\n",
            [],
            "reads .tsv files (a header line with text_a, fields separated by tabs",
        ),
        (
            "regression",
            "in.tsv",
            "text_a\n好\n",
            [],
            "in.tsv:1: no column 'text_b' in the header, found: text_a",
        ),
        (
            "classification",
            "in.tsv",
            "text_a\ttext_b\n好\t好\n",
            [],
            "in.tsv:1: a second text in column 'text_b'",
        ),
        (
            "classification",
            "in.tsv",
            "text_a\n" + "甲乙丙丁戊" * 4 + "\n",
            [],
            "100.0% of the tokens of input are [UNK]",
        ),
        ("classification", None, "", [], "--input: no file"),
    ],
)
def test_mistakes(kind, name, text, extra, message, models, tmp_path, capsys):
    source = tmp_path / (name or "absent.tsv")
    if name:
        source.write_text(text, encoding="utf-8")
    target = tmp_path / "o.jsonl"
    with pytest.raises(SystemExit) as stop:
        cli(predict.main)([str(models[kind][0]), "--input", str(source), "--output", str(target), *extra])
    assert stop.value.code == 2 and message in capsys.readouterr().err and not target.exists()


@pytest.mark.parametrize(
    "extra, message",
    [
        (["--output", "."], "--output: . is no ordinary file"),
        (["--output", "in.json/a/o.json"], "--output: "),
        (["--output", "/proc/none/o.json"], "--output: "),
        (["--output", "/dev/null"], "no ordinary file"),
        (["--output", "../{name}/in.json"], "is the input"),
        (["--output", "linked.json"], "is the input"),
        (["--output", "hard.json"], "is the input"),
        (["--output", "{model}/best/config.json"], "is a file of the model"),
        (["--output", "{model}/best/model.safetensors"], "is a file of the model"),
        (["--output", "{model}/result.json"], "is a file of the model or of its run"),
        (["--output", "{model}/predictions/dev.json"], "is a file of the model or of its run"),
        (["--output", "o.json.gz"], "is compressed"),
        (["--output", "o.json", "--nbest", "none/n.json"], "--nbest: none/n.json cannot be written"),
        (["--output", "o.json", "--nbest", "./o.json"], "--nbest: ./o.json is --output"),
        (["--output", "o.json", "--nbest", "in.json"], "--nbest: in.json is the input"),
    ],
)
def test_outputs_are_checked_before_the_model_is_loaded(
    extra, message, models, tmp_path, capsys, monkeypatch
):
    out, data = models["span"]
    text = (data / "dev.json").read_bytes()
    (tmp_path / "in.json").write_bytes(text)
    (tmp_path / "linked.json").symlink_to("in.json")
    (tmp_path / "hard.json").hardlink_to(tmp_path / "in.json")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predict, "load_finetuned", None)
    for model in (out, out / "best"):
        with pytest.raises(SystemExit) as stop:
            cli(predict.main)(
                [str(model), "--input", "in.json", *(s.format(name=tmp_path.name, model=out) for s in extra)]
            )
        assert stop.value.code == 2 and message in capsys.readouterr().err
    assert (tmp_path / "in.json").read_bytes() == text and not (tmp_path / "o.json").exists()


def test_a_model_without_a_fine_tuned_head_is_refused(tmp_path):
    folder = write_checkpoint(tmp_path / "tiny")
    with pytest.raises(ConfigError, match="a model without a fine-tuning head"):
        predict_file(folder, tmp_path / "x.tsv", tmp_path / "y")
