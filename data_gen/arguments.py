"""A task's generator_args held against the signature of its generator: names, types, and the module's LIMITS."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from types import ModuleType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ernie2.strict import ConfigError, nearest
from ernie2.tasks import Task

GIVEN = ("source", "rng", "packer", "language")
_SIMPLE = (bool, int, float, str)


def check_arguments(task: Task, module: ModuleType) -> None:
    """Raises ConfigError where generate() of `module` does not take the task's generator_args; names the YAML and the key."""
    parameters = inspect.signature(module.generate).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    own = {name: parameter for name, parameter in parameters.items() if name not in GIVEN and parameter.kind is not
           parameter.VAR_KEYWORD}
    for name in GIVEN:
        if name not in parameters and not takes_all:
            raise ConfigError(f"{task.path}: generator: {task.generator}.generate() does not take '{name}'; it is "
                              f"called as generate(source, rng, *, packer, language, **generator_args)")
    for name in task.generator_args:
        if name not in own and not takes_all:
            hint = nearest(name, own) if own else "; it takes none"
            raise ConfigError(f"{task.path}: generator_args.{name}: {task.generator} has no such argument{hint}")
    types, limits = _types(module.generate), getattr(module, "LIMITS", {})
    for name, parameter in own.items():
        if name in task.generator_args:
            _check_value(f"{task.path}: generator_args.{name}", task.generator_args[name], types.get(name), limits.get(name))
        elif parameter.default is parameter.empty:
            raise ConfigError(f"{task.path}: generator_args.{name}: missing, {task.generator} needs it")


def _types(function: Callable) -> dict[str, Any]:
    """The annotations that can be read; those of a user's own generator may name what is not there."""
    try:
        return get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return {}


def _check_value(where: str, value: object, annotation: Any, limits: tuple[float, float] | None) -> None:
    kinds = get_args(annotation) if get_origin(annotation) in (UnionType, Union) else (annotation,)
    if all(kind in _SIMPLE or get_origin(kind) is Literal for kind in kinds) and not any(_is(value, kind) for kind in kinds):
        raise ConfigError(f"{where}: found {value!r}, expected {' or '.join(map(_named, kinds))}")
    if limits is not None and isinstance(value, int | float):
        least, most = limits
        if not least <= value <= most:
            expected = f"{least} to {most}" if most < math.inf else f"{least} or more"
            raise ConfigError(f"{where}: found {value}, expected {expected}")


def _is(value: object, kind: Any) -> bool:
    """Whether a value is of a kind; a whole number does for a float, truth for no number."""
    if get_origin(kind) is Literal:
        return any(value == one and type(value) is type(one) for one in get_args(kind))
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind


def _named(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
