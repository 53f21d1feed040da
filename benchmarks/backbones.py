"""Whole backbones: ResNet-50, BoTNet-50, the same with the einsum formula, and timm's BoTNet beside ours.

    python benchmarks/backbones.py                                    # everything, into results/
    python benchmarks/backbones.py --sizes 1024 --out results/try     # one size
    python benchmarks/backbones.py --parts timm --out results/try     # timm's botnet50ts_256 and ours alone
    python benchmarks/backbones.py --modes eager compiled graph       # torch.compile; CUDA graphs on a GPU

Forward passes and training steps (cross-entropy and fused SGD included) in fp32 and bf16, which is all of the
network in inference and autocast in training. All contenders of a case take turns. "folded" networks have
their batch norms merged into convolutions, as `botvision predict` runs them.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from backbones_report import body, picture
from harness import (
    RESULTS,
    Times,
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
from networks import EINSUM, FOLDED, LAYOUTS, MODES, PASSES, TIMM, Case, step

DTYPES = ("fp32", "bf16")
PARTS = ("time", "timm", "memory")
HEAD = """\
# Backbones: time and memory

Milliseconds: median of interleaved repetitions ± half their interquartile range; a ratio is the median of the
ratios within a repetition, of two networks in the same memory format. "einsum" has the formula of the
authors' code in place of our attention; "folded" has batch norms merged into convolutions. A training step is
forward, cross-entropy, backward and fused SGD. bf16 is all of the network in inference, autocast in training.
Noise as images, seed 0.
"""


@dataclass(frozen=True)
class Plan:
    """What is measured: (side in pixels, batch) of times; that, dtype and training of memory; and who.

    `in_children` of the contenders have their memory measured, the ResNet first; None for all.
    """

    times: Sequence[tuple[int, int]]
    memory: Sequence[tuple[int, int, str, bool]]
    resnet: str = "resnet50"
    botnet: str = "botnet50"
    fixed: str = "botnet50ts_256"
    fixed_batches: Sequence[int] = (8, 1)
    least: int = 5
    in_children: int | None = None

    def contenders(self, training: bool) -> list[str]:
        """The ResNet, the BoTNet, then others."""
        pair = [self.resnet, self.botnet]
        return [*pair, self.botnet + EINSUM, *([] if training else [name + FOLDED for name in pair])]

    def only(self, sizes: Sequence[int]) -> "Plan":
        """The part of these sizes."""
        return replace(
            self,
            times=[case for case in self.times if case[0] in sizes],
            memory=[case for case in self.memory if case[0] in sizes],
        )


SIZES = ((224, 8), (1024, 1), (1280, 1))
FULL = Plan(
    SIZES,
    [(size, batch, dtype, training) for size, batch in SIZES for dtype in DTYPES for training in PASSES],
)
SMOKE = Plan(
    *(((64, 2),), ((64, 2, "fp32", True),)),
    *("resnet14_nano", "botnet14_nano", "botnet26t_256"),
    fixed_batches=(1,),
    least=2,
    in_children=1,
)


def memory_rows(plan: Plan, device: str) -> list[dict[str, object]]:
    """MB that one run takes at its peak beyond network and images, a row a case; channels-last."""
    cases = [Case("", *case, device=device) for case in plan.memory]
    rows = []
    for case in progress(cases, "memory"):
        row = _key(case)
        for name in plan.contenders(case.training)[: plan.in_children]:
            found = peak_memory(__file__, vars(replace(case, contender=name)))
            row[name] = None if found is None else found / 1e6
        rows.append(row)
    return rows


def time_rows(plan: Plan, args: Namespace, memory: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """Medians, ratios and spreads, a row for each case and memory format.

    Args:
        plan: the sizes.
        args: "device", "modes", and "seconds" for one case.
        memory: rows of `memory_rows`; who did not fit there is left out.
    """
    cases = [
        Case("", size, batch, dtype, training, mode=mode, device=args.device)
        for size, batch in plan.times
        for dtype in DTYPES
        for training in PASSES
        for mode in args.modes
    ]
    rows = []
    for case in progress(cases, "times"):
        known = next((row for row in memory if _key(case).items() <= row.items()), {})
        names = [name for name in plan.contenders(case.training) if known.get(name, 0.0) is not None]
        times = _turns(case, names, plan, args.seconds)
        rows += [_time_row(case, layout, names, times, plan) for layout in LAYOUTS]
    return rows


def _turns(case: Case, names: Sequence[str], plan: Plan, seconds: float) -> dict[str, Times]:
    """Times of networks in each memory format, by "name, format"."""
    runs = {
        _label(name, layout): step(replace(case, contender=name, layout=layout))
        for name in names
        for layout in LAYOUTS
    }
    return interleaved(runs, seconds, least=plan.least)


def _label(name: str, layout: str) -> str:
    return f"{name}, {layout}"


def _time_row(
    case: Case, layout: str, names: Sequence[str], times: dict[str, Times], plan: Plan
) -> dict[str, object]:
    found = {name: times[_label(name, layout)] for name in names}
    pairs = [(name, plan.resnet) for name in (plan.botnet, plan.botnet + EINSUM)]
    pairs += [(plan.botnet + FOLDED, plan.resnet + FOLDED)]
    return (
        _key(case)
        | {"mode": case.mode, "layout": layout}
        | {name: found[name].median for name in names}
        | {f"{a} / {b}": ratio(found, a, b) for a, b in pairs if a in found and b in found}
        | {f"spread of {name}": found[name].spread for name in names}
        | {"repetitions": max(each.count for each in found.values())}
    )


def fixed_rows(plan: Plan, args: Namespace) -> list[dict[str, object]]:
    """timm's BoTNet at its one size, and ours with the same weights, forward in fp32: a row each.

    "speed-up" is the throughput over that of timm's network in NCHW, as timm gives it; "over the faster
    format" over whichever format is the faster one for it.
    """
    theirs = TIMM + plan.fixed
    names = (theirs, plan.fixed, plan.fixed + FOLDED)
    rows = []
    for batch in progress(plan.fixed_batches, "timm"):
        case = Case("", 256, batch, device=args.device)
        times = _turns(case, names, plan, args.seconds)
        created = _label(theirs, "NCHW")
        best = min((_label(theirs, layout) for layout in LAYOUTS), key=lambda label: times[label].median)
        for name in names:
            for layout in LAYOUTS:
                label = _label(name, layout)
                rows.append(
                    _key(case)
                    | {"network": name, "layout": layout}
                    | {"ms": times[label].median, "spread": times[label].spread}
                    | {"images/s": 1e3 * batch / times[label].median}
                    | {"speed-up": ratio(times, created, label)}
                    | {"over the faster format": ratio(times, best, label)}
                    | {"repetitions": times[label].count}
                )
    return rows


def _key(case: Case) -> dict[str, object]:
    return {
        "device": case.device,
        "size": case.size,
        "batch": case.batch,
        "dtype": case.dtype,
        "pass": PASSES[case.training],
    }


def run_of(case: dict[str, object]) -> Callable[[], object]:
    """What the child of `peak_memory` runs."""
    return step(Case(**case))  # type: ignore[arg-type]


def main() -> None:
    """Measure, write, and print the tables."""
    if child_main(run_of):
        return
    args, plan = _asked(arguments(__doc__ or ""))
    memory = memory_rows(plan, args.device) if "memory" in args.parts else []
    fixed = fixed_rows(plan, args) if "timm" in args.parts else []
    times = time_rows(plan, args, memory) if "time" in args.parts else []
    made_with = environment(args.device)
    name = f"backbones_{args.device}"
    text = body(times, fixed, memory, plan)
    write(name, times, HEAD, args.out, made_with, picture(times, memory, plan), text)
    for part, rows in (("timm", fixed), ("memory", memory)):
        if rows:
            write_rows(f"{part}_{name}", rows, args.out, made_with)
    print(text)


def _asked(parser: ArgumentParser) -> tuple[Namespace, Plan]:
    parser.add_argument("--sizes", type=int, nargs="+", metavar="SIDE", help="only these, in pixels")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all three")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["eager"], help="default: eager")
    args = parser.parse_args()
    if (args.sizes or len(set(args.parts)) < len(PARTS)) and args.out == RESULTS:
        parser.error("--sizes and --parts need --out FOLDER, so that a part does not replace the whole")
    if "graph" in args.modes and args.device != "cuda":
        parser.error("--modes graph needs --device cuda")
    plan = SMOKE if args.smoke else FULL
    known = sorted({case[0] for case in (*plan.times, *plan.memory)})
    if unknown := set(args.sizes or []) - set(known):
        parser.error(f"--sizes knows {' '.join(map(str, known))}, got {min(unknown)}")
    torch.backends.cudnn.benchmark = True  # sizes do not change within a case
    return args, plan.only(args.sizes or known)


if __name__ == "__main__":
    main()
