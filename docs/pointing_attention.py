"""What attention does in the pointing task: `python docs/pointing_attention.py RUN [RUN ...]`.

A RUN is one of pointing_botnet_s1_14_nano, also with other positions. At every arrow of validation images:
how much of each head's weight falls on the one cell of the mark that the arrow points to, by their distance.
Writes results/attention_pointing.json of all runs, and of the first the picture docs/attention_maps.png.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from botvision.config.data import DataConfig
from botvision.config.recipes import load_config
from botvision.data.synthetic.pointing import PointingSource
from botvision.inference.attention_maps import ImageAttention, attention_maps, map_rows
from botvision.inference.predictor import Predictor
from botvision.io.files import write_text
from botvision.plots.attention import maps_figure
from botvision.plots.style import save_figure
from botvision.training import provenance

ROOT = Path(__file__).parent.parent
IMAGES = 400  # the first ones of the validation images


def looked_at(
    source: PointingSource, index: int, arrows: torch.Tensor, predictor: Predictor
) -> ImageAttention:
    """The attention of an image's arrows, which lie at (3, 2) y and x."""
    image = Image.fromarray(source.load(index).permute(1, 2, 0).numpy())
    return attention_maps(predictor, image, at=[(int(y), int(x)) for y, x in arrows.tolist()])


def measured(run: Path, source: PointingSource, predictor: Predictor) -> dict[str, Any]:
    """The part of each head's weight, in the first block, on the cell of the mark, by distance in pixels."""
    parts: dict[float, list[torch.Tensor]] = {}
    arrows, marks = source.points(), source.marks(torch.arange(IMAGES))
    for index in range(IMAGES):
        found = looked_at(source, index, arrows[index], predictor)
        block = found.blocks[0]
        for weights, mark, distance in zip(
            block.weights, marks[index], source.grouping.values[index], strict=True
        ):
            row, column = found.view.cell((int(mark[0]), int(mark[1])), block.stride)
            parts.setdefault(float(distance), []).append(weights[:, row, column])
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return {
        "position": block.position,
        "cells": block.weights[0, 0].numel(),
        "by_distance": [
            {
                "pixels": distance,
                "arrows": len(values),
                "on_mark": [round(part, 4) for part in torch.stack(values).mean(0).tolist()],
                "best_head": round(float(torch.stack(values).amax(1).mean()), 4),
            }
            for distance, values in sorted(parts.items())
        ],
        "run": {key: summary[key] for key in ("recipe", "seed", "commit", "hardware", "precision", "top1")},
    }


def draw(found: ImageAttention, image: Image.Image, distances: list[float]) -> None:
    """All arrows of one image, the nearest mark's first."""
    order = sorted(range(len(distances)), key=distances.__getitem__)
    rows = [
        replace(row, title=f"{distances[query]:.0f} pixels to its mark")
        for query in order
        for row in map_rows(found, query)[:1]
    ]
    save_figure(maps_figure(image, found.view.size, rows), ROOT / "docs" / "attention_maps.png")


def main(words: list[str]) -> int:
    runs = [Path(word) for word in words]
    if not runs or not all((run / "config.yaml").is_file() for run in runs):
        print("expected run folders: python docs/pointing_attention.py RUN [RUN ...]", file=sys.stderr)
        return 2
    reports = []
    for run in runs:
        config = load_config(run / "config.yaml")
        assert isinstance(config.data, DataConfig)
        source, predictor = PointingSource(config.data, "val"), Predictor.from_run(run, device="cpu")
        reports.append(measured(run, source, predictor))
        if run == runs[0]:
            # the three arrows of this image lie at different distances from their marks
            distances = source.grouping.values.tolist()
            shown = next(index for index, values in enumerate(distances) if len(set(values)) == len(values))
            image = Image.fromarray(source.load(shown).permute(1, 2, 0).numpy())
            draw(looked_at(source, shown, source.points()[shown], predictor), image, distances[shown])
    report = {
        "what": "part of each head's weight on the one cell of the mark that an arrow points to",
        "images": IMAGES,
        "runs": reports,
        "command": "botvision study pointing --out OUT; "
        "python docs/pointing_attention.py OUT/relative-s0 OUT/position-s0",
        "hardware": provenance.hardware(torch.device("cpu")),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }
    write_text(ROOT / "results" / "attention_pointing.json", json.dumps(report, indent=2) + "\n")
    for each in reports:
        parts = [f"{row['pixels']:.0f} px {row['best_head']:.2f}" for row in each["by_distance"]]
        print(f"{each['position']}: {', '.join(parts)} of the best head's weight")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
