"""What bounds the attention on a CPU: its time again without the softmax, without the position, or neither.

    python benchmarks/bounds.py                     # 64x64 cells; BoTNet-50 at 1024, into results/
    python benchmarks/bounds.py --out results/try   # elsewhere

The operation and the whole network are run with parts of the attention left out, side by side with those that
they are compared with. "products alone" is the least that these matrix products can take; what it takes
of the einsum formula, or BoTNet with it of ResNet, no rearrangement of the rest can beat. Forward, batch 1.
"""

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from unittest.mock import patch

import torch
from torch import Tensor

from botvision.attention import kernels
from botvision.attention.reference import Terms
from botvision.attention.tiled_cpu import attend_tiled
from contenders import Case, operation
from contenders import step as operation_step
from harness import arguments, environment, interleaved, progress, ratio, table, write
from networks import Case as NetworkCase
from networks import step as network_step

HEAD = """\
# What bounds the attention on a CPU

Forward, batch 1. Milliseconds: median of interleaved repetitions ± half their interquartile range; a ratio is
the median of the ratios within a repetition. "whole" is the attention as it is, then the same with parts
left out, which gives other numbers and shows what the parts take: without the softmax, without the position,
with neither (two products for each head and the layout), and in the network without any attention (the
values in its place). The last column is over the einsum formula of the operation, over ResNet of the network.
"""
Run = Callable[[], object]


@dataclass(frozen=True)
class Plan:
    """Cells of a side with the width of a head, pixels of a side, and networks, ours second."""

    cells: int = 64
    width: int = 128
    pixels: int = 1024
    networks: tuple[str, str] = ("resnet50", "botnet50")


# large enough for the tiles to be chosen in fp32
SMOKE = Plan(5, 16, 288, ("resnet14_nano", "botnet14_nano"))


def unchanged(logits: Tensor, dim: int, out: Tensor | None = None) -> Tensor:
    """In place of torch.softmax."""
    return logits


def content_alone(q: Tensor, k: Tensor, v: Tensor, terms: Terms) -> Tensor:
    """In place of attend_tiled."""
    return attend_tiled(q, k, v, terms._replace(position=None))


def values(q: Tensor, k: Tensor, v: Tensor, terms: Terms) -> Tensor:
    """In place of attend_tiled."""
    return v


SOFTMAX, POSITION = (torch, "softmax", unchanged), (kernels, "attend_tiled", content_alone)
LEFT_OUT: Mapping[str, tuple[tuple[object, str, Callable[..., Tensor]], ...]] = {
    "whole": (),
    "without softmax": (SOFTMAX,),
    "without position": (POSITION,),
    "products alone": (SOFTMAX, POSITION),
    "without attention": ((kernels, "attend_tiled", values),),
}


@contextmanager
def patched(name: str) -> Iterator[None]:
    """The tiles with the parts of LEFT_OUT[name] left out."""
    with ExitStack() as stack:
        for place, attribute, stand_in in LEFT_OUT[name]:
            stack.enter_context(patch.object(place, attribute, stand_in))
        yield


def ablations(run: Run, names: tuple[str, ...]) -> dict[str, Run]:
    """The same computation by each name of LEFT_OUT."""

    def without(name: str) -> Run:
        def part() -> object:
            with patched(name):
                return run()

        return part

    return {name: without(name) for name in names}


def of_operation(dtype: str, plan: Plan) -> tuple[str, dict[str, Run]]:
    """The tiles with less and less, and the einsum formula."""
    case = Case("tiled", (plan.cells, plan.cells), dtype=dtype, width=plan.width)
    runs = ablations(operation_step(operation(case), training=False), tuple(LEFT_OUT)[:-1])
    return "einsum", runs | {
        "einsum": operation_step(operation(replace(case, contender="einsum")), training=False)
    }


def of_network(dtype: str, layout: str, plan: Plan) -> tuple[str, dict[str, Run]]:
    """BoTNet with less and less of its attention, and ResNet."""
    resnet, botnet = (NetworkCase(name, plan.pixels, 1, dtype, layout=layout) for name in plan.networks)
    return resnet.contender, ablations(network_step(botnet), tuple(LEFT_OUT)) | {
        resnet.contender: network_step(resnet)
    }


def rows_of(
    what: str, dtype: str, other: str, runs: dict[str, Run], args: Namespace
) -> list[dict[str, object]]:
    """One row for each variant."""
    times = interleaved(runs, args.seconds, least=2 if args.smoke else 9)
    key: dict[str, object] = {"what": what, "dtype": dtype}
    return [
        key
        | {"variant": name, "ms": times[name].median, "spread": times[name].spread}
        | {"of whole": ratio(times, name, "whole"), "of einsum or ResNet": ratio(times, name, other)}
        | {"repetitions": times[name].count}
        for name in runs
    ]


def main() -> None:
    """Measure, write, and print the table."""
    parser = arguments(__doc__ or "")
    parser.set_defaults(device="cpu", seconds=20.0)
    args = parser.parse_args()
    if args.device != "cpu":
        parser.error("--device must be cpu: tiles are how CPUs compute the attention")
    plan = SMOKE if args.smoke else Plan()
    cases = [(dtype, layout) for dtype in ("fp32", "bf16") for layout in ("", "NCHW", "channels-last")]
    rows = []
    for dtype, layout in progress(cases, "bounds"):
        other, runs = of_network(dtype, layout, plan) if layout else of_operation(dtype, plan)
        side = plan.pixels if layout else plan.cells
        what = f"{plan.networks[1]}, {side}x{side}, {layout}" if layout else f"operation, {side}x{side}"
        rows += rows_of(what, dtype, other, runs, args)
    write("bounds_cpu", rows, HEAD, args.out, environment("cpu"))
    print(table(rows))


if __name__ == "__main__":
    main()
