"""Predictions of a fine-tuned model: python -m ernie2.predict MODEL_DIR --input F --output F [--nbest F]

Input: the task's own format (.tsv with a header, SQuAD .json for span; .gz as it is); labels in it are not
looked at. Output: one JSON object a line for each line of data, in the order of the input: `line` (its line
there) and, where the input has such a column, `id`; `label` and `probabilities` (classification), `score`
(regression), `text`, `tags` and `entities` with character offsets (tagging; a tag for each of the `tokens`
that the input gives, else for each character). For span one JSON object {question id: answer}, as the
official evaluators read it."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ernie2 import logs
from ernie2.disk import replacing
from ernie2.finetune.data import tokenise
from ernie2.finetune.features import decode, rounded, write_nbest
from ernie2.finetune.model import load_finetuned, run_model
from ernie2.finetune.readers import Split, read_rows, read_split, tagged
from ernie2.finetune.tables import STDIN, form_of
from ernie2.finetune.task import FinetuneTask
from ernie2.out_dir import ORIGIN
from ernie2.strict import ConfigError, cli, make_folder
from ernie2.tokenizer import Tokenizer

MICRO_TOKENS = 8192
CHUNK = 4096  # rows in memory at a time
# Files of fine-tuning that no prediction is written over.
WRITTEN = "*.safetensors config.json vocab.txt *.yaml best/* predictions/* origin.json runs.json result.json "
WRITTEN += "train.jsonl metrics.jsonl"


def predict_file(
    model_dir: str | Path, source: str | Path, target: str | Path, nbest: str | Path | None = None
) -> int:
    """Predicts every sample of `source` and writes predictions, whole or not at all. Returns their number.

    model_dir: what fine-tuning saved: best/, or the out_dir that holds it. nbest: of span, {question id:
    [{text, probability, start, end}, ...]} goes there. Raises ConfigError: not a fine-tuned model, another
    format, or (before the model is loaded) outputs that cannot be written or would be written over something.
    """
    source, target, model_dir = Path(source), Path(target), Path(model_dir)
    run = model_dir.parent if (model_dir.parent / ORIGIN).is_file() else model_dir
    written = [path for folder in (model_dir, run) for name in WRITTEN.split() for path in folder.glob(name)]
    taken = {"the input": [source], "a file of the model or of its run": written}
    target = target if target == STDIN else check_output("--output", target, taken)
    if nbest is not None:
        nbest = check_output("--nbest", nbest, taken | {"--output": [target]})
    model, task, tokenizer = load_finetuned(model_dir)
    _check_form(source, task, target, nbest)
    with _writing(target) as write:
        if task.kind != "span":
            return _by_chunks(model, task, tokenizer, source, write)
        part = read_split(source, "input", task, labels="ignored")
        tokenise(part, tokenizer, task)
        outputs = run_model(model, part, task, tokenizer.vocab.pad_id, MICRO_TOKENS, "fp32")
        records = decode(task, part.samples, part.features, outputs)
        write_nbest(records, nbest)
        write({record["id"]: record["answer"] for record in records})
    return len(records)


def _check_form(source: Path, task: FinetuneTask, target: Path, nbest: Path | None) -> None:
    forms = {"span": ("json",), "tagging": ("tsv", "csv", "jsonl", "conll")}.get(
        task.kind, ("tsv", "csv", "jsonl")
    )
    if task.kind != "span" and nbest is not None:
        raise ConfigError(f"--nbest: only span models have n-best answers; this one is of kind {task.kind}")
    if source != STDIN and not source.is_file():
        raise ConfigError(f"--input: no file {source}")
    if source == STDIN and task.kind == "span" or source != STDIN and form_of(source) not in forms:
        wanted = f"a {task.kind} model reads {', '.join(f'.{form}' for form in forms)} files (also .gz)"
        raise ConfigError(f"--input: {source}: {wanted}; convert it")
    if target.suffix == ".tsv" and task.kind not in ("classification", "regression"):
        raise ConfigError(
            f"--output: {target}: a submission of GLUE is of classes or numbers; name a .jsonl file"
        )


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[Callable[[dict], None]]:
    """Writes records as they come, a JSON object a line, or GLUE's submission; a file whole or not at all."""
    with contextlib.ExitStack() as stack:
        if target == STDIN:
            file = sys.stdout
        else:
            file = stack.enter_context(stack.enter_context(replacing(target)).open("w", encoding="utf-8"))
        if target.suffix == ".tsv":
            file.write("index\tprediction\n")
            rows = itertools.count()
            yield lambda one: file.write(f"{next(rows)}\t{one.get('label', one.get('score'))}\n")
        else:
            yield lambda one: file.write(json.dumps(rounded(one), ensure_ascii=False) + "\n")
        file.flush()


def _by_chunks(
    model: Any, task: FinetuneTask, tokenizer: Tokenizer, source: Path, write: Callable[[dict], None]
) -> int:
    """Reads, predicts and writes CHUNK rows at a time, so that memory does not grow with the file."""
    counts: Counter[str] = Counter()
    rows, done = read_rows(source, task, "ignored", counts), 0
    while samples := list(itertools.islice(rows, CHUNK)):
        samples = [
            tagged(row, task, False, counts) if task.kind == "tagging" else replace(row, label=None)
            for row in samples
        ]
        part = Split("input", source, samples, False, Counter())
        tokenise(part, tokenizer, task, log=not done)
        outputs = run_model(model, part, task, tokenizer.vocab.pad_id, MICRO_TOKENS, "fp32")
        for record in decode(task, part.samples, part.features, outputs):
            write(record)
        counts.update(part.counts)
        done += len(samples)
    if not done:
        raise ConfigError(
            f"{source}: no samples in it ({dict(+counts)}); expected a header line and one sample a line"
        )
    if noted := ", ".join(f"{count} {what}" for what, count in counts.items() if count and "UNK" not in what):
        logs.logger.info("%s: %s", source, noted)
    return done


def check_output(key: str, path: str | Path, taken: Mapping[str, Sequence[Path]]) -> Path:
    """The file that an option names, links followed; the folder of --output is made, and both are tried out.

    `taken` are files that must not be written over, by what they are. Raises ConfigError naming the option.
    """
    try:
        target = Path(path).resolve()
        there = target.exists()  # a hard link has another name
        wrong = [
            f"is {what}, which would be written over"
            for what, files in taken.items()
            for file in files
            if file.resolve() == target or there and file.exists() and file.samefile(target)
        ]
        if there and not target.is_file():
            wrong.append("is no ordinary file")
        if target.suffix in (".gz", ".bz2", ".zst"):
            wrong.append("is compressed, but predictions are not")
        if wrong:
            raise ConfigError(f"{key}: {path} {wrong[0]}; name another file, .json or .jsonl")
        if key == "--output":
            make_folder(target.parent, key)
        with tempfile.TemporaryFile(dir=target.parent):
            return target
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{key}: {path} cannot be written: {reason}; name another file") from None


def main(argv: list[str]) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m ernie2.predict", description=__doc__.split("\n\n")[0])
    parser.add_argument("model_dir", help="a fine-tuned model's folder (best/), or the out_dir that holds it")
    parser.add_argument(
        "--input", required=True, help="data in the task's format; - is standard input, as TSV"
    )
    parser.add_argument(
        "--output",
        required=True,
        help="predictions: .jsonl, for span .json; .tsv: GLUE's submission; -: standard output",
    )
    parser.add_argument("--nbest", help="n-best answers of a span model: .json")
    args = parser.parse_args(argv)
    logs.setup(0)
    count = predict_file(args.model_dir, args.input, args.output, args.nbest)
    logs.logger.info("%d predictions in %s", count, args.output)


if __name__ == "__main__":
    cli(main)()
