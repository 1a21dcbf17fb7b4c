"""ernie2.export: a program of its own with the same answers, which predict runs; whatever is not right stops it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import paddle
import pytest
from finetuning import CHECK
from test_predict import lines, models  # noqa: F401 - a fixture

from ernie2 import export
from ernie2.predict import predict_file
from ernie2.strict import ConfigError


@pytest.mark.parametrize("to", ["paddle", "onnx"])
@pytest.mark.parametrize("kind", CHECK)
def test_an_export_gives_the_same_answers(kind, to, models, tmp_path):  # noqa: F811
    if to == "onnx":
        if paddle.__version__.startswith("2."):
            with pytest.raises(ConfigError, match="export with paddle 3"):
                export.export(models[kind][0], tmp_path / "out", to)
            return
        pytest.importorskip("onnxruntime")
        pytest.importorskip("paddle2onnx")
    out, data = models[kind]
    found = export.export(out, tmp_path / "out", to)
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
