"""The log of a run: metrics.csv (a row an epoch), steps.csv (a row every few steps), TensorBoard, lines.

Rows are appended as they come, so that a killed run leaves all it had. A resumed run first drops what lies
after the restored step: those steps happen again, and no step may be in the file twice.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from botvision.io.files import write_text

# A task's own columns of metrics.csv go between these.
BEFORE, AFTER = ("epoch", "step", "train_loss"), ("lr", "seconds")
STEPS = ("step", "epoch", "loss", "lr")  # followed by the parts of the loss


class Table:
    """A CSV file with a header that grows by rows.

    Args:
        path: the file.
        columns: its header; one of them is `step`, the number of optimiser steps done when the row was
            written.
        keep_until: rows with a larger step are dropped, as is a last line that was cut off; 0 starts afresh.
    """

    def __init__(self, path: Path, columns: Sequence[str], keep_until: int) -> None:
        self.path, self.columns = path, tuple(columns)
        rows = [row for row in read_rows(path) if int(row["step"]) <= keep_until] if keep_until else []
        lines = [",".join(self.columns), *(",".join(row[name] for name in self.columns) for row in rows)]
        write_text(path, "\n".join(lines) + "\n")

    def append(self, row: Mapping[str, object]) -> None:
        """Write one row in one write; floats have all their digits, for comparisons bit for bit."""
        cells = (repr(row[name]) if isinstance(row[name], float) else str(row[name]) for name in self.columns)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(",".join(cells) + "\n")
        except OSError as error:  # of a full disk, which says no name
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the complete rows of such a file, none where there is no file."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    complete = text[: text.rfind("\n") + 1]  # a kill in the middle of a write leaves a line without an end
    rows = list(csv.DictReader(complete.splitlines()))
    return [row for row in rows if None not in row.values() and None not in row]


class History:
    """Both tables and the TensorBoard writer of a run folder.

    Args:
        folder: the run folder.
        columns: what a validation finds.
        parts: what the loss is the sum of.
        restored_step: optimiser steps done at the restored checkpoint; 0 for a new run.
    """

    def __init__(
        self, folder: Path, columns: Sequence[str], parts: Sequence[str] = (), restored_step: int = 0
    ) -> None:
        # half a second that reading a table need not wait for
        from torch.utils.tensorboard import SummaryWriter

        self.metrics = Table(folder / "metrics.csv", (*BEFORE, *columns, *AFTER), restored_step)
        self.steps = Table(folder / "steps.csv", (*STEPS, *parts), restored_step)
        # purge_step: TensorBoard hides what an interrupted run wrote from that step on
        self._writer = SummaryWriter(
            str(folder / "tensorboard"), purge_step=restored_step + 1 if restored_step else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def log_step(self, step: int, epoch: int, loss: float, lr: float, **parts: float) -> None:
        """Write a row of steps.csv."""
        self.steps.append({"step": step, "epoch": epoch, "loss": loss, "lr": lr, **parts})
        for name, value in {"loss": loss, "lr": lr, **parts}.items():
            self._writer.add_scalar(f"train/{name}", value, step)

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Write a row of metrics.csv; what was not measured is NaN."""
        self.metrics.append(row)
        for name in self.metrics.columns:
            if name not in ("epoch", "step", "lr", "seconds") and math.isfinite(row[name]):
                self._writer.add_scalar(f"epoch/{name}", row[name], int(row["step"]))
        self._writer.flush()


def epoch_line(row: Mapping[str, float], found: str, epochs: int, best: bool) -> str:
    """Return the line of a finished epoch: its row of metrics.csv, and what the validation found."""
    width = len(str(epochs))
    return (
        f"epoch {row['epoch']:>{width}}/{epochs}  loss {row['train_loss']:.4f}  {found}  "
        f"{row['seconds']:.1f} s" + ("  best" if best else "")
    )
