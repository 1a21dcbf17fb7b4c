"""ernie2.export: a program of its own with the same answers, which predict runs; whatever is not right stops it."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from finetuning import CHARACTERS, CHECK
from test_predict import lines, models  # noqa: F401 - a fixture

from ernie2 import export
from ernie2.predict import predict_file
from ernie2.strict import ConfigError
from ernie2.tokenizer import SPECIAL_TOKENS, Tokenizer, Vocab


@pytest.mark.parametrize("to", ["paddle", "onnx"])
@pytest.mark.parametrize("kind", CHECK)
def test_an_export_gives_the_same_answers(kind, to, models, tmp_path):  # noqa: F811
    if to == "onnx":
        pytest.importorskip("onnxruntime")
        try:
            import paddle2onnx  # noqa: F401
        except (ImportError, ValueError) as error:  # ValueError: one for another paddle
            pytest.skip(str(error))
    out, data = models[kind]
    found = export.export(out, tmp_path / "out", to)
    assert all(path.is_file() for path in (tmp_path / "out").iterdir())
    assert found["difference"] < 1e-5 and found["bytes"] > 10_000 and len(found["milliseconds"]) == 4
    source = next(data.glob("test.*"))
    suffix = ".json" if kind == "span" else ".jsonl"
    for folder, name in ((out / "best", "a"), (tmp_path / "out", "b")):
        assert predict_file(folder, source, tmp_path / f"{name}{suffix}") == 32
    before, after = (lines(tmp_path / f"{name}{suffix}") for name in "ab")
    for mine, its in zip(before, after, strict=True):
        assert mine.keys() == its.keys()
        for key, value in mine.items():
            if key == "probabilities":
                assert its[key] == pytest.approx(value, abs=1e-5)
            else:
                assert its[key] == (pytest.approx(value, abs=1e-5) if key == "score" else value)


def test_an_export_that_was_changed_is_refused(models, tmp_path):  # noqa: F811
    out, data = models["classification"]
    export.export(out, tmp_path / "out", "paddle")
    program = json.loads((tmp_path / "out/export.json").read_text())["program"]
    source = next(data.glob("test.*"))
    for name in (program, "model.pdiparams"):
        shutil.copytree(tmp_path / "out", tmp_path / name)
        path = tmp_path / name / name
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        with pytest.raises(ConfigError, match=f"{name}: not what export.json says"):
            predict_file(tmp_path / name, source, tmp_path / "p.jsonl")


def test_an_export_that_differs_is_not_kept(models, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(ConfigError, match="differ from the model's by .*; it was not kept"):
        export.export(models["classification"][0], tmp_path / "out", "paddle")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error", [ImportError("No module named 'paddle2onnx'"), ValueError("Paddle should not be less. Install")]
)
def test_what_onnx_needs_is_named(error, models, tmp_path, monkeypatch):  # noqa: F811
    def refuse(name: str, *rest: Any) -> Any:
        if name in ("onnxruntime", "paddle2onnx"):
            raise error
        return real(name, *rest)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match="--to onnx: .*: pip install paddle2onnx.* onnxruntime"):
        export.export(models["classification"][0], tmp_path / "out", "onnx")
    assert not list(tmp_path.iterdir())


def test_the_comparison_reads_text_of_the_vocabulary_s_language():
    letters = "abcdefghijklmnopqrstuvwxyz"
    english = Tokenizer(Vocab([*SPECIAL_TOKENS, *letters, *map("##{}".format, letters)]))
    chinese = Tokenizer(Vocab([*SPECIAL_TOKENS, *CHARACTERS]))
    assert "the" in english.decode(export._text(english)[:2000]).split()
    assert {"山", "北"} <= set(chinese.decode(export._text(chinese)[:2000]))


def test_bad_input(models, tmp_path, capsys):  # noqa: F811
    out, _ = models["classification"]

    def told(*arguments: Path) -> str:
        with pytest.raises(SystemExit) as stop:
            export.main(list(map(str, arguments)))
        assert stop.value.code == 2
        return capsys.readouterr().err

    assert "exists; name a new folder" in told(out, tmp_path)
    assert "config.json" in told(tmp_path / "none", tmp_path / "new")
    export.export(out, tmp_path / "out", "paddle")
    assert "is an export itself" in told(tmp_path / "out", tmp_path / "new")
