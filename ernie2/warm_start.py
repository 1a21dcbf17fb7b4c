"""Starting from the weights of another run: what fits is copied, what does not is said, what must be there
stops the run.

Released families differ in the heights of their embeddings (2 or 4 sentence types, 512, 513 or 2,048
positions, 0, 3 or 16 task rows, a token embedding padded beyond the vocabulary). Rows that are there are
copied; all else of the encoder has to be there in the model's own shape. No tensors here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from ernie2.logs import logger
from ernie2.strict import ConfigError

WEIGHTS = "model.safetensors"
EMBEDDINGS = {
    "vocab_size": "ernie.embeddings.word_embeddings.weight",
    "max_position_embeddings": "ernie.embeddings.position_embeddings.weight",
    "type_vocab_size": "ernie.embeddings.token_type_embeddings.weight",
    "task_type_vocab_size": "ernie.embeddings.task_type_embeddings.weight",
}
"""Key of config.json -> the parameter whose rows it counts."""
_NAMES = {"word": "token", "position": "position", "token_type": "sentence", "task_type": "task"}
_TOKEN_ROWS = (EMBEDDINGS["vocab_size"], "cls.predictions.decoder_bias")
_TASKS = EMBEDDINGS["task_type_vocab_size"]


def _read(path: Path, read: Any) -> Any:
    """read(file name), with what the safetensors library raises as a ConfigError."""
    try:
        return read(str(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; a checkpoint folder holds {path.name}") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: not a safetensors file of float32 or float16 arrays: {error}; of another kind, save it "
            f"anew as float32"
        ) from None


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads a safetensors file. Raises ConfigError when missing or damaged."""
    return _read(path, load_file)


def embedding_rows(folder: str | Path) -> dict[str, int]:
    """Key of config.json -> rows that the checkpoint's embedding really has; without what is not in it.

    Reads the file's header alone. Raises ConfigError when the file is missing or damaged."""

    def read(name: str) -> dict[str, list[int]]:
        with safe_open(name, "np") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 - no mapping

    shapes = _with_prefix(_read(Path(folder) / WEIGHTS, read))
    return {key: shapes[name][0] for key, name in EMBEDDINGS.items() if shapes.get(name)}


def _with_prefix(named: dict[str, Any]) -> dict[str, Any]:
    """An encoder that was saved alone has names without `ernie.`."""
    return (
        named
        if any(name.startswith("ernie.") for name in named)
        else {f"ernie.{key}": named[key] for key in named}
    )


def kind_of(name: str) -> str:
    """What a parameter belongs to, in words: `layer 3`, `sentence embedding`, `pooler`, ..."""
    if match := re.match(r"ernie\.encoder\.layers\.(\d+)\.", name):
        return f"layer {match[1]}"
    if match := re.match(r"ernie\.embeddings\.(\w+)_embeddings\.", name):
        return f"{_NAMES.get(match[1], match[1])} embedding"
    for prefix, kind in (
        ("ernie.embeddings.", "LayerNorm of the embeddings"),
        ("ernie.pooler.", "pooler"),
        ("cls.predictions.", "masked-LM head"),
    ):
        if name.startswith(prefix):
            return kind
    return ".".join(name.split(".")[:-1]) or name


def start_from(
    model: Any, folder: str | Path, tokens: int, least: float, key: str, skip: str = "no head"
) -> None:
    """Copies a checkpoint's weights into a model (a paddle Layer) and logs what became of each part.

    Args:
        model: with its first weights already drawn; what the checkpoint lacks keeps them, a task embedding
            gets zeros.
        folder: holds model.safetensors, of this project or saved by PaddleNLP.
        tokens: of the vocabulary: rows of the token embedding that are needed.
        least: share of the encoder's parameters (their elements) that has to be found.
        key: the setting that names the folder, for messages.
        skip: parameters of this prefix are left as they are.

    Raises:
        ConfigError: the token embedding, a layer or another part of the encoder is missing or of another
            shape, the checkpoint has layers that the model has not, or the share is too small; names it."""
    arrays = _with_prefix(read_arrays(Path(folder) / WEIGHTS))
    wrong, said, found, wanted = [], [], 0, 0
    for name, parameter in model.named_parameters():
        array, shape, kind = arrays.pop(name, None), list(parameter.shape), kind_of(name)
        if name.startswith(skip):
            continue
        in_encoder = name.startswith("ernie.")
        wanted += parameter.size if in_encoder else 0
        if array is None and name == _TASKS:
            array = np.zeros((0, shape[1]), np.float32)
        if array is None or list(array.shape) != shape and not _may_differ(name, array, shape, tokens):
            there = "missing" if array is None else f"of another shape, {list(array.shape)} there"
            what = f"the {kind} is {there}{'' if array is None else f' and {shape} here'} ({name})"
            if in_encoder and (array is not None or kind != "pooler"):
                wrong.append(what)
            else:
                said.append(f"{what}: it starts at random")
            continue
        _check_numbers(f"{folder}: {name}", array)
        said += _rows_copied(name, array, shape)
        parameter.set_value(_fitted(name, array.astype(np.float32), parameter))
        found += min(array.size, parameter.size) if in_encoder else 0
    kinds = dict.fromkeys(map(kind_of, arrays))
    wrong += [f"its {kind} has no place here" for kind in kinds if kind.startswith("layer ")]
    _refuse(wrong, found / wanted, least, folder, key)
    logger.info(
        "weights from %s: %.2f%% of the encoder's %s parameters", folder, 100 * found / wanted, f"{wanted:,}"
    )
    for line in said:
        logger.warning("  %s", line)
    if arrays:
        logger.info("  not used: %s", ", ".join(sorted(arrays)[:6]) + (", ..." if len(arrays) > 6 else ""))


def _rows_copied(name: str, array: np.ndarray, shape: list[int]) -> list[str]:
    """What is to be said where a checkpoint has more or fewer rows than the model."""
    kind = kind_of(name)
    if not len(array):
        return [f"the {kind} is missing: all {shape[0]} rows are 0, which changes nothing"]
    if len(array) == shape[0]:
        return []
    return [f"{kind}: {len(array):,} rows there, {shape[0]:,} here{_rest_in_words(name, array, shape)}"]


def _refuse(wrong: list[str], share: float, least: float, folder: str | Path, key: str) -> None:
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ConfigError(
            f"{key}: {folder} does not fit this model: {'; '.join(wrong[:3])}{more}; check the model's size, "
            f"its vocabulary and the folder"
        )
    if share < least:
        raise ConfigError(
            f"{key}: only {share:.0%} of the encoder's parameters are in {folder}, "
            f"init_min_match asks for {least:.0%}"
        )


def _check_numbers(where: str, array: np.ndarray) -> None:
    if array.dtype.kind != "f":
        raise ConfigError(f"{where} holds {array.dtype}, expected floating-point weights")
    if not np.isfinite(array).all():
        raise ConfigError(f"{where} holds values that are not finite numbers; the run it comes from diverged")


def _may_differ(name: str, array: np.ndarray, shape: list[int], tokens: int) -> bool:
    """Whether an array that has other rows than the parameter can be fitted."""
    if name not in (*EMBEDDINGS.values(), *_TOKEN_ROWS) or list(array.shape[1:]) != shape[1:]:
        return False
    return name not in _TOKEN_ROWS or min(len(array), shape[0]) >= tokens


def _fitted(name: str, array: np.ndarray, parameter: Any) -> np.ndarray:
    """The array with as many rows as the parameter: further ones are as `_rest_in_words` says."""
    rows = parameter.shape[0]
    if len(array) >= rows:
        return array[:rows]
    if name == _TASKS:
        return np.concatenate([array, np.zeros((rows - len(array), *array.shape[1:]), np.float32)])
    if name in _TOKEN_ROWS:
        return np.concatenate([array, parameter.astype("float32").numpy()[len(array) :]])
    return np.resize(array, (rows, *array.shape[1:]))


def _rest_in_words(name: str, array: np.ndarray, shape: list[int]) -> str:
    if len(array) >= shape[0]:
        return ", the first are taken"
    rest = (
        "0, which changes nothing"
        if name == _TASKS
        else "padding"
        if name in _TOKEN_ROWS
        else "the first ones again"
    )
    return f", further ones are {rest}"


def check_same_function(folder: str | Path, config: dict[str, Any], key: str) -> None:
    """Refuses a model that would compute something else from a checkpoint's weights, though all shapes fit.

    Args:
        folder: the checkpoint; without a config.json nothing can be compared, which is said.
        config: this model's, under the names of config.json.
        key: the setting that names the folder."""
    path = Path(folder) / "config.json"
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        logger.warning(
            "%s: no such file; whether activation and heads are the checkpoint's cannot be checked", path
        )
        return
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not readable: {error}") from None
    if not isinstance(theirs, dict):
        raise ConfigError(f"{path}: not an encoder configuration: expected an object")
    for name in ("hidden_act", "num_attention_heads"):
        if name in theirs and theirs[name] != config[name]:
            remedy = (
                "set model.hidden_act to it"
                if name == "hidden_act"
                else "model.size has to be the checkpoint's"
            )
            raise ConfigError(
                f"{key}: {folder} was trained with {name} {theirs[name]}, this model has {config[name]}; "
                f"{remedy}"
            )
    if theirs.get("layer_norm_eps", config["layer_norm_eps"]) != config["layer_norm_eps"]:
        logger.warning(
            "  layer_norm_eps: %s in %s, %s here (as the recipe says)",
            theirs["layer_norm_eps"],
            path,
            config["layer_norm_eps"],
        )
