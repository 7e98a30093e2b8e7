"""Read classes of losses and students from their source code, without importing torch or the user's code."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ssondo.distill import LOSSES
from ssondo.provenance import source_file
from ssondo.system.registry import did_you_mean

# For the name of an annotation or of a default's type: the accepted types and their description in a message.
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "float": ((int, float), "a number"),
    "int": ((int,), "a whole number"),
    "bool": ((bool,), "true or false"),
    "str": ((str,), "a string"),
    "list": ((list,), "a list"),
    "tuple": ((list,), "a list"),
    "Sequence": ((list,), "a list"),
}


@dataclass(frozen=True)
class Signature:
    """The settings of a class.

    Attributes:
        kinds: name of the type of each setting; "" if the source does not state it.
        required: settings without a default.
        min_frames: class attribute `min_frames`, the smallest number of frames of a window; 1 if there is none.
    """

    kinds: Mapping[str, str]
    required: frozenset[str]
    min_frames: int

    def explain_mismatch(self, settings: Mapping[str, object]) -> str | None:
        """Return why the class rejects `settings`, as ".setting: reason" or ": reason"; None if it accepts them."""
        for name, value in settings.items():
            if name not in self.kinds:
                existing = f"the settings are {', '.join(self.kinds)}" if self.kinds else "there are no settings"
                return f".{name}: this setting does not exist; {existing}{did_you_mean(name, self.kinds)}"
            types, words = _KINDS.get(self.kinds[name], ((object,), ""))
            if not isinstance(value, types) or (isinstance(value, bool) and not {bool, object} & set(types)):
                return f".{name}: {value!r} is not allowed; it must be {words}"
        if missing := [name for name in self.kinds if name in self.required - settings.keys()]:
            return f": {', '.join(missing)} is missing"
        return None


def signature_of(path: Path, name: str) -> Signature | None:
    """Return the settings of class `name` of a source file; None if the source does not determine them.

    The source does not determine the settings of a class that inherits `__init__` or accepts `**kwargs`.

    Raises:
        SyntaxError: if the file is not valid Python.
    """
    for node in ast.parse(path.read_bytes(), str(path)).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            arguments = _init_arguments(node)
            return _signature(arguments, node) if arguments and arguments.kwarg is None else None
    return None


@cache
def needs_clusters(loss: str) -> bool:
    """Return the value of the class attribute `needs_clusters` of a loss, a key of `ssondo.distill.LOSSES`."""
    values = (_attribute(definition, "needs_clusters") for definition in _definitions(*LOSSES[loss].split(":")))
    return bool(next((value for value in values if value is not None), False))


@cache
def option_names(loss: str) -> frozenset[str]:
    """Return the names of the options of a loss, a key of `ssondo.distill.LOSSES`: the parameters of its `__init__`."""
    for definition in _definitions(*LOSSES[loss].split(":")):
        if arguments := _init_arguments(definition):
            return frozenset(_signature(arguments, definition).kinds)
    return frozenset()


def _definitions(module: str, name: str) -> Iterator[ast.ClassDef]:
    """Yield the definition of a class of the library, then those of its base classes in the library."""
    path = source_file(module)
    if path is None:
        return
    for item in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(item, ast.ClassDef) and item.name == name:
            yield item
            for base in item.bases:
                if isinstance(base, ast.Name):
                    yield from _definitions(module, base.id)
        elif isinstance(item, ast.ImportFrom) and item.module:
            for alias in item.names:
                if (alias.asname or alias.name) == name:
                    yield from _definitions(item.module, alias.name)


def _init_arguments(definition: ast.ClassDef) -> ast.arguments | None:
    items = (item for item in definition.body if isinstance(item, ast.FunctionDef) and item.name == "__init__")
    return next((item.args for item in items), None)


def _attribute(definition: ast.ClassDef, name: str) -> Any:
    """Return the value of a class attribute that is a constant; None if there is none."""
    for item in definition.body:
        if isinstance(item, ast.Assign | ast.AnnAssign) and isinstance(item.value, ast.Constant):
            target = item.targets[0] if isinstance(item, ast.Assign) else item.target
            if isinstance(target, ast.Name) and target.id == name:
                return item.value.value
    return None


def _signature(arguments: ast.arguments, definition: ast.ClassDef) -> Signature:
    named = [*arguments.posonlyargs, *arguments.args][1:]
    n_without = len(named) - len(arguments.defaults)
    defaults: list[ast.expr | None] = [None] * n_without + list(arguments.defaults) + list(arguments.kw_defaults)
    settings = list(zip([*named, *arguments.kwonlyargs], defaults, strict=True))
    min_frames = _attribute(definition, "min_frames")
    return Signature(
        kinds={a.arg: _kind(a.annotation, default) for a, default in settings},
        required=frozenset(a.arg for a, default in settings if default is None),
        min_frames=min_frames if isinstance(min_frames, int) else 1,
    )


def _kind(annotation: ast.expr | None, default: ast.expr | None) -> str:
    if isinstance(annotation, ast.Subscript):
        annotation = annotation.value
    if isinstance(annotation, ast.Name):
        return annotation.id
    if annotation is None and isinstance(default, ast.Tuple | ast.List):
        return "list"
    # A setting with the default 1 may also accept 0.5.
    if annotation is None and isinstance(default, ast.Constant):
        kind = type(default.value).__name__
        return "float" if kind == "int" else kind
    return ""
