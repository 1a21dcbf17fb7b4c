"""python -m ernie2.export MODEL OUT --to paddle|onnx: a fine-tuned model as a program of its own.

Before it finishes, its logits are compared with the source's on the text of examples/.
`python -m ernie2.predict OUT` and `python -m ernie2.serve OUT` run it. OUT: model.json or model.pdmodel,
model.pdiparams (paddle) or model.onnx; config.json, vocab.txt, tokenizer_config.json; export.json with the
digests of the program's files. Inputs are token_ids and sentence_ids, int64 (B, T), and lengths, int64 (B),
the real tokens of each row; outputs are the head's logits (start and end of an answer: two)."""

from __future__ import annotations

import argparse
import functools
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ernie2 import cpu
from ernie2.checkpoint import atomic_folder
from ernie2.disk import file_digest, size, write_json
from ernie2.exported import EXPORT, INPUTS, Exported
from ernie2.finetune.model import load_finetuned
from ernie2.strict import ConfigError, cli
from ernie2.tokenizer import Tokenizer

TOLERANCE = 1e-4
"""Logits may differ by as much, times the largest."""
_SHAPES = ((1, 16), (3, 29), (1, 128), (32, 64))
_TEXTS = ("examples/zh/encyclopedia_1.txt", "examples/en/corpus.txt")


class _Program(paddle.nn.Layer):
    """What is exported: the model with its task id."""

    def __init__(self, model: paddle.nn.Layer, task_id: int) -> None:
        super().__init__()
        self.model, self.task_id = model, task_id

    def forward(self, token_ids: paddle.Tensor, sentence_ids: paddle.Tensor, lengths: paddle.Tensor) -> Any:
        return self.model(token_ids, sentence_ids, self.task_id, lengths)


def export(model_dir: Path, out: Path, to: str) -> dict[str, Any]:
    """Exports a fine-tuned model.

    Returns:
        What was found: `difference` of logits, `bytes`, and by (B, T) the milliseconds of source and export.

    Raises:
        ConfigError: not a fine-tuned model, `out` is there, no converter, the export computes something else.
    """
    if out.exists():
        raise ConfigError(f"{out}: exists; name a new folder")
    if to == "onnx":
        _check_converter()
    model, task, tokenizer = load_finetuned(model_dir)
    if isinstance(model, Exported):
        raise ConfigError(f"{model_dir}: is an export itself; name the fine-tuned model's folder")
    folder = model_dir if (model_dir / "config.json").is_file() else model_dir / "best"
    found: dict[str, Any] = {}

    def write(tmp: Path) -> None:
        _save(model, task.task_id, tmp, to)
        program = next(path.name for path in tmp.iterdir() if path.suffix in (".json", ".pdmodel", ".onnx"))
        files = {path.name: file_digest(path) for path in sorted(tmp.iterdir())}
        write_json(tmp / EXPORT, {"to": to, "program": program, "paddle": paddle.__version__, "files": files})
        for name in ("config.json", "vocab.txt", "tokenizer_config.json"):
            if (folder / name).is_file():
                (tmp / name).write_bytes((folder / name).read_bytes())
        found.update(_compare(model, Exported(tmp), task.task_id, _text(tokenizer)))
        found["bytes"] = sum((tmp / name).stat().st_size for name in files)

    atomic_folder(out, write)
    return found


def _save(model: paddle.nn.Layer, task_id: int, folder: Path, to: str) -> None:
    shapes = ([None, None], [None, None], [None])
    spec = [paddle.static.InputSpec(shape, "int64", name) for shape, name in zip(shapes, INPUTS, strict=True)]
    layer = _Program(model, task_id)
    layer.eval()
    cpu.prepare(enabled=False)  # the CPU's own ways are no operators of a program
    try:
        if to == "paddle":
            paddle.jit.save(
                paddle.jit.to_static(layer, input_spec=spec, full_graph=True), str(folder / "model")
            )
            for rest in folder.glob("*.info"):
                rest.unlink()
        else:
            paddle.onnx.export(layer, str(folder / "model"), input_spec=spec, opset_version=17)
            shutil.rmtree(folder / "paddle_model_temp_dir", ignore_errors=True)  # left by paddle2onnx 1.3
    finally:
        cpu.prepare()


def _check_converter() -> None:
    """Raises ConfigError where paddle2onnx or onnxruntime is missing, or not for this paddle."""
    try:
        import onnxruntime  # noqa: F401
        import paddle2onnx  # noqa: F401
    except (ImportError, ValueError) as error:  # ValueError: paddle2onnx refuses an older paddle
        fitting = "paddle2onnx==1.3.1" if paddle.__version__ < "3" else "paddle2onnx"
        reason = str(error).partition(". ")[0]
        raise ConfigError(f"--to onnx: {reason}: pip install {fitting} onnxruntime") from None


def _text(tokenizer: Tokenizer) -> np.ndarray:
    """Token ids of real text, of the language that the vocabulary knows better."""
    files = [Path(__file__).resolve().parent.parent / name for name in _TEXTS]
    streams = [tokenizer.encode(file.read_text(encoding="utf-8")).ids for file in files]
    return min(streams, key=lambda ids: np.mean(ids == tokenizer.vocab.unk_id)).astype(np.int64)


def _compare(model: Any, exported: Exported, task_id: int, text: np.ndarray) -> dict[str, Any]:
    """The largest difference of logits and the times of both. Raises ConfigError: they differ."""
    worst, times, begin = 0.0, {}, 0
    for samples, width in _SHAPES:
        width = min(width, model.config.max_position_embeddings)
        token_ids = np.resize(np.roll(text, -begin), (samples, width))
        begin += samples * width
        sentences = (np.arange(width) > width // 2).astype(np.int64)[None].repeat(samples, 0)
        lengths = np.maximum(width - np.arange(samples) * 2, 2)
        batch = [*map(paddle.to_tensor, (token_ids, sentences))]
        batch += [task_id, paddle.to_tensor(lengths)]
        with paddle.no_grad():
            both = [_timed(functools.partial(one, *batch)) for one in (model, exported)]
        (ours, mine), (theirs, its) = both
        times[samples, width] = (mine, its)
        for source, other in zip(*(x if isinstance(x, tuple) else (x,) for x in (ours, theirs)), strict=True):
            real = _real(source.numpy(), lengths)
            gap = np.abs(real - _real(other.numpy(), lengths)).max() / max(np.abs(real).max(), 1.0)
            worst = max(worst, float(gap))
    if not worst < TOLERANCE:
        raise ConfigError(f"the export's logits differ from the model's by {worst:.2g}; it was not kept")
    return {"difference": worst, "milliseconds": times}


def _real(logits: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Logits of real tokens: what stands on padding means nothing."""
    if logits.ndim == 1 or logits.ndim == 2 and logits.shape[1] < lengths.max():
        return logits
    return logits[np.arange(logits.shape[1]) < lengths[:, None]]


def _timed(call: Callable[[], Any], rounds: int = 5) -> tuple[Any, float]:
    """What it returns, and the median milliseconds of a call."""
    result, times = call(), []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - begin))
    return result, float(np.median(times))


@cli
def main(argv: Sequence[str]) -> None:
    """Command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m ernie2.export", description=__doc__, formatter_class=raw)
    parser.add_argument(
        "model", type=Path, help="a fine-tuned model's folder (best/), or the out_dir that holds it"
    )
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--to", choices=("paddle", "onnx"), default="paddle")
    args = parser.parse_args(argv)
    found = export(args.model, args.out, args.to)
    print(f"{args.out}: {size(found['bytes'])}, logits equal to {found['difference']:.1e}")
    for (samples, width), (ours, its) in found["milliseconds"].items():
        print(f"  {samples} x {width} tokens: {its:.2f} ms, the model itself {ours:.2f} ms")


if __name__ == "__main__":
    main()
