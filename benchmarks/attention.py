"""The attention operation by kernel and by implementation: time side by side, peak memory, what was asked.

    python benchmarks/attention.py                                   # everything, into results/
    python benchmarks/attention.py --grids 14 64 --out results/try   # some sizes
    python benchmarks/attention.py --parts time --out results/try    # times alone: no layers, no memory
    OMP_NUM_THREADS=1 python benchmarks/attention.py --out results/one_thread

Four heads of 128, as in c5 of BoTNet-50; q, k, v are projected. `choose` in botvision/attention/kernels.py
follows the table of times. "auto" is what it chooses, "einsum" the formula of the authors' code, "pypi" the
package bottleneck-transformer-pytorch, "timm" its BottleneckAttn, "content" fused attention without position:
the floor. "forward + backward" gives the gradients of q, k, v and of both tables.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from attention_report import Limits, body, picture
from contenders import LAYERS, OPERATIONS, Case, Computation, layer, operation, step
from harness import (
    RESULTS,
    arguments,
    child_main,
    environment,
    interleaved,
    peak_memory,
    progress,
    ratio,
    write,
    write_rows,
)

PARTS = ("time", "layers", "memory")
PASSES = {False: "forward", True: "forward + backward"}
RATED = ("einsum", "pypi", "timm", "content")  # ours / these
HEAD = """\
# Attention: time and memory by kernel and by implementation

The operation on projected queries, keys and values, 4 heads of 128. Milliseconds: median of interleaved
repetitions ± half their interquartile range; a ratio is the median of the ratios within a repetition. The
fastest of our kernels is in bold, "auto" is the choice among them. "einsum" is the formula of the authors'
code, "pypi" the package bottleneck-transformer-pytorch, "timm" its BottleneckAttn (both at the one size they
were made for), "content" torch's fused attention without position: the floor. Random numbers, seed 0.
"""


@dataclass(frozen=True)
class Plan:
    """What is measured: (side in cells, batch) for times; side, contender, dtype, training for memory."""

    times: Sequence[tuple[int, int]]
    layers: Sequence[tuple[int, int]]
    memory: Sequence[tuple[int, str, str, bool]]
    limits: Limits
    width: int = 128
    least: int = 4

    def only(self, sides: Sequence[int]) -> "Plan":
        """The part of these sides."""
        return replace(
            self,
            times=[case for case in self.times if case[0] in sides],
            layers=[case for case in self.layers if case[0] in sides],
            memory=[case for case in self.memory if case[0] in sides],
        )


# Whose memory is measured; at 64x64 in fp32 that of all, further on of those who claim to be linear.
MEASURED = ("auto", "content", "einsum")
# Everyone up to 64x64, where the quadratic ones take GB; who claims to be linear further on.
FULL = Plan(
    times=[(side, batch) for side in (4, 7, 8, 14, 16, 32) for batch in (1, 8)] + [(64, 1), (80, 1)],
    layers=[(14, 8), (32, 1), (64, 1)],
    memory=[
        (side, name, dtype, training)
        for side in (32, 45, 64, 90, 128)
        for dtype in ("fp32", "bf16")
        for training in PASSES
        for name in (OPERATIONS if (side, dtype) == (64, "fp32") else MEASURED[: 3 if side == 64 else 2])
    ],
    limits=Limits(large=64, small=(14, 32)),
)
SMOKE = Plan(
    times=[(3, 1), (5, 2), (6, 1)],
    layers=[(4, 2)],
    memory=[(side, name, "fp32", False) for side, name in ((6, "auto"), (24, "auto"), (24, "einsum"))],
    limits=Limits(large=6, small=(3, 5)),
    width=16,
    least=2,
)


def time_rows(
    make: Callable[[Case], Computation], names: Sequence[str], plan: Plan, args: Namespace
) -> list[dict[str, object]]:
    """One row for each size, dtype and pass: medians, ratios and spreads of all contenders.

    Args:
        make: `operation` or `layer`.
        names: contenders; the first is what the ratios are of.
        plan: the sizes.
        args: "device", and "seconds" for one case.
    """
    cases = [
        Case(names[0], (side, side), batch, dtype, training, args.device, width=plan.width)
        for side, batch in (plan.times if make is operation else plan.layers)
        for dtype in ("fp32", "bf16")
        for training in PASSES
    ]
    rows = []
    for case in progress(cases, "times" if make is operation else "layers"):
        runs = {name: step(make(replace(case, contender=name)), case.training) for name in names}
        times = interleaved(runs, args.seconds, least=plan.least)
        ours, *others = names
        rows.append(
            _key(case)
            | {name: times[name].median for name in names}
            | {f"{ours} / {other}": ratio(times, ours, other) for other in others if other in RATED}
            | {f"spread of {name}": times[name].spread for name in names}
            | {"repetitions": times[ours].count}
        )
    return rows


def memory_rows(plan: Plan, device: str) -> list[dict[str, object]]:
    """MB that one run takes at its peak beyond its inputs: one row for each size, dtype and pass."""
    rows: dict[str, dict[str, object]] = {}
    for side, name, dtype, training in progress(plan.memory, "memory"):
        case = Case(name, (side, side), 1, dtype, training, device, width=plan.width)
        found = peak_memory(__file__, vars(case))
        row = rows.setdefault(str(_key(case)), _key(case))
        row[name] = None if found is None else found / 1e6
    return list(rows.values())


def build(case: dict[str, object]) -> Callable[[], object]:
    """What the child of `peak_memory` runs."""
    one = Case(**case)  # type: ignore[arg-type]
    return step(operation(one), one.training)


def main() -> None:
    """Measure, write, and print the tables."""
    if child_main(build):
        return
    args, plan = _asked(arguments(__doc__ or ""))
    times = time_rows(operation, OPERATIONS, plan, args) if "time" in args.parts else []
    layers = time_rows(layer, LAYERS, plan, args) if "layers" in args.parts else []
    memory = memory_rows(plan, args.device) if "memory" in args.parts else []
    made_with = environment(args.device)
    text = body(times, layers, memory, plan.limits)
    name = f"attention_{args.device}"
    write(name, times, HEAD, args.out, made_with, picture(times, memory), text)
    for part, rows in (("layer", layers), ("memory", memory)):
        if rows:
            write_rows(f"{part}_{name}", rows, args.out, made_with)
    print(text)


def _asked(parser: ArgumentParser) -> tuple[Namespace, Plan]:
    parser.add_argument("--grids", type=int, nargs="+", metavar="SIDE", help="only these sizes, in cells")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all three")
    args = parser.parse_args()
    if (args.grids or len(set(args.parts)) < len(PARTS)) and args.out == RESULTS:
        parser.error("--grids and --parts need --out FOLDER, so that a part does not replace the whole")
    plan = SMOKE if args.smoke else FULL
    known = sorted({side for side, *_ in (*plan.times, *plan.layers, *plan.memory)})
    if unknown := set(args.grids or []) - set(known):
        parser.error(f"--grids knows {' '.join(map(str, known))}, got {min(unknown)}")
    return args, plan.only(args.grids or known)


def _key(case: Case) -> dict[str, object]:
    return {
        "device": case.device,
        "dtype": case.dtype,
        "grid": f"{case.grid[0]}x{case.grid[1]}",
        "batch": case.batch,
        "pass": PASSES[case.training],
    }


if __name__ == "__main__":
    main()
