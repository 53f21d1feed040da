"""Run a notebook from top to bottom and keep its outputs: `python docs/run_notebook.py NOTEBOOK.ipynb`.

Nothing of the machine or the time goes into the file, so that it changes where its outputs change.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from botvision.io.files import write_text

TIMEOUT = 1800  # seconds a cell


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a kernel of its own, which works in a folder without the checkout.

    Raises:
        CellExecutionError: a cell raised.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name="python3", record_timing=False, coalesce_streams=True
    )
    client.create_kernel_manager()
    assert client.km is not None
    if sys.platform != "win32":
        client.km.transport = "ipc"  # no port is opened
    client.execute()
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return notebook


def main(words: list[str]) -> int:
    if len(words) != 1 or not Path(words[0]).is_file():
        print("expected a notebook: python docs/run_notebook.py NOTEBOOK.ipynb", file=sys.stderr)
        return 2
    path = Path(words[0])
    try:
        notebook = executed(path)
    except CellExecutionError as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 1
    write_text(path, nbformat.writes(notebook) + "\n")
    print(f"written: {path} ({path.stat().st_size / 1e6:.2f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
