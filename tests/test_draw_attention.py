"""Pictures of attention: what is hot lies where its cell lies, in the image's own pixels."""

from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from botvision.draw_attention import (
    DistanceRow,
    MapRow,
    PositionRow,
    distance_figure,
    maps_figure,
    position_figure,
)

SIZE = (60, 100)  # of an image that is seen from row 0 and column 20 to 80; cells of 20 pixels
ROW: dict[str, Any] = {
    "captions": ["head 1"],
    "extent": (0, 20, 60, 80),
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
    assert (photo.get_title(loc="left"), axes.get_title(loc="left")) == ("block", "head 1")
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


def test_cells_that_end_beyond_the_image_do_not_widen_it():
    row = ROW | {"extent": (0, 0, 64, 128)}
    figure = maps_figure(Image.new("L", (100, 60)), SIZE, [MapRow(title="b", maps=np.ones((1, 2, 4)), **row)])
    assert figure.axes[1].get_xlim() == (-0.5, 99.5)
    assert figure.axes[1].get_ylim() == (59.5, -0.5)
    assert tuple(figure.axes[1].images[1].get_extent()) == (-0.5, 127.5, 63.5, -0.5)


def test_even_attention_is_neither_dark_nor_bright():
    """A detector after minutes of training attends almost evenly: to be seen, and not taken for a find."""
    ground, light = [], []
    for even in (np.zeros((1, 3, 3)), np.full((1, 3, 3), 1 / 9), np.eye(9)[8].reshape(1, 3, 3)):
        figure = maps_figure(Image.new("RGB", (100, 60)), SIZE, [MapRow(title="b", maps=even, **ROW)])
        ground.append(pixel_at(figure, figure.axes[1], 5, 5).max())
        light.append(pixel_at(figure, figure.axes[1], 50, 70).max())
    assert set(ground[:1] + ground[2:]) == {0}
    assert 0.15 * light[2] < light[1] < 0.5 * light[2]


def test_distances_are_in_pixels():
    rows = [
        DistanceRow("layer4.0", np.array([2.0, 3.0]), np.array([1.0, 2.0]), np.array([3.0, 4.0]), 2.5, 16),
        DistanceRow("layer4.1", np.array([1.0]), np.array([0.5]), np.array([1.5]), 1.2, 32),
    ]
    axes: Any = distance_figure(rows).axes[0]
    points = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "o"]
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
