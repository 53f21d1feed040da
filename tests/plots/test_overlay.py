"""Overlays: masks that are see-through, labels that keep clear of each other; sheets and cards."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from botvision.coco.instances import Instances
from botvision.plots import overlay as module
from botvision.plots.overlay import (
    PALETTE,
    SideBySide,
    annotate,
    class_colour,
    contact_sheet,
    overlay,
    truth_and_prediction_sheet,
)
from tests.plots.test_style import colour_count, pixels

CLASSES = ["disc", "square", "a class whose name is much longer than any picture of it is wide " * 2]


def scene(count=3, size=(60, 80), seed=0):
    """A grey image (H, W) and `count` rectangles in it."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, [size[1] - 12, size[0] - 12], (count, 2))
    boxes = np.hstack([corners, corners + rng.integers(4, 12, (count, 2))]).astype(np.float32)
    masks = np.zeros((count, *size), np.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=True):
        mask[y0:y1, x0:x1] = 1
    found = {"boxes": boxes, "labels": rng.integers(1, 4, count), "masks": masks}
    return Image.new("L", size[::-1], 128), found | {"scores": rng.uniform(0, 1, count)}


def placed(monkeypatch):
    """Collect where labels are drawn."""
    places = []
    original = module._place

    def watch(i, boxes, size, picture, taken):
        place = original(i, boxes, size, picture, taken)
        if place is not None:
            places.append((*place, place[0] + size[0], place[1] + size[1]))
        return place

    monkeypatch.setattr(module, "_place", watch)
    return places


@pytest.mark.parametrize("count", [1, 12, 60])
@pytest.mark.parametrize("size", [(60, 80), (300, 40), (16, 16)])
def test_labels_stay_within_the_picture_and_off_each_other(monkeypatch, count, size):
    places = placed(monkeypatch)
    image, found = scene(count, size, seed=count)
    picture = overlay(image, Instances.of(found), CLASSES, mode="labels")
    assert len(places) >= 1
    for i, (x0, y0, x1, y1) in enumerate(places):
        assert x0 >= 0
        assert y0 >= 0
        assert x1 <= picture.width
        assert y1 <= picture.height
        for a0, b0, a1, b1 in places[:i]:
            assert x0 >= a1 or a0 >= x1 or y0 >= b1 or b0 >= y1


def test_a_mask_tints_its_inside_and_nothing_else():
    image = Image.new("RGB", (100, 100), (90, 90, 90))
    mask = np.zeros((1, 100, 100), bool)
    mask[0, 20:60, 30:80] = True
    objects = Instances.of({"boxes": [[30, 20, 80, 60]], "labels": [2], "masks": mask})
    pixels = np.asarray(overlay(image, objects, CLASSES, shortest=400, mode="plain")).astype(int)
    assert pixels.shape == (400, 400, 3)
    middle, colour = pixels[160, 220], np.array(class_colour(1))
    assert 0.3 < np.linalg.norm(middle - 90) / np.linalg.norm(colour - 90) < 0.6  # the ground shows through
    assert np.array_equal(pixels[80, 220], colour)  # the outline is opaque, and inside the mask
    outside = np.ones((400, 400), bool)
    outside[80 - 2 : 240 + 2, 120 - 2 : 320 + 2] = False
    assert (pixels[outside] == 90).all()


def test_a_thin_mask_and_one_at_the_border_are_outlined():
    mask = np.zeros((2, 50, 50), bool)
    mask[0, 10, 5:40] = True
    mask[1, 30:, 30:] = True
    boxes = [[5, 10, 40, 11], [30, 30, 50, 50]]
    objects = Instances.of({"boxes": boxes, "labels": [1, 1], "masks": mask})
    pixels = np.asarray(overlay(Image.new("RGB", (50, 50)), objects, CLASSES, shortest=50, mode="plain"))
    assert np.array_equal(pixels[10, 20], class_colour(0))
    assert np.array_equal(pixels[49, 40], class_colour(0))
    assert not np.array_equal(pixels[40, 40], class_colour(0))


def test_masks_are_decoded_one_by_one(monkeypatch):
    image, found = scene(3)
    asked = []
    original = Instances.mask
    monkeypatch.setattr(Instances, "mask", lambda objects, k: asked.append(k) or original(objects, k))
    overlay(image, Instances.of(found), CLASSES)
    assert sorted(asked) == [0, 1, 2]


def test_boxes_and_masks_lie_where_they_do_in_the_image_at_any_size_of_its_picture():
    image, found = scene(3)
    whole = overlay(image, Instances.of(found, (60, 80)), CLASSES)
    small = overlay(image.resize((40, 30)), Instances.of(found, (60, 80)), CLASSES)
    assert (np.asarray(whole) == np.asarray(small)).all()


@pytest.mark.parametrize("count", [0, 1, 400])
@pytest.mark.parametrize("classes", [["nucleus"], CLASSES])
@pytest.mark.parametrize("masks", [True, False])
def test_any_number_of_objects(count, classes, masks):
    image, found = scene(count)
    found["labels"] = np.minimum(found["labels"], len(classes))
    if not masks:
        del found["masks"]
    picture = overlay(image, Instances.of(found), classes)
    legend = count == 400 and len(classes) > 1
    assert picture.width == 768
    assert (picture.height > 576) == legend
    assert (np.asarray(picture)[:576] != 128).any() == (count > 0)


def test_neighbours_have_different_colours():
    boxes = np.array([[10 * i, 10 * j, 10 * i + 9, 10 * j + 9] for i in range(5) for j in range(5)])
    masks = np.zeros((25, 50, 50), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    objects = Instances.of({"boxes": boxes, "labels": np.ones(25), "masks": masks})
    pixels = np.asarray(overlay(Image.new("RGB", (50, 50)), objects, ["nucleus"], shortest=500, longest=500))
    middles = pixels[45::100, 45::100].astype(int)
    for i in range(5):
        for j in range(4):
            assert np.abs(middles[i, j] - middles[i, j + 1]).sum() > 30
            assert np.abs(middles[j, i] - middles[j + 1, i]).sum() > 30


def test_a_target_without_objects():
    empty = {
        "boxes": np.zeros((0, 4)),
        "labels": np.zeros(0, int),
        "masks": np.zeros((0, 9, 9)),
        "scores": [],
    }
    assert len(Instances.of(empty)) == 0


@pytest.mark.parametrize("label", [0, 4])
def test_a_label_without_a_class_is_refused(label):
    objects = Instances.of({"boxes": [[0, 0, 2, 2]], "labels": [label]})
    with pytest.raises(ValueError, match=f"labels {label} to {label} for 3 classes"):
        overlay(Image.new("RGB", (8, 8)), objects, CLASSES)


@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_any_size_of_image(width, height, count):
    rng = np.random.default_rng(width)
    boxes = rng.uniform(-50, 750, (count, 4))
    masks = rng.random((count, height, width)) > 0.5
    objects = Instances.of(
        {"boxes": boxes, "labels": np.ones(count), "scores": rng.random(count), "masks": masks}
    )
    picture = overlay(Image.new("RGB", (width, height)), objects, CLASSES, shortest=64, longest=200)
    assert 64 <= max(picture.size) <= 200


def test_colours_of_classes_differ():
    assert len({class_colour(k) for k in range(3 * len(PALETTE))}) == 3 * len(PALETTE)


@pytest.mark.parametrize("classes", [["nucleus"], CLASSES])
def test_sheet(classes):
    pairs = []
    for seed in range(5):
        image, found = scene(4 if seed else 60, (60, 80) if seed % 2 else (80, 50), seed)
        found["labels"] = np.minimum(found["labels"], len(classes))
        truth = {key: value for key, value in found.items() if key != "scores"}
        pairs.append(SideBySide(image, Instances.of(truth), Instances.of(found).above(0.5), f"image {seed}"))
    sheet = truth_and_prediction_sheet(pairs, classes, cell=120)
    assert sheet.width > 4 * 120
    assert sheet.height > 3 * 90
    one = truth_and_prediction_sheet(pairs[:1], classes, cell=120)
    assert one.width < 3 * 120
    with pytest.raises(ValueError, match="at least one"):
        truth_and_prediction_sheet([], classes)


def test_a_sheet_shows_each_object_once(monkeypatch):
    drawn = []
    original = module._draw_mask
    monkeypatch.setattr(module, "_draw_mask", lambda *args: drawn.append(args[1].sum()) or original(*args))
    image, found = scene(7)
    pair = SideBySide(image, Instances.of(found), Instances.of(found).above(0.5))
    truth_and_prediction_sheet([pair], CLASSES, cell=120)
    shown = [*found["masks"], *found["masks"][found["scores"] >= 0.5]]
    assert sorted(drawn) == sorted(mask.sum() for mask in shown)
    drawn.clear()
    twice = {key: np.concatenate([value, value]) for key, value in found.items()}
    twice["labels"][7:] = 3 - twice["labels"][:7]
    again = SideBySide(image, Instances.of(found), Instances.of(twice).above(0.5))
    truth_and_prediction_sheet([again], CLASSES, cell=120)
    assert sorted(drawn) == sorted(mask.sum() for mask in shown)


def test_what_agrees_has_the_same_colour_on_both_sides():
    image, found = scene(12, (80, 80), seed=3)
    found["labels"][:] = 1
    truth = Instances.of({key: value for key, value in found.items() if key != "scores"})
    backwards = {key: value[::-1].copy() for key, value in found.items()}
    sheet = truth_and_prediction_sheet(
        [SideBySide(image, truth, Instances.of(backwards))], ["nucleus"], cell=160
    )
    left, right = (np.asarray(sheet.crop((x, 34, x + 160, 194))) for x in (16, 16 + 160 + 6))
    assert (left == right).mean() > 0.97  # but for what overlaps, which is drawn in another order


def test_letters_can_be_read_on_every_colour():
    picture = Image.new("RGB", (200, 40), "white")
    for colour in map(class_colour, range(3 * len(PALETTE))):
        boxes = np.array([[0.0, 0.0, 200.0, 40.0]])
        module._draw_labels(picture, boxes, ["mmmmmmmm"], [colour], [0])
        ground = np.array(colour, float)
        pixels = np.asarray(picture, float)[:20, :60].reshape(-1, 3)
        contrast = np.abs((pixels - ground) @ [0.299, 0.587, 0.114]).max()
        assert contrast > 80
        ImageDraw.Draw(picture).rectangle((0, 0, 200, 40), fill="white")


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (300, 200), (30, 4000), (4000, 30), (2000, 1500)])
def test_annotated_image_is_bounded_and_leaves_the_original(size):
    image = Image.new("RGB", size, "#20a040")
    before = image.tobytes()
    card = annotate(image, [{"label": "cat", "score": 0.75}, {"label": "dog", "score": 0.25}])
    assert image.tobytes() == before
    assert card.mode == "RGB"
    assert 256 < max(card.size) <= 768 + 320 + 48
    assert colour_count(card, "#20a040") > 0


def test_annotated_bars_have_the_length_of_the_scores():
    card = annotate(Image.new("RGB", (32, 32)), [{"label": "a", "score": 0.5}, {"label": "b", "score": 0.25}])
    image = pixels(card)
    middle_of_bar = 16 + 32
    for row, colour, share in (
        (middle_of_bar, (31, 95, 191), 0.5),
        (middle_of_bar + 46, (157, 185, 227), 0.25),
    ):
        length = np.all(np.abs(image[row] - colour) <= 2, axis=-1).sum()
        assert abs(length - share * 320) <= 2


def test_long_labels_are_cut_and_do_not_overwrite_the_number():
    short = annotate(Image.new("RGB", (64, 64)), [{"label": "x", "score": 0.5}])
    long = annotate(Image.new("RGB", (64, 64)), [{"label": "x" * 500 + "\n" * 3, "score": 0.5}])
    assert short.size == long.size
    number = (short.width - 16 - 50, 16, short.width - 16, 16 + 26)
    assert short.crop(number).tobytes() == long.crop(number).tobytes()


def test_contact_sheet_places_every_image_once():
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    sheet = contact_sheet([Image.new("RGB", (20, 20), c) for c in colours], list("abcde"), cell=80)
    assert sheet.size == (3 * 92 + 12, 2 * 114 + 12)
    for colour in colours:
        assert np.all(pixels(sheet) == colour, axis=-1).sum() == 80 * 80


def test_contact_sheet_refuses_unequal_numbers():
    with pytest.raises(ValueError, match="1 images and 2 captions"):
        contact_sheet([Image.new("RGB", (2, 2))], ["a", "b"])


def test_columns_of_a_sheet_have_headings():
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("#ff0000", "#0000ff"))
    sheet = contact_sheet([red, blue, blue], ["a"] * 3, columns=2, cell=40, headings=["x", "y"])
    cells = [sheet.crop((x, y, x + 40, y + 40)) for y in (42, 42 + 74) for x in (12, 12 + 52)]
    assert [colour_count(cell, "#ff0000") for cell in cells] == [1600, 0, 0, 0]
    assert [colour_count(cell, "#0000ff") for cell in cells] == [0, 1600, 1600, 0]
    headings = [sheet.crop((x, 0, x + 40, 30)) for x in (12, 12 + 52)]
    assert all((pixels(heading) < 128).any() for heading in headings)
