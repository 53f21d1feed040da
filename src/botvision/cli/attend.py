"""The command `attend`: what attention looks at."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from botvision.cli.output import warn
from botvision.io.errors import DataError
from botvision.tables.markdown import table

if TYPE_CHECKING:
    from PIL import Image

    from botvision.inference.attention_maps import ImageAttention
    from botvision.inference.detector import DetectionPredictor
    from botvision.inference.predictor import FileResult, Predictor


def attend(args: argparse.Namespace) -> int:
    """Draw what the attention of a run's model looks at in images.

    Returns:
        The exit code: 0, or 2 where no image could be read.

    Raises:
        ValueError: one line on what is wrong with the arguments or the run.
    """
    from botvision.cli.inputs import Inputs
    from botvision.inference.attention_maps import Choice, find_attention
    from botvision.inference.detector import DetectionPredictor
    from botvision.inference.predictor import Predictor, find_model
    from botvision.inference.writers import write_attention

    _, task = find_model(args.model)
    kind = DetectionPredictor if task == "detect" else Predictor
    predictor = kind.from_run(args.model, device=args.device)
    try:
        layers = find_attention(predictor.model)
    except ValueError as error:
        raise ValueError(f"{args.run}: {error}") from None
    choice = Choice(args.block, args.head)
    choice.check([layer.heads for layer in layers.values()])
    inputs = Inputs(args.max_pixels)
    files = inputs.find(args.images, args.out)
    shown: list[ImageAttention] = []
    looked = _look(predictor, files, inputs.read, args.at, shown)
    written = write_attention(looked, files, args.out, predictor.description, choice)
    inputs.tell()
    if not shown:
        return 2
    if len(shown) < len(files):
        print(f"\n{len(files)} files: {len(shown)} looked at, {len(files) - len(shown)} could not be")
    print(f"\n{distance_table(shown)}")
    use = _use_of(args.run)
    if use is not None:
        print(f"\n{use}")
    print(f"\nwritten: {', '.join(f'{path}/' if path.is_dir() else str(path) for path in written)}")
    return 0


def _use_of(run: str) -> str | None:
    """What `eval --attention all` said of the run as it is now; None if it has not been asked."""
    from botvision.metrics.attention_use import FILE, load_use

    folder = Path(run)
    for path in (folder / FILE, folder.parent / FILE):  # of a run folder, or of the model/ folder in it
        if path.is_file() and (path.parent == folder or folder.name == "model"):
            found = load_use(path)
            return None if found is None else found.sentence()
    return None


def _look(
    predictor: "Predictor | DetectionPredictor",
    files: Sequence[Path],
    read: "Callable[[Path], Image.Image]",
    at: Sequence[tuple[int, int]] | None,
    shown: "list[ImageAttention]",
) -> "Iterator[FileResult[ImageAttention]]":
    """One image after the other, with a line on each; what is found goes into `shown` too.

    One that cannot be read, or lacks a query's pixel, is reported in place.
    """
    from botvision.inference.attention_maps import attention_maps
    from botvision.inference.predictor import FileResult
    from botvision.plots.overlay import LONGEST_SIDE
    from botvision.plots.style import fit

    for file in files:
        try:
            image = read(file)
            found = attention_maps(predictor, image, at)
        except ValueError as error:
            line = str(error) if isinstance(error, DataError) else f"{file}: {error}"
            warn(line)
            yield FileResult(str(file), None, error=line)
            continue
        height, width = found.view.size
        places = " ".join(f"{y},{x}" for y, x in found.at)
        print(f"{file}: {height}x{width} pixels, queries at y,x {places}")
        shown.append(found)
        yield FileResult(str(file), found, picture=fit(image, 1, LONGEST_SIDE))


def distance_table(images: "Sequence[ImageAttention]") -> str:
    """Return mean attention distance in pixels of the network's input, by block and head, as Markdown.

    The last column is the size of the block's residual branch beside its shortcut, both as root mean square.
    """
    from botvision.inference.attention_maps import distance_rows
    from botvision.inference.writers import mean_branch_ratio

    rows = distance_rows(images)
    ratios = [mean_branch_ratio(blocks) for blocks in zip(*(i.blocks for i in images), strict=True)]
    heads = max(len(row.mean) for row in rows)
    cells = [
        [
            f"{number} {row.title}",
            f"{row.stride} px",
            *(f"{mean * row.stride:.0f}" for mean in row.mean),
            *[""] * (heads - len(row.mean)),
            f"{row.uniform * row.stride:.0f}",
            "" if ratio is None else f"{ratio:.2f}",
        ]
        for number, (row, ratio) in enumerate(zip(rows, ratios, strict=True), 1)
    ]
    header = ["distance (px)", "a cell", *(f"head {n + 1}" for n in range(heads)), "all cells alike"]
    return table([*header, "branch / shortcut"], cells, "ll" + "r" * (heads + 2))
