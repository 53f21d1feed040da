"""The rooms import in one direction only; the table is the rule."""

import ast
import subprocess
import sys
from pathlib import Path

import botvision

ROOT = Path(botvision.__file__).parent

# Room -> rooms of botvision that it may import. All else is forbidden.
ALLOWED: dict[str, set[str]] = {
    "atomic": set(),
    "bars": set(),
    "sides": set(),
    "attention": set(),
    "backbones": {"atomic", "attention"},
    "detection": {"atomic", "attention", "backbones"},
    "data": {"atomic", "sides"},
    "evaluation": {"atomic", "sides"},
    "draw": {"atomic"},
    "draw_breakdown": {"draw", "evaluation"},
    "draw_curves": {"draw", "evaluation"},
    "draw_attention": {"draw"},
    "draw_labels": {"draw"},
    "draw_overlay": {"atomic", "draw", "draw_labels"},
    "report": {"backbones", "data", "evaluation"},
    "report_detection": {"data", "evaluation", "report"},
    "report_evaluation": {"evaluation", "report"},
    "scoring": {"atomic", "draw_curves", "evaluation"},
    "training": {
        *("atomic", "attention", "bars", "backbones", "data", "detection", "evaluation"),
        *("draw", "draw_breakdown", "draw_curves", "draw_overlay"),
    },
    "study": {"atomic", "data", "deploy", "draw", "evaluation", "report", "sides", "training"},
    "study_command": {"bars", "report", "study"},
    "deploy": {
        *("atomic", "attention", "backbones", "data", "detection", "evaluation"),
        *("draw", "draw_attention", "draw_overlay"),
    },
    "attend_command": {"data", "deploy", "draw", "evaluation", "draw_overlay", "report"},
    "eval_command": {"attention", "bars", "report_evaluation", "scoring", "training"},
    "complaints": set(),
    "predict_command": {"bars", "data", "deploy", "draw_overlay", "report", "training"},
    "manual": set(),
    "arguments": {"manual", "training"},
    "cli": {
        *("atomic", "backbones", "bars", "data", "evaluation", "draw", "report", "manual", "training"),
        *(
            "arguments",
            "attend_command",
            "complaints",
            "deploy",
            "eval_command",
            "predict_command",
            "draw_curves",
            "draw_overlay",
            "report_detection",
        ),
        "study_command",
    },
    "__init__": {"attention", "backbones", "deploy", "detection", "registration"},
    "registration": set(),
}

# Room -> third-party packages that it may import; the standard library is free to all.
CORE = {"torch", "torchvision", "timm", "safetensors", "numpy", "PIL"}
THIRD_PARTY: dict[str, set[str]] = {
    "atomic": set(),
    "bars": {"tqdm"},
    "sides": set(),
    "arguments": set(),
    "attention": {"torch"},
    "backbones": {"torch", "timm", "safetensors"},
    "detection": {"torch", "torchvision", "timm", "safetensors"},
    "data": {"torch", "torchvision", "torchdata", "numpy", "PIL", "hotcoco", "yaml"},
    "evaluation": {"torch", "numpy", "yaml", "hotcoco", "msgspec"},
    "draw": {"matplotlib", "numpy", "PIL"},
    "draw_attention": {"matplotlib", "numpy", "PIL"},
    "draw_breakdown": {"matplotlib", "numpy", "PIL"},
    "draw_curves": {"matplotlib", "numpy"},
    "draw_labels": {"numpy", "PIL"},
    "draw_overlay": {"numpy", "PIL"},
    "study": {"numpy", "matplotlib", "torch", "PIL"},
    "deploy": CORE,
    "training": CORE | {"lightning", "tqdm", "yaml"},
    "cli": {"torch", "yaml"},
}


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports, at the top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def sources() -> list[tuple[str, Path]]:
    """(room, file) of every module."""
    files = sorted(ROOT.rglob("*.py"))
    return [(path.relative_to(ROOT).parts[0].removesuffix(".py"), path) for path in files]


def test_rooms_import_in_one_direction() -> None:
    wrong = []
    for room, path in sources():
        for name in imported(path):
            parts = name.split(".")
            if parts[0] != "botvision" or name in ("botvision", "botvision.__version__"):
                continue
            if parts[1] != room and parts[1] not in ALLOWED[room]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_rooms_use_only_their_third_party_packages() -> None:
    wrong = []
    for room, path in sources():
        allowed = THIRD_PARTY.get(room, CORE)
        for name in imported(path):
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names | {"botvision"} | allowed:
                wrong.append(f"{path.relative_to(ROOT)} imports {top}")
    assert wrong == []


def test_the_table_has_no_cycle() -> None:
    done: set[str] = set()
    while remaining := {room for room in ALLOWED if room not in done}:
        free = {room for room in remaining if ALLOWED[room] <= done}
        assert free, f"cycle among {sorted(remaining)}"
        done |= free


def test_no_file_is_larger_than_a_room() -> None:
    assert {path.name: n for _, path in sources() if (n := len(path.read_text().splitlines())) > 500} == {}


def test_functions_are_short_and_take_few_arguments() -> None:
    """60 lines without the docstring, 8 arguments without self."""
    wrong = []
    for _, path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            arguments = [a for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in ("self", "cls")]
            count = len(arguments) + len(node.args.kwonlyargs)
            lines = (node.end_lineno or node.lineno) - node.lineno + 1 - _docstring_lines(node)
            if lines > 60 or count > 8:
                wrong.append(f"{path.relative_to(ROOT)} {node.name}: {lines} lines, {count} arguments")
    assert wrong == []


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        return (first.end_lineno or first.lineno) - first.lineno + 1
    return 0


def test_import_is_silent_and_needs_the_core_only() -> None:
    code = """
import sys, warnings
warnings.simplefilter("error")
import botvision
extras = {"lightning", "torchdata", "jsonargparse", "matplotlib", "tensorboard", "pytest"}
sys.exit(", ".join(sorted(extras & set(sys.modules))) or None)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_timm_has_the_models_also_after_somebody_asked_whether_it_is_there() -> None:
    code = """
import importlib.util, sys
import botvision
assert importlib.util.find_spec("timm") is not None
assert "timm" not in sys.modules
import timm
sys.exit(not timm.is_model("botnet50"))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
