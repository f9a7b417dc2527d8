"""Imports go down only, one module sees Hydra, the report needs no torch."""

import ast
import subprocess
import sys

from tests.conftest import ROOT

# Each layer may import from those to its right (ARCHITECTURE.md, "Import rule").
LAYERS = [
    {"__main__"},
    {"cli"},
    {"bench", "data_commands", "reporting"},
    {"papers"},
    {"listing", "audit", "reproduce"},
    {"experiment"},
    {"train"},
    {"graphs"},
    {"step"},
    {"explain"},
    {"maps", "weights", "sources"},
    {"feed", "features"},
    {"evaluate", "profile", "pruning", "report", "progress", "compose", "summary"},
    {"checkpoint", "runs", "device"},
    {
        "data",
        "models",
        "metrics",
        "losses",
        "sampling",
        "augment",
        "schedules",
        "optimizers",
        "stages",
    },
    {"config"},
    {"errors"},
]
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}
FILES = sorted((ROOT / "medexp").rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            if node.module == "medexp":
                yield from (f"medexp.{alias.name}" for alias in node.names)


def part_of(module):
    return module.split(".")[1] if module.count(".") else None


def test_imports_go_down_only():
    assert len(FILES) > 20
    for path in FILES:
        own = path.relative_to(ROOT / "medexp").parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for module in imports(path):
            if module.startswith("medexp.") and (other := part_of(module)) in LEVEL:
                down = LEVEL[other] > LEVEL[own] or other == own
                assert down, f"{path.name} imports {module}: {own} lies below {other}"


def test_only_compose_sees_hydra_and_omegaconf():
    seen = {
        path.name
        for path in FILES
        for module in imports(path)
        if module.split(".")[0] in ("hydra", "omegaconf")
    }
    assert seen == {"compose.py"}


def test_report_imports_no_torch():
    script = (
        "import importlib, pkgutil, sys\n"
        "from medexp import report\n"
        "names = [module.name for module in pkgutil.iter_modules(report.__path__)]\n"
        "assert len(names) > 15\n"
        "for name in names: importlib.import_module(f'medexp.report.{name}')\n"
        "assert 'torch' not in sys.modules and 'hydra' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_there_is_no_utils_module():
    assert not [p for p in FILES if p.stem in ("utils", "util", "helpers", "common", "misc")]
