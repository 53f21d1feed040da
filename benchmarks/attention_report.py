"""The rows of attention.py for people: tables, what was asked for and what is, and the picture."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contenders import LAYERS, OPERATIONS, OURS
from harness import loglog, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, object]
KEY = ("dtype", "grid", "batch", "pass")
FORWARD, TRAINING = "forward", "forward + backward"


@dataclass(frozen=True)
class Limits:
    """Sides in cells: of the map for which limits of time and memory were set, and of smaller ones."""

    large: int
    small: Sequence[int]


# (dtype, pass, the contender that "auto" is compared with, largest ratio of times)
TIMES = (
    ("fp32", FORWARD, "einsum", 0.50),
    ("fp32", FORWARD, "content", 1.70),
    ("bf16", FORWARD, "einsum", 0.25),
    ("bf16", FORWARD, "content", 1.70),
    ("fp32", TRAINING, "einsum", 0.75),
    ("bf16", TRAINING, "einsum", 0.75),
)
MEMORY = {FORWARD: 1 / 8, TRAINING: 1 / 4}  # auto / einsum
EXPONENT = 1.15  # of memory over the number of cells
CHOICE = (
    1.25  # auto / fastest kernel: medians of one case differ by as much between two runs on a shared machine
)


def body(times: Sequence[Row], layers: Sequence[Row], memory: Sequence[Row], limits: Limits) -> str:
    """All tables as Markdown; what was not measured is left out."""
    parts = []
    if times:
        ratios = ("auto / einsum", "auto / content")
        parts += ["## Time of the operation, ms", _times_table(times, OPERATIONS, ratios)]
    if layers:
        note = (
            "The projection included, the same weights in all; the size is known to those with fixed sizes."
        )
        ratios = ("ours / pypi", "ours / timm")
        parts += ["## Time of the whole layer, ms", note, _times_table(layers, LAYERS, ratios)]
    if memory:
        note = "Of one run in a process of its own, beyond its inputs: results, gradients and all between."
        shown = [{key: value for key, value in row.items() if key != "device"} for row in memory]
        parts += ["## Peak extra memory, MB", note, table(shown)]
    lines = list(asked(times, memory, limits))
    if lines:
        parts += ["## What was asked", table(lines)]
    return "\n\n".join(parts)


def asked(times: Sequence[Row], memory: Sequence[Row], limits: Limits) -> Iterator[dict[str, object]]:
    """One line for each limit that these rows can answer."""
    large = f"{limits.large}x{limits.large}"
    for dtype, direction, other, limit in TIMES:
        for row in _where(times, grid=large, dtype=dtype, **{"pass": direction}):
            line = f"{large}, {dtype}, {direction}: time, ours / {other}"
            yield _line(line, _number(row, f"auto / {other}"), limit)
    for side in limits.small:
        rows = _where(times, grid=f"{side}x{side}")
        if rows:
            slowest = max(rows, key=lambda row: _number(row, "auto / einsum"))
            where = f"{slowest['dtype']}, {slowest['pass']}, batch {slowest['batch']}"
            line = f"{side}x{side}, slowest of {len(rows)} cases ({where}): time, ours / einsum"
            yield _line(line, _number(slowest, "auto / einsum"), 1.0)
    compared = [(_over_fastest(row), row) for row in times if set(OURS) <= row.keys()]
    if compared:
        ratio, row = max(compared, key=lambda pair: pair[0])
        where = f"{row['grid']}, {row['dtype']}, {row['pass']}, batch {row['batch']}"
        yield _line(f"worst choice of {len(compared)} ({where}): time, ours / fastest kernel", ratio, CHOICE)
    for dtype in ("fp32", "bf16"):
        for direction, limit in MEMORY.items():
            yield from _memory_lines(_where(memory, dtype=dtype, **{"pass": direction}), large, limit)


def _over_fastest(row: Row) -> float:
    """Time of the kernel that is chosen over that of the fastest."""
    return _number(row, "auto") / min(_number(row, name) for name in OURS if name != "auto")


def _memory_lines(rows: Sequence[Row], large: str, limit: float) -> Iterator[dict[str, object]]:
    """The lines of one dtype and pass."""
    for row in rows:
        ours, other = row.get("auto"), row.get("einsum")
        if row["grid"] == large and isinstance(ours, float) and isinstance(other, float):
            yield _line(
                f"{large}, {row['dtype']}, {row['pass']}: peak memory, ours / einsum", ours / other, limit
            )
    points = [(cells(row), ours) for row in rows if isinstance(ours := row.get("auto"), float) and ours > 0]
    points.sort()
    # also without the smallest map, whose weights the tiles may keep: that flatters a fit
    for fitted in (points, points[1:]):
        if len(fitted) > 1:
            first, last = (f"{math.isqrt(n)}x{math.isqrt(n)}" for n in (fitted[0][0], fitted[-1][0]))
            name = f"{first} to {last}, {rows[0]['dtype']}, {rows[0]['pass']}: exponent of memory over cells"
            yield _line(name, exponent(fitted), EXPONENT, "<")


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The slope of the line through the points on two logarithmic axes: 1 where cost grows as size does."""
    return statistics.linear_regression(
        [math.log(size) for size, _ in points], [math.log(cost) for _, cost in points]
    ).slope


def picture(times: Sequence[Row], memory: Sequence[Row]) -> "Figure | None":
    """Time and memory of the operation at batch 1 over the number of cells."""
    rows = [
        {
            "cells": cells(row),
            cost: row[name],
            "implementation": name,
            "panel": f"{row['dtype']}, {row['pass']}",
        }
        for cost, found in (("time, ms", times), ("peak extra memory, MB", memory))
        for row in found
        for name in OPERATIONS
        if row["batch"] == 1 and name in row
    ]
    if not rows:
        return None
    title = "Attention over a feature map, 4 heads of 128, batch 1"
    costs = [cost for cost in ("time, ms", "peak extra memory, MB") if any(cost in row for row in rows)]
    return loglog(rows, "cells", costs, "implementation", "panel", title, bold=("auto",))


def cells(row: Row) -> int:
    """Of a row's "HxW"."""
    return math.prod(int(side) for side in str(row["grid"]).split("x"))


def _times_table(rows: Sequence[Row], names: Sequence[str], ratios: Sequence[str]) -> str:
    """Median ± spread, the fastest kernel in bold, and some ratios."""
    kernels = [name for name in names if name in OURS and name != "auto"]
    shown: list[dict[str, object]] = []
    for row in rows:
        best = min(kernels, key=lambda name: _number(row, name), default="")
        times = {name: _with_spread(row, name, name == best) for name in names}
        rated = {name: f"{_number(row, name):.2f}" for name in ratios if name in row}
        shown.append({key: row[key] for key in KEY} | times | rated)
    return table(shown)


def _with_spread(row: Row, name: str, bold: bool) -> str:
    cell = f"{_digits(_number(row, name))} ± {_digits(_number(row, f'spread of {name}'), 2)}"
    return f"**{cell}**" if bold else cell


def _digits(value: float, wanted: int = 3) -> str:
    """Without an exponent: 1234 rather than 1.23e+03."""
    return f"{value:.0f}" if value >= 10**wanted else f"{value:.{wanted}g}"


def _number(row: Row, name: str) -> float:
    value = row[name]
    assert isinstance(value, float), f"{name}: {value}"
    return value


def _where(rows: Sequence[Row], **values: str) -> list[Row]:
    return [row for row in rows if all(row[key] == value for key, value in values.items())]


def _line(what: str, value: float, limit: float, relation: str = "<=") -> dict[str, object]:
    kept = value < limit if relation == "<" else value <= limit
    return {
        "what": what,
        "measured": f"{value:.3f}",
        "asked": f"{relation} {limit:g}",
        "kept": "yes" if kept else "no",
    }
