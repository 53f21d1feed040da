"""The rooms import in one direction only; the table is the rule."""

import ast
import subprocess
import sys
from pathlib import Path

import botvision

ROOT = Path(botvision.__file__).parent

# Room -> rooms of botvision that it imports. All else is forbidden, and what nobody uses is not listed.
ALLOWED: dict[str, set[str]] = {
    "io": set(),
    "attention": set(),
    "backbones": {"io", "attention"},
    "config": {"io"},
    "detection": {"attention", "backbones", "config"},
    "coco": {"io"},
    "data": {"io", "config", "coco"},
    "metrics": {"io", "coco"},
    "plots": {"io", "coco", "metrics"},
    "tables": {"io", "backbones", "coco", "data", "metrics"},
    "training": {
        *("io", "attention", "backbones", "detection", "config", "coco", "data", "metrics", "plots"),
    },
    "inference": {
        *("io", "attention", "backbones", "detection", "coco", "data", "plots"),
    },
    "studies": {
        *("io", "config", "coco", "metrics", "plots", "tables", "training", "inference"),
    },
    "cli": {
        *("io", "attention", "backbones", "config", "coco", "data", "metrics", "plots"),
        *("tables", "training", "inference", "studies"),
    },
    "registration": set(),
    "__init__": {"attention", "backbones", "detection", "inference", "registration"},
    "__main__": {"cli"},
}

# Room -> third-party packages that it imports; the standard library is free to all.
THIRD_PARTY: dict[str, set[str]] = {
    "io": {"tqdm", "yaml"},
    "attention": {"torch", "triton"},
    "backbones": {"torch", "timm", "safetensors", "huggingface_hub"},
    "detection": {"torch", "torchvision", "timm"},
    "coco": {"torch", "numpy", "hotcoco", "msgspec"},
    "data": {"torch", "torchvision", "numpy", "PIL", "pillow_heif", "yaml"},
    "metrics": {"torch", "numpy"},
    "plots": {"matplotlib", "numpy", "PIL"},
    "training": {"torch", "torchvision", "timm", "PIL", "lightning", "yaml"},
    "tables": {"yaml"},
    "inference": {"torch", "torchvision", "numpy", "PIL", "contourpy", "huggingface_hub"},
    "studies": {"numpy", "matplotlib", "torch", "PIL", "jinja2"},
    "cli": {"torch", "yaml", "PIL"},
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


def modules_imported(path: Path) -> set[str]:
    """Modules of botvision that a file imports when it runs, at the top or inside functions."""
    tree = ast.parse(path.read_text())
    for_types_alone = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in for_types_alone:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {found for name in names if (found := _module(name)) is not None}


def _module(name: str) -> str | None:
    """The module of botvision that a full name lies in."""
    parts = name.split(".")
    if parts[0] != "botvision":
        return None
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[1:length])
        if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
            return ".".join(parts[:length])
    return None


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Groups of two and more that all lead to one another."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for target in arrows.get(waiting.pop(), set()) - seen:
                seen.add(target)
                waiting.append(target)
        return seen

    reach = {name: reached(name) for name in arrows}
    groups = {frozenset(o for o in found if name in reach.get(o, set())) for name, found in reach.items()}
    return [set(group) for group in groups if group]


def sources() -> list[tuple[str, Path]]:
    """(room, file) of every module."""
    files = sorted(ROOT.rglob("*.py"))
    return [(path.relative_to(ROOT).parts[0].removesuffix(".py"), path) for path in files]


def test_rooms_import_what_the_tables_say() -> None:
    rooms: dict[str, set[str]] = {room: set() for room, _ in sources()}
    packages: dict[str, set[str]] = {room: set() for room in rooms}
    for room, path in sources():
        for name in imported(path) - {"botvision", "botvision.__version__"}:
            top, *inside = name.split(".")
            if top == "botvision":
                rooms[room] |= {inside[0]} - {room}
            elif top not in sys.stdlib_module_names:
                packages[room].add(top)
    assert rooms == ALLOWED
    assert {room: used for room, used in packages.items() if used} == THIRD_PARTY


def test_the_table_has_no_circle() -> None:
    assert circles(ALLOWED) == []


def test_no_circle_of_modules() -> None:
    arrows = {}
    for _, path in sources():
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        # A package that offers its modules' names, and the modules that use one another, are no circle.
        arrows[name] = set() if parts[-1] == "__init__" else modules_imported(path) - {name}
    assert circles(arrows) == []


def test_circles_are_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]
    assert circles({"a": {"b"}, "b": set(), "d": {"a", "b"}}) == []


def test_no_file_is_larger_than_a_room() -> None:
    assert {path.name: n for _, path in sources() if (n := len(path.read_text().splitlines())) > 500} == {}


def test_functions_are_short_and_take_few_arguments() -> None:
    """60 lines without the docstring, 8 arguments without self; Triton's have one for each stride."""
    wrong = []
    for _, path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if any(ast.unparse(each) == "triton.jit" for each in node.decorator_list):
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
    """So does everything that the package offers by name."""
    code = """
import sys, warnings
warnings.simplefilter("error")
import botvision
extras = {"lightning", "hotcoco", "msgspec", "jinja2", "matplotlib", "tensorboard", "pytest"}
assert not extras & set(sys.modules), extras & set(sys.modules)
warnings.resetwarnings()  # of the packages behind the names, which are imported when they are asked for
for name in botvision.__all__:
    getattr(botvision, name)
    assert not extras & set(sys.modules), (name, extras & set(sys.modules))
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
