"""Hashes of the code that makes a result: a module and all project modules that it imports.

Snakemake does not see changes in an imported library, so every rule carries such a hash as a
param. The hash covers code that can change a result, and nothing else: `ssondo.provenance.reduce`
states what is left out of a module, and `COMPUTES_NOTHING` lists the modules that are left out.
"""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ssondo.provenance.reduce import ReducedModule, registry_of

_PACKAGE = "ssondo"
# The command line only turns text into arguments, and the package's __init__ only names into imports.
_OUTSIDE = {_PACKAGE, f"{_PACKAGE}.cli", f"{_PACKAGE}.__main__"}
COMPUTES_NOTHING = {
    "ssondo.provenance": "It names the code that made a result, never what the result holds.",
    "ssondo.provenance.reduce": "It is a part of ssondo.provenance.",
    "ssondo.errors": "It defines the types of errors; which one is raised, and when, counts where it is raised.",
    "ssondo.storage.atomic_write": "It decides when a file appears under its name, never what the file holds.",
    "ssondo.storage.download": "What is stored at an address does not depend on how it is downloaded.",
    "ssondo.system.allocator": "It decides how memory is reused, never what is stored in it.",
    "ssondo.system.hardware": "It describes the machine in words, for the reader of a result.",
    "ssondo.system.progress": "It shows how far a job is and passes the items on unchanged.",
}
"""Modules that cannot change a result, each with the reason. What they import counts all the same."""
EQUIVALENT_CODE = Path(__file__).with_name("equivalent_code.json")
"""For each rule, rows of hashes of code that gives identical results; `ssondo accept_code` adds to them."""


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _dotted(imports: list[tuple[int, str, list[str]]], package: str) -> set[str]:
    """The dotted names that the imports of a module mean, with the packages around them."""
    dotted: set[str] = set()
    for level, base, names in imports:
        if level:
            parent = package.split(".")[: len(package.split(".")) - level + 1]
            base = ".".join([*parent, *([base] if base else [])])
        dotted.update({base, *(f"{base}.{name}" for name in names)} if base else names)
    # Importing a.b.c runs a and a.b too.
    return dotted | {".".join(name.split(".")[:n]) for name in dotted for n in range(1, name.count(".") + 1)}


class _Parsed(NamedTuple):
    """What is recorded of a module's source."""

    digest: str
    definitions: dict[str, str]
    imports: frozenset[str]


def _source_at(base: Path) -> Path | None:
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


class SourceTree:
    """The source of the package in a folder; nothing of it is imported.

    Args:
        folder: the folder of the package's `__init__.py`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._modules: dict[str, _Parsed] = {}
        self._hashes: dict[tuple[str, ...], str] = {}

    def source_file(self, module: str) -> Path | None:
        """The file of a project module; None if `module` is not one."""
        head, *rest = module.split(".")
        if head != _PACKAGE:
            return None
        return _source_at(self._folder.joinpath(*rest))

    def _tree(self, module: str) -> tuple[ast.Module, Path]:
        path = self.source_file(module)
        if path is None:
            raise ValueError(f"{module} is not a module of {_PACKAGE}")
        return ast.parse(path.read_text(encoding="utf-8"), str(path)), path

    def _parsed(self, module: str) -> _Parsed:
        if module not in self._modules:
            tree, path = self._tree(module)
            reduced = ReducedModule(tree)
            names = _dotted(reduced.imports, module if path.name == "__init__.py" else module.rpartition(".")[0])
            imports = frozenset(name for name in names if name not in _OUTSIDE and self.source_file(name))
            definitions = {name: _short(text) for name, text in reduced.definitions.items()}
            self._modules[module] = _Parsed(_short(repr(definitions)), definitions, imports)
        return self._modules[module]

    def targets(self, module: str, registry: str) -> dict[str, str]:
        """The entries of a registry of `module`, "module:name" by key.

        Raises:
            ValueError: if `module` or the registry does not exist.
        """
        for node in self._tree(module)[0].body:
            found = registry_of(node)
            if found is not None and found[0] == registry:
                return found[1]
        raise ValueError(f"{module} has no registry {registry}")

    def modules_of(self, *modules: str) -> list[str]:
        """The project modules that `modules` reach by import, themselves included, sorted.

        Raises:
            ValueError: if one of `modules` is not a module of this package.
        """
        reached: set[str] = set()
        open_ = list(modules)
        while open_:
            module = open_.pop()
            if module not in reached and module not in _OUTSIDE:
                reached.add(module)
                parents = [".".join(module.split(".")[:n]) for n in range(1, module.count(".") + 1)]
                open_.extend([*self._parsed(module).imports, *filter(self.source_file, parents)])
        return sorted(reached)

    def definitions_of(self, *modules: str) -> dict[str, dict[str, str]]:
        """The hash of each definition that counts, by module and name, for `modules` and all that they import."""
        counting = [module for module in self.modules_of(*modules) if module not in COMPUTES_NOTHING]
        return {module: self._parsed(module).definitions for module in counting}

    def code_hash_of(self, module: str) -> str:
        """A short hash of what one module computes, without those that it imports."""
        return self._parsed(module).digest

    def code_hash(self, *modules: str) -> str:
        """A short hash of what `modules` and everything that they import from this project compute.

        Args:
            modules: dotted names, e.g. "ssondo.distill.distill", "ssondo.students.dymn".

        Returns:
            16 hexadecimal digits; the same for code that differs only in what cannot change a result.
        """
        if modules not in self._hashes:
            lines = [f"{module} {self._parsed(module).digest}\n" for module in self.definitions_of(*modules)]
            self._hashes[modules] = _short("".join(lines))
        return self._hashes[modules]


class _UserTree(SourceTree):
    """The source of a user's modules in a folder; the modules of this package are not among them.

    In a folder of installed packages, only the modules of the package `own` count.
    """

    def __init__(self, folder: Path, own: str) -> None:
        super().__init__(folder)
        self._only = own if folder.name in {"site-packages", "dist-packages"} else None

    def source_file(self, module: str) -> Path | None:
        head = module.partition(".")[0]
        if head == _PACKAGE or self._only not in (None, head):
            return None
        return _source_at(self._folder.joinpath(*module.split(".")))


def user_code(source: Path, module: str) -> dict[str, str]:
    """A hash of what a user's module computes, and of each module of the same folder that it imports, by name.

    A file that is not the Python source of a module of this name, such as an extension module, counts as a whole.

    Args:
        source: the file of the module.
        module: its dotted name; the folder is that of its first part.

    Raises:
        SyntaxError: if one of the modules is not valid Python.
    """
    depth = module.count(".") + (source.name == "__init__.py")
    tree = _UserTree(source.parents[depth], module.partition(".")[0])
    if tree.source_file(module) != source:
        return {source.name: hashlib.sha256(source.read_bytes()).hexdigest()[:16]}
    return {name: tree.code_hash_of(name) for name in tree.modules_of(module)}


OWN = SourceTree(Path(__file__).parents[1])
"""The source of this installation."""
source_file, modules_of, definitions_of, code_hash = OWN.source_file, OWN.modules_of, OWN.definitions_of, OWN.code_hash


@cache
def _first_hashes(path: Path) -> dict[str, dict[str, str]]:
    """For each rule, the first hash of the row of each hash."""
    table: dict[str, list[list[str]]] = json.loads(path.read_text(encoding="utf-8"))
    return {rule: {digest: row[0] for row in rows for digest in row} for rule, rows in table.items()}


def accepted_hash(rule: str, *modules: str) -> str:
    """The code hash of the first code of a rule that gives the same results as `modules`.

    Snakemake compares this hash, and results that name their code hold it: an upgrade to equivalent code runs nothing
    again, and results from before and after it are comparable.
    """
    own = code_hash(*modules)
    return _first_hashes(EQUIVALENT_CODE).get(rule, {}).get(own, own)


@cache
def targets(module: str, registry: str) -> dict[str, str]:
    """The entries of a registry of `module`, "module:name" by key; read from its source, not imported."""
    return OWN.targets(module, registry)


def registered(module: str, registry: str) -> dict[str, str]:
    """The modules that a registry of `module` names, by key; read from its source, not imported."""
    return {key: target.partition(":")[0] for key, target in targets(module, registry).items()}
