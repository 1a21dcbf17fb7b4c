"""README.md of a saved model: what it was made of and with what settings, its scores, how to load it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ernie2 import __version__

CARD = "README.md"
_LOAD = """## Loading

```text
{here}
```

```python
from paddlenlp.transformers import {auto}, AutoTokenizer  # as it is

tokenizer, model = AutoTokenizer.from_pretrained("FOLDER"), {auto}.from_pretrained("FOLDER")
```

```python
# Hugging Face: python -m ernie2.convert FOLDER HF_FOLDER --to hf
from transformers import {auto}, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained("HF_FOLDER"), {auto}.from_pretrained("HF_FOLDER")
```
"""
AUTO = {
    "classification": "AutoModelForSequenceClassification",
    "regression": "AutoModelForSequenceClassification",
    "tagging": "AutoModelForTokenClassification",
    "span": "AutoModelForQuestionAnswering",
}


def finetuned(result: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Of a fine-tuned model: `result` is result.json, `settings` the task with its settings."""
    rows = []
    for split, metrics in result["metrics"].items():
        for metric, value in metrics.items():
            paper = result["paper"].get(split) if isinstance(result["paper"], dict) else None
            paper = (
                paper.get(metric, "")
                if isinstance(paper, dict)
                else paper
                if metric == next(iter(metrics))
                else ""
            )
            rows.append(
                (split, metric, f"{value:.2f}", f"{result['majority'][split][metric]:.2f}", paper or "")
            )
    data = ", ".join(f"{name} {part['samples']:,}" for name, part in result["data"].items())
    facts = {
        "task": f"{result['task']} ({result['kind']})",
        "started from": result["init_from"],
        "samples": data,
        "runs": f"{len(result['runs'])}, seeds {', '.join(str(run['seed']) for run in result['runs'])}",
    }
    scores = ["## Scores", "", "Percent, mean over the runs; the model is that of the best run on dev.", ""]
    scores += _table(("split", "metric", "score", "majority", "paper"), rows)
    load = _LOAD.format(
        here="python -m ernie2.predict FOLDER --input FILE --output FILE", auto=AUTO[result["kind"]]
    )
    return _page(f"{result['task']}: a fine-tuned ERNIE 2.0", facts, scores, settings, load)


def pretrained(recipe: Mapping[str, Any], step: int, tokens: int, parameters: int) -> str:
    """Of a pre-training checkpoint: `recipe` as resolved, tokens so far, number of parameters."""
    data, stages = recipe["data"], recipe["curriculum"]["stages"]
    sources = [*data["corpus"], *data["query_log"], *data["entity_dicts"]]
    facts = {
        "recipe": recipe["name"],
        "step": f"{step:,}, {tokens / 1e6:,.1f} M tokens",
        "parameters": f"{parameters:,}",
        "stages": " -> ".join(", ".join(stage) for stage in stages),
        "data": ", ".join(sources) or "see its index.json",
    }
    load = _LOAD.format(
        here="bash run_finetune.sh TASK.yaml init_from=FOLDER data_dir=FOLDER", auto="AutoModel"
    )
    return _page(f"{recipe['name']}: a pre-trained ERNIE 2.0", facts, [], recipe, load)


def _page(
    title: str, facts: Mapping[str, Any], scores: list[str], settings: Mapping[str, Any], load: str
) -> str:
    head = ["---", "tags: [ernie, ernie-2.0]", "library_name: paddlenlp", "---", "", f"# {title}", ""]
    facts = {**facts, "made by": f"ernie2 {__version__}{_commit()}"}
    lines = [*head, *_table(("", ""), facts.items()), "", *scores, ""]
    lines += [
        "## Settings",
        "",
        "```yaml",
        yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True).rstrip(),
    ]
    return "\n".join([*lines, "```", "", load])


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    cells = [list(head), *(list(map(str, row)) for row in rows)]
    first, *others = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in cells]
    return [first, "|" + "---|" * len(cells[0]), *others]


def _commit() -> str:
    """The checkout's commit, where it is one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return f" ({found.stdout.strip()})"
