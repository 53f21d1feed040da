"""SAM's image encoder as timm computes it and after `botvision.accelerate`: time, peak memory, difference.

    python benchmarks/sam.py                                # samvit_base at 1024 pixels, fp32 and bf16
    python benchmarks/sam.py --dtypes bf16 --out results/try

Weights are drawn (seed 0): tables of deviation 0.1, about those of trained ones, so that the position term
counts. Forward alone, without gradients; in bf16 all weights are.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor

import botvision
from harness import (
    RESULTS,
    arguments,
    child_main,
    environment,
    interleaved,
    peak_memory,
    progress,
    ratio,
    table,
    write,
)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ASKED = {"fp32": 1.5, "bf16": 1.9}  # how many times as fast on a CPU
# Largest difference over the largest output: twelve blocks of attention and MLP, each rounded as in one layer
TOLERANCE = {"fp32": 1e-5, "bf16": 3e-2}
HEAD = """\
# SAM's image encoder

timm's encoder as it is, and the same network after `botvision.accelerate`. Milliseconds: median of
interleaved repetitions ± half their interquartile range; "times as fast" is the median of the ratios within
a repetition. Memory is of one run in a process of its own, beyond weights and image. "Difference" is the
largest one of any output to timm's in fp32, over the largest output: of ours, and of timm's in that dtype.
"""


@dataclass(frozen=True)
class Plan:
    """Which of timm's networks, its options, the side of the image in pixels, the least repetitions."""

    network: str
    size: int
    least: int
    options: dict[str, Any]


FULL = Plan("samvit_base_patch16", 1024, 5, {})
SMOKE = Plan(
    "samvit_base_patch16",
    96,
    2,
    {"embed_dim": 32, "depth": 2, "num_heads": 2, "window_size": 4, "img_size": 96},
)


def build(plan: Plan, dtype: str, ours: bool, device: str) -> Callable[[], Tensor]:
    """A forward pass of one image."""
    torch.manual_seed(0)
    model = timm.create_model(plan.network, num_classes=0, **plan.options).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "rel_pos" in name or name == "pos_embed":
                weight.normal_(std=0.1)
    if ours:
        botvision.accelerate(model)
    model = model.to(device, DTYPES[dtype]).requires_grad_(False)
    image = torch.randn(1, 3, plan.size, plan.size).to(device, DTYPES[dtype])
    return lambda: model(image)


def rows_of(plan: Plan, args: Namespace) -> list[dict[str, Any]]:
    """A row for each dtype."""
    rows = []
    exact = build(plan, "fp32", False, args.device)()
    for dtype in progress(args.dtypes, "SAM"):
        runs = {name: build(plan, dtype, name == "ours", args.device) for name in ("timm", "ours")}
        errors = {
            name: ((run() - exact).abs().max() / exact.abs().max()).item() for name, run in runs.items()
        }
        times = interleaved(runs, args.seconds, least=plan.least)
        row = {"device": args.device, "network": plan.network, "size": plan.size, "dtype": dtype}
        for name in runs:
            row |= {f"{name}, ms": times[name].median, f"spread of {name}": times[name].spread}
        row["times as fast"] = ratio(times, "timm", "ours")
        del runs
        for name in ("timm", "ours"):
            case = {"dtype": dtype, "ours": name == "ours", "device": args.device, "smoke": plan is SMOKE}
            found = peak_memory(__file__, case)
            row[f"{name}, MB"] = None if found is None else found / 1e6
        row |= {f"difference of {name}": error for name, error in errors.items()}
        rows.append(row | {"repetitions": times["ours"].count})
    return rows


def body(rows: Sequence[dict[str, Any]]) -> str:
    """Both tables as Markdown."""
    shown = [
        {key: row[key] for key in ("network", "size", "dtype")}
        | {
            f"{name}, ms": f"{row[f'{name}, ms']:.0f} ± {row[f'spread of {name}']:.2g}"
            for name in ("timm", "ours")
        }
        | {"times as fast": f"{row['times as fast']:.2f}"}
        | {key: row[key] for key in ("timm, MB", "ours, MB")}
        | {key: f"{value:.1e}" for key, value in row.items() if key.startswith("difference")}
        for row in rows
    ]
    return "\n\n".join([table(shown), "## What was asked", table(list(asked(rows)))])


def asked(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, object]]:
    """Speed on a CPU, and equal outputs."""
    for row in rows:
        what, speed = f"{row['size']}, {row['dtype']}", row["times as fast"]
        if row["device"] == "cpu":
            yield {
                "what": f"{what}: times as fast as timm's",
                "measured": f"{speed:.2f}",
                "asked": f">= {ASKED[row['dtype']]:g}",
                "kept": "yes" if speed >= ASKED[row["dtype"]] else "no",
            }
        error, bound = row["difference of ours"], TOLERANCE[row["dtype"]]
        yield {
            "what": f"{what}: difference",
            "measured": f"{error:.1e}",
            "asked": f"<= {bound:g}",
            "kept": "yes" if error <= bound else "no",
        }


def _run_of(case: dict[str, Any]) -> Callable[[], Tensor]:
    """What the child of `peak_memory` runs."""
    return build(SMOKE if case["smoke"] else FULL, case["dtype"], case["ours"], case["device"])


def main() -> None:
    """Measure, write, and print the tables."""
    if child_main(_run_of):
        return
    args = _asked(arguments(__doc__ or ""))
    rows = rows_of(SMOKE if args.smoke else FULL, args)
    text = body(rows)
    write(f"sam_{args.device}", rows, HEAD, args.out, environment(args.device), None, text)
    print(text)


def _asked(parser: ArgumentParser) -> Namespace:
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES), help="default: both")
    args = parser.parse_args()
    if len(set(args.dtypes)) < len(DTYPES) and args.out == RESULTS:
        parser.error("--dtypes needs --out FOLDER: a part must not replace the whole")
    return args


if __name__ == "__main__":
    main()
