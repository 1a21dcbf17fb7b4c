"""python -m ernie2.convert SRC DST --to ernie2|paddlenlp|hf: weights from any released kind to another.

SRC: a folder of this project, PaddleNLP, Hugging Face (ERNIE or BERT), Baidu's dygraph package or fluid,
found out by itself; or a name that PaddleNLP can download (ernie-2.0-base-zh). DST: a new folder. What the
two sides compute differently, or what is not there, is printed."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ernie2.disk import as_umask_says, write_json
from ernie2.strict import ConfigError, cli
from ernie2.weights import EMBEDDINGS, WEIGHTS, Weights, hf_name, is_transposed, open_weights, read_object

TARGETS = ("ernie2", "paddlenlp", "hf")
_TASKS = EMBEDDINGS["task_type_vocab_size"]
_TASK_ROWS = 16  # of the released ERNIE 2.0
_ENCODER_KEYS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
)
_HEAD_KEYS = (
    "architectures",
    "id2label",
    "label2id",
    "num_labels",
    "finetune_task",
    "lower_case",
    "task_ids",
)
_HEADS = {
    "classifier.weight": "ErnieForSequenceClassification",
    "cls.predictions.decoder_bias": "ErnieForMaskedLM",
}


def convert(source: Weights, target: Path, to: str) -> list[str]:
    """Writes a new folder.

    Args:
        source: what to convert. target: a folder that does not exist or is empty. to: one of TARGETS.

    Returns:
        What the user should know, in lines.

    Raises:
        ConfigError: the target is there; a weight or key is missing, a weight is no number."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target}: exists; name a new folder")
    arrays, config = source.arrays(), source.config()
    keys = _config(source, arrays, config, to)
    notes = list(_notes(source, arrays, keys, to))
    if to == "ernie2" and _TASKS not in arrays:
        arrays[_TASKS] = np.zeros((_TASK_ROWS, keys["hidden_size"]), np.float32)
    arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    if to == "hf":
        span = keys.get("architectures") == ["ErnieForQuestionAnswering"]
        arrays = {hf_name(name, span): _turned(name, array) for name, array in arrays.items()}
    target.mkdir(parents=True, exist_ok=True)
    _write(target, arrays, keys, source, to)
    return notes


def _turned(name: str, array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.T) if is_transposed(name, array.shape) else array


def _write(target: Path, arrays: dict[str, np.ndarray], keys: dict, source: Weights, to: str) -> None:
    from safetensors.numpy import save_file

    save_file(arrays, str(target / WEIGHTS), {"format": "pt" if to == "hf" else "np"})
    as_umask_says(target / WEIGHTS)
    write_json(target / "config.json", keys)
    tokenizer = source.vocab_file.with_name("tokenizer_config.json")
    lower_case = read_object(tokenizer).get("do_lower_case", True) if tokenizer.is_file() else True
    name = "BertTokenizer" if to == "hf" else "ErnieTokenizer"
    write_json(
        target / "tokenizer_config.json",
        {
            "tokenizer_class": name,
            "do_lower_case": keys.get("lower_case", lower_case),
            "model_max_length": keys["max_position_embeddings"],
        },
    )
    if source.vocab_file.is_file():
        shutil.copyfile(source.vocab_file, target / "vocab.txt")


def _config(
    source: Weights, arrays: dict[str, np.ndarray], config: dict[str, Any], to: str
) -> dict[str, Any]:
    """config.json of the target: what the encoder computes, the rows that are there, its head."""
    from ernie2.encoder import EncoderConfig

    missing = [key for key in _ENCODER_KEYS[:5] if key not in config]
    if missing:
        raise ConfigError(f"{source.config_file}: lacks {', '.join(missing)}")
    absent = [
        name for key, name in EMBEDDINGS.items() if key != "task_type_vocab_size" and name not in arrays
    ]
    layers = [f"ernie.encoder.layers.{n}.norm2.weight" for n in range(config["num_hidden_layers"])]
    absent += [name for name in layers if name not in arrays]
    if absent:
        raise ConfigError(f"{source.file}: {', '.join(absent[:3])} is not in it; another kind of model?")
    for name, array in arrays.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ConfigError(f"{source.file}: {name} holds no finite floating-point numbers")
    rows = {key: len(arrays[name]) for key, name in EMBEDDINGS.items() if name in arrays}
    chosen = {key: config[key] for key in _ENCODER_KEYS if key in config} | rows
    if to == "ernie2":
        chosen.setdefault("task_type_vocab_size", _TASK_ROWS)
    keys = EncoderConfig.from_keys(chosen, str(source.config_file)).to_json()
    keys["use_task_id"] = to == "ernie2" or _TASKS in arrays
    keys["architectures"] = [next((head for name, head in _HEADS.items() if name in arrays), "ErnieModel")]
    return keys | {
        key: config[key] for key in _HEAD_KEYS if config.get(key) and config.get("model_type") != "bert"
    }


def _notes(source: Weights, arrays: dict[str, np.ndarray], keys: dict[str, Any], to: str) -> Iterator[str]:
    ours = [name for name in arrays if name.startswith(("ernie.", "cls.predictions.", "classifier."))]
    size = sum(arrays[name].size for name in ours)
    yield f"{source.file}: kind {source.kind}, {len(ours)} parameters of {size:,} numbers"
    others = [name for name in arrays if name not in ours]
    if others:
        yield f"kept under their own names: {', '.join(others[:4])}{', ...' if len(others) > 4 else ''}"
    shape = ("hidden_act", "max_position_embeddings", "type_vocab_size", "vocab_size")
    yield ", ".join(f"{key} {keys[key]}" for key in shape)
    epsilon = keys["layer_norm_eps"]
    yield f"layer_norm_eps {epsilon}" + (
        ": PaddleNLP computes with 1e-12 whatever config.json says, up to about 5e-4 off"
        if epsilon != 1e-12 and to == "paddlenlp"
        else ""
    )
    if _TASKS not in arrays:
        zero = f"{_TASK_ROWS} rows of 0 are written" if to == "ernie2" else "use_task_id is false"
        yield f"no task embedding: {zero}"
    if "cls.predictions.transform.weight" not in arrays:
        yield "no masked-LM head: it starts at random where one is trained"
    if "ernie.pooler.dense.weight" not in arrays:
        yield "no pooler: it starts at random where one is trained"
    if not source.vocab_file.is_file():
        yield f"no {source.vocab_file}: put the vocabulary into the new folder"
        return
    tokens = sum(1 for _ in source.vocab_file.open(encoding="utf-8"))
    if tokens > keys["vocab_size"]:
        raise ConfigError(
            f"{source.vocab_file}: {tokens} tokens, but the embedding has {keys['vocab_size']} rows"
        )
    if tokens < keys["vocab_size"]:
        yield f"{tokens:,} tokens in vocab.txt, {keys['vocab_size']:,} rows: the rest is padding"


def _download(name: str, folder: Path) -> Path:
    """A model by its name, through PaddleNLP; the encoder alone."""
    try:
        from paddlenlp.transformers import ErnieModel, ErnieTokenizer

        ErnieModel.from_pretrained(name).save_pretrained(str(folder), safe_serialization=True)
        ErnieTokenizer.from_pretrained(name).save_pretrained(str(folder))
    except Exception as error:  # noqa: BLE001 - whatever a network and a library raise
        why = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise ConfigError(
            f"{name}: no such folder, and PaddleNLP cannot download it ({why[0]:.200})"
        ) from None
    return folder


@cli
def main(argv: Sequence[str]) -> None:
    """Command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m ernie2.convert", description=__doc__, formatter_class=raw)
    parser.add_argument("source", help="folder, or a name that PaddleNLP can download")
    parser.add_argument("target", type=Path, help="folder to write")
    parser.add_argument("--to", choices=TARGETS, required=True)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="ernie2.") as scratch:
        there = Path(args.source).is_dir()
        folder = Path(args.source) if there else _download(args.source, Path(scratch) / "model")
        for note in convert(open_weights(folder), args.target, args.to):
            print(note)
    print(f"written to {args.target}")


if __name__ == "__main__":
    main()
