"""A task's generator_args held against the signature of its generator: names, types and ranges."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, field, make_dataclass
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic.dataclasses import dataclass

from ernie2.schema import Section, build
from ernie2.strict import ConfigError
from ernie2.tasks import Task

GIVEN = ("source", "rng", "packer", "language")
_SIMPLE = (bool, int, float, str, NoneType)


def check_arguments(task: Task, module: ModuleType) -> None:
    """Raises ConfigError where generate() of `module` does not take the task's generator_args; names YAML and keys."""
    parameters = dict(inspect.signature(module.generate).parameters)
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in GIVEN:
        if parameters.pop(name, None) is None and not takes_all:
            raise ConfigError(
                f"{task.path}: generator: {task.generator}.generate() does not take '{name}'; it is called as "
                f"generate(source, rng, *, packer, language, **generator_args)"
            )
    own = {name: one for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD}
    given = {name: value for name, value in task.generator_args.items() if name in own or not takes_all}
    build(_section(own, _types(module.generate)), given, str(task.path), "generator_args.")


def _section(parameters: dict[str, inspect.Parameter], types: dict[str, Any]) -> type:
    """The parameters as a section of keys."""
    keys = [
        (name, types.get(name, Any), field(default=MISSING if one.default is one.empty else None))
        for name, one in parameters.items()
    ]
    return dataclass(make_dataclass("generator_args", keys, bases=(Section,), kw_only=True))


def _types(function: Callable) -> dict[str, Any]:
    """The annotations that a YAML's value can be held against; those of a user's own may name what is not there."""
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}
    return {name: hint for name, hint in hints.items() if _is_simple(hint)}


def _is_simple(hint: Any) -> bool:
    kinds = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    return all(kind in _SIMPLE or get_origin(kind) in (Annotated, Literal) for kind in kinds)
