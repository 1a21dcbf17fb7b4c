"""The pages: their commands run, README is short and true, links lead somewhere, keys and lists are the
code's."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from data_gen.generators import connectives
from data_gen.generators.sentence_reordering import class_table
from ernie2 import config, tasks
from ernie2.finetune import task as finetune_task

ENGLISH, CHINESE = "README.md", "README.zh.md"
DOCS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))
PAGES = (ENGLISH, CHINESE, "tasks/README.md", "examples/README.md", *DOCS)
PAIRS = [(page.replace(".zh.md", ".md"), page) for page in PAGES if page.endswith(".zh.md")]
"""A page and its Chinese twin."""
LIMIT = 12 * 1024
"""Bytes of a README that is read to its end."""


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def commands(page: str) -> list[str]:
    """The commands of a page's bash blocks, one a line. What is not to be run as it stands is in a text
    block."""
    blocks = re.findall(r"^```bash\n(.*?)^```", read(page), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", "").splitlines() if line.strip()]


# ---- the commands
# ---------------------------------------------------------------------------------------------------

SHORT = "batch.tokens=512 batch.micro_tokens=256 runtime.eval_tokens=512"
FEW_STEPS = f"{SHORT} curriculum.steps_per_task=6 lr.warmup_steps=2 runtime.log_every=5"
DEMO = "data.shards_dir=out/demo/shards model.vocab_file=out/demo/vocab.txt"
MINI = "out_dir=out/mini data.shards_dir=out/mini/shards model.vocab_file=out/mini/vocab.txt"
PLAN = "python -m ernie2.plan tasks/recipes/table7.yaml"

# What is appended to a command of a page so that it takes seconds; out/ stands for a folder of the test's
# own. A command that is not here fails the test: whoever writes it into a page decides how it is run here.
with socket.create_server(("127.0.0.1", 0)) as door:
    PORT = door.getsockname()[1]  # for the service
QUICK = {
    PLAN: "",
    "python docs/map.py": "",
    "python -m ernie2 --help": "",
    "python -m data_gen.generators.sentence_reordering 4": "",
    "python -m data_gen.vocab examples/en/corpus.txt --size 2000 --out out/vocab_en.txt": "",
}
SLOW = {
    "bash run_pretrain.sh": f"out_dir=out/demo {DEMO} {FEW_STEPS}",
    "bash tests/run.sh": "tests/test_curriculum.py -p no:cacheprovider",
    "bash run_pretrain.sh tasks/recipes/mini_zh.yaml data.corpus='examples/zh/encyclopedia_*.txt' "
    "data.query_log=examples/zh/query_log.tsv data.entity_dicts='examples/zh/dictionaries/*.txt' data.dev_share=0.1": f"{MINI} {FEW_STEPS} curriculum.steps_per_task=2 curriculum.revisit_steps=0 runtime.max_steps=4",
    "python -m data_gen tasks/recipes/demo.yaml --workers 2": f"{DEMO} data.shards_dir=out/two_workers",
    "python -m data_gen.show out/demo/shards/sentence_reordering -n 2": "",
    "python -m data_gen.show out/demo/shards/sentence_distance -n 2 --class 2": "",
    "python -m data_gen.audit out/demo/shards": "",
    "bash run_finetune.sh tasks/finetune/lcqmc.yaml init_from=out/demo data_dir=examples/zh "
    "files='{train: query_log.tsv, dev: query_log.tsv}' columns='{text_a: query, text_b: title, label: "
    "clicked}' "
    "out_dir=out/clicks epochs=1": "max_steps=2 max_train_samples=64",
    "python -m ernie2.predict out/clicks --input examples/zh/query_log.tsv --output out/clicks.jsonl": "",
    "python -m ernie2.export out/clicks out/clicks_export": "",
    "python -m ernie2.serve clicks=out/clicks_export": f"""--port {PORT} & server=$!
{sys.executable} -c '
import json, time, urllib.request
body = json.dumps({{"inputs": [{{"text_a": "感冒吃什么药", "text_b": "感冒用药指南"}}]}}).encode()
request = urllib.request.Request("http://127.0.0.1:{PORT}/clicks", body, {{"Content-Type": "application/json"}})
for wait in range(600):
    try:
        print("the service says", json.load(urllib.request.urlopen(request))["predictions"][0]["label"])
        break
    except OSError:
        time.sleep(0.1)
'; kill $server; wait $server || true""",
    "NPROC=2 bash run_pretrain.sh tasks/recipes/demo.yaml out_dir=out/demo_two runtime.max_steps=20": f"{DEMO} {FEW_STEPS} runtime.max_steps=2",
    "python -m ernie2.report out/demo": "",
}
FINETUNE = next(command for command in SLOW if "run_finetune.sh" in command)
SERVE = next(command for command in SLOW if "ernie2.serve" in command)
EXPORT = next(command for command in SLOW if "ernie2.export" in command)
PREDICT = next(command for command in SLOW if "ernie2.predict" in command)
# Part of a command -> what has to run before it.
NEEDS = {
    "out/demo": "bash run_pretrain.sh",
    "predict out/clicks": FINETUNE,
    "export out/clicks ": FINETUNE,
    "clicks=out": EXPORT,
}
SAYS = {
    PLAN: "sentence_reordering        -        -        -      50k   50k",
    "bash run_pretrain.sh": "what next",
    "bash tests/run.sh": "passed",
    "python -m data_gen.generators.sentence_reordering 4": class_table(4),
    "python -m data_gen.show out/demo/shards/sentence_distance -n 2 --class 2": "label 2: different documents",
    "python -m data_gen.audit out/demo/shards": "● sentence_distance",
    PREDICT: "859 predictions",
    EXPORT: "logits equal to",
    SERVE: "the service says ",
}


NOISE = ("ccache", "distutils", "pkg_resources", "OMP_NUM_THREADS")
"""Of what paddle and its companions say at their import."""


class Workshop:
    """Runs the pages' commands in the checkout, each once, with out/ leading to a temporary folder."""

    def __init__(self, out: Path) -> None:
        self.out, self.done = out, {}

    def run(self, command: str) -> subprocess.CompletedProcess:
        """The finished command; what it builds on has been run before it."""
        if command not in self.done:
            for folder, maker in NEEDS.items():
                if folder in command and maker != command:
                    assert self.run(maker).returncode == 0, maker
            self.done[command] = self._call(f"{command} {QUICK.get(command) or SLOW.get(command, '')}")
        return self.done[command]

    def _call(self, line: str) -> subprocess.CompletedProcess:
        line = re.sub(r"(^|[ =])out/", rf"\1{self.out}/", line)
        line = re.sub(r"^python ", f"{sys.executable} ", line)
        ours = {"ERNIE2_PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTEST", "NPROC", "GPUS"))
        }
        return subprocess.run(
            ["bash", "-c", line],
            cwd=ROOT,
            env=kept | ours,
            text=True,
            timeout=900,
            capture_output=True,
            check=False,
        )


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("readme"))


def check(workshop: Workshop, command: str) -> None:
    done = workshop.run(command)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed[-3000:]
    assert SAYS.get(command, "") in printed, printed[-3000:]
    assert not any(word in done.stderr for word in NOISE), done.stderr[:3000]


def test_every_command_of_the_pages_is_covered():
    assert len(commands(ENGLISH)) > 8
    assert {command for page in PAGES for command in commands(page)} == {*QUICK, *SLOW}


@pytest.mark.parametrize("command", QUICK)
def test_quick_commands_run(command, workshop):
    check(workshop, command)


@pytest.mark.slow
@pytest.mark.parametrize("command", SLOW)
def test_slow_commands_run(command, workshop):
    check(workshop, command)


def test_table_7_is_what_the_command_prints(workshop):
    table = re.search(r"^```text\n(task +stage 1.*?)^```", read(ENGLISH), re.MULTILINE | re.DOTALL)[1]
    assert table in workshop.run(PLAN).stdout


# ---- README: short, and true
# ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [ENGLISH, CHINESE])
def test_readme_is_short(page):
    assert len((ROOT / page).read_bytes()) <= LIMIT


def first_column(page: str) -> list[str]:
    """The files and folders that the page's plan of the house names."""
    part = re.split(r"^## (?:The plan of the house|代码地图)$", read(page), flags=re.MULTILINE)[1].split(
        "\n## "
    )[0]
    return [
        path
        for row in re.findall(r"^\| (`.+?`) \|", part, re.MULTILINE)
        for path in re.findall(r"`([^`]+)`", row)
    ]


def test_the_plan_of_the_house_is_the_house():
    paths = first_column(ENGLISH)
    assert len(paths) > 25 and paths == first_column(CHINESE)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_map_lists_every_program_with_what_it_does(workshop):
    files = subprocess.run(
        ["git", "ls-files", "*.py", "*.sh"], cwd=ROOT, text=True, capture_output=True, check=False
    )
    if files.returncode:
        pytest.skip("not a git checkout")
    lines = dict(line.split("  ", 1) for line in workshop.run("python docs/map.py").stdout.splitlines())
    assert {name for name in files.stdout.split() if (ROOT / name).exists()} <= lines.keys()
    assert all(len(summary) > 10 for summary in lines.values())


def test_figures_and_picture_are_those_of_the_real_run():
    report = read("benchmarks/results/mini_zh.md")
    rows = re.findall(
        r"^\| (?:the model|frequency guess|from this model|from random weights) \|(.+)\|$",
        read(ENGLISH),
        re.M,
    )
    shares = {f"{100 * float(value):.1f}" for value in re.findall(r"\| (0\.\d{3}) (?=\|)", report)}
    means = {f"{float(value):.1f}" for value in re.findall(r"\*\*(\d+\.\d\d)\*\*", report)}
    cells = [[cell.strip() for cell in row.split("|")] for row in rows]
    assert [len(row) for row in cells] == [5] * 4
    assert all(cell in shares for row in cells[:2] for cell in row)
    assert all(cell in means for row in cells[2:] for cell in row)
    drawn = re.sub(
        r'<rect class="hover".*?</rect>', "", read("benchmarks/results/mini_zh.svg"), flags=re.DOTALL
    )
    panels = re.findall(r"<g transform=\"[^\"]+\">(<svg .*?</svg>)</g>", read("docs/mini_zh.svg"), re.DOTALL)
    assert len(panels) == 2 and all(panel in drawn for panel in panels)


# ---- the two languages, the links
# -----------------------------------------------------------------------------------


@pytest.mark.parametrize("english, chinese", PAIRS)
def test_both_languages_say_the_same(english, chinese):
    assert commands(chinese) == commands(english)
    for pattern in (r"^```(?:text|yaml|python)\n.*?^```", r"issues/(\d+)", r"^#+ "):
        found = [re.findall(pattern, read(page), re.MULTILINE | re.DOTALL) for page in (english, chinese)]
        assert found[0] == found[1]
    rows = [len(re.findall(r"^\|", read(page), re.MULTILINE)) for page in (english, chinese)]
    assert rows[0] == rows[1]


def test_pages_with_a_chinese_twin_are_found():
    assert len(PAIRS) == 6 and all((ROOT / page).exists() for pair in PAIRS for page in pair)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", read(page), flags=re.MULTILINE | re.DOTALL)
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not target.startswith("http")]
    for target in targets:
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


# ---- keys and lists
# -------------------------------------------------------------------------------------------------

SECTIONS = {
    "Pre-training tasks": tasks.Task,
    "An entry of losses": tasks.Loss,
    "Top level": config.Recipe,
    "model": config.ModelConfig,
    "data": config.DataConfig,
    "batch": config.BatchConfig,
    "curriculum": config.CurriculumConfig,
    "masking": config.MaskingConfig,
    "optimizer": config.OptimizerConfig,
    "lr": config.LrConfig,
    "runtime": config.RuntimeConfig,
    "The task (in the YAML)": finetune_task.FinetuneTask,
    "files": finetune_task.FinetuneFiles,
    "The run (on the command line)": finetune_task.FinetuneRun,
}


def default_of(field: dataclasses.Field) -> object:
    """A field's default, or "required" or "section"."""
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is dataclasses.MISSING:
        return "required"
    value = field.default_factory()
    return "section" if dataclasses.is_dataclass(value) else value


@pytest.mark.parametrize("section", SECTIONS)
def test_keys_and_defaults_are_those_of_the_code(section):
    part = re.split(rf"^##+ {re.escape(section)}", read("tasks/README.md"), flags=re.MULTILINE)[1]
    table = re.search(r"^\| key \|.*?(?=\n\n)", part, re.MULTILINE | re.DOTALL)[0]
    rows = re.findall(r"^\| `(\w+)` \| .+ \| (.+) \|$", table, re.MULTILINE)
    own = SECTIONS[section].__annotations__
    fields = [field for field in dataclasses.fields(SECTIONS[section]) if field.init and field.name in own]
    assert [name for name, _ in rows] == [field.name for field in fields]
    for (name, text), field in zip(rows, fields, strict=True):
        wanted = default_of(field)
        shown = (
            text
            if text in ("required", "section")
            else config.apply_overrides({}, [f"x={text.strip('`')}"])["x"]
        )
        assert shown == wanted, name


def test_every_recipe_is_in_the_table():
    text = read("tasks/README.md").split("### Top level")[0]
    assert all(f"`{path.stem}`" in text for path in (ROOT / "tasks" / "recipes").glob("*.yaml"))


def test_task_table_is_that_of_the_tasks():
    rows = re.findall(r"^\| (\d+) \| (\w+) \|.* \[(\w+)\.py\]\(([^)]+)\) \|$", read(ENGLISH), re.MULTILINE)
    assert len(rows) == 7
    for number, name, module, path in rows:
        task = tasks.load_tasks()[name]
        assert (task.task_id, task.generator) == (int(number), path.removesuffix(".py").replace("/", "."))
        assert module == name


def test_data_page_has_the_classes_and_connectives():
    text = read("docs/data.md")
    assert class_table(4) in text
    for language, first in (("zh", "1 但是"), ("en", "1 absolutely,")):
        shown = re.findall(r"(\d+) ([^|\n]+?)(?= \||\n)", text[text.index(first) :])
        names = connectives.class_names(language)[1:]
        assert [name.rstrip(",") for _, name in shown[: len(names)]] == names
        assert [int(number) for number, _ in shown[: len(names)]] == list(range(1, len(names) + 1))
