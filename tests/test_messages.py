"""Golden messages: every kind of mistake in a recipe, a task file, generator_args or fine-tuning, word for
word.

`messages.txt` holds them: a case (items `key=value`, cut by `; `, laid over a file that is in order, or the
file itself), and indented below it what the user reads, or `(accepted)`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from data_gen.generators import check_arguments, load_generator
from ernie2.config import load_recipe
from ernie2.finetune.task import load_finetune
from ernie2.strict import ConfigError, apply_overrides
from ernie2.tasks import load_task

GOLDEN = Path(__file__).with_name("messages.txt")
RECIPE = """
name: r
out_dir: o
seed: 1
model: {vocab_file: v}
data: {shards_dir: s}
curriculum: {stages: [[a], [b]], steps_per_task: 30}
lr: {peak: 1e-3}
"""
TASK = """
name: new
task_id: 9
source: documents
generator: data_gen.generators.sentence_reordering
generator_args: {max_segments: 4}
losses: [{head: sentence, num_classes: 33}]
"""
FINETUNE = """
name: fine
kind: classification
labels: [a, b]
files: {train: t, dev: d}
metrics: [accuracy]
peak_lr: 1e-5
epochs: 3
batch_size: 8
init_from: none
config_from: c
data_dir: x
sizes: {large: {epochs: 5}}
"""


def read_golden() -> list[tuple[str, str, str]]:
    """(kind of file, case, message) of each block of messages.txt."""
    cases, kind = [], ""
    for _, lines in groupby(GOLDEN.read_text(encoding="utf-8").splitlines(), key=bool):
        first, *rest = lines
        if first.startswith("# "):
            kind = first[2:].split(":")[0]
        elif first:
            cases.append((kind, first, "\n".join(line[4:] for line in rest)))
    return cases


def changed(text: str, case: str) -> str:
    """The YAML text with the items of a case applied."""
    return yaml.safe_dump(apply_overrides(yaml.safe_load(text), case.split("; ")), sort_keys=False)


def load(kind: str, case: str, folder: Path) -> None:
    """Loads the file of a case as its users do."""
    text = {
        "recipe": RECIPE,
        "recipe file": case,
        "task": changed(TASK, case) if "task" in kind else "",
        "generator": changed(TASK, case) if "generator" in kind else "",
        "fine-tuning": FINETUNE,
        "fine-tuning file": changed(FINETUNE, case) if "fine-tuning" in kind else "",
    }[kind]
    path = folder / {"recipe": "r.yaml", "fine-tuning": "fine.yaml"}.get(
        kind.removesuffix(" file"), "new.yaml"
    )
    path.write_text(text, encoding="utf-8")
    overrides = [] if kind.endswith("file") else case.split("; ")
    if "recipe" in kind:
        load_recipe(path, overrides)
    elif "fine-tuning" in kind:
        load_finetune(path, overrides, size="large" if kind.endswith("file") else None)
    elif kind == "generator":
        load_generator(load_task(path), "zh")
    else:
        load_task(path)


def said(kind: str, case: str, folder: Path) -> str:
    """What a case's mistake is answered with."""
    try:
        load(kind, case, folder)
    except ConfigError as error:
        return str(error).replace(f"{folder}/", "")
    return "(accepted)"


@pytest.mark.parametrize(("kind", "case", "message"), read_golden(), ids=lambda text: str(text)[:60])
def test_a_mistake_is_answered_in_these_words(kind: str, case: str, message: str, tmp_path: Path) -> None:
    assert said(kind, case, tmp_path) == message


def test_the_golden_messages_are_found() -> None:
    assert len(read_golden()) > 140


def test_a_generator_of_a_users_own_is_held_against_what_it_says(tmp_path: Path) -> None:
    """What no YAML can hold (a Path) is left to the generator; what is not simple and cannot be read too."""

    def generate(
        source, rng, *, packer, language, folder: Path, size: int | None = None, checks: bool = True
    ): ...

    path = tmp_path / "new.yaml"
    path.write_text(changed(TASK, "generator_args={folder: x, size: null, checks: false}"), encoding="utf-8")
    check_arguments(load_task(path), SimpleNamespace(generate=generate))
    path.write_text(changed(TASK, "generator_args={size: 1.0, checks: 0}"), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        check_arguments(load_task(path), SimpleNamespace(generate=generate))
    assert error.value.args == (
        f"{path}: missing key 'generator_args.folder'",
        f"{path}: generator_args.size: found 1.0, expected a whole number",
        f"{path}: generator_args.checks: found 0, expected true or false",
    )
