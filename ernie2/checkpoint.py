"""Checkpoints: atomic save and exact resume. Nothing is ever unpickled.

    <out_dir>/step_0020000/model.safetensors       encoder under PaddleNLP's `ernie.` names, heads beside it;
                                                   float32: of half precision the master weights
                           optimizer.safetensors   <parameter>|<accumulator>
                           config.json vocab.txt recipe.yaml
                           trainer_state.json      step, tokens, scaler, ...; size and sha256 of the others

Written to a temporary folder, synced, renamed: a crash at any instant leaves the last good one. The digests
notice what the disk spoils later; then the checkpoint before is used."""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
import yaml
from paddle.base.layer_helper import LayerHelper
from paddle.nn import Layer
from paddle.optimizer import Optimizer
from safetensors.numpy import save_file

from ernie2 import distributed, model_card
from ernie2 import out_dir as run_folder
from ernie2.disk import as_umask_says, file_digest, sync_to_disk, write_json
from ernie2.encoder import EncoderConfig
from ernie2.logs import logger
from ernie2.precision import HALF
from ernie2.schema import to_mapping
from ernie2.strict import ConfigError
from ernie2.weights import WEIGHTS, read_arrays

if TYPE_CHECKING:
    from ernie2.run import Run

STEP_FOLDER = re.compile(r"step_(\d{7,})")
STATE = "trainer_state.json"
MASTER = "master_weight"
MASTER_NAME = "fp32_master_0"  # what Paddle appends to a parameter's name for its master weight
SPARE = 4 << 20  # bytes of the small files, vocabulary and recipe, and of blocks half filled
Arrays = dict[str, np.ndarray]


def atomic_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Calls write(tmp) and gives the result the name `folder`, replacing an older one."""
    tmp = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(tmp, ignore_errors=True)
    tmp.mkdir(parents=True)
    try:
        write(tmp)
        for path in [*tmp.rglob("*"), tmp]:
            sync_to_disk(path)
        old = folder.with_name(f"{folder.name}.old-{os.getpid()}")
        if folder.exists():
            folder.rename(
                old
            )  # a run killed before the next rename leaves it so; out_dir.clean brings it back
        tmp.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
        sync_to_disk(folder.parent)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def model_arrays(model: Layer) -> Arrays:
    """Name -> float array of every parameter, half precision as float32."""
    return {name: parameter.astype("float32").numpy() for name, parameter in model.named_parameters()}


def write_arrays(path: Path, arrays: Arrays, metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file with the mode that open() gives; the library's own is 0600."""
    save_file(arrays, str(path), metadata=metadata)
    as_umask_says(path)


def write_model(
    folder: Path,
    weights: Arrays,
    config: EncoderConfig,
    vocab_file: str | Path,
    extra: dict[str, Any],
    lower_case: bool = True,
) -> None:
    """Writes model.safetensors, config.json (with `extra` keys), vocab.txt and tokenizer_config.json into an
    existing folder, as PaddleNLP's Auto classes read them."""
    # PaddleNLP 2.8 reads no file without a format, and calls its own "np".
    write_arrays(folder / WEIGHTS, weights, {"format": "np"})
    write_json(folder / "config.json", {**config.to_json(), **extra})
    shutil.copyfile(vocab_file, folder / "vocab.txt")
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "ErnieTokenizer",
            "do_lower_case": lower_case,
            "model_max_length": config.max_position_embeddings,
        },
    )


def save_model(
    folder: str | Path,
    model: Layer,
    config: EncoderConfig,
    vocab_file: str | Path,
    extra: dict | None = None,
    lower_case: bool = True,
) -> None:
    """Saves a model alone (no optimizer), atomically."""
    weights = model_arrays(model)
    atomic_folder(
        Path(folder), lambda tmp: write_model(tmp, weights, config, vocab_file, extra or {}, lower_case)
    )


def restore_weights(model: Layer, folder: str | Path) -> Arrays:
    """Puts back what `write_model` wrote of this model, in its precision. Returns the arrays, float32.

    Raises ConfigError where the file is missing or damaged, or its tensors are others."""
    arrays, parameters = read_arrays(Path(folder) / WEIGHTS), dict(model.named_parameters())
    there = {name: list(array.shape) for name, array in arrays.items()}
    here = {name: list(parameter.shape) for name, parameter in parameters.items()}
    wrong = [
        f"{name} is {there.get(name, 'missing')} there, {here.get(name, 'no parameter')} here"
        for name in {**here, **there}
        if there.get(name) != here.get(name)
    ]
    if wrong:
        more = f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise ConfigError(f"{folder}: holds another model: {'; '.join(wrong[:4])}{more}")
    for name, parameter in parameters.items():
        parameter.set_value(paddle.to_tensor(arrays[name].astype("float32")).astype(parameter.dtype))
    return arrays


def optimizer_arrays(model: Layer, optimizer: Optimizer) -> Arrays:
    """`<parameter>|<accumulator>` -> float32 array, of what was trained: moments, betas, masters."""
    found = _accumulators(model, optimizer)
    arrays = {f"{name}|{accumulator}": value.numpy() for name, accumulator, value in found}
    masters = optimizer.state_dict().get(f"{MASTER}s", {})
    for name, parameter in model.named_parameters():
        if parameter.name in masters:
            arrays[f"{name}|{MASTER}"] = masters[parameter.name].numpy()
    return arrays


def _accumulators(model: Layer, optimizer: Optimizer) -> Iterator[tuple[str, str, paddle.Tensor]]:
    """(parameter, accumulator, tensor); Paddle's own names of parameters follow the order of creation."""
    names = {parameter.name: name for name, parameter in model.named_parameters()}
    for key, value in optimizer.state_dict().items():
        if isinstance(value, paddle.Tensor):
            paddle_name = max((name for name in names if key.startswith(f"{name}_")), key=len)
            yield names[paddle_name], key[len(paddle_name) + 1 :], value


def restore_optimizer(arrays: Arrays, model: Layer, optimizer: Optimizer) -> None:
    """Puts back what `optimizer_arrays` gave; master weights are taken in half precision alone.

    Left to itself Paddle restores a parameter's state at its next update. Until then state_dict() lacks it:
    the head of a task that rests between two checkpoints would lose its moments, and a head that is trained
    for the first time is refused. Hence the accumulators are made here, as optimizer.step() does."""
    found = {tuple(key.replace(f"|{MASTER_NAME}_", "|").split("|")): array for key, array in arrays.items()}
    trained, masters = {name for name, accumulator in found if accumulator != MASTER}, {}
    for name, parameter in model.named_parameters():
        if parameter.dtype in HALF and (name, MASTER) in found:
            master = masters[parameter.name] = paddle.to_tensor(found[name, MASTER])
            master.name = f"{parameter.name}_{MASTER_NAME}"
    if masters:
        optimizer.set_state_dict({f"{MASTER}s": masters})
    optimizer.helper = LayerHelper(type(optimizer).__name__)
    block = paddle.static.default_main_program().global_block()
    optimizer._create_accumulators(block, [p for name, p in model.named_parameters() if name in trained])
    for name, accumulator, tensor in _accumulators(model, optimizer):
        tensor.set_value(found[name, accumulator.removeprefix(f"{MASTER_NAME}_")])


def save_training(
    out_dir: Path,
    step: int,
    model: Layer,
    moments: Arrays,
    config: EncoderConfig,
    vocab_file: str | Path,
    recipe_yaml: str,
    state: dict[str, Any],
    keep_last: int,
) -> Path:
    """Saves everything a resume needs as <out_dir>/step_NNNNNNN and removes all but the newest `keep_last`.

    `moments` is what `optimizer_arrays` gives; its master weights go into model.safetensors. Raises
    ConfigError, older checkpoints untouched, where the disk is full; says how much is missing."""
    suffix = f"|{MASTER}"
    masters = {key.removesuffix(suffix): array for key, array in moments.items() if key.endswith(suffix)}
    moments = {key: array for key, array in moments.items() if not key.endswith(suffix)}
    needed = 4 * sum(parameter.size for parameter in model.parameters()) + SPARE
    needed += sum(array.nbytes for array in moments.values())

    def write(tmp: Path) -> None:
        tasks = {key: state[key] for key in ("task_ids",) if key in state}
        recipe = yaml.safe_load(recipe_yaml) or {}
        lower_case = (recipe.get("data") or {}).get("lower_case", True)
        write_model(tmp, model_arrays(model) | masters, config, vocab_file, tasks, lower_case)
        write_arrays(tmp / "optimizer.safetensors", moments)
        (tmp / "recipe.yaml").write_text(recipe_yaml, encoding="utf-8")
        if "curriculum" in recipe:
            size = sum(parameter.size for parameter in model.parameters())
            card = model_card.pretrained(recipe, step, state["tokens"], size)
            (tmp / model_card.CARD).write_text(card, encoding="utf-8")
        files = {path.name: [path.stat().st_size, file_digest(path)] for path in sorted(tmp.iterdir())}
        whole = {"step": step, **state, "files": files}
        write_json(tmp / STATE, {**whole, "digest": _state_digest(whole)})

    folder = out_dir / f"step_{step:07d}"
    run_folder.require_room(out_dir, needed, f"the checkpoint of step {step}")
    with run_folder.full_disk_named(out_dir, f"the checkpoint of step {step}", needed):
        atomic_folder(folder, write)
    for _, old in checkpoints(out_dir)[:-keep_last]:
        run_folder.remove(old)
    return folder


def save(run: "Run", done: int, tokens: int) -> None:
    """Saves a pre-training after `done` steps: rank 0 writes, the others wait until it is whole."""
    if run.rank == 0:
        state = {
            "tokens": tokens,
            "seed": run.recipe.seed,
            "scaler": run.scaler.state_dict(),
            "bad_steps": run.bad_steps.state_dict(),
            "evaluated": run.evaluated,
            "seconds": run.seconds_before + time.monotonic() - run.started,
            "task_ids": {task.name: task.task_id for task in run.tasks},
            "shards": {name: stream.reader.digest for name, stream in run.streams.items()},
        }
        recipe = yaml.safe_dump(to_mapping(run.recipe), sort_keys=False, allow_unicode=True)
        moments, keep = optimizer_arrays(run.model, run.optimizer), run.recipe.runtime.keep_last
        files = run.model.config, run.recipe.model.vocab_file, recipe
        save_training(run.out_dir, done, run.model, moments, *files, state, keep)
    distributed.barrier()


def checkpoints(out_dir: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every finished checkpoint, oldest first. Leftovers of a crash are not listed."""
    found = [(STEP_FOLDER.fullmatch(state.parent.name), state.parent) for state in out_dir.glob(f"*/{STATE}")]
    return sorted((int(match[1]), folder) for match, folder in found if match)


def load_training(folder: Path, model: Layer, optimizer: Optimizer) -> dict[str, Any]:
    """Restores model and optimizer exactly, in whatever precision they are now. Returns trainer_state.json.

    Raises ConfigError where the tensors are not those of this model."""
    try:
        arrays = restore_weights(model, folder)
    except ConfigError as error:
        remedy = "resume with the settings it was made with, or choose another out_dir"
        raise ConfigError(f"{error}; {remedy}") from None
    masters = {f"{name}|{MASTER}": array for name, array in arrays.items()}
    restore_optimizer(masters | read_arrays(folder / "optimizer.safetensors"), model, optimizer)
    return read_state(folder)


def newest_whole(out_dir: Path) -> tuple[int, Path] | None:
    """(step, folder) of the newest checkpoint that is as it was written; None where there is none at all.

    Damaged ones are reported and set aside as <folder>.damaged. Raises ConfigError where all are damaged."""
    damaged, problems = [], []
    for step, folder in reversed(checkpoints(out_dir)):
        problem = what_is_wrong(folder)
        if problem is None:
            for bad in damaged:
                aside = bad.with_name(f"{bad.name}.damaged")
                shutil.rmtree(aside, ignore_errors=True)
                bad.rename(aside)
            return step, folder
        damaged.append(folder)
        problems.append(problem)
        logger.warning("%s; trying the checkpoint before it", problem)
    if problems:
        remedy = f"no other checkpoint is left: remove {damaged[0]} to start from the beginning"
        raise ConfigError(f"{problems[0]}; {remedy}")
    return None


def what_is_wrong(folder: Path) -> str | None:
    """Names the first file of a checkpoint that is not as it was written, and how; None where all are."""
    path = folder / STATE
    try:
        for name, (size, digest) in read_state(folder).get("files", {}).items():
            path = folder / name
            if path.stat().st_size != size:
                return f"{path}: damaged ({path.stat().st_size:,} bytes, {size:,} were written)"
            if file_digest(path) != digest:
                return f"{path}: damaged (its sha256 is not that of what was written)"
    except ConfigError as error:
        return str(error)
    except OSError as error:
        return f"{path}: damaged ({error.strerror})"
    return None


def read_state(folder: Path) -> dict[str, Any]:
    """trainer_state.json of a checkpoint. Raises ConfigError where it is damaged."""
    path = folder / STATE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in ("step", "seed", "tokens", "seconds", "scaler") if key not in state]
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path}: damaged ({error})") from None
    if missing:
        raise ConfigError(f"{path}: lacks {', '.join(missing)}")
    if state.pop("digest", None) not in (None, _state_digest(state)):
        raise ConfigError(f"{path}: damaged (its contents do not match its own digest)")
    return state


def _state_digest(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
