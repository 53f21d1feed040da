"""The rows of backbones.py for people: tables, what was asked for and what is, and the picture."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from harness import loglog, table
from networks import FOLDED, TIMM

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, object]
KEY = ("size", "batch", "dtype", "pass", "layout")
SIZE = 1024  # pixels, where limits were set
# Largest ratio of times, BoTNet over ResNet, by device, dtype and pass.
LIMITS = {
    ("cpu", "fp32", "forward"): 1.20,
    ("cpu", "bf16", "forward"): 1.15,
    ("cpu", "fp32", "training step"): 1.25,
    ("cpu", "bf16", "training step"): 1.25,
    ("cuda", "bf16", "forward"): 1.21,
    ("cuda", "bf16", "training step"): 1.21,
}
FIXED, SPEED_UP = "botnet50ts_256", 1.3  # of ours over timm's, in throughput


class Names(Protocol):
    """Of the networks."""

    @property
    def resnet(self) -> str: ...
    @property
    def botnet(self) -> str: ...
    @property
    def fixed(self) -> str: ...
    def contenders(self, training: bool) -> list[str]: ...


def body(times: Sequence[Row], fixed: Sequence[Row], memory: Sequence[Row], names: Names) -> str:
    """All tables as Markdown; what was not measured is left out."""
    parts = []
    if times:
        parts += ["## Time, ms", _times_table(times, names.contenders(training=False))]
    if fixed:
        note = (
            "The same weights, 256x256, fp32. The speed-up is over timm's network in NCHW, as timm gives it."
        )
        shown = [_without(row, "device", "size", "dtype", "pass") for row in fixed]
        parts += [f"## {TIMM}{names.fixed} and ours", note, table(shown)]
    if memory:
        note = "Of one run in a process of its own, beyond weights and images. Channels-last."
        parts += ["## Peak extra memory, MB", note]
        parts += [table([_without(row, "device") for row in memory])]
    lines = list(asked(times, fixed, names))
    if lines:
        parts += ["## What was asked", table(lines)]
    return "\n\n".join(parts)


def asked(times: Sequence[Row], fixed: Sequence[Row], names: Names) -> Iterator[dict[str, object]]:
    """One line for each limit that these rows can answer."""
    pair = f"{names.botnet} / {names.resnet}"
    for row in times:
        limit = LIMITS.get((str(row["device"]), str(row["dtype"]), str(row["pass"])))
        if row["size"] == SIZE and limit is not None and pair in row:
            where = ", ".join(str(row[key]) for key in ("size", "dtype", "pass", "layout", "mode"))
            measured = _number(row, pair)
            yield _line(f"{where}: time, {pair}", measured, f"<= {limit:g}", measured <= limit)
    for batch in dict.fromkeys(row["batch"] for row in fixed if names.fixed == FIXED):
        for name in (names.fixed, names.fixed + FOLDED):
            rows = [row for row in fixed if row["batch"] == batch and row["network"] == name]
            if rows and rows[0]["device"] == "cpu":
                best = min(rows, key=lambda row: _number(row, "ms"))
                measured = _number(best, "over the faster format")
                ours = f"throughput of {name}, {best['layout']}"
                yield _line(
                    f"256, batch {batch}, fp32: {ours}, over timm's faster format",
                    measured,
                    f">= {SPEED_UP:g}",
                    measured >= SPEED_UP,
                )


def picture(times: Sequence[Row], memory: Sequence[Row], names: Names) -> "Figure | None":
    """Time of an image and memory of a run over the number of pixels, channels-last, not compiled."""
    shown = [row for row in times if row["mode"] == "eager" and row["layout"] == "channels-last"]
    costs = {"time of an image, ms": shown, "peak extra memory, MB": memory}
    rows = [
        {
            "pixels": int(str(row["size"])) ** 2,
            cost: _number(row, name) / (int(str(row["batch"])) if found is shown else 1),
            "network": name,
            "panel": f"{row['dtype']}, {row['pass']}",
        }
        for cost, found in costs.items()
        for row in found
        for name in names.contenders(training=False)
        if row.get(name) is not None
    ]
    if not rows:
        return None
    drawn = [cost for cost in costs if any(cost in row for row in rows)]
    title = "Backbones, channels-last"
    return loglog(rows, "pixels", drawn, "network", "panel", title, bold=(names.botnet,))


def _times_table(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Median ± spread and ratios; the mode is shown where there is more than one."""
    keys = KEY if len({row["mode"] for row in rows}) == 1 else (*KEY, "mode")
    shown: list[dict[str, object]] = []
    for row in rows:
        times = {
            name: f"{_digits(_number(row, name))} ± {_digits(_number(row, f'spread of {name}'), 2)}"
            for name in names
            if name in row
        }
        ratios = {name: f"{_number(row, name):.3f}" for name in row if " / " in name}
        shown.append({key: row[key] for key in keys} | times | ratios)
    return table(shown)


def _digits(value: float, wanted: int = 3) -> str:
    """Without an exponent: 1234 rather than 1.23e+03."""
    return f"{value:.0f}" if value >= 10**wanted else f"{value:.{wanted}g}"


def _number(row: Row, name: str) -> float:
    value = row[name]
    assert isinstance(value, float), f"{name}: {value}"
    return value


def _without(row: Row, *names: str) -> dict[str, object]:
    return {key: value for key, value in row.items() if key not in names}


def _line(what: str, value: float, limit: str, kept: bool) -> dict[str, object]:
    return {"what": what, "measured": f"{value:.3f}", "asked": limit, "kept": "yes" if kept else "no"}
