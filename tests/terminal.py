"""What tests of the command need: to read what it printed."""

import pytest

from botvision.cli import main as cli


def complaint(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 2) -> str:
    """Run a command that must fail with one line, and return that line."""
    assert cli.main(argv) == code
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("botvision: ")
    return lines[0].removeprefix("botvision: ")


def table(text: str, first: str) -> list[list[str]]:
    """Cells of the Markdown table whose first title is ``first``, without the rule."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} "))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return [rows[0], *rows[2:]]
