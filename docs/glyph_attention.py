"""What attention does in the long-range task: `python docs/glyph_attention.py RUN`.

RUN is one of longrange_botnet14_nano. From the middle of the first glyph of each validation image whose
glyphs lie far apart: how much of every head's weight falls on the second one. Writes
results/attention_glyphs.json and the picture docs/attention_maps.png.
"""

import json
import sys
from pathlib import Path

import torch
from PIL import Image

from botvision.config.data import DataConfig
from botvision.config.recipes import load_config
from botvision.data.synthetic.long_range import KINDS, LongRangeSource
from botvision.inference.attention_maps import ImageAttention, attention_maps, map_rows
from botvision.inference.predictor import Predictor
from botvision.io.files import write_text
from botvision.plots.attention import maps_figure
from botvision.plots.style import save_figure
from botvision.training import provenance

ROOT = Path(__file__).parent.parent
IMAGES = 600  # the first ones of the validation images
FAR = 60.0  # pixels
AROUND = 1  # cells around the one in which the second glyph's middle lies: 3x3


def on_second(found: ImageAttention, second: tuple[int, int]) -> list[float]:
    """The part of each head's weight, in the first block, that falls on the second glyph."""
    block = found.blocks[0]
    row, column = found.view.cell(second, block.stride)
    near = block.weights[0][
        :,
        max(0, row - AROUND) : row + AROUND + 1,
        max(0, column - AROUND) : column + AROUND + 1,
    ]
    return near.sum((-1, -2)).tolist()


def main(words: list[str]) -> int:
    if len(words) != 1 or not (Path(words[0]) / "config.yaml").is_file():
        print("expected a run folder: python docs/glyph_attention.py RUN", file=sys.stderr)
        return 2
    run = Path(words[0])
    config, predictor = load_config(run / "config.yaml"), Predictor.from_run(run, device="cpu")
    assert isinstance(config.data, DataConfig)
    data = config.data
    source = LongRangeSource(data, "val")
    far = [i for i in range(IMAGES) if float(source.grouping.values[i]) >= FAR]
    parts: dict[tuple[int, int], list[list[float]]] = {}
    shown: dict[tuple[int, int], tuple[Image.Image, ImageAttention]] = {}
    for index in far:
        [[first, second]] = source.centres(torch.tensor([index])).int().tolist()
        image = Image.fromarray(source.load(index).permute(1, 2, 0).numpy())
        found = attention_maps(predictor, image, at=[tuple(first)])
        pair = tuple(source.kinds[index].tolist())
        parts.setdefault(pair, []).append(on_second(found, tuple(second)))
        shown.setdefault(pair, (image, found))
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    rows = [
        {
            "query": KINDS[a],
            "other": KINDS[b],
            "images": len(values),
            "on_other": [round(part, 5) for part in torch.tensor(values).mean(0).tolist()],
        }
        for (a, b), values in sorted(parts.items())
    ]
    even = (2 * AROUND + 1) ** 2 / (found.blocks[0].grid[0] * found.blocks[0].grid[1])
    report = {
        "what": "part of each head's weight on the 3x3 cells around the other glyph",
        "at_least_pixels_apart": FAR,
        "even_attention_at_most": round(even, 5),
        "pairs": rows,
        "command": "botvision train longrange_botnet14_nano; python docs/glyph_attention.py RUN",
        "run": {key: summary[key] for key in ("recipe", "seed", "commit", "hardware", "precision", "top1")},
        "hardware": provenance.hardware(torch.device("cpu")),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }
    write_text(ROOT / "results" / "attention_glyphs.json", json.dumps(report, indent=2) + "\n")
    _draw([shown[pair] for pair in ((1, 0), (1, 1))])
    print(json.dumps(rows, indent=2))
    return 0


def _draw(shown: list[tuple[Image.Image, ImageAttention]]) -> None:
    """The pictures of a cross and a disc, and of two crosses, one below the other."""
    folder = ROOT / "docs"
    parts = []
    for number, (image, found) in enumerate(shown):
        path = folder / f".attention_maps_{number}.png"
        save_figure(maps_figure(image, found.view.size, map_rows(found)), path)
        parts.append(Image.open(path).convert("RGB"))
        path.unlink()
    whole = Image.new("RGB", (max(p.width for p in parts), sum(p.height for p in parts)), "white")
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    whole.save(folder / "attention_maps.png", optimize=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
