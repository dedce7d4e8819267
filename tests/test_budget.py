"""The size budget: a module or function past it has grown a second idea."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = [
    path
    for room in ("lepton_edge", "converters", "device_agent", "fleet")
    for path in sorted((ROOT / room).rglob("*.py"))
    if "migrations" not in path.parts
]
MAX_MODULE = 600
MAX_FUNCTION = 60


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_module_and_its_functions_are_within_the_budget(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_MODULE
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= MAX_FUNCTION
    }
    assert long == {}
