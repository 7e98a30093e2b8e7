import ast
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_benchmark_takes_from_the_library_is_there(script: Path) -> None:
    tree = ast.parse(script.read_text(encoding="utf-8"))
    taken = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "ssondo"
    ]
    for statement in taken:
        exec(statement, {})
