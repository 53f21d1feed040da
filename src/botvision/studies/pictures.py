"""Attention for a study's report: what one finished run looks at in a few images of its validation data."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from botvision.studies.outcome import Picture
from botvision.studies.plan import Plan, PlannedRun

if TYPE_CHECKING:
    from botvision.inference.attention_maps import ImageAttention
    from botvision.inference.detector import DetectionPredictor
    from botvision.inference.predictor import FileResult, Predictor

FOLDER = "attention"  # in the study's folder
GROUND = (24, 24, 28)  # in the place of photos; maps are made of light
LEGEND = (
    "The frame is the query's cell, the dot its pixel; light falls, by head, on what gets more than even "
    "attention. The brightest light is a map's largest weight, or twice even attention if that is more."
)


def attention_pictures(plan: Plan, *, photos: bool = True) -> tuple[Picture, ...]:
    """Draw the attention of the arm that the study names, into attention/ of its folder.

    The query of an image lies on the largest object, or on what else the answer is known to depend on, or in
    the middle.

    Args:
        plan: of the study.
        photos: Below the maps; without, a dark ground lies there, and the page holds none of the data.

    Returns:
        Pictures of single images, then of how far heads look and of the position tables; none where the study
        asks for none, or no run of the arm is finished.

    Raises:
        ValueError: the run's data cannot be opened, or its network has no attention.
    """
    wanted = plan.study.attention
    if wanted is None:
        return ()
    run = next((run for run in plan.of_arm(wanted.arm) if run.state() == "finished"), None)
    return () if run is None else _draw(run, wanted.images, plan, photos)


def _draw(run: PlannedRun, count: int, plan: Plan, photos: bool) -> tuple[Picture, ...]:
    from botvision.config.recipes import build_config, config_to_dict, load_config
    from botvision.inference.attention_maps import distance_rows, map_rows, position_rows
    from botvision.inference.detector import DetectionPredictor
    from botvision.inference.predictor import Predictor
    from botvision.inference.writers import DISTANCE, PICTURES, POSITION, write_attention
    from botvision.plots.attention import distance_text, maps_text, position_text
    from botvision.training.run import task_of

    config = load_config(run.folder / "config.yaml")
    if run.config.data.root is not None:  # where the data are now
        config = build_config(config_to_dict(config), {"data.root": run.config.data.root})
    data = task_of(config).open().val
    count = min(count, len(data))
    # drawn, as classes and other things may take turns
    chosen = sorted(np.random.default_rng(0).choice(len(data), count, replace=False).tolist())
    kind = DetectionPredictor if run.config.task == "detect" else Predictor
    predictor = kind.from_run(run.folder, device="cpu")
    names = [f"image-{index}" for index in chosen]
    out = plan.folder / FOLDER
    looked = list(_look(predictor, data, dict(zip(chosen, names, strict=True)), photos))
    written = write_attention(looked, list(map(Path, names)), out, predictor.description)
    found = [each.found for each in looked if each.found is not None]
    label = plan.scale.arms[run.arm].label
    shown = []
    for index, name, attention in zip(chosen, names, found, strict=True):
        # classes of images lie in folders whose files may have the same names
        place = Path(data.name_of(index)).parts[-2 if run.config.task == "classify" else -1 :]
        what = f"Attention of {label}, seed {run.seed}, in {'/'.join(place)}"
        caption = f"{what}. {LEGEND}" if photos else f"{what}. {LEGEND} The image itself is left out."
        alt = f"{what}: {maps_text(map_rows(attention))}"
        shown.append(Picture(caption, out / PICTURES / f"{name}.png", alt))
    about = {
        DISTANCE: (
            f"How far the heads of {label} look in these images, and how far even attention would.",
            f"Mean distance at which each head looks: {distance_text(distance_rows(found))}",
        ),
        POSITION: (
            f"What the position tables of {label} add to the logits, by head.",
            f"Where the logits of position are largest, in cells, and by how much they exceed their mean: "
            f"{position_text(position_rows(found))}",
        ),
    }
    shown += [Picture(said, out / name, alt) for name, (said, alt) in about.items() if out / name in written]
    return tuple(shown)


def _look(
    predictor: "Predictor | DetectionPredictor",
    data: Any,  # noqa: ANN401  a data set of either task
    names: Mapping[int, str],
    photos: bool,
) -> "Iterator[FileResult[ImageAttention]]":
    from PIL import Image

    from botvision.inference.attention_maps import attention_maps
    from botvision.inference.predictor import FileResult
    from botvision.plots.style import fit

    for index, name in names.items():
        image = Image.fromarray(data.load(index).permute(1, 2, 0).numpy())
        point = data.point_of(index)
        found = attention_maps(predictor, image, None if point is None else [point])
        picture = fit(image)
        shown = picture if photos else Image.new("RGB", picture.size, GROUND)
        yield FileResult(name, found, picture=shown)
