"""A training step of Mask R-CNN, ResNet-50-FPN beside BoTNet-50-FPN: time and peak memory.

    python benchmarks/mask_rcnn.py                               # 512 pixels on a CPU, 1024 on a GPU
    python benchmarks/mask_rcnn.py --sizes 512 1024 --out results/try
    python benchmarks/mask_rcnn.py --dtypes bf16 --out results/try
    python benchmarks/mask_rcnn.py --parts time --seconds 60 --out results/try

Forward of images and targets to the five losses, backward, and a step of fused SGD; bf16 is autocast. The
images are drawn shapes with their masks, the detector knows 80 classes as COCO has them. Its options are the
defaults: a pyramid, heads of torchvision's version 2, batch norm.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import botvision
from botvision.data.synthetic.shapes import ShapesSource
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
    write_rows,
)
from networks import EINSUM, LAYOUTS, training_step, use_einsum

PARTS, DTYPES = ("time", "memory"), ("fp32", "bf16")
CLASSES = 80
LIMIT_SIZE, LIMIT = 1024, 1.15  # of BoTNet over ResNet on a GPU in bf16
HEAD = """\
# Mask R-CNN: a training step

Milliseconds: median of interleaved repetitions ± half their interquartile range; a ratio is the median of the
ratios within a repetition, of two detectors in the same memory format. "einsum" has the formula of the
authors' code in place of our attention. Losses, backward and fused SGD; bf16 is autocast. Drawn shapes, seed
0; 80 classes, a feature pyramid, batch norm. A limit was set for GPUs only, at 1024 in bf16.
"""


@dataclass(frozen=True)
class Case:
    """One run: whose backbone, sides of the images in pixels, images, dtype, memory format, device.

    `channels` is the width of pyramid and heads.
    """

    contender: str
    size: int
    batch: int
    dtype: str = "fp32"
    layout: str = "channels-last"
    device: str = "cpu"
    channels: int = 256


@dataclass(frozen=True)
class Plan:
    """What is measured: (side in pixels, batch), and who.

    `in_children` of the contenders have their memory measured; None for all.
    """

    sizes: Sequence[tuple[int, int]]
    resnet: str = "resnet50"
    botnet: str = "botnet50"
    channels: int = 256
    least: int = 5
    in_children: int | None = None

    @property
    def contenders(self) -> list[str]:
        return [self.resnet, self.botnet, self.botnet + EINSUM]


FULL = Plan(((512, 2), (1024, 1)))
SMOKE = Plan(((64, 1),), "resnet14_nano", "botnet14_nano", channels=16, least=2, in_children=1)


def build(case: Case) -> nn.Module:
    """The case's detector, with weights of seed 0, in training mode."""
    torch.manual_seed(0)
    name = case.contender.removesuffix(EINSUM)
    size = {"img_size": case.size} if name.startswith("botnet") else {}
    detector = botvision.mask_rcnn(
        name, CLASSES, channels=case.channels, backbone_args={"zero_init_last": False, **size}
    )
    if case.contender.endswith(EINSUM):
        use_einsum(detector)
    return detector.to(case.device).to(memory_format=LAYOUTS[case.layout]).train()  # type: ignore[call-overload]


def scenes(case: Case) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images (3, H, W), float 0..1, and their boxes, labels and masks; none without an object."""
    source = ShapesSource(0, "train", 64, 6, (case.size, case.size))
    found = [index for index in range(len(source)) if len(source.instances(index)["labels"]) > 1]
    images = [source.load(index).to(case.device) / 255 for index in found[: case.batch]]
    targets = [
        {key: value.to(case.device) for key, value in source.instances(index).items()}
        for index in found[: case.batch]
    ]
    return images, targets


def step(case: Case) -> Callable[[], Tensor]:
    """What is measured; it gives the sum of the losses."""
    detector: Any = build(case)
    images, targets = scenes(case)

    def loss() -> Tensor:
        return torch.stack(list(detector(images, targets).values())).sum()

    return training_step(detector, loss, case.device, case.dtype == "bf16")


def time_rows(plan: Plan, args: Namespace) -> list[dict[str, object]]:
    """Medians, ratios and spreads, a row for each size, dtype and memory format."""
    rows = []
    for case in progress(_cases(plan, args), "times"):
        runs = {
            f"{name}, {layout}": step(replace(case, contender=name, layout=layout))
            for name in plan.contenders
            for layout in LAYOUTS
        }
        times = interleaved(runs, args.seconds, least=plan.least)
        for layout in LAYOUTS:
            found = {name: times[f"{name}, {layout}"] for name in plan.contenders}
            rows.append(
                _key(case)
                | {"layout": layout}
                | {name: each.median for name, each in found.items()}
                | {f"{name} / {plan.resnet}": ratio(found, name, plan.resnet) for name in plan.contenders[1:]}
                | {f"spread of {name}": each.spread for name, each in found.items()}
                | {"repetitions": found[plan.resnet].count}
            )
    return rows


def memory_rows(plan: Plan, args: Namespace) -> list[dict[str, object]]:
    """MB that a first step takes at its peak beyond weights and images, a row for each size and dtype."""
    rows = []
    for case in progress(_cases(plan, args), "memory"):
        row = _key(case)
        for name in plan.contenders[: plan.in_children]:
            found = peak_memory(__file__, vars(replace(case, contender=name)))
            row[name] = None if found is None else found / 1e6
        rows.append(row)
    return rows


def body(times: Sequence[dict[str, Any]], memory: Sequence[dict[str, Any]], plan: Plan) -> str:
    """All tables as Markdown; what was not measured is left out."""
    parts = []
    if times:
        shown = [
            {key: row[key] for key in ("size", "batch", "dtype", "layout")}
            | {name: f"{row[name]:.0f} ± {row[f'spread of {name}']:.2g}" for name in plan.contenders}
            | {key: f"{value:.3f}" for key, value in row.items() if " / " in key}
            for row in times
        ]
        parts += ["## Time, ms", table(shown)]
    if memory:
        note = "Of one step in a process of its own, beyond weights and images. Channels-last."
        shown = [{key: value for key, value in row.items() if key != "device"} for row in memory]
        parts += ["## Peak extra memory, MB", note, table(shown)]
    lines = list(asked(times, plan))
    if lines:
        parts += ["## What was asked", table(lines)]
    return "\n\n".join(parts)


def asked(times: Sequence[dict[str, Any]], plan: Plan) -> Iterator[dict[str, object]]:
    """One line for each memory format on a GPU."""
    pair = f"{plan.botnet} / {plan.resnet}"
    for row in times:
        if (row["device"], row["size"], row["dtype"]) == ("cuda", LIMIT_SIZE, "bf16"):
            yield {
                "what": f"{LIMIT_SIZE}, bf16, training step, {row['layout']}: time, {pair}",
                "measured": f"{row[pair]:.3f}",
                "asked": f"<= {LIMIT:g}",
                "kept": "yes" if row[pair] <= LIMIT else "no",
            }


def _cases(plan: Plan, args: Namespace) -> list[Case]:
    return [
        Case("", size, batch, dtype, device=args.device, channels=plan.channels)
        for size, batch in plan.sizes
        for dtype in args.dtypes
    ]


def _key(case: Case) -> dict[str, Any]:
    return {"device": case.device, "size": case.size, "batch": case.batch, "dtype": case.dtype}


def _run_of(case: dict[str, Any]) -> Callable[[], Tensor]:
    """What the child of `peak_memory` runs."""
    return step(Case(**case))


def main() -> None:
    """Measure, write, and print the tables."""
    if child_main(_run_of):
        return
    args, plan = _asked(arguments(__doc__ or ""))
    memory = memory_rows(plan, args) if "memory" in args.parts else []
    times = time_rows(plan, args) if "time" in args.parts else []
    made_with = environment(args.device)
    name = f"mask_rcnn_{args.device}"
    text = body(times, memory, plan)
    write(name, times, HEAD, args.out, made_with, None, text)
    if memory:
        write_rows(f"memory_{name}", memory, args.out, made_with)
    print(text)


def _asked(parser: ArgumentParser) -> tuple[Namespace, Plan]:
    parser.add_argument("--sizes", type=int, nargs="+", metavar="SIDE", help="in pixels; default: one")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, help="default: fp32; on a GPU both")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: both")
    args = parser.parse_args()
    chosen = args.sizes or args.dtypes or len(set(args.parts)) < len(PARTS)
    if chosen and args.out == RESULTS:
        parser.error("--sizes, --dtypes and --parts need --out FOLDER: a part must not replace the whole")
    on_gpu = args.device == "cuda"
    plan = SMOKE if args.smoke else FULL
    known = [size for size, _ in plan.sizes]
    if unknown := set(args.sizes or []) - set(known):
        parser.error(f"--sizes knows {' '.join(map(str, known))}, got {min(unknown)}")
    wanted = args.sizes or [known[-1 if on_gpu else 0]]
    args.dtypes = args.dtypes or (DTYPES if on_gpu else DTYPES[:1])
    return args, replace(plan, sizes=[case for case in plan.sizes if case[0] in wanted])


if __name__ == "__main__":
    main()
