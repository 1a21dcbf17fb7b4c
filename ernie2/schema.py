"""How a mapping becomes a dataclass: pydantic checks it strictly, one ConfigError lists all mistakes.

Strict: "3" is no number, true is no whole number, 1.0 is none either; 1 is a number where a number is wanted.
No tensors here. `ernie2.strict` reads the YAML; `ernie2.config` and the tasks say what it may hold."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError, core_schema

from ernie2.strict import ConfigError, closest, describe, nearest

T = TypeVar("T")
Number = TypeVar("Number", int, float)
Path = tuple[str | int, ...]  # keys and places in lists that lead to a value
Checks = Iterator[str | None]  # what `require` says of each thing that is checked


def expect(wanted: str, holds: Callable[[Any], bool]) -> AfterValidator:
    """What a value has to be beyond its type, and the message's words for it; `{key}` is the key's name."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise PydanticCustomError("expected", wanted)
        return value

    return AfterValidator(check)


def between(least: float, most: float = math.inf) -> AfterValidator:
    """A number's range, both ends included: `Annotated[int, between(1, 512)]`."""
    wanted = f"{least} to {most}" if most < math.inf else f"{least} or more"
    return expect(wanted, lambda n: least <= n <= most)


Positive = Annotated[Number, expect("a positive number", lambda n: n > 0)]
NotNegative = Annotated[Number, expect("0 or more", lambda n: n >= 0)]
Share = Annotated[float, expect("a share between 0 and 1", lambda n: 0 <= n <= 1)]
Dropout = Annotated[float, expect("0 <= {key} < 1", lambda n: 0 <= n < 1)]
_two = expect("two numbers in [0, 1)", lambda betas: len(betas) == 2 and all(0 <= b < 1 for b in betas))
Betas = Annotated[list[float], _two]
Text = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) in (int, float) else value)]
"""A text that may look like a number: out_dir=2024 on the command line."""
Texts = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
"""A list of texts; one may be written without brackets: data.corpus=FILE on the command line."""


@dataclass(config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True))
class Section:
    """A section of a YAML: its keys are the fields of the dataclass, each with a docstring under it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Callable) -> core_schema.CoreSchema:
        """Takes a mapping, which a strict pydantic dataclass does not; an empty section has its defaults."""
        schema = handler(source) | {"strict": False}
        return core_schema.no_info_before_validator_function(lambda it: {} if it is None else it, schema)

    def _checks(self) -> Checks:
        """What `require` says about keys that have to fit each other, once each is right by itself."""
        yield from ()

    def __post_init__(self) -> None:
        if mistakes := [message for message in self._checks() if message]:
            raise ConfigError(*mistakes)


def require(condition: bool, key: str, found: object, wanted: str) -> str | None:
    """A message naming the key, what was found and what is wanted, unless the condition holds."""
    found = "nothing" if found is None else repr(found)
    return None if condition else f"{key}: found {found}, expected {wanted}"


to_mapping = dataclasses.asdict  # the inverse of `build`: plain dicts, ready for YAML or JSON


def build(cls: type[T], mapping: Any, where: str, prefix: str = "", origins: dict | None = None) -> T:
    """Builds a Section strictly from what a YAML holds (None = no keys).

    For messages: the file, dotted path of this section, keys that come from elsewhere -> where from.

    Raises:
        ConfigError: names each mistake with its file, dotted key, what was found and what is expected."""
    try:
        return TypeAdapter(cls).validate_python(mapping)
    except ValidationError as error:
        mistakes = _mistakes(error, cls, mapping, prefix)
    origins, messages = origins or {}, []
    for key, message in mistakes:
        inside = (one for one in origins if key == one or key.startswith((f"{one}.", f"{one}[")))
        messages.append(f"{origins.get(next(inside, ''), where)}: {message}")
    raise ConfigError(*messages)


def _mistakes(error: ValidationError, cls: type, mapping: Any, prefix: str) -> list[tuple[str, str]]:
    """(dotted key, message) of each mistake."""
    found: dict[Path, list[Any]] = {}
    for one in error.errors(include_url=False):
        found.setdefault(_path(one, mapping), []).append(one)
    mistakes = []
    for path, errors in found.items():
        # What is wrong inside a list says more than that the list is no text, which would do too.
        if not any(path == other[: len(path)] != other for other in found):
            mistakes += _messages(path, errors, cls, prefix)
    # A typo is one mistake, not two.
    meant = [message.partition("did you mean ")[2] for _, message in mistakes]
    return [one for one in mistakes if not one[1].startswith("missing key") or f"'{one[0]}'?" not in meant]


def _messages(path: Path, errors: list[Any], cls: type, prefix: str) -> Iterator[tuple[str, str]]:
    """(dotted key, message) of what is wrong in one place: its checks, its name or its value."""
    first, key = errors[0], prefix + _dotted(path)
    if isinstance(cause := first.get("ctx", {}).get("error"), ConfigError):
        inside = f"{key}." if path else prefix
        yield from ((inside + text.split(":")[0], inside + text) for text in cause.args)
    elif first["type"] == "missing":
        examples = getattr(_fields_at(cls, path).get(path[-1]), "examples", None)
        yield key, f"missing key '{key}'" + (f"; add {' or '.join(examples)}" if examples else "")
    elif first["type"] in ("unexpected_keyword_argument", "invalid_key"):
        known = [prefix + _dotted((*path[:-1], name)) for name in _fields_at(cls, path)]
        yield key, f"unknown key '{key}'{nearest(key, known)}"
    else:
        yield key, f"{key.rstrip('.') or 'top level'}: {_wrong_value(errors, key.split('.')[-1])}"


_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a number that is finite",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a section of keys",
    "dataclass_type": "a section of keys",
}


def _wrong_value(errors: list[Any], name: str) -> str:
    """What was found and what is expected; of several errors each is about another type that would do."""
    value, wanted, hint = errors[0]["input"], [], ""
    for error in errors:
        if error["type"] == "literal_error":
            choices = re.split(", | or ", error["ctx"]["expected"])
            names = [choice.strip("'") for choice in choices]
            wanted.append(f"one of {', '.join(names)}" if len(names) > 1 else choices[0])
            hint = closest(value, names) if isinstance(value, str) else ""
        else:
            wanted.append(_TYPES.get(error["type"]) or error["msg"].removeprefix("Input should be "))
    is_type = any(error["type"] in _TYPES for error in errors)
    words = " or ".join(dict.fromkeys(wanted)).replace("{key}", name)
    return f"found {describe(value) if is_type else repr(value)}, expected {words}{hint}"


def _path(error: Any, mapping: Any) -> Path:
    """Where an error is: its `loc` without what pydantic puts in for the types that a value may have."""
    path: list[str | int] = []
    for part in error["loc"]:
        is_key = isinstance(mapping, dict) and part in mapping
        if is_key or (isinstance(mapping, list) and isinstance(part, int)):
            path.append(str(part) if is_key else part)
            mapping = mapping[part]
        elif part == "[key]":
            path.append(part)
    return (*path, error["loc"][-1]) if error["type"] == "missing" else tuple(path)


def _dotted(path: Path) -> str:
    """`a.b[0]`; a key that is wrong itself is named as what was found in its section."""
    path = path[:-2] if path[-1:] == ("[key]",) else path
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _fields_at(cls: Any, path: Path) -> dict[str, Any]:
    """The keys of the section that the last part of a path is in."""
    for part in path[:-1]:
        if isinstance(part, str):
            annotation = _fields_at(cls, ())[part].annotation
            types = (annotation, *get_args(annotation))
            cls = next((one for one in types if hasattr(one, "__pydantic_fields__")), cls)
    return {name: field for name, field in cls.__pydantic_fields__.items() if field.init is not False}
