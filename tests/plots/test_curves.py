"""Charts hold what they should: lines, bars and colours at the numbers they stand for."""

import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from botvision.coco.evaluate import CocoMetrics, evaluate_coco
from botvision.metrics.classification import Breakdown
from botvision.plots import curves
from tests.coco.scenes import random_scene
from tests.plots.test_style import colour_count, pixels

HEADER = "epoch,step,train_loss,val_loss,val_top1,val_top5,lr,seconds\n"
DETECTION_HEADER = "epoch,step,train_loss,val_box_ap,val_box_ap50,val_mask_ap,val_mask_ap50,lr,seconds\n"


@pytest.fixture
def figures(monkeypatch) -> list[Any]:
    """Figures as they would be written."""
    found: list[Any] = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: found.append(figure))
    return found


def metrics() -> list[CocoMetrics]:
    scene = random_scene(1)
    return [evaluate_coco(scene.truth, scene.results, kind) for kind in ("bbox", "segm")]


def test_precision_recall_has_a_panel_for_each_kind(tmp_path):
    both = metrics()
    curves.precision_recall(both, tmp_path / "pr.png")
    picture = Image.open(tmp_path / "pr.png")
    assert picture.size == (1248, 588)
    left, right = (picture.crop((x, 0, x + 624, 588)) for x in (0, 624))
    assert colour_count(left, curves.BOX_COLOUR) > 400
    assert colour_count(right, curves.MASK_COLOUR) > 400
    assert colour_count(right, curves.BOX_COLOUR) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["pr.png"]


def test_lines_are_the_precisions_and_legends_their_ap(tmp_path, figures):
    found = metrics()[0]
    curves.precision_recall([found], tmp_path / "pr.png")
    (axes,) = figures[0].axes
    for line, values in zip(axes.lines, (found.precision50, found.precision75, found.precision), strict=True):
        assert line.get_ydata() == pytest.approx([100 * v for v in values])
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    numbers = [found.ap50, found.ap75, found.ap]
    assert [label.split(": ")[1] for label in labels] == [f"{100 * n:.1f}" for n in numbers]
    # What the legend calls the area is the mean over the curve.
    assert found.ap == pytest.approx(sum(found.precision) / 101)


def test_precision_recall_without_any_object_says_so(tmp_path, figures):
    truth = {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    curves.precision_recall([evaluate_coco(truth, [], "bbox")], tmp_path / "pr.png")
    (axes,) = figures[0].axes
    assert [text.get_text() for text in axes.texts] == ["no object in the ground truth"]


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no metrics to draw"):
        curves.precision_recall([], tmp_path / "pr.png")


def test_detection_curves_show_loss_and_ap_and_skip_epochs_that_were_not_evaluated(tmp_path):
    table = tmp_path / "metrics.csv"
    rows = [f"{e},{10 * e},{2 / e},{e / 50},{e / 33},{e / 100},{e / 40},0.1,3\n" for e in range(1, 31)]
    rows[1] = "2,20,1.0,,,nan,,0.1,3\n"
    table.write_text(DETECTION_HEADER + "".join(rows))
    curves.detection_curves(table, tmp_path / "curves.png")
    picture = Image.open(tmp_path / "curves.png")
    assert picture.size == (1200, 480)
    left, right = picture.crop((0, 0, 600, 480)), picture.crop((600, 0, 1200, 480))
    assert colour_count(left, curves.TRAIN_COLOUR) > 300
    for colour in (curves.BOX_COLOUR, curves.MASK_COLOUR):
        assert colour_count(right, colour) > 300
        assert colour_count(right, curves.PALE[colour]) > 300
        assert colour_count(left, colour) == 0


@pytest.mark.parametrize("row", ["1,10,2.5,0.1,0.3,nan,nan,0.1,3\n", "1,10,2.5,,,,,0.1,3\n"])
@pytest.mark.filterwarnings("error")
def test_detection_curves_of_one_epoch_without_masks(tmp_path, row):
    (tmp_path / "metrics.csv").write_text(DETECTION_HEADER + row)
    curves.detection_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert colour_count(Image.open(tmp_path / "curves.png"), curves.MASK_COLOUR) == 0


@pytest.mark.parametrize("draw", [curves.learning_curves, curves.detection_curves])
@pytest.mark.parametrize("text", ["", HEADER, DETECTION_HEADER, "a,b\n1,2\n"])
def test_metrics_without_epochs_are_refused_by_name(tmp_path, draw, text):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.csv: expected a column 'epoch'"):
        draw(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_learning_curves_show_both_lines_and_leave_no_temporary_file(tmp_path):
    metrics = tmp_path / "metrics.csv"
    rows = [f"{e},{e * 10},{2 / e},{2.2 / e},{1 - 0.8 / e},0.9,0.1,3\n" for e in range(1, 31)]
    metrics.write_text(HEADER + "".join(rows))
    curves.learning_curves(metrics, tmp_path / "curves.png")
    picture = Image.open(tmp_path / "curves.png")
    assert picture.size == (1200, 480)
    assert colour_count(picture, curves.VAL_COLOUR) > 500
    assert colour_count(picture, curves.TRAIN_COLOUR) > 300
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curves.png", "metrics.csv"]


def test_learning_curves_name_the_smoothing_that_only_one_of_them_has(tmp_path, figures):
    (tmp_path / "metrics.csv").write_text(HEADER + "1,10,2.3,2.2,0.5,,0.1,3\n")
    curves.learning_curves(tmp_path / "metrics.csv", tmp_path / "curves.png", smoothing=0.1)
    curves.learning_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    names = [[text.get_text() for text in each.axes[0].get_legend().get_texts()] for each in figures]
    assert names[0] == ["train (label smoothing 0.1) (2.300 at the end)", "validation (2.200 at the end)"]
    assert names[1] == ["train (2.300 at the end)", "validation (2.200 at the end)"]


def test_learning_curves_of_one_epoch_with_empty_cells(tmp_path):
    metrics = tmp_path / "metrics.csv"
    metrics.write_text(HEADER + "1,10,2.3,2.2,,,0.1,3\n")
    curves.learning_curves(metrics, tmp_path / "curves.png")
    assert colour_count(Image.open(tmp_path / "curves.png"), curves.VAL_COLOUR) > 5  # one marked point


def test_confusion_colours_are_shares_of_the_true_class(tmp_path):
    # Row 0 is right with 5 images, row 1 wrong with 500: both cells are 100%, hence the same dark blue.
    curves.confusion_matrix([[5, 0], [500, 0]], ["a", "b"], tmp_path / "c.png")
    image = pixels(Image.open(tmp_path / "c.png"))
    dark = np.all(np.abs(image - [8, 48, 107]) <= 2, axis=-1)
    column = int(np.argmax(dark.sum(axis=0)))
    rows = np.flatnonzero(dark[:, column])
    assert rows.max() - rows.min() > 0.5 * image.shape[0]  # one column of two cells


@pytest.mark.parametrize("k", [2, 15, 16, 40, 100])
def test_confusion_of_any_number_of_classes(tmp_path, k):
    names = [f"class_{i}" for i in range(k)]
    curves.confusion_matrix(np.eye(k, dtype=int) * 3, names, tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as picture:
        assert max(picture.size) <= 1700


@pytest.mark.filterwarnings("error")
def test_confusion_takes_empty_classes_and_unknown_scripts_without_warning(tmp_path):
    curves.confusion_matrix([[0, 0], [0, 0]], ["\u732b", "b"], tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 1000


def test_confusion_of_the_wrong_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(2, 3\) for 2 classes, expected \(2, 2\)"):
        curves.confusion_matrix([[1, 2, 3], [4, 5, 6]], ["a", "b"], tmp_path / "c.png")


def test_long_class_names_leave_the_axis_label_inside(tmp_path, monkeypatch):
    from matplotlib.backends import backend_agg

    drawn = []
    real = backend_agg.FigureCanvasAgg.print_png

    def spy(canvas, *args, **kwargs):
        real(canvas, *args, **kwargs)
        drawn.append(canvas.figure.axes[0].yaxis.label.get_window_extent().x0)

    monkeypatch.setattr(backend_agg.FigureCanvasAgg, "print_png", spy)
    for names in (["a", "b", "c"], ["crescent", "triangle", "square"], ["x" * 24, "y", "z"]):
        curves.confusion_matrix([[5, 1, 0], [0, 6, 0], [2, 0, 4]], names, tmp_path / "c.png")
    assert min(drawn) >= 0


def breakdown(right=(9, 5, 0), count=(10, 10, 0)) -> Breakdown:
    return Breakdown("distance", "px", (8.0, 16.0, 24.0, 40.0), count, right)


def test_the_curve_has_the_accuracies_and_their_errors(tmp_path, figures):
    both = {"one": breakdown(), "two": breakdown((10, 10, 4), (10, 10, 4))}
    curves.accuracy_by_group(both, tmp_path / "x.png", 0.5)
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
    curves.accuracy_by_group({"val": breakdown()}, tmp_path / "x.png", 0.5)
    picture = Image.open(tmp_path / "x.png")
    assert picture.size == (768, 504)
    assert colour_count(picture, curves.COLOURS[0]) > 200
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    with pytest.raises(ValueError, match="no breakdown to draw"):
        curves.accuracy_by_group({}, tmp_path / "y.png", 0.5)
