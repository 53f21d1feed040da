"""Pictures of a detector's evaluation and training."""

from typing import Any

import pytest
from PIL import Image

from botvision.coco.evaluate import CocoMetrics, evaluate_coco
from botvision.plots import curves as draw_curves
from botvision.plots import style as draw
from tests.coco.scenes import random_scene
from tests.plots.test_style import colour_count

HEADER = "epoch,step,train_loss,val_box_ap,val_box_ap50,val_mask_ap,val_mask_ap50,lr,seconds\n"


def metrics() -> list[CocoMetrics]:
    scene = random_scene(1)
    return [evaluate_coco(scene.truth, scene.results, kind) for kind in ("bbox", "segm")]


def test_precision_recall_has_a_panel_for_each_kind(tmp_path):
    both = metrics()
    draw_curves.precision_recall(both, tmp_path / "pr.png")
    picture = Image.open(tmp_path / "pr.png")
    assert picture.size == (1248, 588)
    left, right = (picture.crop((x, 0, x + 624, 588)) for x in (0, 624))
    assert colour_count(left, draw_curves.BOX_COLOUR) > 400
    assert colour_count(right, draw_curves.MASK_COLOUR) > 400
    assert colour_count(right, draw_curves.BOX_COLOUR) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["pr.png"]


def test_lines_are_the_precisions_and_legends_their_ap(tmp_path, monkeypatch):
    figures: list[Any] = []
    monkeypatch.setattr(draw_curves, "save_figure", lambda figure, path: figures.append(figure))
    found = metrics()[0]
    draw_curves.precision_recall([found], tmp_path / "pr.png")
    (axes,) = figures[0].axes
    for line, values in zip(axes.lines, (found.precision50, found.precision75, found.precision), strict=True):
        assert line.get_ydata() == pytest.approx([100 * v for v in values])
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    numbers = [found.ap50, found.ap75, found.ap]
    assert [label.split(": ")[1] for label in labels] == [f"{100 * n:.1f}" for n in numbers]
    # What the legend calls the area is the mean over the curve.
    assert found.ap == pytest.approx(sum(found.precision) / 101)


def test_precision_recall_without_any_object_says_so(tmp_path, monkeypatch):
    figures: list[Any] = []
    monkeypatch.setattr(draw_curves, "save_figure", lambda figure, path: figures.append(figure))
    truth = {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    draw_curves.precision_recall([evaluate_coco(truth, [], "bbox")], tmp_path / "pr.png")
    (axes,) = figures[0].axes
    assert [text.get_text() for text in axes.texts] == ["no object in the ground truth"]


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no metrics to draw"):
        draw_curves.precision_recall([], tmp_path / "pr.png")


def test_detection_curves_show_loss_and_ap_and_skip_epochs_that_were_not_evaluated(tmp_path):
    table = tmp_path / "metrics.csv"
    rows = [f"{e},{10 * e},{2 / e},{e / 50},{e / 33},{e / 100},{e / 40},0.1,3\n" for e in range(1, 31)]
    rows[1] = "2,20,1.0,,,nan,,0.1,3\n"
    table.write_text(HEADER + "".join(rows))
    draw_curves.detection_curves(table, tmp_path / "curves.png")
    picture = Image.open(tmp_path / "curves.png")
    assert picture.size == (1200, 480)
    left, right = picture.crop((0, 0, 600, 480)), picture.crop((600, 0, 1200, 480))
    assert colour_count(left, draw.TRAIN_COLOUR) > 300
    for colour in (draw_curves.BOX_COLOUR, draw_curves.MASK_COLOUR):
        assert colour_count(right, colour) > 300
        assert colour_count(right, draw_curves.PALE[colour]) > 300
        assert colour_count(left, colour) == 0


@pytest.mark.parametrize("row", ["1,10,2.5,0.1,0.3,nan,nan,0.1,3\n", "1,10,2.5,,,,,0.1,3\n"])
@pytest.mark.filterwarnings("error")
def test_detection_curves_of_one_epoch_without_masks(tmp_path, row):
    (tmp_path / "metrics.csv").write_text(HEADER + row)
    draw_curves.detection_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert colour_count(Image.open(tmp_path / "curves.png"), draw_curves.MASK_COLOUR) == 0


@pytest.mark.parametrize("text", ["", HEADER, "a,b\n1,2\n"])
def test_metrics_without_epochs_are_refused_by_name(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.csv: expected a column 'epoch'"):
        draw_curves.detection_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
