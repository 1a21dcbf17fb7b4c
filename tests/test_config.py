"""Strict YAML and the recipe: mistakes are named by file and dotted key; every shipped YAML loads."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

from ernie2 import config
from ernie2.config import ConfigError, Recipe, apply_overrides, build, load_recipe, load_yaml
from ernie2.curriculum import make_plan
from ernie2.schema import to_mapping
from ernie2.strict import parse_yaml
from ernie2.tasks import select_tasks

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "tasks/recipes").rglob("*.yaml"))
BASE = {
    "name": "r",
    "out_dir": "o",
    "model": {"vocab_file": "v"},
    "data": {"shards_dir": "s"},
    "curriculum": {"stages": [["a"], ["b"]], "steps_per_task": 30},
    "lr": {"peak": 1e-3},
}


def recipe(*overrides: str) -> Recipe:
    return build(Recipe, apply_overrides(BASE, overrides), "r.yaml")


def test_numbers_are_numbers():
    assert parse_yaml("[5e-5, 1.28e-4, 393_216, 1E3]", "x") == [5e-5, 1.28e-4, 393216, 1000.0]
    assert isinstance(parse_yaml("5e-5", "x"), float)
    assert recipe("lr.peak=5e-5").lr.peak == 5e-5
    assert recipe("lr.peak=1").lr.peak == 1.0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("lr.peek=1", ["r.yaml", "lr.peek", "did you mean 'lr.peak'"]),
        ("batch.tokens=many", ["r.yaml", "batch.tokens", "whole number", "'many'"]),
        ("batch.tokens=1.5", ["batch.tokens", "whole number"]),
        ("batch.tokens=true", ["batch.tokens", "whole number"]),
        ("batch.tokens=1000", ["batch.tokens", "multiple of micro_tokens"]),
        ("curriculum.stages=[[a],[a]]", ["curriculum.stages", "'a'", "one stage only"]),
        ("curriculum.stages=[]", ["curriculum.stages", "at least one stage"]),
        ("curriculum.stages=[[../x]]", ["curriculum.stages", "../x"]),
        ("curriculum.mode=contnual", ["curriculum.mode", "continual_multitask"]),
        ("masking.level=phrases", ["masking.level", "did you mean 'phrase'"]),
        ("masking.level=[basic, phrase, entity]", ["masking.level", "2 stages"]),
        ("model.dropout=1.5", ["model.dropout", "0 <= dropout < 1"]),
        ("data.max_seq_len=600", ["data.max_seq_len", "max_position_embeddings"]),
        ("seed=-1", ["seed", "0 or more"]),
        ("name=../x", ["name", "'../x'"]),
        ("data=5", ["data", "section"]),
        ("novalue", ["novalue", "key=value"]),
        ("seed.x=1", ["seed.x", "seed"]),
    ],
)
def test_mistakes_are_named(override, words):
    with pytest.raises(ConfigError) as error:
        build(Recipe, apply_overrides({**BASE, "seed": 1}, [override]), "r.yaml")
    for word in words:
        assert word in str(error.value), str(error.value)


def test_missing_key_is_named():
    with pytest.raises(ConfigError, match=r"r.yaml: missing key 'lr'"):
        build(Recipe, {key: value for key, value in BASE.items() if key != "lr"}, "r.yaml")


def test_yaml_mistakes_name_the_line(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: 1\nb: 2\na: 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"x.yaml:3: key 'a' is given twice"):
        load_yaml(path)
    path.write_text("a: [1\nb: 2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"x.yaml:\d: not valid YAML"):
        load_yaml(path)
    path.write_text("a: !!python/object/apply:os.system ['true']\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_yaml(path)
    path.write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 3"):
        load_yaml(path)
    with pytest.raises(ConfigError, match="no such file"):
        load_yaml(tmp_path / "none.yaml")


def test_recipe_survives_a_round_trip():
    first = recipe("masking.level=[basic, [phrase, entity]]", "runtime.max_steps=5")
    assert build(Recipe, to_mapping(first), "again") == first


def test_masking_levels_by_stage():
    assert recipe("masking.level=entity").masking.levels(5) == ["entity"]
    levels = recipe("masking.level=[basic, [phrase, entity]]").masking
    assert [levels.levels(stage) for stage in range(3)] == [
        ["basic"],
        ["phrase", "entity"],
        ["phrase", "entity"],
    ]


def test_one_item_needs_no_brackets():
    assert recipe("data.corpus=a.txt").data.corpus == ["a.txt"]


def test_every_field_is_documented():
    """Every key has a docstring under it: meaning, unit, default, source."""
    tree = ast.parse(Path(config.__file__).read_text(encoding="utf-8"))
    checked = 0
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and dataclasses.is_dataclass(getattr(config, node.name)):
            for i, item in enumerate(node.body):
                if isinstance(item, ast.AnnAssign):
                    after = node.body[i + 1]
                    assert isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant), (
                        item.target.id
                    )
                    checked += 1
    assert checked > 50


def test_recipes_are_found():
    assert {path.stem for path in RECIPES} >= {
        "demo",
        "mini_zh",
        "mini_en",
        "continue_zh",
        "ernie2_zh_base",
        "ernie2_zh_large",
        "ernie2_en_base",
        "ernie2_en_large",
        "all_seven",
        "ernie1",
        "bert",
        "table7",
    }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads(path):
    loaded = load_recipe(path)
    assert loaded.name == path.stem
    select_tasks(loaded.task_names(), str(path))
    plan = make_plan(loaded.curriculum)
    assert all(sum(counts) == loaded.curriculum.steps_per_task for _, counts in plan.table())
    if not path.stem.startswith(("demo", "mini", "continue")):
        assert loaded.batch.tokens == 393_216 and loaded.batch.micro_batches == 48  # 48 cards x 8,192
