"""Values to text, and rows of text to a table in Markdown."""

from collections.abc import Iterable, Sequence

from botvision.io.text import printable


def table(header: Sequence[str], rows: Iterable[Sequence[object]], align: str) -> str:
    """Return an aligned Markdown table without a final newline.

    Args:
        header: column titles.
        rows: one sequence of cells a row, as long as the header.
        align: "l" or "r" for each column; numbers go to the right.

    Raises:
        ValueError: a row, or `align`, is not as long as the header.
    """
    cells = [[printable(str(cell).replace("|", "\\|").replace("\n", " ")) for cell in row] for row in rows]
    if any(len(row) != len(header) for row in [align, *cells]):
        raise ValueError(f"expected {len(header)} columns in every row")
    widths = [max(3, *(len(row[i]) for row in [header, *cells])) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        columns = zip(row, widths, align, strict=True)
        return "| " + " | ".join(c.ljust(w) if side == "l" else c.rjust(w) for c, w, side in columns) + " |"

    rule = ["-" * (w - 1) + ("-" if side == "l" else ":") for w, side in zip(widths, align, strict=True)]
    return "\n".join(line(row) for row in [header, rule, *cells])


def short(value: float) -> str:
    """Return two decimals, three below one, three digits where those would be zeros."""
    if abs(value) >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}" if abs(value) >= 0.1 or value == 0 else f"{value:#.3g}"


def percent(fraction: float | None, decimals: int = 2) -> str:
    """Return a fraction as percent, without the sign; nothing for None or not-a-number."""
    return "" if fraction is None or fraction != fraction else f"{100 * fraction:.{decimals}f}"


def points(fraction: float) -> str:
    """Return a difference of fractions in percentage points, with its sign."""
    return f"{100 * fraction:+.2f}".replace("-0.00", "+0.00")
