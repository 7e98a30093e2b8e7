import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from ssondo.errors import SsondoError
from ssondo.system.registry import check_options, did_you_mean, import_object, look_up, parameters_of, unknown_name

REGISTRY = {"path": "pathlib:Path", "absent": "no_such_module:f"}


def build(
    rate: int,
    factor: float = 1.0,
    sizes: Sequence[int] = (1, 2),
    mode: Literal["sum", "mean"] | None = "sum",
    flag: bool = False,
    anything: Any = None,
    *,
    path: Path | None = None,
) -> None: ...


def check(**options: Any) -> None:
    check_options("thing 'build'", options, parameters_of(build, ignored=("path",)))


def test_an_entry_is_imported_when_it_is_looked_up() -> None:
    assert look_up("class", "path", REGISTRY) is Path


def test_an_unknown_name_gives_the_existing_ones_and_the_most_similar_one() -> None:
    assert unknown_name("teacher", "m3d", ["matpac", "m2d"]) == (
        "teacher 'm3d' does not exist; choose one of matpac, m2d (did you mean 'm2d'?)"
    )
    with pytest.raises(SsondoError, match=r"^class 'zzz' does not exist; choose one of path, absent$"):
        look_up("class", "zzz", REGISTRY)
    with pytest.raises(SsondoError, match="class None does not exist"):
        look_up("class", None, REGISTRY)
    assert did_you_mean("zzz", REGISTRY) == ""


def test_a_missing_dependency_of_a_registered_module_is_not_hidden() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        look_up("class", "absent", REGISTRY)


def test_an_object_of_the_users_code_is_imported_by_its_dotted_name() -> None:
    assert import_object("function", "pathlib:Path.cwd") == Path.cwd


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("pathlib.Path", "function 'pathlib.Path' is not of the form package.module:name"),
        (":f", "function ':f' is not of the form"),
        ("no_such_package.sub:f", "the module 'no_such_package' does not exist; install it or add its folder to PYTH"),
        ("pathlib:Route.cwd", "the module pathlib has no 'Route.cwd'"),
        ("needs_absent:f", "its module needs 'no_such_package', which is not installed"),
    ],
)
def test_an_object_that_cannot_be_imported_is_refused_with_its_name_and_the_reason(
    target: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_absent.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SsondoError) as caught:
        import_object("function", target)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"rate": 1},
        {"rate": 1, "factor": 2, "sizes": [1], "mode": None, "flag": True, "anything": object()},
        {"rate": 1, "factor": 2.5, "sizes": (1,), "mode": "mean"},
    ],
)
def test_options_that_fit_the_parameters_are_accepted(options: dict[str, Any]) -> None:
    check(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"rate": 1, "factr": 1},
            "thing 'build' has no option 'factr'; its options are rate, factor, sizes, mode, flag, anything "
            "(did you mean 'factor'?)",
        ),
        ({"rate": 1, "path": "a"}, "thing 'build' has no option 'path'"),
        ({"factor": 1.0}, "thing 'build' requires the option 'rate'"),
        ({"rate": 1.5}, "thing 'build': option 'rate' is 1.5; it must be a whole number"),
        ({"rate": True}, "option 'rate' is True; it must be a whole number"),
        ({"rate": 1, "factor": "1"}, "option 'factor' is '1'; it must be a number"),
        ({"rate": 1, "factor": False}, "option 'factor' is False; it must be a number"),
        ({"rate": 1, "sizes": 3}, "option 'sizes' is 3; it must be a list"),
        ({"rate": 1, "flag": 1}, "option 'flag' is 1; it must be true or false"),
        ({"rate": 1, "mode": "max"}, "option 'mode' is 'max'; it must be 'sum' or 'mean' or null"),
    ],
)
def test_options_that_do_not_fit_the_parameters_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SsondoError) as caught:
        check(**options)
    assert message in str(caught.value)


def test_an_object_without_options_says_so() -> None:
    with pytest.raises(SsondoError, match=r"^loss 'cosine' has no option 'temperature'; it has no options$"):
        check_options("loss 'cosine'", {"temperature": 1.0}, {})


def test_an_object_that_takes_any_option_accepts_unknown_names_and_still_checks_known_ones() -> None:
    def function(size: int = 1, **more: Any) -> None: ...

    check_options("thing", {"other": 1}, parameters_of(function))
    with pytest.raises(SsondoError, match="option 'size' is 'a'; it must be a whole number"):
        check_options("thing", {"size": "a"}, parameters_of(function))


def test_the_registry_module_imports_no_heavy_package() -> None:
    code = (
        "import sys, ssondo.system.registry; print(sorted({'torch', 'numpy', 'pandas', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
