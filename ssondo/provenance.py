"""Which code made an artefact: a hash of a module and of all project modules it imports.

Snakemake does not see changes in an imported library, so every rule carries this hash as a
param. Comments, docstrings and layout are no part of it; a module that is named only in a
registry ("module:function") is not followed, so a rule names the one that it uses.
"""

import ast
import hashlib
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent
_PACKAGE = _ROOT.name
# The command line only turns text into arguments, and the package's front door only into imports.
_OUTSIDE = {_PACKAGE, f"{_PACKAGE}.cli", f"{_PACKAGE}.__main__"}


@cache
def _source(module: str) -> Path | None:
    """The file of a project module, or None if `module` is not one."""
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


def _drop_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # Bare strings: docstrings, and the ones that document an attribute.
            node.body = [
                item
                for item in node.body
                if not (
                    isinstance(item, ast.Expr)
                    and isinstance(item.value, ast.Constant)
                    and isinstance(item.value.value, str)
                )
            ]


@cache
def _parsed(module: str) -> tuple[str, frozenset[str]]:
    """The module's own hash and the project modules that it imports."""
    path = _source(module)
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
    _drop_docstrings(tree)
    digest = hashlib.sha256(_dump(tree).encode()).hexdigest()
    return digest, frozenset(name for name in names if name not in _OUTSIDE and _source(name))


def modules_of(*modules: str) -> list[str]:
    """The project modules that `modules` reach by import, themselves included, sorted.

    Raises:
        ValueError: if one of `modules` is not a module of this package.
    """
    for module in modules:
        if _source(module) is None:
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


def code_hash(*modules: str) -> str:
    """A short hash of what `modules` and everything they import from this project compute.

    Args:
        modules: dotted names, e.g. "ssondo.distill", "ssondo.students.dymn".

    Returns:
        16 hexadecimal digits; the same for code that differs in comments, docstrings and layout only.
    """
    digest = hashlib.sha256()
    for module in modules_of(*modules):
        digest.update(f"{module} {_parsed(module)[0]}\n".encode())
    return digest.hexdigest()[:16]


def environment() -> dict[str, str]:
    """What a number was computed with: Python, the packages that matter, the machine."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for package in ("ssondo", "torch", "numpy", "onnxruntime", "faiss-cpu", "scikit-learn", "soxr"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
