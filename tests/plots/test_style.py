"""Pictures hold what they should: the bar's length, the matrix's colours, the sizes promised."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from botvision.plots import style as draw

HEADER = "epoch,step,train_loss,val_loss,val_top1,val_top5,lr,seconds\n"


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(int)


def colour_count(image: Image.Image, colour: str) -> int:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(pixels(image) - wanted).max(axis=-1) <= 2).sum())


def test_learning_curves_show_both_lines_and_leave_no_temporary_file(tmp_path):
    metrics = tmp_path / "metrics.csv"
    rows = [f"{e},{e * 10},{2 / e},{2.2 / e},{1 - 0.8 / e},0.9,0.1,3\n" for e in range(1, 31)]
    metrics.write_text(HEADER + "".join(rows))
    draw.learning_curves(metrics, tmp_path / "curves.png")
    picture = Image.open(tmp_path / "curves.png")
    assert picture.size == (1200, 480)
    assert colour_count(picture, draw.VAL_COLOUR) > 500
    assert colour_count(picture, draw.TRAIN_COLOUR) > 300
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curves.png", "metrics.csv"]


def test_learning_curves_name_the_smoothing_that_only_one_of_them_has(tmp_path, monkeypatch):
    (tmp_path / "metrics.csv").write_text(HEADER + "1,10,2.3,2.2,0.5,,0.1,3\n")
    names = []
    monkeypatch.setattr(draw, "curve", lambda axes, x, y, name, *rest: names.append(name))
    draw.learning_curves(tmp_path / "metrics.csv", tmp_path / "curves.png", smoothing=0.1)
    draw.learning_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert names[:3] == ["train (label smoothing 0.1)", "validation", "validation"]
    assert names[3:] == ["train", "validation", "validation"]


def test_learning_curves_of_one_epoch_with_empty_cells(tmp_path):
    metrics = tmp_path / "metrics.csv"
    metrics.write_text(HEADER + "1,10,2.3,2.2,,,0.1,3\n")
    draw.learning_curves(metrics, tmp_path / "curves.png")
    assert colour_count(Image.open(tmp_path / "curves.png"), draw.VAL_COLOUR) > 5  # one marked point


@pytest.mark.parametrize("text", ["", HEADER, "a,b\n1,2\n"])
def test_metrics_without_epochs_are_refused_by_name(tmp_path, text):
    metrics = tmp_path / "metrics.csv"
    metrics.write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.csv: expected a column 'epoch'"):
        draw.learning_curves(metrics, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_confusion_colours_are_shares_of_the_true_class(tmp_path):
    # Row 0 is right with 5 images, row 1 wrong with 500: both cells are 100%, hence the same dark blue.
    draw.confusion_matrix([[5, 0], [500, 0]], ["a", "b"], tmp_path / "c.png")
    image = pixels(Image.open(tmp_path / "c.png"))
    dark = np.all(np.abs(image - [8, 48, 107]) <= 2, axis=-1)
    column = int(np.argmax(dark.sum(axis=0)))
    rows = np.flatnonzero(dark[:, column])
    assert rows.max() - rows.min() > 0.5 * image.shape[0]  # one column of two cells


@pytest.mark.parametrize("k", [2, 15, 16, 40, 100])
def test_confusion_of_any_number_of_classes(tmp_path, k):
    names = [f"class_{i}" for i in range(k)]
    draw.confusion_matrix(np.eye(k, dtype=int) * 3, names, tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as picture:
        assert max(picture.size) <= 1700


@pytest.mark.filterwarnings("error")
def test_confusion_takes_empty_classes_and_unknown_scripts_without_warning(tmp_path):
    draw.confusion_matrix([[0, 0], [0, 0]], ["\u732b", "b"], tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 1000


def test_confusion_of_the_wrong_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(2, 3\) for 2 classes, expected \(2, 2\)"):
        draw.confusion_matrix([[1, 2, 3], [4, 5, 6]], ["a", "b"], tmp_path / "c.png")


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (300, 200), (30, 4000), (4000, 30), (2000, 1500)])
def test_annotated_image_is_bounded_and_leaves_the_original(size):
    image = Image.new("RGB", size, "#20a040")
    before = image.tobytes()
    card = draw.annotate(image, [{"label": "cat", "score": 0.75}, {"label": "dog", "score": 0.25}])
    assert image.tobytes() == before
    assert card.mode == "RGB"
    assert 256 < max(card.size) <= 768 + 320 + 48
    assert colour_count(card, "#20a040") > 0


def test_annotated_bars_have_the_length_of_the_scores():
    card = draw.annotate(
        Image.new("RGB", (32, 32)), [{"label": "a", "score": 0.5}, {"label": "b", "score": 0.25}]
    )
    image = pixels(card)
    middle_of_bar = 16 + 32
    for row, colour, share in (
        (middle_of_bar, (31, 95, 191), 0.5),
        (middle_of_bar + 46, (157, 185, 227), 0.25),
    ):
        length = np.all(np.abs(image[row] - colour) <= 2, axis=-1).sum()
        assert abs(length - share * 320) <= 2


def test_tiny_images_are_enlarged_without_smoothing():
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20)
    shown = draw.fit(image)
    assert shown.size == (256, 256)
    assert np.array_equal(pixels(shown)[::128, ::128], pixels(image))


def test_long_labels_are_cut_and_do_not_overwrite_the_number():
    short = draw.annotate(Image.new("RGB", (64, 64)), [{"label": "x", "score": 0.5}])
    long = draw.annotate(Image.new("RGB", (64, 64)), [{"label": "x" * 500 + "\n" * 3, "score": 0.5}])
    assert short.size == long.size
    number = (short.width - 16 - 50, 16, short.width - 16, 16 + 26)
    assert short.crop(number).tobytes() == long.crop(number).tobytes()


def test_contact_sheet_places_every_image_once():
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    sheet = draw.contact_sheet([Image.new("RGB", (20, 20), c) for c in colours], list("abcde"), cell=80)
    assert sheet.size == (3 * 92 + 12, 2 * 114 + 12)
    for colour in colours:
        assert np.all(pixels(sheet) == colour, axis=-1).sum() == 80 * 80


def test_contact_sheet_refuses_unequal_numbers():
    with pytest.raises(ValueError, match="1 images and 2 captions"):
        draw.contact_sheet([Image.new("RGB", (2, 2))], ["a", "b"])


def test_drawing_never_imports_pyplot(tmp_path):
    code = (
        "import sys; from botvision import draw; assert 'matplotlib' not in sys.modules\n"
        f"draw.confusion_matrix([[1]], ['a'], {str(tmp_path / 'c.png')!r})\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(tmp_path / "c.png").is_file()


def test_long_class_names_leave_the_axis_label_inside(tmp_path, monkeypatch):
    from matplotlib.backends import backend_agg

    drawn = []
    real = backend_agg.FigureCanvasAgg.print_png

    def spy(canvas, *args, **kwargs):
        real(canvas, *args, **kwargs)
        drawn.append(canvas.figure.axes[0].yaxis.label.get_window_extent().x0)

    monkeypatch.setattr(backend_agg.FigureCanvasAgg, "print_png", spy)
    for names in (["a", "b", "c"], ["crescent", "triangle", "square"], ["x" * 24, "y", "z"]):
        draw.confusion_matrix([[5, 1, 0], [0, 6, 0], [2, 0, 4]], names, tmp_path / "c.png")
    assert min(drawn) >= 0
