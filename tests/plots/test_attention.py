"""Pictures of attention: what is hot lies where its cell lies, in the image's own pixels."""

import itertools
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from botvision.plots.attention import (
    DistanceRow,
    MapRow,
    PositionRow,
    distance_figure,
    distance_text,
    maps_figure,
    maps_text,
    position_figure,
    position_text,
)
from botvision.studies.report import LEAST

SIZE = (60, 100)  # of an image that is seen from row 0 and column 20 to 80; cells of 20 pixels
ROW: dict[str, Any] = {
    "names": ["head 1"],
    "edges": ((0, 20, 40, 60), (20, 40, 60, 80)),
    "query": (20, 20, 40, 40),
    "at": (25, 33),
}


def pixel_at(figure, axes, y, x):
    """Colour of the finished picture at a point of the image."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())
    across, up = axes.transData.transform((x, y))
    return drawn[round(drawn.shape[0] - up), round(across), :3].astype(int)


def test_what_is_hot_lies_where_its_cell_lies():
    weights = np.zeros((1, 3, 3))
    weights[0, 2, 1] = 1.0
    image = Image.new("RGB", (SIZE[1] // 2, SIZE[0] // 2), (200, 200, 200))  # drawn upon at half its size
    figure = maps_figure(image, SIZE, [MapRow(title="block", maps=weights, **ROW)])
    photo, axes = figure.axes
    assert photo.get_title(loc="left") == "block\n3x3 cells"
    assert axes.get_title(loc="left") == "head 1\nup to 100 %, 9.0x even"
    faded = pixel_at(figure, axes, 5, 5)
    assert np.ptp(faded) == 0  # grey
    for y in range(3):
        for x in range(3):
            for dy, dx in ((1, 1), (18, 18), (10, 10)):
                colour = pixel_at(figure, axes, 20 * y + dy, 20 + 20 * x + dx)
                if (y, x) == (2, 1):
                    assert colour[0] > colour[2] + 40  # warm
                elif (y, x) != (1, 0):  # where the query is marked
                    assert np.abs(colour - faded).max() <= 2
    assert np.ptp(pixel_at(figure, photo, 50, 50)) == 0
    assert pixel_at(figure, photo, 50, 50).max() > 195  # the photo itself is not faded
    blue = pixel_at(figure, axes, 25, 33)
    assert blue[2] > blue[0] + 50  # the query


def test_maps_leave_their_photo_its_place():
    figure = maps_figure(Image.new("L", (100, 60)), SIZE, [MapRow(title="b", maps=np.ones((1, 3, 3)), **ROW)])
    assert figure.axes[1].get_xlim() == (-0.5, 99.5)
    assert figure.axes[1].get_ylim() == (59.5, -0.5)


def test_light_begins_above_even_attention():
    """A detector after minutes of training attends almost evenly: its photo is to be seen."""
    even = np.full((1, 3, 3), 1 / 9)
    little = even.copy()
    little[0, 2, 2], little[0, 0, 0] = 1.5 / 9, 0.5 / 9
    light = []
    for maps in (even, little, np.eye(9)[8].reshape(1, 3, 3)):
        figure = maps_figure(Image.new("RGB", (100, 60)), SIZE, [MapRow(title="b", maps=maps, **ROW)])
        assert pixel_at(figure, figure.axes[1], 10, 30).max() == 0  # even, half of it, and none
        light.append(pixel_at(figure, figure.axes[1], 50, 70).max())
    assert light[0] == 0
    assert 0.15 * light[2] < light[1] < 0.6 * light[2]


@pytest.mark.parametrize("size", [(64, 64), (480, 640), (640, 480), (640, 160), (160, 640)])
def test_titles_can_be_read_and_do_not_meet(size):
    """At six tenths of its size, as pages show it, also where pictures are slender."""
    height, width = size
    edges = np.linspace(0, height, 33).tolist(), np.linspace(0, width, 33).tolist()
    maps = np.full((5, 32, 32), 1e-9)
    maps[:, 3, 5] = 1.0
    names = [*(f"head {n}" for n in range(1, 5)), "mean"]
    row = MapRow("layer4.0", maps, names, edges=edges, query=(0, 0, 9, 9), at=(4, 4))
    figure = maps_figure(Image.new("L", (width, height)), size, [row] * 3)
    FigureCanvasAgg(figure).draw()
    for tiles in np.reshape(np.array(figure.axes, dtype=object), (3, 6)):
        titles = [axes._left_title for axes in tiles]
        assert titles[1].get_text() == "head 1\nup to 100 %, 1024.0x even"
        boxes = [title.get_window_extent() for title in titles]
        assert all(left.x1 + 5 < right.x0 for left, right in itertools.pairwise(boxes))
        assert boxes[0].x0 >= 0
        assert boxes[-1].x1 <= figure.bbox.x1
        assert max(box.y1 for box in boxes) <= figure.bbox.y1 + 1
        assert min(float(title.get_fontsize()) for title in titles) / 72 * figure.dpi * LEAST >= 11
        for axes, box in zip(tiles, boxes, strict=True):
            assert axes.get_window_extent().x0 == pytest.approx(box.x0, abs=2)  # above its own picture


@pytest.mark.parametrize("shape", [(15, 15), (79, 19), (19, 79)])
def test_the_type_of_other_pictures_can_be_read_too(shape):
    logits = np.random.default_rng(0).normal(size=(4, *shape))
    rows = [PositionRow(f"layer4.{n}", logits, relative=True) for n in range(2)]
    of_heads = np.arange(1.0, 5.0)
    distances = [DistanceRow(row.title, of_heads, of_heads - 0.5, of_heads + 0.5, 2.5, 16) for row in rows]
    for figure in (position_figure(rows), distance_figure(distances)):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        canvas.draw()
        texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        assert len(texts) > 10
        for text in texts:
            assert float(text.get_fontsize()) / 72 * figure.dpi * LEAST >= 11, text
        for axes in figure.axes:
            ticks = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
            seen = [box for box in ticks if axes.bbox.x0 - 1 <= (box.x0 + box.x1) / 2 <= axes.bbox.x1 + 1]
            assert all(left.x1 < right.x0 for left, right in itertools.pairwise(seen))


def test_distances_are_in_pixels():
    rows = [
        DistanceRow("layer4.0", np.array([2.0, 3.0]), np.array([1.0, 2.0]), np.array([3.0, 4.0]), 2.5, 16),
        DistanceRow("layer4.1", np.array([1.0]), np.array([0.5]), np.array([1.5]), 1.2, 32),
    ]
    axes: Any = distance_figure(rows).axes[0]
    points = [y for line in axes.lines if line.get_marker() == "o" for y in line.get_ydata()]
    assert points == [32.0, 48.0, 32.0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["head 1", "head 2", "10 to 90 % of queries", "attention to all cells alike"]


def test_positions_are_centred_on_the_query():
    logits = np.zeros((2, 3, 5))
    logits[1, 0, 4] = 15.0
    figure = position_figure([PositionRow("layer4.0", logits, relative=True)])
    drawn: Any = figure.axes[1].images[0]
    assert tuple(drawn.get_extent()) == (-2.5, 2.5, 1.5, -1.5)
    assert drawn.get_array()[0, 4] == pytest.approx(14.0)  # less their mean
    assert drawn.get_clim() == (-14.0, 14.0)
    assert figure.axes[0].get_xlabel() == "dx"
    by_place = position_figure([PositionRow("layer4.0", logits, relative=False)]).axes[0]
    assert tuple(by_place.images[0].get_extent()) == (-0.5, 4.5, 2.5, -0.5)
    assert by_place.get_xlabel() == "x"


def test_maps_in_words():
    uneven = np.full((2, 2, 4), 0.0625)
    uneven[1, 0, 0] = 0.5625  # of eight cells
    places: dict[str, Any] = {"edges": ((), ()), "query": (0, 0, 30, 50), "at": (25, 33)}
    first = MapRow("layer4.0", uneven, ["head 1", "mean"], **places)
    even = MapRow("layer4.1", np.full((1, 2, 2), 0.25), ["head 1"], **places)
    assert maps_text([first, even]) == (
        "query at y 25, x 33; layer4.0: head 1 up to 0.5x even, mean up to 4.5x even; "
        "layer4.1: head 1 up to 1.0x even"
    )


def test_distances_in_words():
    rows = [
        DistanceRow("layer4.0", np.array([2.0, 3.0]), np.array([1.0, 2.0]), np.array([3.0, 4.0]), 2.5, 16),
        DistanceRow("layer4.1", np.array([1.0]), np.array([0.5]), np.array([1.5]), 1.2, 32),
    ]
    assert distance_text(rows) == (
        "layer4.0: head 1 32 px, head 2 48 px, even attention 40 px; "
        "layer4.1: head 1 32 px, even attention 38 px"
    )


def test_positions_in_words():
    """Of each head the offset that the picture shows in the deepest red."""
    logits = np.zeros((2, 3, 5))
    logits[0, 0, 2] = 15.0
    logits[1, 1, 4] = 3.0
    rows = [PositionRow(f"layer4.{n}", logits, relative=not n) for n in range(2)]
    assert position_text(rows) == (
        "layer4.0: head 1 most towards dy -1, dx 0 (+14), head 2 most towards dy 0, dx 2 (+2.8); "
        "layer4.1: head 1 most at y 0, x 2 (+14), head 2 most at y 1, x 4 (+2.8)"
    )
