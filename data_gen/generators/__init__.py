"""The tasks: one file each, one function `generate(source, rng, *, packer, language, **generator_args)`.

It yields what `packer.pack` or `packer.pack_many` makes of stretches of the block, and calls `packer.reject`
for what it cannot use. `source` is a block (Documents or Pairs, all train or all dev), `rng` the block's own
generator, `packer` a `data_gen.packing.Packer`, `language` data.language; the rest are the YAML's
generator_args, checked against the annotations: `Annotated[int, between(1, 512)]` (ernie2.schema) bounds a
number. The result may depend on these alone.

A generator module may also have
    labels = Labels(...)    the classes, as many as the YAML's num_classes
or a function that makes them of the `language` and generator_args that it names as its parameters. The YAML
names a generator by its dotted path, which may lead to any importable module."""

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

_CALL = "generate(source, rng, *, packer, language, **generator_args)"


@dataclass(frozen=True)
class Labels:
    """What the classes of a task mean.

    Attributes:
        names: How each class reads.
        orders: Of a task that shuffles segments: class -> where each segment shown stood in the text, from 0.
        next_sentence: Of a task of two sentences: the classes of a second one that follows the first, and of
            one from another document."""

    names: Sequence[str]
    orders: Sequence[Sequence[int]] = ()
    next_sentence: tuple[int, int] | None = None


@dataclass(frozen=True)
class Generator:
    """A task's generator `module` with its arguments bound."""

    task: Task
    module: ModuleType
    language: str

    def generate(self, source: list, rng: Any, packer: Any) -> Any:
        """Iterator of `data_gen.packing.Packed` for one block."""
        args = self.task.generator_args
        return self.module.generate(source, rng, packer=packer, language=self.language, **args)

    @functools.cached_property
    def labels(self) -> Labels | None:
        """What the classes mean; None if the module does not say."""
        function = getattr(self.module, "labels", None)
        if not callable(function):
            return function
        known = {"language": self.language, **self.task.generator_args}
        return function(
            **{name: known[name] for name in inspect.signature(function).parameters if name in known}
        )

    def describe(self, label: int) -> str:
        """How a label reads; its number if the module does not say."""
        named = self.labels is not None and label < len(self.labels.names)
        return self.labels.names[label] if named else str(label)

    def order(self, label: int) -> Sequence[int] | None:
        """Where each segment stood before the generator shuffled them; None if it shuffles none."""
        return self.labels.orders[label] if self.labels is not None and self.labels.orders else None


def load_generator(task: Task, language: str) -> Generator:
    """Imports the generator of a task and checks its arguments and classes against the YAML.

    Raises:
        ConfigError: no such module or no generate() in it, a wrong argument or number of classes."""
    generator = Generator(task, _import(task), language)
    check_arguments(task, generator.module)
    declared = task.sentence_classes or task.token_classes
    made = declared if generator.labels is None else len(generator.labels.names)
    if declared not in (None, made):
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
    where, name = f"{task.path}: generator", task.generator
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(f"{where}: {name} imports '{error.name}', which is not installed") from None
        ours = [f"{__name__}.{found.name}" for found in pkgutil.iter_modules(__path__)]
        file = f"{name.replace('.', '/')}.py"
        raise ConfigError(
            f"{where}: there is no module '{name}' (file {file}){nearest(name, ours)}"
        ) from None
    if not callable(getattr(module, "generate", None)):
        raise ConfigError(f"{where}: module '{name}' has no function {_CALL}")
    return module


def check_arguments(task: Task, module: ModuleType) -> None:
    """Raises ConfigError if generate() of `module` does not take the task's generator_args."""
    parameters = dict(inspect.signature(module.generate).parameters)
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    for name in ("source", "rng", "packer", "language"):
        if parameters.pop(name, None) is None and not takes_all:
            raise ConfigError(
                f"{task.path}: generator: {task.generator}.generate() does not take '{name}'; write {_CALL}"
            )
    parameters = {name: one for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD}
    hints = _simple_hints(module.generate)
    keys = [
        (name, hints.get(name, Any), field(default=MISSING if one.default is one.empty else None))
        for name, one in parameters.items()
    ]
    section = checked(make_dataclass("generator_args", keys, bases=(Section,), kw_only=True))
    args = {name: arg for name, arg in task.generator_args.items() if name in parameters or not takes_all}
    build(section, args, str(task.path), "generator_args.")


def _simple_hints(function: Callable) -> dict[str, Any]:
    """The annotations of values that a YAML can hold; a user's own may name what is not there."""
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}
    return {name: hint for name, hint in hints.items() if _is_simple(hint)}


def _is_simple(hint: Any) -> bool:
    kinds = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    simple = (bool, int, float, str, NoneType)
    return all(kind in simple or get_origin(kind) in (Annotated, Literal) for kind in kinds)
