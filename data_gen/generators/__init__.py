"""One file a task, one idea a file, one function: generate(source, rng, *, packer, language,
**generator_args).

It yields what `packer.pack` or `packer.pack_many` makes of stretches of the block, and tells `packer.reject`
what it cannot use.

`source` is a block (a list of Document or of Pair, all train or all dev), `rng` the block's own generator,
`packer` a `data_gen.packing.Packer`, `language` data.language; the rest is the YAML's generator_args. They
are held against the types of the parameters; `Annotated[int, between(1, 512)]` (ernie2.schema) says how small
and how large a number may be. What it yields and rejects depends on these alone.

A generator module may also offer
    labels(*, language, **generator_args) -> Labels    the classes; the YAML's num_classes has to fit them
Of `language` and the generator_args it takes those it names. Nothing else in the repository needs to know a
generator: the YAML names it by its dotted path, which may also lead to any importable module of a user's own.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, make_dataclass
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic.dataclasses import dataclass as checked

from ernie2.schema import Section, build
from ernie2.strict import ConfigError, nearest
from ernie2.tasks import Task


@dataclass(frozen=True)
class Labels:
    """What the classes of a task mean: for `show`, `audit` and `interchange`.

    Attributes:
        names: How each class reads. orders: Of a task that shuffles segments: class -> where each segment
        shown stood in the text, from 0. next_sentence: Of a task of two sentences: the classes of a second
        one that follows the first, and of one from
            another document."""

    names: Sequence[str]
    orders: Sequence[Sequence[int]] = ()
    next_sentence: tuple[int, int] | None = None


@dataclass(frozen=True)
class Generator:
    """A task's generator with its arguments bound.

    Attributes:
        task: The task.
        module: The module its YAML names.
        language: data.language."""

    task: Task
    module: ModuleType
    language: str

    def generate(self, source: list, rng: Any, packer: Any) -> Any:
        """Iterator of `data_gen.packing.Packed` for one block."""
        return self.module.generate(
            source, rng, packer=packer, language=self.language, **self.task.generator_args
        )

    @functools.cached_property
    def labels(self) -> Labels | None:
        """What the classes mean; None where the module does not say."""
        function = getattr(self.module, "labels", None)
        if function is None:
            return None
        names = inspect.signature(function).parameters
        known = {"language": self.language, **self.task.generator_args}
        return function(**{name: value for name, value in known.items() if name in names})

    def describe(self, label: int) -> str:
        """How a label reads; its number where the module does not say."""
        named = self.labels is not None and label < len(self.labels.names)
        return self.labels.names[label] if named else str(label)

    def order(self, label: int) -> Sequence[int] | None:
        """Where each segment stood before the generator shuffled them; None where it shuffles none."""
        return self.labels.orders[label] if self.labels is not None and self.labels.orders else None


def load_generator(task: Task, language: str) -> Generator:
    """Imports the generator a task names and holds its arguments and classes against the YAML.

    Raises:
        ConfigError: no such module, no generate() in it, an argument it does not take or lacks, or of a type
        or size it
            does not take, or another number of classes than the YAML declares; names the YAML, the key and
            what is known."""
    generator = Generator(task, _import(task), language)
    check_arguments(task, generator.module)
    declared = task.sentence_classes or task.token_classes
    try:
        made = None if generator.labels is None else len(generator.labels.names)
    except ConfigError as error:
        raise ConfigError(f"{task.path}: {error}") from None
    if made is not None and declared is not None and made != declared:
        raise ConfigError(
            f"{task.path}: losses: num_classes is {declared}, but generator {task.generator} with "
            f"generator_args {task.generator_args} makes {made} classes; write num_classes: {made}"
        )
    if task.balance is not None and task.sentence_classes is None:
        raise ConfigError(
            f"{task.path}: balance: evens out classes of a sentence head, and there is none; remove it"
        )
    return generator


def _import(task: Task) -> ModuleType:
    try:
        module = importlib.import_module(task.generator)
    except ModuleNotFoundError as error:
        if error.name is None or not (task.generator + ".").startswith(error.name + "."):
            raise ConfigError(
                f"{task.path}: generator: {task.generator} imports '{error.name}', which is not installed"
            ) from None
        ours = [f"{__name__}.{found.name}" for found in pkgutil.iter_modules(__path__)]
        raise ConfigError(
            f"{task.path}: generator: there is no module '{task.generator}' (file "
            f"{task.generator.replace('.', '/')}.py){nearest(task.generator, ours)}"
        ) from None
    if not callable(getattr(module, "generate", None)):
        functions = [name for name, value in vars(module).items() if inspect.isfunction(value)]
        raise ConfigError(
            f"{task.path}: generator: module '{task.generator}' has no function generate(source, rng, *, "
            f"packer, language, ...){nearest('generate', functions) if functions else ''}"
        )
    return module


GIVEN = ("source", "rng", "packer", "language")
_SIMPLE = (bool, int, float, str, NoneType)


def check_arguments(task: Task, module: ModuleType) -> None:
    """Raises ConfigError where generate() of `module` does not take the task's generator_args; names YAML and
    keys."""
    parameters = dict(inspect.signature(module.generate).parameters)
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in GIVEN:
        if parameters.pop(name, None) is None and not takes_all:
            raise ConfigError(
                f"{task.path}: generator: {task.generator}.generate() does not take '{name}'; it is called "
                "as "
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
    return checked(make_dataclass("generator_args", keys, bases=(Section,), kw_only=True))


def _types(function: Callable) -> dict[str, Any]:
    """The annotations that a YAML's value can be held against; those of a user's own may name what is not
    there."""
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}
    return {name: hint for name, hint in hints.items() if _is_simple(hint)}


def _is_simple(hint: Any) -> bool:
    kinds = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    return all(kind in _SIMPLE or get_origin(kind) in (Annotated, Literal) for kind in kinds)
