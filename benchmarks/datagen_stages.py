"""Where a megabyte goes: the product's own run with a stopwatch in front of its functions, for information.

Each stage's time is its own, without that of the stages it calls, so that they sum up to the whole.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ernie2.config import load_recipe
from ernie2.tasks import select_tasks

STAGES = (
    # stage, module, name there (Class.method or function), whether it is a generator
    ("load segmenter, vocabulary, lexicon", "data_gen.provenance", "load_segmenter", False),
    ("load segmenter, vocabulary, lexicon", "data_gen.block_work", "_annotator", False),
    ("digests of input", "data_gen.provenance", "file_digest", False),
    ("read", "data_gen.job", "read_pieces", True),
    ("parse", "data_gen.block_work", "parse_block", False),
    ("dev split", "data_gen.block_work", "is_dev", False),
    ("sentences", "data_gen.text.annotate", "sentence_spans", False),
    ("tokens", "ernie2.tokenizer", "Tokenizer.encode", False),
    ("segmentation", "data_gen.text.segmenters", "RustJieba.stops", False),
    ("segmentation", "data_gen.text.segmenters", "Jieba.stops", False),
    ("words, phrases, entities", "data_gen.text.words", "ChineseUnits.find", False),
    ("documents of tokens", "data_gen.text.annotate", "Annotator.documents", False),
    ("documents of tokens", "data_gen.text.annotate", "Annotator.pairs", False),
    ("generators", "data_gen.generators", "Generator.generate", True),
    ("assemble", "data_gen.block_work", "assemble", False),
    ("spill", "data_gen.block_work", "write_spill", False),
    ("merge, write shards", "data_gen.job", "merge_buckets", False),
    ("merge, write shards", "data_gen.job", "finish_task", False),
)
REST = "everything else"


class Stopwatch:
    """Time by stage: the stage entered last runs, the others stand still.

    Args:
        clock: Seconds; processor time by default, which other load on the machine disturbs least.
    """

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self.seconds: Counter[str] = Counter()
        self._stack, self._clock, self._since = [REST], clock, clock()

    def enter(self, stage: str) -> None:
        """A stage begins."""
        self._charge()
        self._stack.append(stage)

    def leave(self) -> None:
        """The stage entered last ends."""
        self._charge()
        self._stack.pop()

    def _charge(self) -> None:
        now = self._clock()
        self.seconds[self._stack[-1]] += now - self._since
        self._since = now

    def timed(self, stage: str, function: Callable, *args: Any, **kwargs: Any) -> Any:
        """Calls a function as part of a stage."""
        self.enter(stage)
        try:
            return function(*args, **kwargs)
        finally:
            self.leave()

    def wrapped(self, stage: str, function: Callable, is_generator: bool) -> Callable:
        """The function, timed; of a generator each step."""
        @functools.wraps(function)
        def plain(*args: Any, **kwargs: Any) -> Any:
            return self.timed(stage, function, *args, **kwargs)

        @functools.wraps(function)
        def steps(*args: Any, **kwargs: Any) -> Iterator[Any]:
            iterator, end = iter(self.timed(stage, function, *args, **kwargs)), object()
            while (item := self.timed(stage, next, iterator, end)) is not end:
                yield item

        return steps if is_generator else plain


def missing_stages() -> list[str]:
    """Names in STAGES that the product does not have (any more)."""
    return [f"{module}.{name}" for _, module, name, _ in STAGES if _find(module, name) is None]


def time_stages(recipe_file: Path, megabytes: float) -> dict[str, Any]:
    """Runs data generation in this process, one worker.

    Args:
        recipe_file: Its recipe; the shards must not be there yet.
        megabytes: MB of text that it names.

    Returns:
        {"ms_per_mb": {stage: milliseconds of processor time}, "missing": stages that could not be timed and are part of others}.
    """
    from data_gen.pipeline import build_shards

    recipe = load_recipe(recipe_file)
    tasks = select_tasks(recipe.task_names(), str(recipe_file))
    watch = Stopwatch()
    for stage, module, name, is_generator in STAGES:
        found = _find(module, name)
        if found is not None:
            owner, attribute, function = found
            setattr(owner, attribute, watch.wrapped(stage, function, is_generator))
    watch.enter(REST)
    build_shards(recipe, tasks, 1, out=lambda line: None)
    watch.leave()
    order = [*dict.fromkeys(stage for stage, *_ in STAGES), REST]
    return {"ms_per_mb": {stage: watch.seconds[stage] * 1e3 / megabytes for stage in order if stage in watch.seconds},
            "missing": missing_stages()}


def _find(module: str, name: str) -> tuple[Any, str, Callable] | None:
    owner: Any = importlib.import_module(module)
    *classes, attribute = name.split(".")
    for one in classes:
        owner = getattr(owner, one, None)
    function = getattr(owner, attribute, None)
    return (owner, attribute, function) if callable(function) else None
