"""predict: the contract's records for every kind, in the order of the input, equal to what evaluation
wrote."""

from __future__ import annotations

import csv
import gzip
import io
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
        ("classification", "in.json", "{}", [], "a classification model reads .tsv, .csv, .jsonl files"),
        ("span", "in.tsv", "text_a\n", [], "a span model reads .json files"),
        ("classification", "in.tsv", "text\n甲\n", [], "in.tsv:1: no column 'text_a'"),
        ("classification", "in.tsv", "text_a\n甲\n", ["--nbest", "n.json"], "--nbest: only span models"),
        (
            "classification",
            "in.csv",
            "text_a,label\n",
            [],
            "no samples in it",
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


@pytest.mark.parametrize("form", ["csv", "jsonl", "csv.gz", "stdin"])
def test_other_forms_give_the_same_predictions(form, models, tmp_path, monkeypatch, capfd):
    """CSV with quoted fields, JSON lines, standard input and output; ids come back."""
    out, _ = models["classification"]
    texts = ["书好山", '水"坏",人', "去 来", "说\n的"][: 3 if form == "stdin" else 4]
    rows = [{"id": f"r{n}", "text_a": text} for n, text in enumerate(texts)]
    table = "text_a\n" + "\n".join(text.replace("\n", " ") for text in texts) + "\n"
    (tmp_path / "a.tsv").write_text(table, encoding="utf-8")
    predict_file(out, tmp_path / "a.tsv", tmp_path / "a.jsonl")
    wanted = [one["label"] for one in lines(tmp_path / "a.jsonl")]
    source, target = tmp_path / f"b.{form}", tmp_path / "p.jsonl"
    if form == "stdin":
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(table.encode())))
        with pytest.raises(SystemExit) as stop:
            cli(predict.main)([str(out), "--input", "-", "--output", "-"])
        assert stop.value.code == 0
        found = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    else:
        if form == "jsonl":
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            buffer = io.StringIO()
            writer = csv.DictWriter(buffer, ["id", "text_a"])
            writer.writeheader()
            writer.writerows(rows)
            text = buffer.getvalue()
        source.write_bytes(gzip.compress(text.encode()) if form.endswith("gz") else text.encode())
        assert predict_file(out, source, target) == 4
        found = lines(target)
        assert [one["id"] for one in found] == ["r0", "r1", "r2", "r3"]
    assert [one["label"] for one in found] == wanted


def test_conll_in_and_tags_out(models, tmp_path):
    out, _ = models["tagging"]
    (tmp_path / "a.conll").write_text("-DOCSTART- O\n\n张 B-PER\n王\n\n去\n上\n海\n", encoding="utf-8")
    assert predict_file(out, tmp_path / "a.conll", tmp_path / "p.jsonl") == 2
    first, second = lines(tmp_path / "p.jsonl")
    assert (first["line"], first["tokens"], second["tokens"]) == (3, ["张", "王"], ["去", "上", "海"])
    assert len(first["tags"]) == 2 and len(second["tags"]) == 3


def test_a_submission_of_glue(models, tmp_path):
    for kind, key in (("classification", "label"), ("regression", "score")):
        out, data = models[kind]
        predict_file(out, data / "test.tsv", tmp_path / "p.jsonl")
        predict_file(out, data / "test.tsv", tmp_path / "p.tsv")
        header, *rows = (tmp_path / "p.tsv").read_text(encoding="utf-8").splitlines()
        assert header == "index\tprediction" and [row.split("\t")[0] for row in rows] == list(
            map(str, range(32))
        )
        for row, one in zip(rows, lines(tmp_path / "p.jsonl"), strict=True):
            assert row.split("\t")[1] == str(one[key]) or float(row.split("\t")[1]) == pytest.approx(
                one[key], abs=1e-5
            )


def test_rows_are_read_predicted_and_written_in_pieces(models, tmp_path, monkeypatch):
    out, _ = models["classification"]
    (tmp_path / "a.tsv").write_text("text_a\n" + "书好\n山坏\n水\n" * 40, encoding="utf-8")
    predict_file(out, tmp_path / "a.tsv", tmp_path / "whole.jsonl")
    sizes = []
    monkeypatch.setattr(predict, "CHUNK", 7)
    run = predict.run_model
    monkeypatch.setattr(predict, "run_model", lambda *args: sizes.append(len(args[1].samples)) or run(*args))
    assert predict_file(out, tmp_path / "a.tsv", tmp_path / "pieces.jsonl") == 120
    assert sizes == [7] * 17 + [1]
    assert lines(tmp_path / "pieces.jsonl") == lines(tmp_path / "whole.jsonl")
    (tmp_path / "a.tsv").write_text("text_a\n" + "书好\n" * 40 + "一\t二\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="a.tsv:42: found 2 fields"):
        predict_file(out, tmp_path / "a.tsv", tmp_path / "pieces.jsonl")
    assert lines(tmp_path / "pieces.jsonl") == lines(tmp_path / "whole.jsonl"), "whole or not at all"
