"""A fine-tuned model as `python -m ernie2.export` wrote it, run by Paddle or onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ernie2.disk import file_digest
from ernie2.encoder import EncoderConfig
from ernie2.strict import ConfigError
from ernie2.weights import read_object

EXPORT = "export.json"
INPUTS = ("token_ids", "sentence_ids", "lengths")


class Exported:
    """An exported model, called as the model it was made of; in evaluation mode for good."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError: a file is missing or not as it was exported; its runtime is not installed."""
        about = read_object(folder / EXPORT)
        for name, digest in about["files"].items():
            if not (folder / name).is_file() or file_digest(folder / name) != digest:
                raise ConfigError(
                    f"{folder / name}: not what {EXPORT} says was exported; export the model again"
                )
        self.config = EncoderConfig.from_json(folder / "config.json")
        threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
        self._run = {"paddle": _paddle, "onnx": _onnx}[about["to"]](folder, about["program"], threads)

    def __call__(
        self, token_ids: Any, sentence_ids: Any, task_id: int = 0, lengths: Any = None
    ) -> paddle.Tensor | tuple[paddle.Tensor, ...]:
        """Logits as of `ErnieForFinetuning`; the task id is the one it was exported with."""
        samples, width = token_ids.shape
        lengths = np.full(samples, width, np.int64) if lengths is None else lengths.numpy()
        found = self._run([token_ids.numpy(), sentence_ids.numpy(), lengths])
        return tuple(map(paddle.to_tensor, found)) if len(found) > 1 else paddle.to_tensor(found[0])

    def eval(self) -> None:
        """As of a layer."""

    def train(self) -> None:
        """As of a layer: nothing to train."""


def _paddle(folder: Path, program: str, threads: int) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
    from paddle import inference

    config = inference.Config(str(folder / program), str(folder / "model.pdiparams"))
    config.disable_glog_info()
    if paddle.get_device() == "cpu":
        config.set_cpu_math_library_num_threads(threads)
        config.delete_pass("seqpool_cvm_concat_fuse_pass")  # in paddle 2.6 it ends the process
    else:
        config.enable_use_gpu(256, 0)
    predictor = inference.create_predictor(config)

    def run(arrays: list[np.ndarray]) -> list[np.ndarray]:
        for name, array in zip(INPUTS, arrays, strict=True):
            predictor.get_input_handle(name).copy_from_cpu(np.ascontiguousarray(array))
        predictor.run()
        return [predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()]

    return run


def _onnx(folder: Path, program: str, threads: int) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError(f"{folder}: an ONNX model needs onnxruntime: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / program, options)
    names = [one.name for one in session.get_inputs()]
    return lambda arrays: session.run(
        None, {name: array for name, array in zip(INPUTS, arrays) if name in names}
    )
