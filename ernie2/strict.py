"""What a user writes and reads: YAML files, `key=value` arguments, messages with a remedy, exit codes.

No tensors here. `ernie2.schema` turns what was read into checked dataclasses."""

import copy
import difflib
import functools
import re
import reprlib
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml


class ConfigError(ValueError):
    """A user's mistakes, a message each: file and line or key, what was found, the remedy. Exit code 2."""

    def __str__(self) -> str:
        if len(self.args) == 1:
            return str(self.args[0])
        return "\n  ".join((f"{len(self.args)} mistakes:", *map(str, self.args)))


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that reads `5e-5` as a number (plain PyYAML makes it text) and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                place = f"{key_node.start_mark.name}:{key_node.start_mark.line + 1}"
                raise ConfigError(f"{place}: key '{key}' is given twice; keep one of them")
            seen.add(key)
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_yaml(text: str, where: str) -> Any:
    """Parses YAML text; `where` names its origin. Raises ConfigError with the line of a syntax mistake."""
    loader = _StrictLoader(text)
    loader.name = where
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or error
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{where}{line}: not valid YAML: {problem}") from None
    finally:
        loader.dispose()


def load_yaml(path: str | Path) -> dict:
    """Reads a YAML file of one mapping. Raises ConfigError: missing, not UTF-8, not YAML or no mapping."""
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
        raise ConfigError(f"{path}: expected a mapping of keys to values, found {describe(data)}")
    return data


def apply_overrides(mapping: dict, overrides: Iterable[str]) -> dict:
    """A copy of `mapping` with `a.b=value` items applied; values are YAML. Raises ConfigError."""
    result = copy.deepcopy(mapping)
    for item in overrides:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"command line: '{item}' is not of the form key=value (for example seed=2)")
        *sections, name = key.split(".")
        target = result
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigError(f"command line: {key}: '{section}' is not a section")
        target[name] = parse_yaml(value, f"command line: {key}")
    return result


def from_command_line(overrides: Iterable[str]) -> dict[str, str]:
    """Key -> where it comes from, for each `key=value` item."""
    return {item.partition("=")[0]: "command line" for item in overrides}


def make_folder(path: Path, key: str) -> None:
    """Makes a folder that a key names, with its parents. Raises ConfigError naming the key."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be made a folder: {error.strerror}; name another") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """For a message: the nearest known name, else the known names."""
    return closest(name, known) or f"; known: {', '.join(sorted(known))}"


def closest(name: str, known: Iterable[str]) -> str:
    """For a message: the nearest known name, or nothing where none is near."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def describe(value: Any) -> str:
    """A YAML value for a message, its type shown: text '5', 5, true, nothing."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "a section of keys"
    if isinstance(value, list):
        return f"the list {reprlib.repr(value)}"
    return f"text {value!r}" if isinstance(value, str) else repr(value)


def cli(main: Callable[[Sequence[str]], Any]) -> Callable[..., None]:
    """Wraps a command's `main(argv)`: ConfigError -> one message and exit code 2."""

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


def differences(before: Any, now: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (value before, value now) where two mappings differ; None where there is none."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return {} if before == now else {key: (before, now)}
    found: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys((*before, *now)):
        found |= differences(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    return found
