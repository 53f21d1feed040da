"""Other ways to compute the attention on a CPU, against the tiles of botvision/attention/tiled.py.

    python benchmarks/alternatives.py                     # 14x14, 32x32 and 64x64 cells, into results/
    python benchmarks/alternatives.py --out results/try   # elsewhere

What was tried and lost, kept as code so that it can be tried again where compilers, libraries or processors
have changed: compiled formulas and FlexAttention (they need a C++ compiler and are left out where there is
none), tiles by other products, with position folded or added at every size, and with other numbers of logits.
Forward passes, 4 heads of 128, batch 1.
"""

from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from botvision.attention import tiled_cpu as tiled
from botvision.attention.kernels import KernelName, attend
from botvision.attention.position import PositionRows
from botvision.attention.reference import Terms
from contenders import Case, Inputs, draw, einsum_attention
from harness import arguments, environment, interleaved, progress, ratio, table, write

HEAD = """\
# Attention on a CPU: what else was tried

Forward passes of the operation, 4 heads of 128, batch 1, side by side with the tiles that botvision uses.
Milliseconds: median of interleaved repetitions; "of tiles" is the median of the ratios within a repetition,
above 1 where the tiles were faster. Outputs differ from those of the tiles by rounding ("difference" is the
largest).
"""
NOTES = """\
- **compiled**: `torch.compile` with fixed sizes; compiling itself took seconds and is not counted.
- **torch's products**: `torch.mm` and `torch.bmm`. In fp32 they are MKL's, in bf16 oneDNN's.
- **1x1 convolutions**: the only public way to oneDNN's fp32 products; weights are packed anew at each call.
- **folded**: position as further columns of queries and keys in the product; **added**: added to the logits
  in place. The tiles fold on small maps and add on large ones.
- **x logits in a tile**: other sizes than the tiles' own.
"""
Run = Callable[[], Tensor]


def attend_by(case: Case, kernel: KernelName, q: Tensor, k: Tensor, v: Tensor, *tables: Tensor) -> Tensor:
    """Our attention with (R, D) tables for this grid."""
    grid = (case.grid[0], case.grid[1])
    position = PositionRows(tables[0].unsqueeze(0), tables[1].unsqueeze(0), True)
    return attend(q, k, v, Terms(grid, position), kernel=kernel)


def flex(case: Case, q: Tensor, k: Tensor, v: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """FlexAttention with the position as a modification of scores."""
    from torch.nn.attention.flex_attention import flex_attention

    (rows, columns), by_row, by_column = case.grid, q @ height.mT, q @ width.mT

    def add_position(score: Tensor, b: Tensor, n: Tensor, i: Tensor, j: Tensor) -> Tensor:
        vertical = by_row[b, n, i, j // columns - i // columns + rows - 1]
        return score + vertical + by_column[b, n, i, j % columns - i % columns + columns - 1]

    out = flex_attention(q, k, v, score_mod=add_position, scale=1.0)
    assert isinstance(out, Tensor)
    return out


def by_convolution(left: Tensor, right: Tensor, room: object = None) -> Tensor:
    """`tiled._times` by 1x1 convolutions of a channels-last map of one row, without its `room`."""
    if right.shape[0] > 1:
        return torch.bmm(left, right.mT)
    pixels = left.flatten(0, 1)[None, None].permute(0, 3, 1, 2)
    out = F.conv2d(pixels, right[0].contiguous()[:, :, None, None])
    return out.permute(0, 2, 3, 1).reshape(*left.shape[:2], -1)


@contextmanager
def patched(**names: object) -> Iterator[None]:
    """Other values of names in tiled.py; `folded` is a property of its class."""
    with ExitStack() as stack:
        for name, value in names.items():
            place = tiled._Logits if name == "folded" else tiled
            stack.enter_context(patch.object(place, name, value))
        yield


def variants(case: Case, inputs: Inputs, compilers: bool) -> dict[str, Run]:
    """What is compared; the first is ours."""
    given = (inputs.q * case.width**-0.5, *inputs[1:3], *(t.to(inputs.q.dtype) for t in inputs[3:]))

    def tiles(**names: object) -> Run:
        def run() -> Tensor:
            with patched(**names):
                return attend_by(case, "tiled", *given)

        return run

    def compiled(function: Callable[..., Tensor]) -> Run:
        return partial(torch.compile(function, dynamic=False), *given)

    logits = tiled._TILE_LOGITS
    runs = {
        "tiles": tiles(),
        "tiles by torch's products": tiles(_onednn=lambda x: False),
        "tiles by 1x1 convolutions": tiles(_times=by_convolution),
        "tiles, position folded": tiles(folded=property(lambda self: True)),
        "tiles, position added": tiles(folded=property(lambda self: False)),
        "tiles, a quarter of the logits in a tile": tiles(_TILE_LOGITS=logits // 4),
        "tiles, four times the logits in a tile": tiles(_TILE_LOGITS=logits * 4),
        "fused attention with a mask": partial(attend_by, case, "mask", *given),
    }
    if compilers:
        runs |= {
            "formula, compiled": compiled(partial(einsum_attention, grid=case.grid)),
            "fused attention with a mask in chunks, compiled": compiled(partial(attend_by, case, "chunked")),
            "FlexAttention, compiled": compiled(partial(flex, case)),
        }
    return runs


def rows_of(case: Case, args: Namespace, compilers: bool) -> list[dict[str, object]]:
    """One row for each variant."""
    torch.compiler.reset()  # or the limit of recompilations makes the later sizes run uncompiled
    with torch.no_grad():
        runs = variants(case, draw(case), compilers)
        ours = runs["tiles"]()
        differences = {name: (run() - ours).abs().max().item() for name, run in runs.items()}
        times = interleaved(runs, args.seconds)
    key: dict[str, object] = {"dtype": case.dtype, "grid": f"{case.grid[0]}x{case.grid[1]}"}
    return [
        key
        | {"variant": name, "ms": times[name].median, "spread": times[name].spread}
        | {"of tiles": ratio(times, name, "tiles"), "difference": differences[name]}
        for name in runs
    ]


def has_compiler() -> bool:
    """Whether torch.compile finds what it needs."""
    try:
        torch.compile(lambda x: x.sin().cos())(torch.ones(8))
    except Exception as reason:  # torch has no one class for it
        print(f"left out what needs a compiler: {str(reason).splitlines()[0]}")
        return False
    return True


def main() -> None:
    """Measure, write, and print the table."""
    parser = arguments(__doc__ or "")
    parser.set_defaults(device="cpu")
    args = parser.parse_args()
    if args.device != "cpu":
        parser.error("--device must be cpu: tiles are how CPUs compute the attention")
    sides, width = ((3, 5), 16) if args.smoke else ((14, 32, 64), 128)
    cases = [
        Case("tiled", (side, side), dtype=dtype, width=width) for side in sides for dtype in ("fp32", "bf16")
    ]
    compilers = not args.smoke and has_compiler()
    rows = [row for case in progress(cases, "alternatives") for row in rows_of(case, args, compilers)]
    body = f"{table(rows)}\n\n{NOTES}"
    write("alternatives_cpu", rows, HEAD, args.out, environment("cpu"), body=body)
    print(body)


if __name__ == "__main__":
    main()
