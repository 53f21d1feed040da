"""Training samples a second: COCO with masks and CIFAR-10, ours and torchvision's, on one core.

    python benchmarks/input_pipeline.py                     # all cases, into results/input_pipeline_cpu.*
    python benchmarks/input_pipeline.py --device cuda       # batches of CIFAR on the GPU, into ..._cuda.*
    python benchmarks/input_pipeline.py --smoke --out try   # a few images, to see that it runs

Everything in one process on one thread, without loader workers, with the data settings of our recipes at 1024
and for CIFAR. All read the same files; COCO's are decoded for every sample, CIFAR's are decoded once into
memory for all, or every time for all. What was asked is judged against whichever of torchvision's ways is
the fastest. Two minutes. Needs coco/ and cifar10_jpeg.zip of the data beside the checkout, or of
the folder that BOTVISION_DATA names.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from botvision.config.recipes import build_config, load_recipe
from botvision.config.run import DetectionRunConfig, RunConfig
from botvision.data.classification import ClassificationDataset, open_splits
from botvision.data.detection import DetectionDataset, open_detection
from botvision.data.labels import Subset
from botvision.data.sources import ZipSource
from harness import Times, arguments, environment, interleaved, progress, ratio, table, write
from pictures import bars
from pipelines import (
    BATCHES,
    OURS,
    OURS_PADDED,
    Run,
    cifar_contenders,
    coco_contenders,
)
from shared_data import asked, shared_data

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COCO_RECIPES = ("coco_botnet50_1024", "coco_botnet50_1024_72ep")  # scales 0.8..1.25, and 0.1..2.0
CIFAR_RECIPE = "cifar10_botnet50"
CIFAR_IMAGES = 12_800  # 100 batches
FASTER = {"coco": 2.0, "cifar": 10.0}

HEAD = """# Training samples a second, ours and torchvision's

One thread, no workers. COCO: image, boxes, labels and masks on a canvas of 1024x1024; torchvision's reference
transforms decode all masks first and deliver float images padded to the canvas. A detector of ours takes
uint8 windows that it normalises and pads on its device; the second line of ours pads and converts on the CPU,
too, and is the one that is compared. CIFAR-10 (JPEG): batches of 128, shifted, mirrored, normalised."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        chunk: images of COCO in a run.
        limit: images of COCO in all.
        images: of CIFAR in all.
        batch: images of CIFAR in a batch.
        batches: of CIFAR in a run.
        canvas: of COCO's samples; that of the recipe if None.
        least: repetitions.
    """

    chunk: int
    limit: int | None
    images: int
    batch: int
    batches: int
    canvas: int | None
    least: int


FULL = Plan(chunk=8, limit=None, images=CIFAR_IMAGES, batch=128, batches=10, canvas=None, least=10)
SMOKE = Plan(chunk=1, limit=4, images=40, batch=8, batches=2, canvas=96, least=1)


@dataclasses.dataclass(frozen=True)
class Group:
    """Contenders that are measured side by side.

    Attributes:
        data: "coco" or "cifar".
        setting: what is special about it.
        ours: the contender that others are compared with.
        images: that a run makes.
        judged: whether it answers what was asked for.
    """

    data: str
    setting: str
    ours: str
    images: int
    judged: bool


def coco(recipe: str, root: Path, plan: Plan) -> DetectionDataset:
    """Training images of COCO with annotations, with the settings of a recipe."""
    config = build_config(load_recipe(recipe))
    assert isinstance(config, DetectionRunConfig)
    size = plan.canvas or config.data.image_size
    changed = {"root": str(root), "image_size": size, "limit": plan.limit, "keep_empty": False}
    return open_detection(dataclasses.replace(config.data, **changed)).train


def cifar(path: Path, cached: bool, plan: Plan) -> ClassificationDataset:
    """Training images of CIFAR-10, with the settings of a recipe."""
    config = build_config(load_recipe(CIFAR_RECIPE))
    assert isinstance(config, RunConfig)
    cache = "memory" if cached else "none"
    return open_splits(dataclasses.replace(config.data, root=str(path), limit=plan.images, cache=cache)).train


def members_of(data: ClassificationDataset) -> list[str]:
    """Names of the images inside the zip."""
    places, source = torch.arange(len(data)), data.source
    while isinstance(source, Subset):
        places, source = source.indices[places], source.source
    assert isinstance(source, ZipSource)
    return [str(source.members[place]) for place in places.tolist()]


def groups(root: Path, plan: Plan, device: torch.device) -> list[tuple[Group, Any]]:
    """What is measured, and a function that makes its contenders."""
    found: list[tuple[Group, Any]] = []
    if device.type == "cpu":  # a GPU has no part in COCO's
        for recipe in COCO_RECIPES:
            data = coco(recipe, root / "coco", plan)
            low, high = data.config.scale_jitter
            group = Group("coco", f"scales {low:g} to {high:g}", OURS_PADDED, plan.chunk, judged=True)
            found.append((group, lambda data=data: coco_contenders(data, root / "coco", plan.chunk)))
    for cached in (True, False):
        data = cifar(root / "cifar10_jpeg.zip", cached, plan)
        setting = "decoded in memory" if cached else "decoding included"
        group = Group("cifar", setting, BATCHES, plan.batch * plan.batches, judged=cached)
        names = [] if cached else members_of(data)

        def make(data: ClassificationDataset = data, names: Sequence[str] = names) -> dict[str, Run]:
            return cifar_contenders(data, plan.batch, plan.batches, device, names)

        found.append((group, make))
    return found


def measure(group: Group, runs: Mapping[str, Run], seconds: float, least: int) -> list[dict[str, object]]:
    """One row for each contender."""
    torch.manual_seed(0)  # what torchvision draws from
    times = interleaved(runs, seconds, least=least)
    return [_row(group, name, times) for name in runs]


def _row(group: Group, name: str, times: Mapping[str, Times]) -> dict[str, object]:
    return {
        "data": group.data,
        "setting": group.setting,
        "contender": name,
        "images a second": 1e3 * group.images / times[name].median,
        "ms": times[name].median,
        "spread": times[name].spread,
        "images": group.images,
        "ours times faster": ratio(times, name, group.ours),
        "repetitions": times[name].count,
        "judged": "yes" if group.judged else "no",
    }


def body(rows: Sequence[Mapping[str, Any]]) -> str:
    """What was asked for, always against the fastest of torchvision's, then all rows."""
    lines = []
    for data, setting in dict.fromkeys(
        (row["data"], row["setting"]) for row in rows if row["judged"] == "yes"
    ):
        others = [
            row
            for row in rows
            if (row["data"], row["setting"]) == (data, setting)
            and "torchvision" in row["contender"].split(",")[0]
        ]
        best = min(others, key=lambda row: row["ours times faster"])
        what = f"{data}, {setting}: times faster than {best['contender']}"
        lines.append(asked(what, best["ours times faster"], FASTER[data]))
    shown = [{key: value for key, value in row.items() if key != "judged"} for row in rows]
    return "\n\n".join(["## What was asked", table(lines), "## All cases", table(shown)])


def picture(rows: Sequence[Mapping[str, Any]]) -> "Figure":
    """Images a second, a panel for each data set and setting."""
    shown = [{**row, "panel": f"{row['data']}, {row['setting']}"} for row in rows]
    title = "Training samples a second, one thread"
    return bars(shown, "images a second", "contender", "panel", title, bold=(OURS, OURS_PADDED, BATCHES))


def main() -> None:
    """Measure, write, and print the tables."""
    parser = arguments(__doc__ or "")
    args = parser.parse_args()
    root, plan = shared_data(parser, "coco", "cifar10_jpeg.zip"), SMOKE if args.smoke else FULL
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for group, make in progress(groups(root, plan, torch.device(args.device)), "input"):
        rows += measure(group, make(), args.seconds, plan.least)
    name, made_with = f"input_pipeline_{args.device}", environment(args.device)
    write(name, rows, HEAD, args.out, made_with, picture(rows), body(rows))
    print(body(rows))


if __name__ == "__main__":
    main()
