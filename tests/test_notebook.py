"""The notebook as it is stored, and run again in its short form."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "architecture.ipynb"
MOST_BYTES = 1_500_000
MACHINE = re.compile(r"/(?:home|root|tmp|work|Users|usr|opt|var)/|site-packages|0x[0-9a-f]{6,}")


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def outputs(notebook):
    """(cell number, output) of every code cell."""
    return [(i, out) for i, cell in enumerate(notebook.cells) for out in cell.get("outputs", ())]


def texts(out):
    """All that an output says in words."""
    data = out.get("data", {})
    return "".join([str(out.get("text", "")), *(str(v) for k, v in data.items() if k.startswith("text/"))])


@pytest.fixture(scope="module")
def rerun(tmp_path_factory):
    """The notebook after a run with a fraction of the training."""
    copy = tmp_path_factory.mktemp("docs") / NOTEBOOK.name
    copy.write_bytes(NOTEBOOK.read_bytes())
    script = [sys.executable, str(ROOT / "docs" / "run_notebook.py"), str(copy)]
    done = subprocess.run(
        script,
        env=os.environ | {"BOTVISION_NOTEBOOK": "short"},
        capture_output=True,
        text=True,
        check=False,
        cwd=copy.parent,
    )
    assert done.returncode == 0, done.stderr
    return read(copy)


def test_it_runs_from_top_to_bottom(rerun):
    stored = read(NOTEBOOK)
    code = [cell for cell in rerun.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = [
        [(i, out.output_type, *sorted(out.get("data", ()))) for i, out in outputs(nb)]
        for nb in (rerun, stored)
    ]
    assert kinds[0] == kinds[1]  # the same tables and pictures, where they are stored
    assert sum("image/png" in out.get("data", ()) for _, out in outputs(rerun)) >= 5


@pytest.mark.parametrize("which", ["stored", "rerun"])
def test_outputs_tell_of_no_error_and_no_machine(which, request):
    notebook = request.getfixturevalue("rerun") if which == "rerun" else read(NOTEBOOK)
    for number, out in outputs(notebook):
        assert out.output_type != "error", number
        assert out.get("name") != "stderr", (number, out.text)
        assert not MACHINE.search(texts(out)), (number, texts(out))
        assert not re.search(r": *False", texts(out)), (number, texts(out))  # what the cells compare is equal


def test_what_is_stored_is_small_and_whole():
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    notebook = read(NOTEBOOK)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert set(notebook.metadata) == {"kernelspec"}
