"""Attention to files: a picture of the maps for each image and query, distances and positions, one JSON.

Rows are what a picture shows; `*_text` say it in words, for those who cannot see it.
"""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from botvision.attention.ablation import counted
from botvision.inference.attention_maps import BlockAttention, ImageAttention
from botvision.inference.view import Hw
from botvision.inference.writer import PICTURES, picture_names
from botvision.io.files import write_text
from botvision.plots.attention import (
    DistanceRow,
    MapRow,
    PositionRow,
    distance_figure,
    maps_figure,
    position_figure,
    times_even,
)
from botvision.plots.style import save_figure

ATTENTION, DISTANCE, POSITION = "attention.json", "distance.png", "position.png"
SPREAD = (0.1, 0.9)  # of the queries' distances, as quantiles


@dataclass(frozen=True)
class Choice:
    """Which maps are drawn: numbers from 1; None for all.

    Raises:
        ValueError: from `check`: a number that the network does not have.
    """

    block: int | None = None
    head: int | None = None

    def check(self, blocks: Sequence[int]) -> None:
        """Refuse numbers beyond `blocks`, the number of heads of each block."""
        if self.block is not None and not 1 <= self.block <= len(blocks):
            raise ValueError(
                f"block {self.block}: the network has attention in {counted('block', len(blocks))}"
            )
        wanted = blocks if self.block is None else blocks[self.block - 1 : self.block]
        if self.head is not None and not 1 <= self.head <= min(wanted):
            raise ValueError(f"head {self.head}: the attention has {counted('head', min(wanted))}")


def map_rows(found: ImageAttention, query: int = 0, choice: Choice | None = None) -> list[MapRow]:
    """What `maps_figure` draws of one query, a row for each block."""
    choice = choice or Choice()
    rows = []
    for number, block in enumerate(found.blocks, 1):
        if choice.block not in (None, number):
            continue
        heads = range(block.heads) if choice.head is None else [choice.head - 1]
        maps = [block.weights[query, head].numpy() for head in heads]
        names = [f"head {head + 1}" for head in heads]
        if len(maps) > 1:
            maps.append(np.mean(maps, axis=0))
            names.append("mean")
        rows.append(
            MapRow(
                title=block.name,
                maps=np.stack(maps),
                names=names,
                extent=found.view.extent(block.stride),
                query=found.view.box(block.cells[query], block.stride),
                at=found.at[query],
            )
        )
    return rows


def distance_rows(images: Sequence[ImageAttention]) -> list[DistanceRow]:
    """What `distance_figure` draws: the mean over images, each of which counts the same."""
    rows = []
    for blocks in zip(*(found.blocks for found in images), strict=True):
        flat = [block.distance.flatten(1).numpy() for block in blocks]
        low, high = (np.mean([np.quantile(each, part, axis=1) for each in flat], axis=0) for part in SPREAD)
        rows.append(
            DistanceRow(
                title=blocks[0].name,
                mean=np.mean([each.mean(1) for each in flat], axis=0),
                low=low,
                high=high,
                uniform=float(np.mean([block.uniform_distance for block in blocks])),
                stride=blocks[0].stride,
            )
        )
    return rows


def position_rows(images: Sequence[ImageAttention]) -> list[PositionRow]:
    """What `position_figure` draws: of the mean query of all images; nothing for blocks without position."""
    rows = []
    for blocks in zip(*(found.blocks for found in images), strict=True):
        logits = [block.offsets.numpy() for block in blocks if block.offsets is not None]
        if logits:
            relative = blocks[0].position != "absolute"
            rows.append(PositionRow(blocks[0].name, np.mean(logits, axis=0), relative))
    return rows


def maps_text(rows: Sequence[MapRow]) -> str:
    """Say where the query is, and how far the largest weight of each map exceeds even attention."""
    y, x = rows[0].at
    said = [f"query at y {y}, x {x}"]
    for row in rows:
        heads = zip(row.names, row.maps, strict=True)
        tops = [f"{name} up to {times_even(weights)} even" for name, weights in heads]
        said.append(f"{row.title}: {', '.join(tops)}")
    return "; ".join(said)


def distance_text(rows: Sequence[DistanceRow]) -> str:
    """Say the mean distance of every head in pixels of the network's input, and that of even attention."""
    said = []
    for row in rows:
        heads = [f"head {n} {mean * row.stride:.0f} px" for n, mean in enumerate(row.mean, 1)]
        said.append(f"{row.title}: {', '.join(heads)}, even attention {row.uniform * row.stride:.0f} px")
    return "; ".join(said)


def position_text(rows: Sequence[PositionRow]) -> str:
    """Say which offset, or place, the tables raise most for every head, and by how much above their mean."""
    said = []
    for row in rows:
        heads = []
        for n, logits in enumerate(row.logits, 1):
            y, x = (int(place) for place in np.unravel_index(logits.argmax(), logits.shape))
            where = f"at y {y}, x {x}"
            if row.relative:
                where = f"towards dy {y - logits.shape[0] // 2}, dx {x - logits.shape[1] // 2}"
            heads.append(f"head {n} most {where} ({logits.max() - logits.mean():+.2g})")
        said.append(f"{row.title}: {', '.join(heads)}")
    return "; ".join(said)


@dataclass(frozen=True)
class Looked:
    """What became of one file: its attention and bounded picture, or the error that was met."""

    file: str
    found: ImageAttention | None
    picture: Image.Image | None = None
    error: str | None = None


def write_attention(
    looked: Iterable[Looked],
    files: Sequence[Path],
    out: str | Path,
    description: Mapping[str, Any],
    choice: Choice | None = None,
) -> list[Path]:
    """Write pictures of the maps one by one, then the distances, the positions and `attention.json`.

    Args:
        looked: of all `files`, in their order.
        files: names of the pictures follow these paths, below the folder they have in common.
        out: folder, made if it is not there.
        description: of the model: `name`, `task`.
        choice: which maps are drawn; the other files hold all blocks and heads.

    Returns:
        What was written: nothing where no file could be read.
    """
    out = Path(out)
    images: list[ImageAttention] = []
    records: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for each, name in zip(looked, picture_names(files), strict=True):
        if each.found is None or each.picture is None:
            failed.append({"file": each.file, "error": each.error})
            continue
        pictures = _picture_names(name, each.found.at)
        for query, picture in enumerate(pictures):
            figure = maps_figure(each.picture, each.found.view.size, map_rows(each.found, query, choice))
            save_figure(figure, out / picture)
        images.append(each.found)
        records.append(_image_record(each.file, each.found, pictures))
    if not images:
        return []
    written = [out / ATTENTION, out / PICTURES, out / DISTANCE]
    save_figure(distance_figure(distance_rows(images)), out / DISTANCE)
    positions = position_rows(images)
    if positions:
        save_figure(position_figure(positions), out / POSITION)
        written.append(out / POSITION)
    else:  # what lies there is of another model, and would be taken for this one's
        (out / POSITION).unlink(missing_ok=True)
    facts = {"model": description.get("name"), "task": description.get("task")}
    blocks = [_block_record(blocks) for blocks in zip(*(found.blocks for found in images), strict=True)]
    text = json.dumps(facts | {"blocks": blocks, "images": records, "failed": failed}, indent=2)
    write_text(out / ATTENTION, text + "\n")
    return written


def _picture_names(name: str, at: Sequence[Hw]) -> list[str]:
    """`pictures/NAME.png`, with the query's place where there are several."""
    stem = f"{PICTURES}/{name.removesuffix('.jpg')}"
    if len(at) == 1:
        return [f"{stem}.png"]
    counts = itertools.count(2)
    names: list[str] = []
    for y, x in at:
        own = f"{stem}-y{y}-x{x}.png"
        names.append(own if own not in names else f"{stem}-y{y}-x{x}-{next(counts)}.png")
    return names


def _block_record(blocks: Sequence[BlockAttention]) -> dict[str, Any]:
    """Means over the images, each of which counts the same."""
    means = [_means(block) for block in blocks]
    return {
        "name": blocks[0].name,
        "position": blocks[0].position,
        "heads": blocks[0].heads,
        "stride": blocks[0].stride,
        **{key: np.round(np.mean([each[key] for each in means], axis=0), 4).tolist() for key in means[0]},
        "branch_ratio": _rounded(mean_branch_ratio(blocks)),
    }


def mean_branch_ratio(blocks: Sequence[BlockAttention]) -> float | None:
    """Mean of a block's branch ratio over images; None if an image has none."""
    ratios = [block.branch_ratio for block in blocks if block.branch_ratio is not None]
    return float(np.mean(ratios)) if len(ratios) == len(blocks) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _image_record(file: str, found: ImageAttention, pictures: Sequence[str]) -> dict[str, Any]:
    blocks = [
        {
            "name": block.name,
            "grid": list(block.grid),
            **{key: np.round(value, 4).tolist() for key, value in _means(block).items()},
            "branch_ratio": _rounded(block.branch_ratio),
            "query_cells": [list(cell) for cell in block.cells],
        }
        for block in found.blocks
    ]
    queries = [list(point) for point in found.at]
    return {
        "file": file,
        "size": list(found.view.size),
        "queries": queries,
        "pictures": list(pictures),
        "blocks": blocks,
    }


def _means(block: BlockAttention) -> dict[str, Any]:
    """Means over queries of each head, and what uniform attention has."""
    distance = block.distance.double().mean((1, 2)).numpy()
    return {
        "distance_cells": distance,
        "distance_pixels": distance * block.stride,
        "entropy_bits": block.entropy.double().mean((1, 2)).numpy(),
        "uniform_distance_cells": block.uniform_distance,
        "uniform_entropy_bits": block.uniform_entropy,
    }
