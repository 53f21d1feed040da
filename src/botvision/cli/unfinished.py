"""A run that is not finished, as the commands that use a model take it."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from botvision.cli.output import warn
from botvision.inference.hub import fetch, is_on_hub


@contextlib.contextmanager
def model_of(run: str) -> Iterator[str]:
    """Yield the folder with a run's model; a temporary one, made of its checkpoint, if it is not finished.

    Raises:
        ValueError: each of its checkpoints is broken, or its data cannot be opened; or the hub has none.
    """
    if is_on_hub(run):
        yield str(fetch(run))
        return
    folder = Path(run)
    checkpoints = list(folder.glob("checkpoints/*.ckpt"))
    if not (folder / "config.yaml").is_file() or (folder / "summary.json").is_file() or not checkpoints:
        yield run
        return
    from botvision.training.run import export_unfinished

    with tempfile.TemporaryDirectory() as place:
        warn(f"note: {export_unfinished(folder, Path(place))}")
        yield place
