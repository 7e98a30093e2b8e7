"""Which edits of the code change a rule's hash, and which do not."""

import ast
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from ssondo.provenance import COMPUTES_NOTHING, OWN, SourceTree, modules_of, registered, source_file
from ssondo.provenance.reduce import ReducedModule
from ssondo.workflow.accept_code import REGISTRIES
from ssondo.workflow.verbs import VERBS

ROOT = Path(__file__).parents[1]
# Verbs that make files which a later command deletes, moves or prints are no rules.
NO_RULES = {"ledger", "retry", "freeze"}


def rule_modules() -> dict[str, list[str]]:
    """The modules that each rule starts from, with every entry of its registries."""
    rules = {}
    for verb, target in VERBS.items():
        if verb not in NO_RULES:
            registries = [registry for group in REGISTRIES.get(verb, []) for registry in group]
            chosen = [module for registry in registries for module in registered(*registry).values()]
            rules[verb] = [target.partition(":")[0], *sorted(set(chosen))]
    return rules


RULES = rule_modules()


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A package with four modules: a imports b, b imports c in a function."""
    package = tmp_path / "ssondo"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text('"""A."""\nfrom ssondo.b import f\n\n\ndef g():\n    """G."""\n    return f()\n')
    (package / "b.py").write_text("def f():\n    from ssondo import c\n    return c.X\n")
    (package / "c.py").write_text("X = 1  # one\n")
    (package / "d.py").write_text("Y = 2\n")
    return package


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package that a test may edit."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(ROOT / "ssondo", tmp_path / "ssondo", ignore=ignored))


def hashes(package: Path) -> dict[str, str]:
    """The hash of each rule's code."""
    tree = SourceTree(package)
    return {rule: tree.code_hash(*modules) for rule, modules in RULES.items()}


def changed_rules(package: Path) -> set[str]:
    """The rules whose hash differs from that of the package that is tested."""
    before = hashes(ROOT / "ssondo")
    return {rule for rule, digest in hashes(package).items() if digest != before[rule]}


def reduced(source: str) -> dict[str, str]:
    return ReducedModule(ast.parse(dedent(source))).definitions


def test_imports_are_followed_into_functions(library: Path) -> None:
    assert SourceTree(library).modules_of("ssondo.a") == ["ssondo.a", "ssondo.b", "ssondo.c"]


def test_code_hash_covers_imported_modules_and_no_others(library: Path) -> None:
    before = SourceTree(library).code_hash("ssondo.a")
    for module, text in [
        ("a", '"""Another docstring."""\nfrom ssondo.b import f\n\ndef g():\n    return f()  # a remark\n'),
        ("c", "X = (\n    1\n)\n"),
        ("d", "Y = 3\n"),
        ("__init__", "Z = 1\n"),
    ]:
        (library / f"{module}.py").write_text(text)
        assert SourceTree(library).code_hash("ssondo.a") == before, module
    (library / "c.py").write_text("X = 2\n")
    assert SourceTree(library).code_hash("ssondo.a") != before


def test_relative_imports_and_packages_are_followed(library: Path) -> None:
    (library / "sub").mkdir()
    (library / "sub" / "__init__.py").write_text("from .inner import X\n")
    (library / "sub" / "inner.py").write_text("from ..c import X\n")
    expected = ["ssondo.c", "ssondo.sub", "ssondo.sub.inner"]
    assert SourceTree(library).modules_of("ssondo.sub") == expected
    assert SourceTree(library).modules_of("ssondo.sub.inner") == expected


def test_imports_for_type_checking_are_not_followed(library: Path) -> None:
    (library / "a.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ssondo.b import f\n")
    assert SourceTree(library).modules_of("ssondo.a") == ["ssondo.a"]


def test_unknown_module_is_refused(library: Path) -> None:
    with pytest.raises(ValueError, match=r"ssondo\.x is not a module"):
        SourceTree(library).code_hash("ssondo.x")


def test_new_entry_of_a_registry_changes_no_hash(library: Path) -> None:
    (library / "a.py").write_text('KINDS = {"one": "ssondo.b:f"}\nX = 1\n')
    before = SourceTree(library).code_hash("ssondo.a")
    (library / "a.py").write_text('KINDS = {"one": "ssondo.b:f", "two": "ssondo.c:X"}\nX = 1\n')
    tree = SourceTree(library)
    assert tree.code_hash("ssondo.a") == before
    assert tree.targets("ssondo.a", "KINDS") == {"one": "ssondo.b:f", "two": "ssondo.c:X"}
    (library / "a.py").write_text('KINDS = {"one": "other"}\nX = 1\n')
    assert SourceTree(library).code_hash("ssondo.a") != before


LOGGER = "import logging\nlog = logging.getLogger(__name__)\n"
PROGRESS = "from ssondo.system.progress import progress\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('def f(x):\n raise ValueError("bad")', 'def f(x):\n raise ValueError(f"{x!r} is bad: {len(x):,}") from None'),
        ('def f(x):\n raise SsondoError("bad")', 'def f(x):\n raise SsondoError("worse" + ", ".join(y for y in x))'),
        (f'{LOGGER}def f(x):\n log.info("done")\n return x', f"{LOGGER}def f(x):\n return x"),
        (f'{LOGGER}def f(x):\n log.info("%d", x)\n return x', f'{LOGGER}def f(x):\n log.warning("%s", x.y)\n return x'),
        (f'{LOGGER}def f(x):\n if x > 3:\n  log.info("big")\n return x', f"{LOGGER}def f(x):\n return x"),
        (
            f'{LOGGER}def f(x):\n try:\n  g()\n except OSError:\n  log.info("no")',
            f"{LOGGER}def f(x):\n try:\n  g()\n except OSError:\n  pass",
        ),
        ('import warnings\nwarnings.warn("old", stacklevel=2)', 'import warnings\nwarnings.warn("new", stacklevel=2)'),
        ('def f(x):\n assert x, "bad"', "def f(x):\n assert x"),
        (f'{PROGRESS}progress(x, "embed")', f'{PROGRESS}progress(x, name=f"embed {{y}}")'),
        (
            'def f(x):\n hint = "do that"\n raise SsondoError(f"{x}; {hint}")',
            'def f(x):\n hint = f"do {x}"\n way = f"{hint}!"\n raise SsondoError(way)',
        ),
        ('def f():\n """Old."""\n return 1', 'def f():\n """New."""\n return 1  # a remark'),
        ("class A:\n x = 1\n 'Old.'", "class A:\n x = 1\n 'New.'"),
    ],
)
def test_edited_message_is_no_change(before: str, after: str) -> None:
    assert reduced(before) == reduced(after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # Texts that are results.
        ('def f():\n raise ClipError("empty file")', 'def f():\n raise ClipError("no file")'),
        ('def f():\n raise _Unavailable("live")', 'def f():\n raise _Unavailable("removed")'),
        ('def f():\n return "cut short"', 'def f():\n return "truncated"'),
        ('X = "text"', 'X = "other"'),
        ('def f(x):\n hint = "a"\n log(hint)\n return hint', 'def f(x):\n hint = "b"\n log(hint)\n return hint'),
        ('def f():\n t = "a"\n t += g()\n raise ValueError(t)', 'def f():\n t = "b"\n t += g()\n raise ValueError(t)'),
        ('def f():\n global t\n t = "a"', 'def f():\n global t\n t = "b"'),
        ('def f():\n t = "a"\n return lambda: t', 'def f():\n t = "b"\n return lambda: t'),
        ('def f():\n t = "a"\n return locals()', 'def f():\n t = "b"\n return locals()'),
        ('def f():\n class A:\n  t = "a"\n return A', 'def f():\n class A:\n  t = "b"\n return A'),
        # What an exception does.
        ("def f():\n raise ValueError('x')", "def f():\n raise TransientError('x')"),
        ("def f(x):\n if x > 1:\n  raise ValueError('x')", "def f(x):\n if x > 2:\n  raise ValueError('x')"),
        ("def f(x):\n assert x > 1, 'x'", "def f(x):\n assert x > 2, 'x'"),
        ("def f():\n raise OSError(28, 'x')", "def f():\n raise OSError(122, 'x')"),
        # Calls in messages may have effects.
        (f"{LOGGER}log.info('%d', store(1))", f"{LOGGER}log.info('%d', store(2))"),
        (f"{LOGGER}log.info('%d', sum(rows))", f"{LOGGER}pass"),
        (f"{LOGGER}log.info('%s', [next(x) for x in y])", f"{LOGGER}pass"),
        (f"{LOGGER}log.info('%d', (x := 1))", f"{LOGGER}log.info('%d', (x := 2))"),
        ("def f():\n raise ValueError(save(1))", "def f():\n raise ValueError(save(2))"),
        ("def f(x):\n assert x, save(1)", "def f(x):\n assert x, save(2)"),
        # Names that only look like a logger or a progress bar.
        ("log = []\nlog.error(1)", "log = []\nlog.error(2)"),
        ("progress(x, 'a')", "progress(x, 'b')"),
        (f"{PROGRESS}progress(range(3), 'a')", f"{PROGRESS}progress(range(4), 'a')"),
        # Order, and what a name means.
        ("from a import f", "from b import f"),
        ("X = 1\nY = 2", "Y = 2\nX = 1"),
        ("class A:\n x = 1\n def f(self): ...", "class A:\n def f(self): ...\n x = 1"),
    ],
)
def test_edited_computation_is_a_change(before: str, after: str) -> None:
    assert repr(reduced(before)) != repr(reduced(after))


@pytest.mark.parametrize(
    ("verbs", "stranger"),
    [
        # A new loss of distillation does not train the baseline again.
        (["supervise", "initialise"], "distill.losses"),
        # The code that fetches published models trains and embeds nothing.
        (["distill", "supervise", "initialise", "embed_task"], "inference.wrapper"),
        # Untrained students are no part of a training, and a training is no part of them.
        (["distill", "supervise"], "distill.initialise"),
        (["initialise", "embed_task"], "distill.training"),
        # The format of embeddings and clusters does not matter to fetching, nor that of clips to searching a copy.
        (["index", "locate", "fetch", "resample", "prepare_task"], "storage.shards.embedding"),
        (["fetch", "resample", "embed", "supervise", "embed_task", "probe"], "storage.shards.clusters"),
        (["locate", "cluster", "probe"], "storage.shards.audio"),
    ],
)
def test_code_of_a_verb_does_not_cover_unrelated_modules(verbs: list[str], stranger: str) -> None:
    for verb in verbs:
        reached = modules_of(VERBS[verb].partition(":")[0])
        assert f"ssondo.{stranger}" not in reached, verb
    assert source_file(f"ssondo.{stranger}") is not None


@pytest.mark.parametrize("module", sorted(COMPUTES_NOTHING))
def test_module_that_computes_nothing_is_in_no_hash_but_its_imports_are(library: Path, module: str) -> None:
    path = library.joinpath(*module.split(".")[1:]).with_suffix(".py")
    path.parent.mkdir(exist_ok=True)
    (path.parent / "__init__.py").touch()
    (library / "a.py").write_text(f"from {module} import f\n")
    path.write_text("from ssondo.c import X\n\ndef f():\n    return X\n")
    before = SourceTree(library).code_hash("ssondo.a")
    path.write_text("from ssondo.c import X\n\ndef f():\n    return X + 1\n")
    assert SourceTree(library).code_hash("ssondo.a") == before
    (library / "c.py").write_text("X = 2\n")
    assert SourceTree(library).code_hash("ssondo.a") != before


def test_modules_that_compute_nothing_exist() -> None:
    for module in COMPUTES_NOTHING:
        assert source_file(module) is not None, module


# The real package: one edit of each kind.


def test_edited_loss_changes_the_hash_of_distillation_alone(copy: Path) -> None:
    path = copy / "distill" / "losses.py"
    path.write_text(path.read_text() + "\n_CHANGED = 1\n")
    assert changed_rules(copy) == {"distill"}


@pytest.mark.parametrize("module", sorted(COMPUTES_NOTHING))
def test_edited_module_that_computes_nothing_changes_no_hash(copy: Path, module: str) -> None:
    source = source_file(module)
    assert source is not None
    path = copy / source.relative_to(ROOT / "ssondo")
    path.write_text(path.read_text() + "\n_CHANGED = 1\n")
    assert changed_rules(copy) == set()


def is_log(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func).startswith(("log.", "warnings.warn"))
    )


class _LongerMessages(ast.NodeTransformer):
    """Appends a character to the text of each log line and each error that is a message."""

    def __init__(self) -> None:
        self.n_edits = 0

    def _lengthen(self, texts: list[ast.expr]) -> None:
        for text in texts[:1]:
            values = text.values if isinstance(text, ast.JoinedStr) else [text]
            constants = [v for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)]
            for constant in constants[:1]:
                constant.value += "~"
                self.n_edits += 1

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func) in (
            "SsondoError",
            "TransientError",
            "ValueError",
        ):
            self._lengthen(node.exc.args)
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if is_log(node):
            assert isinstance(node.value, ast.Call)
            self._lengthen(node.value.args)
        return node


def test_character_appended_to_every_log_line_and_error_text_changes_no_hash(copy: Path) -> None:
    editor = _LongerMessages()
    for path in sorted(copy.rglob("*.py")):
        path.write_text(ast.unparse(editor.visit(ast.parse(path.read_text()))))
    assert editor.n_edits > 300
    assert changed_rules(copy) == set()


# Nothing that computes is left out.


def computing_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module outside messages, registries and statements for type checking."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Raise) or is_log(child):
            continue
        if isinstance(child, ast.If) and (all(map(is_log, child.body)) or "TYPE_CHECKING" in ast.unparse(child.test)):
            continue
        if isinstance(child, ast.Assign) and isinstance(child.value, ast.JoinedStr | ast.IfExp):
            continue  # A text may be a part of a message.
        if isinstance(child, ast.Assert):
            yield from computing_nodes(child.test)
            continue
        yield child
        yield from computing_nodes(child)


def another(value: object) -> object:
    return not value if isinstance(value, bool) else f"{value}~" if isinstance(value, str) else value + 1  # type: ignore[operator]


def mutations(tree: ast.Module) -> dict[str, list[Callable[[], Callable[[], None]]]]:
    """Edits by kind: each changes the tree and returns the function that takes the change back."""
    edits: dict[str, list[Callable[[], Callable[[], None]]]] = {}

    def constant(kind: str, node: ast.Constant) -> None:
        def edit() -> Callable[[], None]:
            old, node.value = node.value, another(node.value)  # type: ignore[assignment]
            return lambda: setattr(node, "value", old)

        edits.setdefault(kind, []).append(edit)

    def operator(node: ast.AST, field: str, value: object) -> None:
        def edit() -> Callable[[], None]:
            old = getattr(node, field)
            setattr(node, field, value)
            return lambda: setattr(node, field, old)

        edits.setdefault("operator", []).append(edit)

    for node in computing_nodes(tree):
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            constant("number", node)
        elif isinstance(node, ast.BinOp):
            operator(node, "op", ast.Sub() if isinstance(node.op, ast.Add) else ast.Add())
        elif isinstance(node, ast.Compare):
            operator(node, "ops", [ast.NotEq() if isinstance(op, ast.Lt) else ast.Lt() for op in node.ops])
        elif isinstance(node, ast.FunctionDef):
            for default in [*node.args.defaults, *node.args.kw_defaults]:
                if isinstance(default, ast.Constant) and type(default.value) in (int, float, bool, str):
                    constant("default", default)
    for statement in tree.body:
        value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.Constant) and type(value.value) in (int, float, bool, str):
            constant("constant", value)
    return edits


def spread(items: list, n: int) -> list:
    return items[:: max(1, len(items) // n)]


CLOSURES = {rule: set(OWN.definitions_of(*modules)) for rule, modules in RULES.items()}


def test_number_operator_default_and_constant_of_every_module_count(copy: Path) -> None:
    own = SourceTree(copy)
    before = {rule: own.code_hash(*modules) for rule, modules in RULES.items()}
    n_edits = dict.fromkeys(("number", "operator", "default", "constant"), 0)
    for module in sorted(set().union(*CLOSURES.values())):
        path = own.source_file(module)
        assert path is not None
        source = path.read_text()
        tree = ast.parse(source)
        base = repr(ReducedModule(tree).definitions)
        edits = mutations(tree)
        for kind, found in edits.items():
            for edit in spread(found, 4):
                undo = edit()
                assert repr(ReducedModule(tree).definitions) != base, f"{module}: {ast.unparse(tree)}"
                undo()
                n_edits[kind] += 1
        # And through the hash of each rule that reaches the module.
        for found in edits.values():
            undo = found[0]()
            path.write_text(ast.unparse(tree))
            undo()
            own._modules.pop(module)
            own._hashes.clear()
            changed = {rule for rule, modules in RULES.items() if own.code_hash(*modules) != before[rule]}
            assert changed == {rule for rule, closure in CLOSURES.items() if module in closure}, module
        path.write_text(source)
        own._modules.pop(module)
        own._hashes.clear()
    assert all(n > 30 for n in n_edits.values()), n_edits


def test_no_result_holds_the_text_of_an_error_that_counts_as_a_message() -> None:
    """An exception may be turned into data (`reason=str(error)`) only if its text counts."""
    messages = {"SsondoError", "TransientError", "LocationChanged", "ValueError", "TypeError", "RuntimeError"}
    # These handlers put the text into another message, or look for words of a library in it.
    allowed = {"reason = ", "lines = ", "found = ", "stumbled = ", "self.fault = ", "log.", "raise "}
    for module in sorted(set().union(*CLOSURES.values())):
        path = source_file(module)
        assert path is not None
        for handler in ast.walk(ast.parse(path.read_text())):
            if not isinstance(handler, ast.ExceptHandler) or handler.name is None or handler.type is None:
                continue
            caught = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
            if not caught & messages:
                continue
            for statement in handler.body:
                used = [n for n in ast.walk(statement) if isinstance(n, ast.Name) and n.id == handler.name]
                text = ast.unparse(statement)
                if used and not isinstance(statement, ast.Raise | ast.If):
                    assert any(text.startswith(start) for start in allowed), f"{module}: {text}"
