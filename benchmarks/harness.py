"""What every benchmark here shares: times side by side, peak memory in a child, results.

def build(case):                                   # a case of `peak_memory`, as its child builds it
    model, image = ...
    return lambda: model(image)

def main():
    if child_main(build):                          # this process is such a child
        return
    args = arguments(__doc__).parse_args()
    times = interleaved({"ours": run, "theirs": run_theirs}, args.seconds)
    rows = [{"contender": name, "ms": t.median, "spread": t.spread} for name, t in times.items()]
    write("name_cpu", rows, "# Title\n\nWhat is compared.", args.out, environment(args.device), None)
"""

import argparse
import csv
import datetime
import gc
import io
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Never, TypeVar

import torch

from botvision.io.files import write_text
from botvision.training import provenance
from memory import child_main, peak_memory
from pictures import loglog

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Times",
    "arguments",
    "child_main",
    "environment",
    "interleaved",
    "loglog",
    "peak_memory",
    "progress",
    "ratio",
    "table",
    "write",
    "write_rows",
]

RESULTS = Path(__file__).parent.parent / "results"
Row = Mapping[str, object]
T = TypeVar("T")


@dataclass(frozen=True)
class Times:
    """Milliseconds of the repetitions of one contender, in the order in which they ran."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, in milliseconds; 0 for a single repetition."""
        if len(self.values) < 2:
            return 0.0
        lower, _, upper = statistics.quantiles(self.values, n=4, method="inclusive")
        return (upper - lower) / 2

    @property
    def count(self) -> int:
        return len(self.values)


def interleaved(
    runs: Mapping[str, Callable[[], object]],
    seconds: float,
    least: int = 5,
    most: int = 200,
    warm_up: int = 1,
) -> dict[str, Times]:
    """Times of contenders that take turns, so that a busy moment of the machine meets them all.

    Each repetition runs every contender once, in an order drawn anew (from a fixed seed): whoever always
    followed the same one would always find its caches. Where a GPU is in use, its queue is empty when a
    clock starts or stops.

    Args:
        runs: what to run, by contender.
        seconds: time for all contenders together after the warm-up.
        least: repetitions even if the time is over.
        most: repetitions at most.
        warm_up: runs of each contender that are not counted.
    """
    for run in runs.values():
        for _ in range(warm_up):
            run()
    names = list(runs)
    times: dict[str, list[float]] = {name: [] for name in names}
    order = random.Random(0)
    end = time.perf_counter() + seconds
    collecting = gc.isenabled()
    gc.disable()  # a collection would be charged to whoever happens to run
    try:
        for repetition in range(most):
            if repetition >= least and time.perf_counter() >= end:
                break
            for name in order.sample(names, len(names)):
                times[name].append(_milliseconds(runs[name]))
            gc.collect(1)
    finally:
        if collecting:
            gc.enable()
    return {name: Times(tuple(values)) for name, values in times.items()}


def _milliseconds(run: Callable[[], object]) -> float:
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if on_gpu:
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def ratio(times: Mapping[str, Times], ours: str, other: str) -> float:
    """Median over the repetitions of ours / other: what was slow for both in a moment cancels."""
    pairs = zip(times[ours].values, times[other].values, strict=True)
    return statistics.median(mine / theirs for mine, theirs in pairs)


def environment(device: str) -> dict[str, str]:
    """What figures were made with: hardware, threads, versions, commit and date."""
    packages = provenance.versions()
    named = {
        name: packages[name] for name in ("botvision", "torch", "torchvision", "timm") if name in packages
    }
    return {
        "device": device,
        "hardware": provenance.hardware(torch.device(device)),
        "threads": str(torch.get_num_threads()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        **named,
        "python": packages["python"],
        "commit": provenance.commit() or "unknown",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def table(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table; the columns are those of all rows, in the order in which they turn up."""
    columns = _columns(rows)
    lines = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in columns) + " |" for row in rows]
    return "\n".join(lines)


def write(
    name: str,
    rows: Sequence[Row],
    head: str,
    out: Path,
    environment: Mapping[str, str],
    picture: "Figure | None" = None,
    body: str | None = None,
) -> None:
    """Write OUT/NAME.csv, .json, .md and, with a picture, .png, each of them whole or not at all.

    Args:
        name: of the files, without suffix.
        rows: strings and numbers by column; a column that a row lacks stays empty.
        head: Markdown before the table: title and what is compared.
        out: folder, made where it is not there.
        environment: see `environment`.
        picture: for NAME.png.
        body: Markdown in place of the plain table of the rows.
    """
    from botvision.plots.style import save_figure

    made_with = "; ".join(f"{key} {value}" for key, value in environment.items())
    image = [f"![{name}]({name}.png)"] if picture is not None else []
    parts = [head.strip(), f"Made with: {made_with}.", *image, body.strip() if body else table(rows)]
    write_rows(name, rows, out, environment)
    write_text(out / f"{name}.md", "\n\n".join(parts) + "\n")
    if picture is not None:
        save_figure(picture, out / f"{name}.png")


def write_rows(name: str, rows: Sequence[Row], out: Path, environment: Mapping[str, str]) -> None:
    """Write OUT/NAME.csv and .json alone: a part of what another file shows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)
    document = {"environment": dict(environment), "rows": [_without_gaps(row) for row in rows]}
    write_text(out / f"{name}.csv", text.getvalue())
    write_text(out / f"{name}.json", json.dumps(document, indent=1) + "\n")


def progress(cases: Sequence[T], label: str) -> Iterator[T]:
    """The cases one by one, with a bar on the error stream where that is a terminal."""
    from tqdm.auto import tqdm

    yield from tqdm(cases, desc=label, leave=False, disable=None, dynamic_ncols=True)


def arguments(doc: str) -> argparse.ArgumentParser:
    """A parser with what all benchmarks take; its help is the text of the script, examples included.

    `--smoke` without `--out` is refused: figures of tiny sizes have no place among the results.
    """
    parser = _Parser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, help="folder of the results; default: results/ of this checkout")
    parser.add_argument(
        "--seconds", type=_positive, default=4.0, help="time for one case (default: %(default)s)"
    )
    usual = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=_device, default=usual, help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that everything runs")
    return parser


class _Parser(argparse.ArgumentParser):
    """Answers a mistake with one line and exit code 2."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: None = None) -> argparse.Namespace:  # type: ignore[override]
        found = super().parse_args(args, namespace)
        if found.smoke and found.out is None:
            self.error("--smoke needs --out FOLDER, so that tiny sizes replace no results")
        found.out = found.out or RESULTS
        if found.out.exists() and not found.out.is_dir():
            self.error(f"--out must be a folder, got the file {found.out}")
        return found

    def error(self, message: str) -> Never:
        self.exit(2, f"{self.prog}: {message}\n")


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (number > 0 and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return number


def _device(text: str) -> str:
    if text not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"expected cpu or cuda, got {text!r}")
    if text == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("this machine has no GPU that torch can use")
    return text


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _plain(value: object) -> object:
    """Four digits are more than any time here is good for."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e4 else _whole(value)


def _whole(value: object) -> object:
    return round(value) if isinstance(value, float) and math.isfinite(value) else value


def _cell(value: object) -> str:
    return str(_plain(value)).replace("|", "\\|")


def _without_gaps(row: Row) -> dict[str, object]:
    """Columns that hold something; JSON knows no NaN."""
    gaps = (key for key, value in row.items() if isinstance(value, float) and not math.isfinite(value))
    hidden = set(gaps)
    return {key: value for key, value in row.items() if key not in hidden and value is not None}


if __name__ == "__main__":
    sys.exit("this file is imported by the benchmarks beside it; run one of those")
