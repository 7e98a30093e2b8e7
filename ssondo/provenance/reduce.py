"""Source code reduced to what can change a result.

The reduced code leaves out:

- comments, docstrings and layout;
- registries, which are dictionaries of "module:function": a rule names the module that it takes
  from one, so that adding a student trains no other student again;
- statements under `if TYPE_CHECKING`, which do not run;
- messages.

A message is the text of an exception of `_MESSAGE_ERRORS`, of an `assert`, of `warnings.warn`, of a
call of a module's logger, and the label of a progress bar. Constants, f-strings, names and attributes in
it are left out. A call in it may have an effect, so it counts, with its arguments; the exceptions are
functions that are known to have none (`_PURE`, `_PURE_METHODS`). In a log message a call that iterates
(`sum`, `join`, a comprehension) counts as well, because it may exhaust an iterator that is used later; in the
text of an exception it does not. A log statement without such a call counts as if it did not exist, and so
does a local variable that holds a text and is read in messages alone.

Everything else counts: the type of an exception and the condition under which it is raised, texts that a
function returns, and the texts of all other exceptions, `ClipError` among them, because results hold them.
"""

import ast
import re
from collections.abc import Callable
from typing import Any

_TARGET = re.compile(r"ssondo(\.\w+)+:\w+")
_MESSAGE_ERRORS = {
    *("SsondoError", "TransientError", "LocationChanged"),
    *("AssertionError", "AttributeError", "NotImplementedError", "RuntimeError", "TypeError", "ValueError"),
}
_LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
_PROGRESS = "ssondo.system.progress"
_PURE = {"abs", "float", "format", "int", "isinstance", "len", "repr", "round", "str", "type"}
_PURE_METHODS = {"lower", "upper", "strip", "splitlines", "monotonic", "perf_counter"}
_ITERATES = {"any", "all", "dict", "enumerate", "list", "max", "min", "set", "sorted", "sum", "tuple", "zip"}
_ITERATING_METHODS = {"join", "items", "keys", "values"}
_COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_BODIES = {"body", "orelse", "finalbody"}
_NOT_WRITTEN = {"kind", "type_comment", "ctx"}
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def registry_of(node: ast.stmt) -> tuple[str, dict[str, str]] | None:
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


def _is_text(node: ast.expr) -> bool:
    """Whether an expression is certainly a text: a constant, an f-string, or a choice or sum of these."""
    if isinstance(node, ast.IfExp):
        return _is_text(node.body) and _is_text(node.orelse)
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add) and _is_text(node.left) and _is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _effects(node: ast.AST, *, iterators_end: bool) -> list[ast.expr]:
    """The parts of an expression that may do more than compute its value.

    Args:
        node: the expression.
        iterators_end: whether no iterator is used after it, so that exhausting one has no effect.
    """
    if isinstance(node, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom):
        return [node]
    if isinstance(node, _COMPREHENSIONS) and not iterators_end:
        return [node]
    if isinstance(node, ast.Call):
        names, methods = _PURE, _PURE_METHODS
        if iterators_end:
            names, methods = names | _ITERATES, methods | _ITERATING_METHODS
        by_name = isinstance(node.func, ast.Name) and node.func.id in names
        by_method = isinstance(node.func, ast.Attribute) and node.func.attr in methods
        if not (by_name or by_method):
            return [node]
    return [effect for child in ast.iter_child_nodes(node) for effect in _effects(child, iterators_end=iterators_end)]


class ReducedModule:
    """A module reduced to what can change a result; the docstring of `ssondo.provenance.reduce` states the rules.

    The reduced syntax tree is a text without positions and without the fields that are empty: `ast.dump` differs
    between Python versions in fields that most code leaves empty.

    Args:
        tree: the syntax tree of the module.

    Attributes:
        definitions: the text of each function, method, class and constant, by name, in order.
        imports: the names that are imported: (level, module, names) for each import.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.definitions: dict[str, str] = {}
        self.imports: list[tuple[int, str, list[str]]] = []
        self._loggers = {"logging"}
        self._progress: set[str] = set()
        self._unused: set[str] = set()
        self._read: set[str] = set()
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("logging.getLogger("):
                self._loggers.update(target.id for target in node.targets if isinstance(target, ast.Name))
            elif isinstance(node, ast.ImportFrom) and node.module == _PROGRESS:
                self._progress.update(alias.asname or alias.name for alias in node.names)
        for statement in self._statements(tree.body):
            self._define(statement)

    def _define(self, node: ast.AST) -> None:
        if isinstance(node, ast.ClassDef):
            name = node.name
            for item in node.body:
                if isinstance(item, _FUNCTIONS):
                    self._add(f"{name}.{item.name}", item)
            # The names of the methods keep the order of the body.
            rest = [
                ast.Expr(ast.Name(item.name, ast.Load())) if isinstance(item, _FUNCTIONS) else item
                for item in node.body
            ]
            node = ast.ClassDef(**{**dict(ast.iter_fields(node)), "body": rest})
        elif isinstance(node, _FUNCTIONS):
            name = node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            name = "imports"
        elif isinstance(node, ast.Assign):
            name = ", ".join(ast.unparse(target) for target in node.targets)
        elif isinstance(node, ast.AnnAssign):
            name = ast.unparse(node.target)
        else:
            name = "statements of the module"
        self._add(name, node)

    def _add(self, name: str, node: ast.AST) -> None:
        self.definitions[name] = self.definitions.get(name, "") + self._text(node)

    def _text(self, node: ast.AST) -> str:
        pieces: list[str] = []
        self._write(node, pieces.append)
        return "".join(pieces)

    def _write(self, node: Any, write: Callable[[str], None]) -> None:
        if isinstance(node, list):
            write("[")
            for item in node:
                self._write(item, write)
                write(",")
            write("]")
            return
        if not isinstance(node, ast.AST):
            write(repr(node))
            return
        outer = self._unused
        if isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Store):
                self._read.add(node.id)
        elif isinstance(node, ast.Raise):
            node = _without_text(node)
        elif isinstance(node, ast.Assert) and node.msg is not None:
            node = ast.Assert(node.test, None if not _effects(node.msg, iterators_end=True) else node.msg)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in self._progress:
            arguments = [value for value in node.args if not _is_text(value)]
            keywords = [keyword for keyword in node.keywords if not _is_text(keyword.value)]
            node = ast.Call(node.func, arguments, keywords)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            self._read.add(node.target.id)
        elif isinstance(node, ast.ClassDef):
            self._unused = set()
        elif isinstance(node, _FUNCTIONS):
            self._unused = outer | self._unused_texts(node)
        self._write_fields(node, write)
        self._unused = outer

    def _write_fields(self, node: ast.AST, write: Callable[[str], None]) -> None:
        write(node.__class__.__name__)
        write("(")
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                value = self._statements(value) if name in _BODIES else value
                if not value:
                    continue
            elif value is None or name in _NOT_WRITTEN:
                continue
            write(name)
            write("=")
            self._write(value, write)
            write(",")
        write(")")

    def _statements(self, body: list[ast.stmt]) -> list[ast.AST]:
        """The statements of a body that count."""
        kept: list[ast.AST] = []
        for node in body:
            if isinstance(node, ast.Expr):
                kept += self._effects_of_statement(node)
            elif not self._counts_for_nothing(node):
                kept.append(node)
        return kept

    def _counts_for_nothing(self, node: ast.stmt) -> bool:
        if isinstance(node, ast.Import):
            self.imports.append((0, "", [alias.name for alias in node.names]))
        elif isinstance(node, ast.ImportFrom):
            self.imports.append((node.level, node.module or "", [alias.name for alias in node.names]))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            name = _assigned_text(node)
            return name in self._unused if name else registry_of(node) is not None
        elif isinstance(node, ast.If) and not node.orelse:
            if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                return True
            return not _effects(node.test, iterators_end=False) and not self._statements(node.body)
        return isinstance(node, ast.Pass)

    def _effects_of_statement(self, node: ast.Expr) -> list[ast.AST]:
        """What counts of a statement that is an expression: nothing of a docstring, the effects of a log message."""
        value = node.value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return []
        if not isinstance(value, ast.Call) or not self._is_log(value.func):
            return [node]
        arguments = [*value.args, *(keyword.value for keyword in value.keywords)]
        return [effect for argument in arguments for effect in _effects(argument, iterators_end=False)]

    def _is_log(self, function: ast.expr) -> bool:
        if not isinstance(function, ast.Attribute) or not isinstance(function.value, ast.Name):
            return False
        owner, method = function.value.id, function.attr
        return (owner in self._loggers and method in _LOG_METHODS) or (owner, method) == ("warnings", "warn")

    def _unused_texts(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
        """The local variables of a function that hold texts and are read in messages alone."""
        candidates: set[str] = set()
        shared: set[str] = set()
        nodes: list[ast.AST] = [function]
        while nodes:
            for node in ast.iter_child_nodes(nodes.pop()):
                if isinstance(node, ast.Global | ast.Nonlocal):
                    shared.update(node.names)
                elif isinstance(node, ast.Assign) and (name := _assigned_text(node)):
                    candidates.add(name)
                if isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case) and not isinstance(
                    node, ast.ClassDef
                ):
                    nodes.append(node)
        outer, read = self._unused, self._read
        unused: set[str] = set()
        while candidates:
            self._read, self._unused = set(), outer | unused
            self._write_fields(function, lambda _: None)
            left = set() if "locals" in self._read else candidates - shared - self._read
            if left == unused:
                break
            unused = left
        self._unused, self._read = outer, read
        return unused


def _without_text(node: ast.Raise) -> ast.Raise:
    error = node.exc
    if not isinstance(error, ast.Call) or not isinstance(error.func, ast.Name) or error.func.id not in _MESSAGE_ERRORS:
        return node
    arguments = [*error.args, *(keyword.value for keyword in error.keywords)]
    effects = [effect for argument in arguments for effect in _effects(argument, iterators_end=True)]
    return ast.Raise(ast.Call(error.func, effects, []), None)


def _assigned_text(node: ast.Assign | ast.AnnAssign) -> str | None:
    """The name of the variable, if a statement assigns a text without effects to one."""
    if not isinstance(node, ast.Assign) or len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
        return None
    is_plain = _is_text(node.value) and not _effects(node.value, iterators_end=False)
    return node.targets[0].id if is_plain else None
