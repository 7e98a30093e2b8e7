"""Which code made an artefact: a hash of a module and of all project modules it imports.

Snakemake does not see changes in an imported library, so every rule carries this hash as a
param. Comments, docstrings and layout are no part of it. Nor is a registry, a dictionary of
"module:function": a rule names the module that it takes from one, so that adding a student makes
no other student train again.
"""

import ast
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent
_PACKAGE = _ROOT.name
# The command line only turns text into arguments, and the package's front door only into imports.
_TARGET = re.compile(rf"{_PACKAGE}(\.\w+)+:\w+")
_OUTSIDE = {_PACKAGE, f"{_PACKAGE}.cli", f"{_PACKAGE}.__main__"}
# What is at an address does not depend on how it is downloaded: an edit of that must not fetch a corpus again.
# Nor does a result depend on the words for the machine that computed it.
_COMPUTES_NOTHING = {f"{_PACKAGE}.download", f"{_PACKAGE}.environment"}


@cache
def source_file(module: str) -> Path | None:
    """The file of a project module, not imported; None if `module` is not one."""
    head, *rest = module.split(".")
    if head != _PACKAGE:
        return None
    base = _ROOT.joinpath(*rest)
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _dump(node: Any) -> str:
    """The syntax tree as text, without positions and without the fields that are empty.

    `ast.dump` differs between Python versions in fields that most code leaves empty.
    """
    if isinstance(node, ast.AST):
        fields = [
            (name, value)
            for name, value in ast.iter_fields(node)
            if value not in (None, []) and name not in ("kind", "type_comment")
        ]
        return f"{type(node).__name__}({','.join(f'{name}={_dump(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(_dump, node))}]"
    return repr(node)


def _registry(node: ast.stmt) -> tuple[str, dict[str, str]] | None:
    """The name and content of a registry, if the statement assigns one."""
    if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Dict) or not node.value.keys:
        return None
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    try:
        content = ast.literal_eval(node.value)
    except ValueError:
        return None
    if isinstance(target, ast.Name) and all(isinstance(v, str) and _TARGET.fullmatch(v) for v in content.values()):
        return target.id, content
    return None


@cache
def targets(module: str, registry: str) -> dict[str, str]:
    """What a registry of `module` names, "module:name" by key; read from its source, not imported."""
    path = source_file(module)
    assert path is not None, module
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        found = _registry(node)
        if found is not None and found[0] == registry:
            return found[1]
    raise ValueError(f"{module} has no registry {registry}")


def registered(module: str, registry: str) -> dict[str, str]:
    """The modules that a registry of `module` names, by key; read from its source, not imported."""
    return {key: target.partition(":")[0] for key, target in targets(module, registry).items()}


def _drop_what_computes_nothing(tree: ast.Module) -> None:
    """Remove bare strings (docstrings, and the ones that document an attribute) and registries."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [
                item
                for item in node.body
                if _registry(item) is None
                and not (
                    isinstance(item, ast.Expr)
                    and isinstance(item.value, ast.Constant)
                    and isinstance(item.value.value, str)
                )
            ]


@cache
def _parsed(module: str) -> tuple[str, frozenset[str]]:
    """The module's own hash and the project modules that it imports."""
    path = source_file(module)
    assert path is not None
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, *([base] if base else [])])
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    # Importing a.b.c runs a and a.b too.
    names.update(".".join(name.split(".")[:n]) for name in set(names) for n in range(1, name.count(".") + 1))
    _drop_what_computes_nothing(tree)
    digest = hashlib.sha256(_dump(tree).encode()).hexdigest()
    return digest, frozenset(name for name in names if name not in _OUTSIDE and source_file(name))


def modules_of(*modules: str) -> list[str]:
    """The project modules that `modules` reach by import, themselves included, sorted.

    Raises:
        ValueError: if one of `modules` is not a module of this package.
    """
    for module in modules:
        if source_file(module) is None:
            raise ValueError(f"{module} is not a module of {_PACKAGE}")
    found: set[str] = set()
    open_ = list(modules)
    while open_:
        module = open_.pop()
        if module not in found and module not in _OUTSIDE:
            found.add(module)
            parents = [".".join(module.split(".")[:n]) for n in range(2, module.count(".") + 1)]
            open_.extend([*_parsed(module)[1], *parents])
    return sorted(found)


@cache
def code_hash(*modules: str) -> str:
    """A short hash of what `modules` and everything they import from this project compute.

    Args:
        modules: dotted names, e.g. "ssondo.distill.distill", "ssondo.students.dymn".

    Returns:
        16 hexadecimal digits; the same for code that differs in comments, docstrings and layout only.
    """
    digest = hashlib.sha256()
    for module in modules_of(*modules):
        if module in _COMPUTES_NOTHING:
            continue
        digest.update(f"{module} {_parsed(module)[0]}\n".encode())
    return digest.hexdigest()[:16]
