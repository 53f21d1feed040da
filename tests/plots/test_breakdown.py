"""Pictures of accuracy by a quantity, and of the images behind it."""

import math
from typing import Any

import pytest
from PIL import Image

from botvision.metrics.classification import Breakdown
from botvision.plots import breakdown as draw_breakdown
from tests.plots.test_style import colour_count


def breakdown(right=(9, 5, 0), count=(10, 10, 0)) -> Breakdown:
    return Breakdown("distance", "px", (8.0, 16.0, 24.0, 40.0), count, right)


def test_the_curve_has_the_accuracies_and_their_errors(tmp_path, monkeypatch):
    figures: list[Any] = []
    monkeypatch.setattr(draw_breakdown, "save_figure", lambda figure, path: figures.append(figure))
    both = {"one": breakdown(), "two": breakdown((10, 10, 4), (10, 10, 4))}
    draw_breakdown.accuracy_by_group(both, tmp_path / "x.png", 0.5)
    (axes,) = figures[0].axes
    chance, *_ = axes.lines
    assert set(chance.get_ydata()) == {50.0}
    one, two = (container.lines[0] for container in axes.containers)
    assert one.get_xdata().tolist() == [12, 20]  # the interval without images is left out
    assert one.get_ydata() == pytest.approx([90, 50])
    assert two.get_ydata() == pytest.approx([100, 100, 100])
    (bar, *_) = axes.containers[0].lines[2][0].get_segments()
    assert bar[1][1] - bar[0][1] == pytest.approx(2 * 196 * math.sqrt(0.9 * 0.1 / 10))
    assert [text.get_text() for text in axes.get_xticklabels()] == ["8", "16", "24", "40"]


def test_the_picture_is_written_whole(tmp_path):
    draw_breakdown.accuracy_by_group({"val": breakdown()}, tmp_path / "x.png", 0.5)
    picture = Image.open(tmp_path / "x.png")
    assert picture.size == (768, 504)
    assert colour_count(picture, draw_breakdown.COLOURS[0]) > 200
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    with pytest.raises(ValueError, match="no breakdown to draw"):
        draw_breakdown.accuracy_by_group({}, tmp_path / "y.png", 0.5)


def test_every_picture_stands_in_its_column_and_row():
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("#ff0000", "#0000ff"))
    sheet = draw_breakdown.picture_table([("same", [red, None]), ("other", [None, blue])], ["a", "b"], 40)
    middle = sheet.width - 2 * 50  # where the second column's cells begin is one cell further
    left, right = (sheet.crop((middle + x, 0, middle + x + 50, sheet.height)) for x in (0, 50))
    upper, lower = (left.crop((0, y, 50, y + 46)) for y in (36, 86))
    assert (colour_count(upper, "#ff0000"), colour_count(lower, "#ff0000")) == (1600, 0)
    assert colour_count(left, "#0000ff") == 0
    assert colour_count(right.crop((0, 86, 50, 132)), "#0000ff") == 1600
    with pytest.raises(ValueError, match="expected rows of 2 pictures"):
        draw_breakdown.picture_table([("same", [red])], ["a", "b"])
