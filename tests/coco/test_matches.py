"""AP from matches: that of COCO's own code, for the data set and for samples of its images."""

import copy

import numpy as np
import pytest

from botvision.coco.evaluate import evaluate_coco
from botvision.coco.matches import Matches, load_matches, match_coco, save_matches
from botvision.coco.truth import Kind
from tests.coco.scenes import Scene, crowds_as_rle, random_scene, scene_of_boxes
from tests.coco.test_evaluate import TOLERANCE, pycocotools


def ones(matches: Matches) -> np.ndarray:
    return np.ones((1, len(matches.images)), dtype=np.int64)


def sample_of(scene: Scene, weights: np.ndarray) -> Scene:
    """The scene with each image as often as its weight says, copies under ids of their own."""
    truth = {**scene.truth, "images": [], "annotations": []}
    results = []
    for image, weight in zip(sorted(i["id"] for i in scene.truth["images"]), weights, strict=True):
        record = next(i for i in scene.truth["images"] if i["id"] == image)
        for number in range(weight):
            name = 1000 * image + number
            truth["images"].append({**record, "id": name})
            for annotation in scene.truth["annotations"]:
                if annotation["image_id"] == image:
                    identity = len(truth["annotations"]) + 1
                    truth["annotations"].append({**annotation, "image_id": name, "id": identity})
            results += [{**r, "image_id": name} for r in scene.results if r["image_id"] == image]
    return Scene(truth, results)


def unequal_scores(scene: Scene) -> Scene:
    """Where scores of different images are equal, the order of the ids decides, which copies change."""
    results = copy.deepcopy(scene.results)
    for place, record in enumerate(results):
        record["score"] += 1e-6 * place
    return Scene(scene.truth, results)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("most", [3, 100])
@pytest.mark.parametrize("seed", range(4))
def test_every_image_once_is_cocos_ap(seed: int, most: int, kind: Kind):
    scene = crowds_as_rle(random_scene(seed, images=12))
    matches = match_coco(scene.truth, scene.results, kind, most)
    numbers, _ = pycocotools(scene, kind, most)
    assert matches.average_precision(ones(matches))[0] == pytest.approx(numbers["ap"], abs=TOLERANCE)
    for place, name in ((0, "ap50"), (5, "ap75")):
        found = matches.average_precision(ones(matches), place)[0]
        assert found == pytest.approx(numbers[name], abs=TOLERANCE)
    ours = evaluate_coco(scene.truth, scene.results, kind, most)
    assert matches.average_precision(ones(matches))[0] == pytest.approx(ours.ap, abs=TOLERANCE)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_a_sample_of_the_images_is_cocos_ap_of_the_copies(seed: int, kind: Kind):
    scene = unequal_scores(random_scene(seed, images=9))
    matches = match_coco(scene.truth, scene.results, kind)
    weights = np.random.default_rng(seed).multinomial(9, np.full(9, 1 / 9), size=6)
    found, half = matches.average_precision(weights), matches.average_precision(weights, 0)
    assert len(set(found)) > 3  # the samples differ, and so do their numbers
    for place, row in enumerate(weights):
        numbers, _ = pycocotools(sample_of(scene, row), kind, 100)
        assert found[place] == pytest.approx(numbers["ap"], abs=TOLERANCE)
        assert half[place] == pytest.approx(numbers["ap50"], abs=TOLERANCE)


def test_a_sample_without_objects_has_no_ap():
    truth = scene_of_boxes([[10, 10, 20, 20]])
    truth["images"].append({"id": 2, "height": 100, "width": 100})
    hit = {"image_id": 1, "category_id": 2, "bbox": [10, 10, 20, 20], "score": 0.5}
    miss = {"image_id": 2, "category_id": 2, "bbox": [10, 10, 20, 20], "score": 0.9}
    matches = match_coco(truth, [hit, miss], "bbox")
    found = matches.average_precision(np.array([[1, 1], [1, 0], [0, 1], [1, 3]]))
    np.testing.assert_allclose(found, [0.5, 1.0, np.nan, 0.25])


@pytest.mark.parametrize(
    "results", [[], [{"image_id": 1, "category_id": 2, "bbox": [60, 60, 9, 9], "score": 1.0}]]
)
def test_nothing_found_is_zero(results: list):
    matches = match_coco(scene_of_boxes([[10, 10, 20, 20]]), results, "bbox")
    assert matches.average_precision(ones(matches)).tolist() == [0.0]


def test_many_samples_are_worked_through_in_parts(monkeypatch: pytest.MonkeyPatch):
    scene = random_scene(5)
    matches = match_coco(scene.truth, scene.results, "bbox")
    weights = np.random.default_rng(0).integers(0, 4, size=(40, len(matches.images)))
    whole = matches.average_precision(weights)
    monkeypatch.setattr("botvision.coco.matches.CELLS", 100)
    np.testing.assert_array_equal(matches.average_precision(weights), whole)


def test_written_and_read_again(tmp_path):
    scene = random_scene(2)
    matches = match_coco(scene.truth, scene.results, "bbox")
    save_matches({"bbox": matches}, tmp_path / "matches.npz")
    again = load_matches(tmp_path / "matches.npz", "bbox")
    assert again is not None
    for name in ("images", "objects", "category", "image", "state"):
        np.testing.assert_array_equal(getattr(again, name), getattr(matches, name))
    assert load_matches(tmp_path / "matches.npz", "segm") is None


@pytest.mark.parametrize("content", [b"", b"something else", b"PK\x03\x04cut off"])
def test_another_file_is_refused_in_one_line(tmp_path, content: bytes):
    path = tmp_path / "matches.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"matches\.npz: not a file of matches") as caught:
        load_matches(path, "bbox")
    assert "\n" not in str(caught.value)
