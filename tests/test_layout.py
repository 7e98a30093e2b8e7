"""The layout of the project: each stage has one name, packages import in one direction, and modules are small."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "ssondo"
# From the bottom to the top; a package imports from those on its own level only if it is the same package.
LEVELS = [
    {"errors", "provenance"},
    {"system"},
    {"storage"},
    {"audio"},
    {"audioset"},
    {"tasks"},
    {"teachers"},
    {"cluster"},
    {"students"},
    {"distill"},
    {"probe"},
    {"report"},
    {"config"},
    {"inference"},
    {"workflow"},
    {"cli", "model", "__init__", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
STAGES = {"audioset", "teachers", "cluster", "distill", "tasks", "probe", "report"}
# Students have no rule of their own: distill, supervise and initialise make them.
PAGES = STAGES | {"students"}
MAX_LINES = 400
MAX_ENTRIES = 20


def modules() -> list[Path]:
    return sorted(LIBRARY.rglob("*.py"))


def package_of(path: Path) -> str:
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def imported_packages(path: Path) -> set[str]:
    """The packages of the project that a module imports anywhere, also within functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "ssondo" and len(part) > 1 and part[1] in LEVEL}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_module_imports_only_from_packages_below_its_own(path: Path) -> None:
    own = package_of(path)
    wrong = {name for name in imported_packages(path) if name != own and LEVEL[name] > LEVEL[own]}
    assert not wrong


def test_every_package_has_a_place_in_the_order() -> None:
    assert {package_of(path) for path in modules()} == set(LEVEL)


def test_library_has_few_entries() -> None:
    entries = {path.name for path in LIBRARY.iterdir()} - {"__pycache__"}
    assert len(entries) <= MAX_ENTRIES


def test_no_module_is_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules()}
    assert {path: n for path, n in lengths.items() if n > MAX_LINES} == {}


@pytest.mark.parametrize(
    ("folder", "suffix"),
    [("rules", ".smk"), ("ssondo", ""), ("ssondo/config", ".py"), ("ssondo/workflow/rules", ".py"), ("tests", "")],
)
def test_every_stage_has_its_name_in_each_folder(folder: str, suffix: str) -> None:
    assert [name for name in sorted(STAGES) if not (ROOT / folder / f"{name}{suffix}").exists()] == []


@pytest.mark.parametrize("name", sorted(PAGES))
def test_every_stage_has_a_page(name: str) -> None:
    page = ROOT / "docs" / f"{name}.md"
    assert page.is_file(), f"{page} does not exist"
    assert page.read_text().startswith("# "), f"{page} has no title"
