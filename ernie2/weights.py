"""Weights of every released kind of ERNIE, read under PaddleNLP's names; nothing in a file is executed.

| kind | folder |
|---|---|
| paddlenlp | model.safetensors (this project's too) or model_state.pdparams; config.json |
| hf | model.safetensors under Hugging Face's names of ERNIE or BERT; config.json |
| dygraph | Baidu's package: saved_weights.pdparams, ernie_config.json |
| fluid | Baidu's first releases: one file a variable, in the folder or its params/; ernie_config.json |"""

from __future__ import annotations

import json
import math
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from ernie2.strict import ConfigError

WEIGHTS = "model.safetensors"
_PDPARAMS = "model_state.pdparams", "saved_weights.pdparams"
_CONFIGS = "config.json", "ernie_config.json"
EMBEDDINGS = {
    "vocab_size": "ernie.embeddings.word_embeddings.weight",
    "max_position_embeddings": "ernie.embeddings.position_embeddings.weight",
    "type_vocab_size": "ernie.embeddings.token_type_embeddings.weight",
    "task_type_vocab_size": "ernie.embeddings.task_type_embeddings.weight",
}
"""Key of config.json -> the parameter whose rows it counts."""

# Family -> the pattern of a name (layer, piece, end), and its pieces under PaddleNLP's names.
_EMBEDDINGS = {"word": "word", "pos": "position", "sent": "token_type", "task": "task_type"}
_HEAD = "cls.predictions"
_NAMES = {
    "hf": (
        r"(?:ernie\.|bert\.)?(?:encoder\.layer\.(\d+)\.)?(.+?)\.(weight|bias|gamma|beta)",
        {
            **{piece: piece for piece in (f"embeddings.{kind}_embeddings" for kind in _EMBEDDINGS.values())},
            "embeddings.LayerNorm": "embeddings.layer_norm",
            "attention.self.query": "self_attn.q_proj",
            "attention.self.key": "self_attn.k_proj",
            "attention.self.value": "self_attn.v_proj",
            "attention.output.dense": "self_attn.out_proj",
            "attention.output.LayerNorm": "norm1",
            "intermediate.dense": "linear1",
            "output.dense": "linear2",
            "output.LayerNorm": "norm2",
            "pooler.dense": "pooler.dense",
            "cls.predictions.transform.dense": f"{_HEAD}.transform",
            "cls.predictions.transform.LayerNorm": f"{_HEAD}.layer_norm",
            "cls.predictions": f"{_HEAD}.decoder_bias",
            "classifier": "classifier",
            "qa_outputs": "classifier",
        },
    ),
    "dygraph": (
        r"(?:encoder_stack\.block\.(\d+)\.)?(.+?)(\.weight|\.bias|)",
        {
            **{f"{theirs}_emb": f"embeddings.{ours}_embeddings" for theirs, ours in _EMBEDDINGS.items()},
            "ln": "embeddings.layer_norm",
            "attn.q": "self_attn.q_proj",
            "attn.k": "self_attn.k_proj",
            "attn.v": "self_attn.v_proj",
            "attn.o": "self_attn.out_proj",
            "ln1": "norm1",
            "ffn.i": "linear1",
            "ffn.o": "linear2",
            "ln2": "norm2",
            "pooler": "pooler.dense",
            "mlm": f"{_HEAD}.transform",
            "mlm_ln": f"{_HEAD}.layer_norm",
            "mlm_bias": f"{_HEAD}.decoder_bias",
        },
    ),
    "fluid": (
        r"(?:encoder_layer_(\d+)_)?(.+?)(\.w_0|\.b_0|_scale|_bias|)",
        {
            **{
                f"{theirs}_embedding": f"embeddings.{ours}_embeddings" for theirs, ours in _EMBEDDINGS.items()
            },
            "pre_encoder_layer_norm": "embeddings.layer_norm",
            "multi_head_att_query_fc": "self_attn.q_proj",
            "multi_head_att_key_fc": "self_attn.k_proj",
            "multi_head_att_value_fc": "self_attn.v_proj",
            "multi_head_att_output_fc": "self_attn.out_proj",
            "post_att_layer_norm": "norm1",
            "ffn_fc_0": "linear1",
            "ffn_fc_1": "linear2",
            "post_ffn_layer_norm": "norm2",
            "pooled_fc": "pooler.dense",
            "mask_lm_trans_fc": f"{_HEAD}.transform",
            "mask_lm_trans_layer_norm": f"{_HEAD}.layer_norm",
            "mask_lm_out_fc": f"{_HEAD}.decoder_bias",
        },
    ),
}
_BIASES = ("bias", "b_0", "beta")


@dataclass(frozen=True)
class Weights:
    """A folder of weights: its kind (see the table above) and where its parts are."""

    kind: str
    file: Path
    """The weights; of kind fluid the token embedding, beside which the others are."""
    config_file: Path
    vocab_file: Path

    def arrays(self) -> dict[str, np.ndarray]:
        """PaddleNLP's name -> array; what has none keeps its own. Raises ConfigError: damaged, not arrays."""
        if self.kind == "fluid":
            files = sorted(path for path in self.file.parent.iterdir() if path.is_file())
            named = {path.name: path for path in files if renamed(path.name, "fluid")}
            found = {name: read_variable(path) for name, path in named.items()}
        else:
            found = read_pdparams(self.file) if self.file.suffix == ".pdparams" else read_arrays(self.file)
        return _under_our_names(found, self.kind, str(self.file))

    def shapes(self) -> dict[str, list[int]]:
        """PaddleNLP's name -> shape; of safetensors the header alone is read."""
        if self.file.suffix == ".safetensors" and self.kind == "paddlenlp":
            return _with_prefix(_safetensors(self.file, _header))
        return {name: list(array.shape) for name, array in self.arrays().items()}

    def config(self) -> dict[str, Any]:
        """The encoder's keys as PaddleNLP's config.json has them. Raises ConfigError: missing, no object."""
        config = read_object(self.config_file)
        if self.kind in ("dygraph", "fluid"):
            config |= {"layer_norm_eps": 1e-5}  # what Baidu's code computes with
            config["type_vocab_size"] = config.get("sent_type_vocab_size") or config.get("type_vocab_size", 2)
            config.setdefault("intermediate_size", 4 * config.get("hidden_size", 0))
            config.setdefault("task_type_vocab_size", 0)
        return config


def open_weights(folder: str | Path, key: str = "") -> Weights:
    """The weights in a folder, of whatever kind. Raises ConfigError: there are none; `key`: the setting."""
    folder = Path(folder)
    config = next((folder / name for name in _CONFIGS if (folder / name).is_file()), folder / _CONFIGS[0])
    vocab = folder / "vocab.txt"
    if (file := folder / WEIGHTS).is_file():
        hf = any(".attention.self." in name for name in _safetensors(file, _header))
        return Weights("hf" if hf else "paddlenlp", file, config, vocab)
    for kind, name in zip(("paddlenlp", "dygraph"), _PDPARAMS, strict=True):
        if (file := folder / name).is_file():
            return Weights(kind, file, config, vocab)
    for variables in (folder, folder / "params"):
        if (file := variables / "word_embedding").is_file():
            above = [place for place in (folder, variables.parent) if (place / _CONFIGS[1]).is_file()]
            place = above[0] if above else folder
            return Weights("fluid", file, place / _CONFIGS[1], place / "vocab.txt")
    remedy = "name a folder that holds a checkpoint (of a run: one of its step_*)"
    if (folder / "pytorch_model.bin").is_file():
        remedy = "save it anew with save_pretrained(FOLDER, safe_serialization=True)"
    wanted = ", ".join((WEIGHTS, *_PDPARAMS))
    setting = f"{key}: " if key else ""
    raise ConfigError(
        f"{setting}{folder} is no checkpoint folder: no {wanted} or word_embedding (fluid) in it; {remedy}"
    )


def embedding_rows(folder: str | Path) -> dict[str, int]:
    """Key of config.json -> rows that the checkpoint's embedding really has; without what is not in it."""
    shapes = open_weights(folder).shapes()
    return {key: shapes[name][0] for key, name in EMBEDDINGS.items() if shapes.get(name)}


# ---- names


def renamed(name: str, family: str) -> str | None:
    """PaddleNLP's name of a parameter of another family; None where it has none."""
    pattern, pieces = _NAMES[family]
    match = re.fullmatch(pattern, name)
    if not match or match[2] not in pieces:
        return None
    layer, piece, end = match[1], pieces[match[2]], match[3].strip("._")
    if piece == f"{_HEAD}.decoder_bias":
        return piece
    whole = f"encoder.layers.{layer}.{piece}" if layer is not None else piece
    prefix = "" if whole.startswith((_HEAD, "classifier")) else "ernie."
    return f"{prefix}{whole}.{'bias' if end in _BIASES else 'weight'}"


def hf_name(name: str, span: bool = False) -> str:
    """Hugging Face's name of a parameter that has PaddleNLP's; `span`: the head answers questions."""
    if name == f"{_HEAD}.decoder_bias":
        return f"{_HEAD}.bias"
    theirs = {ours: piece for piece, ours in _NAMES["hf"][1].items() if piece != "qa_outputs"}
    theirs["classifier"] = "qa_outputs" if span else "classifier"
    match = re.fullmatch(r"(ernie\.)?(encoder\.layers\.\d+\.)?(.+)(\.weight|\.bias)", name)
    if not match or match[3] not in theirs:
        return name
    layer = (match[2] or "").replace("layers", "layer")
    return f"{match[1] or ''}{layer}{theirs[match[3]]}{match[4]}"


def is_transposed(name: str, shape: Any) -> bool:
    """Whether a parameter is the matrix of a linear map, which Hugging Face keeps as (out, in)."""
    return len(shape) == 2 and "embeddings" not in name


def _with_prefix(named: dict[str, Any]) -> dict[str, Any]:
    """An encoder that was saved alone has names without `ernie.`."""
    prefix = "" if any(name.startswith("ernie.") for name in named) else "ernie."
    return {prefix + name: value for name, value in named.items()}


def _under_our_names(found: dict[str, np.ndarray], kind: str, where: str) -> dict[str, np.ndarray]:
    if kind == "paddlenlp":
        return _with_prefix(found)
    tied = found.pop(f"{_HEAD}.decoder.weight", None)
    found.pop(f"{_HEAD}.decoder.bias", None)
    arrays = {renamed(name, kind) or name: array for name, array in found.items()}
    if kind == "hf":
        arrays = {
            name: np.ascontiguousarray(array.T) if is_transposed(name, array.shape) else array
            for name, array in arrays.items()
        }
    if tied is not None and not np.array_equal(tied, arrays.get(EMBEDDINGS["vocab_size"])):
        raise ConfigError(f"{where}: the masked-LM head has an embedding of its own, which ERNIE has not")
    return arrays


# ---- files


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ConfigError: missing, not readable, something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; a checkpoint folder holds {path.name}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not readable JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: not an encoder configuration: expected an object of keys")
    return found


def _safetensors(path: Path, read: Any) -> Any:
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


def _header(name: str) -> dict[str, list[int]]:
    with safe_open(name, "np") as file:
        return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 - no mapping


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads a safetensors file. Raises ConfigError when missing or damaged."""
    return _safetensors(path, load_file)


def _blank(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """In place of numpy's _reconstruct: its arguments could ask for any class and size."""
    return np.empty(0, np.int8)


class _ArrayUnpickler(pickle.Unpickler):
    """Makes dictionaries, tuples, numbers, text and numpy arrays; everything else that a pickle can name is
    refused before it is looked up."""

    known = {  # noqa: RUF012
        **{(f"numpy.{core}.multiarray", "_reconstruct"): _blank for core in ("core", "_core")},
        ("numpy", "ndarray"): "numpy.ndarray",  # an argument of the above, never called
        ("numpy", "dtype"): np.dtype,
        ("collections", "OrderedDict"): dict,
        ("_codecs", "encode"): lambda text, code: text.encode("latin1"),  # bytes of protocol 2
    }

    def find_class(self, module: str, name: str) -> Any:
        """Raises UnpicklingError."""
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no array")
        return self.known[module, name]


def read_pdparams(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .pdparams file, which is a pickle, by an unpickler that makes arrays and nothing else.

    Raises:
        ConfigError: damaged, or it holds anything but a dictionary of floating-point arrays."""
    try:
        with path.open("rb") as file:
            found = _ArrayUnpickler(file).load()
    except Exception as error:  # noqa: BLE001 - whatever a hostile or damaged pickle raises
        raise ConfigError(f"{path}: not a file of arrays: {type(error).__name__}: {error}") from None
    if not isinstance(found, dict) or "UnpackBigParamInfor@@" in found:
        raise ConfigError(f"{path}: not a dictionary of whole arrays; save it anew as safetensors")
    found.pop("StructuredToParameterName@@", None)
    arrays = {
        name: value[1] if isinstance(value, tuple) and len(value) == 2 else value
        for name, value in found.items()
    }
    for name, array in arrays.items():
        if not isinstance(name, str) or not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            raise ConfigError(f"{path}: {name!r} is no array of numbers")
    return arrays


def read_variable(path: Path) -> np.ndarray:
    """A variable that Paddle's save operator wrote alone (LoDTensor, version 0): float32 or float64.

    Raises:
        ConfigError: something else, or damaged."""
    try:
        with path.open("rb") as file:
            version, levels = _unsigned(file, 4), _unsigned(file, 8)
            for _ in range(min(levels, 8)):
                file.seek(_unsigned(file, 8), 1)
            version += _unsigned(file, 4)
            kind, shape = _tensor_description(file.read(_unsigned(file, 4)))
            if version or kind not in ("<f4", "<f8"):
                raise ValueError("its version or kind of numbers is not known")
            array = np.frombuffer(file.read(), kind)
            if len(array) != math.prod(shape):
                raise ValueError(f"{len(array)} numbers, expected {math.prod(shape)}")
            return array.reshape(shape)
    except (OSError, ValueError, IndexError) as error:
        raise ConfigError(f"{path}: not a variable as Paddle saves it: {error}") from None


def _unsigned(file: BinaryIO, size: int) -> int:
    data = file.read(size)
    if len(data) < size:
        raise ValueError("it ends early")
    return int.from_bytes(data, "little")


def _tensor_description(data: bytes) -> tuple[str, list[int]]:
    """The protocol buffer VarType.TensorDesc: 1 = kind of numbers, 2 = size of each axis."""
    place, kind, shape = 0, "", []
    while place < len(data):
        tag, place = _varint(data, place)
        end = place
        if tag & 7 == 2:  # packed
            size, place = _varint(data, place)
            end = place + size
        while True:
            value, place = _varint(data, place)
            if tag >> 3 == 1:
                kind = {5: "<f4", 6: "<f8"}.get(value, "?")
            else:
                shape.append(value)
            if place >= end:
                break
    return kind, shape


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
