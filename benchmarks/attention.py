"""Time of the attention operation by kernel, side by side in one process; the table that `choose` follows.

    python benchmarks/attention.py                 # all cases, writes results/attention.csv and .md
    python benchmarks/attention.py --grids 14 32   # some of them, printed only

Four heads of 128, as in c5 of BoTNet-50. Kernels take turns within a repetition, so that a busy moment of the
machine meets them all; the median of the repetitions counts. "content" has no position term: the floor.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import botvision
from botvision.attention.kernels import KERNELS, KernelName, attend
from botvision.attention.position import PositionTables
from botvision.attention.reference import Terms
from botvision.training import provenance

HEADS, WIDTH = 4, 128
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
RESULTS = Path(__file__).parent.parent / "results"
CASES: tuple[KernelName, ...] = tuple(kernel for kernel in KERNELS if kernel != "auto")


def step(
    kernel: str, side: int, batch: int, dtype: torch.dtype, training: bool, device: str
) -> Callable[[], None]:
    """A function that runs one forward (and backward) pass of a kernel."""
    tables = PositionTables((side, side), WIDTH).to(device)
    generator = torch.Generator(device).manual_seed(0)
    shape = (batch, HEADS, side * side, WIDTH)
    q, k, v = (torch.randn(shape, generator=generator, device=device).to(dtype) for _ in range(3))
    q = q * WIDTH**-0.5
    for leaf in (q, k, v):
        leaf.requires_grad_(training)
    upstream = torch.randn_like(v, requires_grad=False)

    def run() -> None:
        with torch.set_grad_enabled(training):
            position = None if kernel == "content" else tables((side, side))
            name: KernelName = "auto" if kernel == "content" else kernel  # type: ignore[assignment]
            out = attend(q, k, v, Terms((side, side), position), kernel=name)
            if training:
                out.backward(upstream)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def measure(side: int, dtype: str, training: bool, device: str, seconds: float) -> dict[str, float]:
    """Median milliseconds of every kernel, and of the content alone."""
    batch = max(1, 1024 // (side * side))
    runs = {
        kernel: step(kernel, side, batch, DTYPES[dtype], training, device) for kernel in (*CASES, "content")
    }
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {kernel: [] for kernel in runs}
    end = time.perf_counter() + seconds
    while len(times["content"]) < 5 or (time.perf_counter() < end and len(times["content"]) < 200):
        for kernel, run in runs.items():
            start = time.perf_counter()
            run()
            times[kernel].append(1e3 * (time.perf_counter() - start))
    return {kernel: statistics.median(values) for kernel, values in times.items()}


def markdown(rows: list[dict[str, str]], note: str) -> str:
    """The table for people: milliseconds, and the fastest kernel in bold."""
    columns = list(rows[0])
    lines = [
        "# Attention: time by kernel",
        "",
        note,
        "",
        f"| {' | '.join(columns)} |",
        "|" + " --- |" * len(columns),
    ]
    for row in rows:
        best = min((float(row[kernel]), kernel) for kernel in CASES)[1]
        lines.append("| " + " | ".join(f"**{row[c]}**" if c == best else row[c] for c in columns) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--grids", type=int, nargs="+", help="sides in cells; default: 4 7 8 14 16 32 64, written"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=4.0, help="time for one case")
    args = parser.parse_args()
    rows = []
    for side in args.grids or (4, 7, 8, 14, 16, 32, 64):
        for dtype in DTYPES:
            for training in (False, True):
                times = measure(side, dtype, training, args.device, args.seconds)
                case = {"device": args.device, "dtype": dtype, "grid": f"{side}x{side}"}
                case["pass"] = "forward + backward" if training else "forward"
                rows.append(case | {kernel: f"{value:.2f}" for kernel, value in times.items()})
                print(rows[-1], flush=True)
    versions = (
        f"torch {torch.__version__}; botvision {botvision.__version__} at {provenance.commit()}; seed 0"
    )
    note = (
        f"Milliseconds, median of interleaved repetitions, {HEADS} heads of {WIDTH}, batch for about 1024 "
        f"cells. {provenance.hardware(torch.device(args.device))}; {versions}."
    )
    if not args.grids:
        RESULTS.mkdir(exist_ok=True)
        with (RESULTS / f"attention_{args.device}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        (RESULTS / f"attention_{args.device}.md").write_text(markdown(rows, note))
    print(markdown(rows, note))


if __name__ == "__main__":
    main()
