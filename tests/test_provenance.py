"""data_gen.provenance: bytes change with DATA_VERSION alone; another one, or generator, makes shards anew."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from conftest import ROOT
from test_pipeline import TASKS, code_of, recipe  # noqa: F401 - a fixture

from data_gen import provenance
from data_gen.__main__ import main
from data_gen.pipeline import build_shards
from ernie2 import tasks as tasks_module
from ernie2.config import load_recipe
from ernie2.tasks import select_tasks
from ernie2.tokenizer import SPECIAL_TOKENS

GOLDEN = {
    1: {
        "zh": "2a6814942da04760b40bcb907deaee669b4792b5a89ceb4ff3245211bbe179c5",
        "en": "5392c64b6e4ee23c811f3bdafb7186980c8b7c72aa95746e524d4bf4145b5a00",
    }
}
"""DATA_VERSION -> language -> sha256 of all shards of examples/."""


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_bytes_of_shards_are_those_of_the_data_version(language: str, tmp_path: Path) -> None:
    folder = ROOT / "examples" / language
    corpus = sorted(folder.glob("*.txt"))
    characters = sorted({*"".join(path.read_text(encoding="utf-8").lower() for path in corpus)} - {*" \n"})
    vocab = tmp_path / "vocab.txt"  # made by no library, whose version might count
    pieces = [f"##{one}" for one in characters if one.isascii()]
    vocab.write_text("\n".join([*SPECIAL_TOKENS, *characters, *pieces]) + "\n", encoding="utf-8")
    made = load_recipe(
        ROOT / "tasks/recipes/demo.yaml",
        [
            f"model.vocab_file={vocab}",
            f"data.shards_dir={tmp_path / 'shards'}",
            f"data.language={language}",
            f"data.corpus=[{','.join(map(str, corpus))}]",
            f"data.query_log=[{folder}/query_log.tsv]",
            f"data.entity_dicts=[{folder}/dictionaries/*.txt]",
        ],
    )
    build_shards(made, select_tasks(TASKS, "test"), 1)
    digest = hashlib.sha256()
    for path in sorted((tmp_path / "shards").rglob("*.npy")):
        digest.update(f"{path.relative_to(tmp_path)}\n".encode() + path.read_bytes())
    assert digest.hexdigest() == GOLDEN[provenance.DATA_VERSION][language], (
        "the bytes of shards changed: if that is meant, raise DATA_VERSION and add the new digests to GOLDEN"
    )


def test_shards_of_another_data_version_are_made_anew(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    arguments = recipe, "--tasks", "sentence_distance", "--workers", 1
    assert code_of(main, *arguments) == 0
    monkeypatch.setattr(provenance, "DATA_VERSION", provenance.DATA_VERSION + 1)
    assert code_of(main, *arguments) == 0
    assert "sentence_distance: to be made: the code that makes the shards changed" in capsys.readouterr().out


def test_a_task_whose_generator_changed_is_made_anew(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    generator = tmp_path / "own_generator.py"
    generator.write_text("from data_gen.generators.sentence_distance import generate\n", encoding="utf-8")
    text = (ROOT / "tasks/pretrain/sentence_distance.yaml").read_text(encoding="utf-8")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/sentence_distance.yaml").write_text(
        text.replace("data_gen.generators.sentence_distance", "own_generator"), encoding="utf-8"
    )
    monkeypatch.setattr(tasks_module, "TASKS_DIR", tmp_path / "tasks")
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = recipe, "curriculum.stages=[[sentence_distance]]", "--workers", 1
    assert code_of(main, *arguments) == 0
    with generator.open("a", encoding="utf-8") as file:
        file.write("# another one\n")
    assert code_of(main, *arguments) == 0
    assert "sentence_distance: to be made: the task's generator changed" in capsys.readouterr().out
