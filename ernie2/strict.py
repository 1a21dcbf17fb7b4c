"""Strict YAML: every key is a dataclass field, every mistake stops the run with file, dotted key and remedy.

No tensors here. `ernie2.config` holds what a recipe may say; this module holds how a mapping becomes a dataclass.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")


class ConfigError(ValueError):
    """A mistake of the user's: one message naming file and line or key, what was found and the remedy; exit code 2."""


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that reads `5e-5` as a number (plain PyYAML makes it text) and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                mark = key_node.start_mark
                raise ConfigError(f"{mark.name}:{mark.line + 1}: key '{key}' is given twice; keep one of them")
            seen.add(key)
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_yaml(text: str, where: str) -> Any:
    """Parses YAML text. `where` names its origin in messages. Raises ConfigError with the line of a syntax mistake."""
    loader = _StrictLoader(text)
    loader.name = where
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{where}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    finally:
        loader.dispose()


def load_yaml(path: str | Path) -> dict:
    """Reads a YAML file holding one mapping. Raises ConfigError when missing, not UTF-8, not YAML or not a mapping."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder, not a YAML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    data = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, found {_kind(data)}")
    return data


def apply_overrides(mapping: dict, overrides: Iterable[str]) -> dict:
    """Returns a copy of `mapping` with `a.b=value` items applied; values are YAML. Raises ConfigError on bad items."""
    result = _copy(mapping)
    for item in overrides:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"command line: '{item}' is not of the form key=value (for example seed=2)")
        parts = key.split(".")
        target = result
        for part in parts[:-1]:
            target = target.setdefault(part, {})
            if target is None or not isinstance(target, dict):
                raise ConfigError(f"command line: {key}: '{part}' is not a section")
        target[parts[-1]] = parse_yaml(value, f"command line: {key}")
    return result


def build(cls: type[T], mapping: Any, where: str, prefix: str = "") -> T:
    """Builds dataclass `cls` from a mapping, strictly.

    Args:
        cls: a dataclass; its field types are int, float, str, bool, None, list, dict, Literal, unions and dataclasses.
        mapping: what the YAML gave.
        where: the file, for messages.
        prefix: dotted path of this section, for messages.

    Raises:
        ConfigError: unknown key (with the nearest known one), missing key, wrong type; all name file and dotted key.
    """
    if mapping is None:
        mapping = {}
    if not isinstance(mapping, dict):
        raise ConfigError(f"{where}: {prefix.rstrip('.') or 'top level'}: expected a section of keys, "
                          f"found {_kind(mapping)}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in mapping:
        if key not in fields:
            known = [f"{prefix}{name}" for name in fields]
            raise ConfigError(f"{where}: unknown key '{prefix}{key}'{nearest(f'{prefix}{key}', known)}")
    hints = typing.get_type_hints(cls)
    values = {}
    for name, field in fields.items():
        if name in mapping:
            values[name] = _convert(hints[name], mapping[name], where, prefix + name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}: missing key '{prefix}{name}'")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {prefix}{error}") from None


def require(condition: bool, key: str, found: object, wanted: str) -> None:
    """Raises ConfigError naming the key, what was found and what is wanted, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{key}: found {found!r}, expected {wanted}")


def make_folder(path: Path, key: str) -> None:
    """Makes a folder that a key names, with its parents. Raises ConfigError naming the key where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be made a folder: {error.strerror}; name another") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """Words for a message: the nearest known name, else the known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(known)}"


def cli(main: Callable[[Sequence[str]], Any]) -> Callable[..., None]:
    """Wraps a command's `main(argv)`: ConfigError -> one message and exit code 2; anything else is a failure of ours."""

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> None:
        try:
            code = main(list(sys.argv[1:] if argv is None else argv))
        except ConfigError as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(2)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(1)
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            sys.exit(130)
        sys.exit(code or 0)

    return run


def to_mapping(value: Any) -> Any:
    """The inverse of `build`: dataclasses to plain dicts, ready for YAML or JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_mapping(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, (list, tuple)):
        return [to_mapping(item) for item in value]
    if isinstance(value, dict):
        return {key: to_mapping(item) for key, item in value.items()}
    return value


def differences(before: Any, now: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (value before, value now) where two mappings differ; None where there is none."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return {} if before == now else {key: (before, now)}
    found: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys((*before, *now)):
        found |= differences(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    return found


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(args, value, where, key)
    if origin is typing.Literal:
        if value in args and type(value) in {type(arg) for arg in args}:
            return value
        raise ConfigError(f"{where}: {key}: found {value!r}; allowed: {', '.join(map(str, args))}")
    if origin is list:
        if isinstance(value, str) and args[0] is str:
            value = [value]  # one item may be written without brackets: data.corpus=FILE on the command line
        if not isinstance(value, list):
            raise _wrong(where, key, "a list", value)
        return [_convert(args[0], item, where, f"{key}[{i}]") for i, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(where, key, "a section of keys", value)
        return {k: _convert(args[1], item, where, f"{key}.{k}") for k, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where, key + ".")
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is type(None) and value is None:
        return None
    if type(value) is not hint:
        raise _wrong(where, key, _NAMES.get(hint, getattr(hint, "__name__", str(hint))), value)
    return value


def _convert_union(args: tuple, value: Any, where: str, key: str) -> Any:
    errors = []
    for arg in args:
        try:
            return _convert(arg, value, where, key)
        except ConfigError as error:
            errors.append((arg, error))
    real = [(arg, error) for arg, error in errors if arg is not type(None)]
    # With one real type beside null, or a list or section that failed inside, that error says more than "wrong type".
    for arg, error in real:
        origin = typing.get_origin(arg)
        fits = isinstance(value, (list, dict)) and origin in (list, dict) or isinstance(value, str) and origin is typing.Literal
        if len(real) == 1 or fits:
            raise error
    raise _wrong(where, key, " or ".join(_NAMES.get(arg, str(arg)) for arg, _ in real), value)


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


def _wrong(where: str, key: str, wanted: str, value: Any) -> ConfigError:
    return ConfigError(f"{where}: {key}: expected {wanted}, found {_kind(value)} {value!r}")


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a section"
    return _NAMES.get(type(value), "a list" if isinstance(value, list) else type(value).__name__)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value
