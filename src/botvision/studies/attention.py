"""Attention for a study's report: what one finished run looks at, and what the runs of its arm owe to it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from botvision.config.recipes import build_config, config_to_dict, load_config
from botvision.metrics.attention_use import AttentionUse, load_use
from botvision.studies.outcome import Picture
from botvision.studies.plan import Plan, PlannedRun

if TYPE_CHECKING:
    from botvision.inference.attention_maps import ImageAttention
    from botvision.inference.predictor import FileResult

FOLDER = "attention"  # in the study's folder
GROUND = (24, 24, 28)  # in the place of photos; maps are made of light
LEGEND = (
    "The frame is the query's cell, the dot its pixel; light falls, by head, on what gets more than even "
    "attention. The brightest light is a map's largest weight, or twice even attention if that is more."
)


def attention_use(
    plan: Plan, tell: Callable[[str], object] | None = None
) -> dict[tuple[str, int], AttentionUse]:
    """Evaluate the finished runs of the arm that the study looks at with their attention replaced.

    What was measured before, by `botvision eval RUN --attention all` too, is taken from the run folders.

    Args:
        plan: of the study.
        tell: called with what is going on.

    Returns:
        By arm and seed, one for each finished run; none where the study looks at no arm.

    Raises:
        ValueError: the run's data cannot be opened, or its network has no attention.
    """
    from botvision.training.attention_use import measure_use, use_file
    from botvision.training.evaluation import Evaluation

    found: dict[tuple[str, int], AttentionUse] = {}
    for run in _finished(plan):
        if tell is not None:
            tell(f"{run.name} without its attention")
        # before or after the data moved, which the file's name tells
        places = [Evaluation(run.folder, "val", overrides) for overrides in ({}, run.moved)]
        use = next((use for place in places if (use := load_use(use_file(place))) is not None), None)
        if use is None:
            use = measure_use(places[-1], thorough=False)
        found[run.arm, run.seed] = use
    return found


def attention_pictures(plan: Plan, *, photos: bool = True) -> tuple[Picture, ...]:
    """Draw the attention of the arm that the study names, into attention/ of its folder.

    The query of an image lies on the largest object, or on what else the answer is known to depend on, or in
    the middle.

    Args:
        plan: of the study.
        photos: below the maps; without, a dark ground lies there, and the page holds none of the data.

    Returns:
        Pictures of single images, then of how far heads look and of the position tables; none where the study
        asks for none, or no run of the arm is finished.

    Raises:
        ValueError: the run's data cannot be opened, or its network has no attention.
    """
    from botvision.inference.attention_maps import attention_maps, distance_rows, map_rows, position_rows
    from botvision.inference.detector import DetectionPredictor
    from botvision.inference.predictor import FileResult, Predictor
    from botvision.inference.writers import DISTANCE, PICTURES, POSITION, write_attention
    from botvision.plots.attention import distance_text, maps_text, position_text
    from botvision.training.run import task_of

    run = next(_finished(plan), None)
    if run is None or plan.study.attention is None:
        return ()
    config = build_config(config_to_dict(load_config(run.folder / "config.yaml")), run.moved)
    data = task_of(config).open().val
    count = min(plan.study.attention.images, len(data))
    # drawn, as classes and other things may take turns
    chosen = sorted(np.random.default_rng(0).choice(len(data), count, replace=False).tolist())
    kind = DetectionPredictor if config.task == "detect" else Predictor
    predictor = kind.from_run(run.folder, device="cpu")
    names, out = [f"image-{index}" for index in chosen], plan.folder / FOLDER

    def look() -> "Iterator[FileResult[ImageAttention]]":
        from PIL import Image

        from botvision.plots.style import fit

        for index, name in zip(chosen, names, strict=True):
            image = Image.fromarray(data.load(index).permute(1, 2, 0).numpy())
            point = data.point_of(index)
            maps = attention_maps(predictor, image, None if point is None else [point])
            picture = fit(image)
            dark = Image.new("RGB", picture.size, GROUND)
            yield FileResult(name, maps, picture=picture if photos else dark)

    looked, label, pictures = list(look()), plan.scale.arms[run.arm].label, []
    written = write_attention(looked, list(map(Path, names)), out, predictor.description)
    found = [each.found for each in looked if each.found is not None]
    for index, name, maps in zip(chosen, names, found, strict=True):
        # classes of images lie in folders whose files may have the same names
        place = Path(data.name_of(index)).parts[-2 if config.task == "classify" else -1 :]
        what = f"Attention of {label}, seed {run.seed}, in {'/'.join(place)}"
        caption = f"{what}. {LEGEND}" + ("" if photos else " The image itself is left out.")
        alt = f"{what}: {maps_text(map_rows(maps))}"
        pictures.append(Picture(caption, out / PICTURES / f"{name}.png", alt))
    for file, caption, alt in (
        (
            DISTANCE,
            f"How far the heads of {label} look in these images, and how far even attention would.",
            f"Mean distance at which each head looks: {distance_text(distance_rows(found))}",
        ),
        (
            POSITION,
            f"What the position tables of {label} add to the logits, by head.",
            "Where the logits of position are largest, in cells, and by how much they exceed their mean: "
            f"{position_text(position_rows(found))}",
        ),
    ):
        if out / file in written:
            pictures.append(Picture(caption, out / file, alt))
    return tuple(pictures)


def _finished(plan: Plan) -> Iterator[PlannedRun]:
    """The finished runs of the arm that the study looks at."""
    if plan.study.attention is not None:
        yield from (run for run in plan.of_arm(plan.study.attention.arm) if run.state() == "finished")
