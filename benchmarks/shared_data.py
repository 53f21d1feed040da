"""Where the real data lie that some benchmarks run on."""

import os
from argparse import ArgumentParser
from pathlib import Path

BESIDE = Path(__file__).parents[2] / "shared" / "data"


def shared_data(parser: ArgumentParser, *parts: str) -> Path:
    """The folder of the data; ends the program with one line where a part that is needed is not there."""
    named = os.environ.get("BOTVISION_DATA")
    root = Path(named) if named else BESIDE
    for part in parts:
        if not (root / part).exists():
            where = f"BOTVISION_DATA={named}" if named else "../shared/data beside the checkout"
            parser.error(f"no {part} in {where}; set BOTVISION_DATA to the folder that holds it")
    return root


def asked(what: str, measured: float, limit: float) -> dict[str, object]:
    """A line of the table of what was asked for: a number of times that should be reached."""
    kept = "yes" if measured >= limit else "no"
    return {"what": what, "measured": f"{measured:.1f}", "asked": f">= {limit:g}", "kept": kept}
