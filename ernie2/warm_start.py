"""Starting from the weights of another run: what fits is copied, what does not is said, what must be there
stops the run.

Released families differ in the heights of their embeddings (2 or 4 sentence types, 512, 513 or 2,048
positions, 0, 3 or 16 task rows, a token embedding padded beyond the vocabulary). Rows that are there are
copied; all else of the encoder has to be there in the model's own shape. No tensors here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from ernie2.logs import logger
from ernie2.strict import ConfigError
from ernie2.weights import EMBEDDINGS, open_weights

_TOKEN_ROWS = (EMBEDDINGS["vocab_size"], "cls.predictions.decoder_bias")
_TASKS = EMBEDDINGS["task_type_vocab_size"]
_KINDS = {
    r"ernie\.encoder\.layers\.(\d+)\.": r"layer \1",
    r"ernie\.embeddings\.word_embeddings\.": "token embedding",
    r"ernie\.embeddings\.position_embeddings\.": "position embedding",
    r"ernie\.embeddings\.token_type_embeddings\.": "sentence embedding",
    r"ernie\.embeddings\.task_type_embeddings\.": "task embedding",
    r"ernie\.embeddings\.": "LayerNorm of the embeddings",
    r"ernie\.pooler\.": "pooler",
    r"cls\.predictions\.": "masked-LM head",
}


def kind_of(name: str) -> str:
    """What a parameter belongs to: `layer 3`, `sentence embedding`, `pooler`, ..."""
    found = ((re.match(pattern, name), kind) for pattern, kind in _KINDS.items())
    return next((match.expand(kind) for match, kind in found if match), name.rpartition(".")[0] or name)


def start_from(
    model: Any, folder: str | Path, tokens: int, least: float, key: str, skip: str = "no head"
) -> None:
    """Copies a checkpoint's weights into a model (a paddle Layer) and logs what became of each part.

    Args:
        model: with its first weights already drawn; what the checkpoint lacks keeps them, a task embedding
            gets zeros.
        folder: of any kind that ernie2.weights reads.
        tokens: of the vocabulary: rows of the token embedding that are needed.
        least: share of the encoder's parameters (their elements) that has to be found.
        key: the setting that names the folder, for messages.
        skip: parameters of this prefix are left as they are.

    Raises:
        ConfigError: the token embedding, a layer or another part of the encoder is missing or of another
            shape, the checkpoint has layers that the model has not, or the share is too small; names it."""
    arrays = open_weights(folder, key).arrays()
    wrong, notes, found, wanted = [], [], 0, 0
    for name, parameter in model.named_parameters():
        array = arrays.pop(name, None)
        if name.startswith(skip):
            continue
        fitted, note = _fitted(name, array, parameter, tokens)
        size = parameter.size if name.startswith("ernie.") else 0
        wanted += size
        if fitted is not None:
            _check_numbers(f"{folder}: {name}", fitted if array is None else array)
            parameter.set_value(fitted.astype(np.float32))
            found += 0 if array is None else min(array.size, size)
            notes += [note] if note else []
        elif size and (array is not None or kind_of(name) != "pooler"):
            wrong.append(note)
        else:
            notes.append(f"{note}: it starts at random")
    kinds = dict.fromkeys(map(kind_of, arrays))
    wrong += [f"its {kind} has no place here" for kind in kinds if kind.startswith("layer ")]
    _refuse(wrong, found / wanted, least, folder, key)
    share = f"{100 * found / wanted:.2f}% of the encoder's {wanted:,} parameters"
    logger.info("weights from %s: %s", folder, share)
    for note in notes:
        logger.warning("  %s", note)
    if arrays:
        logger.info("  not used: %s", ", ".join(sorted(arrays)[:6]) + (", ..." if len(arrays) > 6 else ""))


def _fitted(
    name: str, array: np.ndarray | None, parameter: Any, tokens: int
) -> tuple[np.ndarray | None, str]:
    """The array in the parameter's shape, None where it cannot be; and what the user should know of it."""
    shape, kind = list(parameter.shape), kind_of(name)
    if array is None and name == _TASKS:
        return np.zeros(shape, np.float32), f"the {kind} is missing: all {shape[0]} rows are 0"
    if array is None:
        return None, f"the {kind} is missing ({name})"
    there = list(array.shape)
    if there == shape:
        return array, ""
    rows_may_differ = name in (*EMBEDDINGS.values(), *_TOKEN_ROWS) and there[1:] == shape[1:] and there
    if not rows_may_differ or name in _TOKEN_ROWS and min(there[0], shape[0]) < tokens:
        return None, f"the {kind} is of another shape, {there} there and {shape} here ({name})"
    note = f"{kind}: {there[0]:,} rows there, {shape[0]:,} here"
    if there[0] > shape[0]:
        return array[: shape[0]], f"{note}, the first are taken"
    if name == _TASKS or not there[0]:
        rest, note = np.zeros(shape, np.float32), f"{note}, further ones are 0"
    elif name in _TOKEN_ROWS:
        rest, note = parameter.astype("float32").numpy(), f"{note}, further ones are padding"
    else:
        rest, note = np.resize(array, shape), f"{note}, further ones are the first ones again"
    return np.concatenate([array, rest[there[0] :]]), note


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


def check_same_function(folder: str | Path, config: dict[str, Any], key: str) -> None:
    """Refuses a model that would compute something else from a checkpoint's weights, though all shapes fit.

    Args:
        folder: the checkpoint; without a config.json nothing can be compared, which is logged.
        config: this model's, under the names of config.json.
        key: the setting that names the folder."""
    weights = open_weights(folder, key)
    path = weights.config_file
    if not path.is_file():
        logger.warning("%s: no such file; activation and heads cannot be compared with the model's", path)
        return
    theirs = config | weights.config()
    for name, remedy in (
        ("hidden_act", "set model.hidden_act to it"),
        ("num_attention_heads", "model.size has to be the checkpoint's"),
    ):
        if theirs[name] != config[name]:
            raise ConfigError(
                f"{key}: {folder} was trained with {name} {theirs[name]}, this model has {config[name]}; "
                f"{remedy}"
            )
    if (epsilon := theirs["layer_norm_eps"]) != config["layer_norm_eps"]:
        logger.warning("  layer_norm_eps: %s in %s, %s here", epsilon, path, config["layer_norm_eps"])
