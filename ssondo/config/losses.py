"""What a loss of distillation needs, read from the source of its class because importing it would import torch."""

import ast
from collections.abc import Iterator
from functools import cache

from ssondo.distill import LOSSES
from ssondo.provenance import source_file


@cache
def needs_clusters(loss: str) -> bool:
    """Return the value of the class attribute `needs_clusters` of a loss.

    Args:
        loss: A key of `ssondo.distill.LOSSES`.
    """
    for definition in _definitions(*LOSSES[loss].split(":")):
        for item in definition.body:
            if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == "needs_clusters":
                return bool(ast.literal_eval(item.value))
    return False


@cache
def option_names(loss: str) -> frozenset[str]:
    """Return the names of the options of a loss, the parameters of its `__init__`.

    Args:
        loss: A key of `ssondo.distill.LOSSES`.
    """
    for definition in _definitions(*LOSSES[loss].split(":")):
        for item in definition.body:
            if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                arguments = [*item.args.posonlyargs, *item.args.args, *item.args.kwonlyargs]
                return frozenset(argument.arg for argument in arguments) - {"self"}
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
