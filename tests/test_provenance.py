import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ssondo.provenance import modules_of
from ssondo.workflow.verbs import VERBS

ROOT = Path(__file__).parents[1]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A copy of the library's own package folder with four modules: a imports b, b imports c in a function."""
    package = tmp_path / "ssondo"
    package.mkdir()
    shutil.copy(ROOT / "ssondo" / "provenance.py", package)
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text('"""A."""\nfrom ssondo.b import f\n\n\ndef g():\n    """G."""\n    return f()\n')
    (package / "b.py").write_text("def f():\n    from ssondo import c\n    return c.X\n")
    (package / "c.py").write_text("X = 1  # one\n")
    (package / "d.py").write_text("Y = 2\n")
    return package


def run(library: Path, expression: str) -> str:
    code = (
        f"import sys; sys.path.insert(0, {str(library.parent)!r}); from ssondo.provenance import *; print({expression})"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_imports_are_followed_into_functions(library: Path) -> None:
    assert run(library, "modules_of('ssondo.a')") == "['ssondo.a', 'ssondo.b', 'ssondo.c']"


def test_code_hash_sees_code_of_an_imported_module_and_nothing_else(library: Path) -> None:
    before = run(library, "code_hash('ssondo.a')")
    for module, text in [
        ("a", '"""Another docstring."""\nfrom ssondo.b import f\n\ndef g():\n    return f()  # a remark\n'),
        ("c", "X = (\n    1\n)\n"),
        ("d", "Y = 3\n"),
        ("__init__", "Z = 1\n"),
    ]:
        (library / f"{module}.py").write_text(text)
        assert run(library, "code_hash('ssondo.a')") == before, module
    (library / "c.py").write_text("X = 2\n")
    assert run(library, "code_hash('ssondo.a')") != before


def test_text_that_is_no_docstring_counts(library: Path) -> None:
    before = run(library, "code_hash('ssondo.d')")
    (library / "d.py").write_text("Y = 'text'\n")
    first = run(library, "code_hash('ssondo.d')")
    (library / "d.py").write_text("Y = 'other'\n")
    assert len({before, first, run(library, "code_hash('ssondo.d')")}) == 3


def test_relative_imports_and_packages_are_followed(library: Path) -> None:
    (library / "sub").mkdir()
    (library / "sub" / "__init__.py").write_text("from .inner import X\n")
    (library / "sub" / "inner.py").write_text("from ..c import X\n")
    assert run(library, "modules_of('ssondo.sub')") == "['ssondo.c', 'ssondo.sub', 'ssondo.sub.inner']"
    assert run(library, "modules_of('ssondo.sub.inner')") == "['ssondo.c', 'ssondo.sub', 'ssondo.sub.inner']"


def test_new_entry_of_a_registry_changes_nothing(library: Path) -> None:
    (library / "a.py").write_text('KINDS = {"one": "ssondo.b:f"}\nX = 1\n')
    before = run(library, "code_hash('ssondo.a')")
    (library / "a.py").write_text('KINDS = {"one": "ssondo.b:f", "two": "ssondo.c:X"}\nX = 1\n')
    assert run(library, "code_hash('ssondo.a')") == before
    assert run(library, "registered('ssondo.a', 'KINDS')") == "{'one': 'ssondo.b', 'two': 'ssondo.c'}"
    (library / "a.py").write_text('KINDS = {"one": "other"}\nX = 1\n')
    assert run(library, "code_hash('ssondo.a')") != before


@pytest.mark.parametrize(
    ("verbs", "stranger"),
    [
        # A new loss of distillation does not train the baseline again.
        (["supervise", "initialise"], "distill.losses"),
        # What fetches published models trains nothing and embeds nothing.
        (["distill", "supervise", "initialise", "embed_task"], "inference.wrapper"),
        # How the floor is measured is no part of a training.
        (["distill", "supervise"], "distill.initialise"),
        (["initialise", "embed_task"], "distill.training"),
        # How embeddings and clusters are kept fetches nothing again, and how clips are kept searches no copy again.
        (["index", "locate", "fetch", "resample", "prepare_task"], "storage.shards.embedding"),
        (["fetch", "resample", "embed", "supervise", "embed_task", "probe"], "storage.shards.clusters"),
        (["locate", "cluster", "probe"], "storage.shards.audio"),
    ],
)
def test_code_of_a_verb_does_not_cover_what_it_has_nothing_to_do_with(verbs: list[str], stranger: str) -> None:
    for verb in verbs:
        reached = modules_of(VERBS[verb].partition(":")[0])
        assert f"ssondo.{stranger}" not in reached, verb
    assert f"ssondo.{stranger}" in modules_of(f"ssondo.{stranger}")


@pytest.mark.parametrize("module", ["download", "environment"])
def test_an_edit_of_what_computes_nothing_makes_nothing_run_again(library: Path, module: str) -> None:
    (library / "a.py").write_text(f"from ssondo.{module} import retrieve\n")
    (library / f"{module}.py").write_text("from ssondo.c import X\n\ndef retrieve():\n    return X\n")
    before = run(library, "code_hash('ssondo.a')")
    (library / f"{module}.py").write_text("from ssondo.c import X\n\ndef retrieve():\n    return X + 1\n")
    assert run(library, "code_hash('ssondo.a')") == before
    # What it imports is another matter.
    (library / "c.py").write_text("X = 2\n")
    assert run(library, "code_hash('ssondo.a')") != before
