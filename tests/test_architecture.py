"""Imports go down only, one module sees Hydra, the report needs no torch."""

import ast
import subprocess
import sys

from tests.conftest import ROOT

# Each layer may import from those below it (ARCHITECTURE.md, "Import rule").
LAYERS = [
    {"__main__"},
    {"cli"},
    {"jobs"},
    {"train", "explain", "report"},
    {"score", "models", "data", "augment"},
    {"config", "runs"},
    {"errors"},
]
# Rooms of one layer do not import each other, but for these, each with its reason.
NEIGHBOURS = {
    ("explain", "report"): "pictures are drawn by the report's panels",
    ("score", "data"): "a prediction is of a split",
    ("config", "runs"): "the config of a run is read from its directory",
}
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
    used = set()
    for path in FILES:
        own = path.relative_to(ROOT / "medexp").parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for module in imports(path):
            if not module.startswith("medexp.") or (other := part_of(module)) not in LEVEL:
                continue
            if own != other and (own, other) in NEIGHBOURS:
                used.add((own, other))
                continue
            down = LEVEL[other] > LEVEL[own] or other == own
            assert down, f"{path.name} imports {module}: {own} is not above {other}"
    assert used == set(NEIGHBOURS)


def test_only_config_sees_hydra_and_omegaconf():
    seen = {
        path.name
        for path in FILES
        for module in imports(path)
        if module.split(".")[0] in ("hydra", "omegaconf")
    }
    assert seen == {"compose.py", "line.py", "refusals.py", "saved.py"}


def test_report_imports_no_torch():
    script = (
        "import importlib, pkgutil, sys\n"
        "from medexp import report\n"
        "found = pkgutil.walk_packages(report.__path__, 'medexp.report.')\n"
        "names = [module.name for module in found]\n"
        "assert len(names) > 15\n"
        "for name in names: importlib.import_module(name)\n"
        "assert 'torch' not in sys.modules and 'hydra' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_there_is_no_utils_module():
    assert not [p for p in FILES if p.stem in ("utils", "util", "helpers", "common", "misc")]


# Their parameters are the keys of a YAML: a network's, a reader's, a schedule's.
OWN_SIGNATURES = ("models", "data/read", "train/schedules.py")


def test_rooms_stay_small_enough_to_know():
    """At most 400 lines a file, 90 a function, 8 parameters, as CONTRIBUTING says."""
    long = []
    for path in FILES:
        place = path.relative_to(ROOT / "medexp").as_posix()
        if (lines := len(path.read_text().splitlines())) > 400:
            long.append(f"{place}: {lines} lines")
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            if (lines := node.end_lineno - node.lineno + 1) > 90:
                long.append(f"{place}: {node.name} has {lines} lines")
            names = [
                a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            ]
            count = len([name for name in names if name not in ("self", "cls")])
            if count > 8 and not place.startswith(OWN_SIGNATURES):
                long.append(f"{place}: {node.name} has {count} parameters")
    assert not long
