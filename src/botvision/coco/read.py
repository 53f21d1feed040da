"""COCO files of instances, read and judged once: for training, `check`, `eval` and `predict --truth`.

hotcoco's reader and its `healthcheck` are lenient: polygons of two points, run lengths that do not fit and
boxes of negative width pass, and what they do see they count without a name. So the rules are here, for whole
columns at a time.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from botvision.coco.annotations import (
    OUTSIDE,
    OUTSIDE_PART,
    Category,
    CocoAnnotations,
    CocoFile,
    ImageRecord,
    bounds_of,
)
from botvision.coco.doubts import (
    box_and_mask_apart,
    doubtful_categories,
    fractions,
    ids_by_name,
    masks_outside,
    objects_twice,
    same_file_twice,
)
from botvision.coco.lists import Lists
from botvision.coco.masks import polygons_to_rles, read_rles, rle_areas, rle_boxes, sound_polygons
from botvision.coco.problems import (
    NONE,
    Label,
    Problem,
    Records,
    boxes,
    numbers,
    places,
    repeated,
    short,
    whole_numbers,
)
from botvision.coco.raw import RawFile, read_json, unpacked
from botvision.io.errors import DataError

ROUNDING = 0.1  # pixels: so little is no matter, COCO itself has it
LARGEST_COORDINATE = 1e15
CROWD_WORDS: dict[str | None, int] = {"0": 0, "false": 0, "no": 0, "": 0, "1": 1, "true": 1, "yes": 1}
AT_ONCE = 20_000  # annotations whose masks are Python objects at the same time


def read_coco(path: str | Path, categories: Sequence[Category] | None = None) -> CocoFile:
    """Read a COCO file of instances to train on.

    Everything broken in it is collected, not raised, and left out; a box that reaches far outside its image
    is clipped. One that reaches a little outside stays as it is, and is counted. A box or mask of no area is
    not fatal: COCO itself has some. It stays for evaluation, as the file has it, and is marked as degenerate,
    never to be trained on.

    Args:
        path: JSON with "images", "annotations" and "categories".
        categories: of the training data, where this file is for validation: they decide about labels.
            Annotations of any other category, and an id that means something else here, are problems.

    Raises:
        DataError: one line, if there is no such file or it is no COCO file at all.
    """
    return parse_coco(read_json(path, RawFile), str(path), categories)


def parse_coco(content: object, name: str, categories: Sequence[Category] | None = None) -> CocoFile:
    """Like `read_coco`, from what the JSON holds; `name` is for messages."""
    file = Lists(content, name, training=True)
    known = file.categories if categories is None else list(categories)
    roots = {} if categories is not None else file.roots()
    if roots:
        known = [category for category in known if category.id not in roots]
        left_out = " and ".join(roots.values())
        file.note(f"category {left_out} only holds the others together (Roboflow's root) and is left out")
    problems = [*file.category_records.problems, *doubtful_categories(file.categories, known, name)]
    annotations = Annotations(file, known, ids_by_name(file.categories, known))
    packed = annotations.pack()
    extents = packed.mask_extents(file.images)
    notes = [
        *masks_outside(packed, file.images, name, extents),
        *annotations.clipped(),
        *same_file_twice(file.images, name),
        *objects_twice(packed, file.images, name),
    ]
    notes += box_and_mask_apart(packed, file.images, name, extents)
    problems += [*file.image_records.problems, *annotations.records.problems, *notes]
    problems += [*annotations.fractions, *(Problem("note", line, fatal=False) for line in file.notes())]
    return CocoFile(name, file.images, known, packed, problems)


def read_images(path: str | Path) -> tuple[list[ImageRecord], list[Category]]:
    """Read the images, whose sizes may be missing (0), and the categories of a COCO file.

    Raises:
        DataError: one line, if it is no COCO file, or for the first image or category that is broken.
    """
    file = Lists(read_json(path), str(path), training=False, needed=("images", "categories"))
    file.raise_first()
    for image in file.images:
        if not image.file:
            raise DataError(f"{path}: image {image.id}: no file_name, expected a path")
    return file.images, file.categories


class Annotations:
    """A annotations of a file by columns, in its order, the refused ones included.

    Attributes:
        records: the annotations under the rules.
        image_ids: int64 (I), of the images.
        image_sizes: int64 (I, 2), height and width; 0 where the file does not say.
        ids: int64 (A).
        images: int64 (A), places.
        categories: int64 (A), places.
        sizes: int64 (A, 2), of their images.
        boxes: float64 (A, 4), x, y, width, height in pixels.
        flat: bool (A), whose boxes have no area.
        crowd: bool (A).
        areas: float64 (A), as stated; not-a-number where they are not.
        covered: float64 (A), areas of the boxes; once masks are read, the pixels of run lengths, and of those
            polygons whose annotations state no area above 0.
        bare: bool (A), without segmentation; known once masks are read.
        empty: bool (A), whose run lengths have no pixels; known once masks are read.
    """

    def __init__(
        self, file: Lists, categories: Sequence[Category], ids: Mapping[int, int] | None = None
    ) -> None:
        def label(k: int) -> Label:
            number, image = (int(v[k]) if v[k] != NONE else None for v in (self.ids, image_ids))
            which = f"annotations[{k}]" if number is None else f"annotation {number}"
            name = f"{file.name}: {which}" + (f" of image {image}" if image is not None else "")
            return name, image, number

        self.file = file
        self.records = records = Records(file.content["annotations"], label)
        self._given = {key: records.column(key) for key in ("id", "image_id", "category_id", "bbox", "area")}
        given = self._given
        self.ids, image_ids, kinds = (file.ids(given[key]) for key in ("id", "image_id", "category_id"))
        self.image_ids = np.array([image.id for image in file.images], dtype=np.int64)
        self.images = places(image_ids, self.image_ids)
        if ids:
            named = np.array([ids.get(kind, NONE) for kind in kinds.tolist()], dtype=np.int64)
            changed = int((named != kinds)[named != NONE].sum())
            file.count(
                "annotations whose category has another id in training are matched by its name", changed
            )
            kinds = named
        self.categories = places(kinds, np.array([category.id for category in categories], dtype=np.int64))
        sizes = np.array([*((r.height, r.width) for r in file.images), (0, 0)], np.int64)  # (0, 0): no image
        self.image_sizes, self.sizes = sizes[:-1], sizes[self.images]
        records.sound &= ~np.isin(image_ids, file.broken_images)  # go with it, without a word each
        if file.training:
            fault = "id is {}, expected a whole number".format
            records.refuse(self.ids == NONE, "annotation", lambda k: fault(short(given["id"][k])))
            records.refuse(repeated(self.ids, records.sound), "annotation", lambda _: "the id occurs twice")
        unknown, names = "there is no {} with id {}".format, dict(file.categories)
        records.refuse(self.images < 0, "annotation", lambda k: unknown("image", short(given["image_id"][k])))

        def which(k: int) -> str:
            number = short(given["category_id"][k])
            name = names.get(int(whole_numbers([given["category_id"][k]])[0]))
            training = f"category {number} ({name}) is not among those of the training data"
            return unknown("category", number) if name is None else training

        records.refuse(self.categories < 0, "category", which)
        self._judge_crowds()
        self._segmentations = records.column("segmentation")
        self._judge_boxes()
        self.areas, self.covered = numbers(given["area"]), self.boxes[:, 2] * self.boxes[:, 3]
        if not file.training:  # which takes the mask's, and notes it
            odd = np.isnan(self.areas) & np.array([value is not None for value in given["area"]], dtype=bool)
            records.refuse(odd, "area", lambda k: f"area is {short(given['area'][k])}, expected a number")
        self.bare, self.empty = np.zeros((2, len(self.images)), dtype=bool)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def objects(self) -> npt.NDArray[np.bool_]:
        """Bool (A), which are sound, no crowds, and have an area as far as it is known."""
        return self.records.sound & ~(self.flat | self.empty | self.crowd)

    def _judge_crowds(self) -> None:
        """Set which stand for crowds; "0" and "false" are what they say, not the truth values of Python."""
        given = self.records.column("iscrowd", 0)
        if not set(map(type, given)) <= {int, bool}:
            words = [value.strip().lower() if isinstance(value, str) else None for value in given]
            self.file.count(
                "values of iscrowd that are text are read as 0 or 1", sum(w in CROWD_WORDS for w in words)
            )
            given = [CROWD_WORDS.get(word, value) for word, value in zip(words, given, strict=True)]
            given = [0 if value is None else value for value in given]
        odd = np.array([value not in (0, 1) for value in given], dtype=bool)
        self.records.refuse(odd, "annotation", lambda k: f"iscrowd is {short(given[k])}, expected 0 or 1")
        self.crowd = np.array([value == 1 for value in given], dtype=bool)

    def _judge_boxes(self) -> None:
        """Set the boxes; in training those that reach far outside their image are clipped."""
        given, refuse = self._given["bbox"], self.records.refuse
        self.boxes = boxes(given)
        faults = self._boxes_of_masks()
        usable = (np.abs(self.boxes) < LARGEST_COORDINATE).all(axis=1)
        expected = "expected four finite numbers x, y, width, height"
        refuse(~usable, "box", lambda k: f"bbox is {short(given[k])}, {faults.get(k, expected)}")
        self.boxes[~usable] = 0
        negative = (self.boxes[:, 2:] < 0).any(axis=1)
        refuse(negative, "box", lambda k: f"{self._bbox(k)} has a negative width or height")
        self.flat = (self.boxes[:, 2:] == 0).any(axis=1)
        sides = self.sizes[:, ::-1].astype(np.float64)
        low, high = self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]
        reach = np.maximum(-low, high - sides)
        # A hair more is allowed, as 509.3 + 4.7 - 512 is more than 2.
        far = (reach > np.maximum(OUTSIDE, OUTSIDE_PART * sides) + 1e-6).any(axis=1)
        self.reach, self.far = reach.max(axis=1, initial=0), far & ~self.flat
        if self.file.training:
            low, high = low.clip(0), np.minimum(high, sides)
            off = (low >= high).any(axis=1) & ~self.flat
            refuse(off, "box", lambda k: f"{self._bbox(k)} lies outside {self._frame(k)}")
            self.boxes[self.far] = np.concatenate([low, high - low], axis=1)[self.far]
        among = self.records.sound & ~self.flat
        self.fractions = fractions(high[among], sides[among], self.file.name)
        if self.fractions and self.file.training:
            self.records.sound &= ~among

    def _boxes_of_masks(self) -> dict[int, str]:
        """Give those without bbox the box around their mask; returns why where it cannot be taken."""
        given, faults = self._given["bbox"], dict[int, str]()
        unread = np.flatnonzero(np.isnan(self.boxes).any(axis=1) & self.records.sound).tolist()
        lacking = [k for k in unread if given[k] is None or (isinstance(given[k], list) and not given[k])]
        for start in range(0, len(lacking), AT_ONCE):
            part = lacking[start : start + AT_ONCE]
            masks = {
                k: mask
                for k, mask in zip(part, unpacked([self._segmentations[k] for k in part]), strict=True)
                if mask
            }
            outlines = {k: mask for k, mask in masks.items() if isinstance(mask, list | tuple)}
            rles, _, wrong = read_rles({k: m for k, m in masks.items() if isinstance(m, Mapping)}, self.sizes)
            kept, bad, _ = sound_polygons(outlines, self.sizes)
            wrong |= bad | {k: "its polygons have fewer than 3 points" for k in kept if not kept[k]}
            outlines = kept
            wrong |= {
                k: "the image has no height and width, which masks need"
                for k in masks
                if not self.sizes[k].all()
            }
            for k, box in zip(rles, rle_boxes([*rles.values()]), strict=True):
                self.boxes[k] = box
            for k in outlines.keys() - wrong.keys():
                points = np.array([*chain.from_iterable(outlines[k])], dtype=np.float64).reshape(-1, 2)
                frame = self.sizes[k, ::-1]
                self.boxes[k] = [*points.min(axis=0).clip(0, frame), *points.max(axis=0).clip(0, frame)]
            taken = [k for k in masks if k not in wrong and not np.isnan(self.boxes[k]).any()]
            self.boxes[taken, 2:] -= self.boxes[taken, :2]
            self.boxes[[*wrong]] = np.nan
            self.file.count("annotations without bbox get the box around their mask", len(taken))
            faults |= {k: f"and its mask gives none: {text}" for k, text in wrong.items()}
        return faults

    def _bbox(self, k: int) -> str:
        values = self._given["bbox"][k] or self.boxes[k]
        return "bbox [" + ", ".join(f"{value:g}" for value in values) + "]"

    def _frame(self, k: int) -> str:
        return "the image of {} x {} pixels (height x width)".format(*self.sizes[k])

    def read_masks(self, start: int, stop: int) -> list[Any]:
        """Check the masks of a part of the annotations.

        Returns:
            Polygons, or compressed run lengths, or None for no mask; one for each.
        """
        values = unpacked(self._segmentations[start:stop])
        unknown = np.zeros(len(self.images), dtype=bool)
        unknown[start:stop] = (self.sizes[start:stop] == 0).any(axis=1)
        image = lambda k: self.image_ids[self.images[k]]  # noqa: E731
        self.records.refuse(
            unknown, "size", lambda k: f"image {image(k)} has no height and width, which masks need"
        )
        outlines, runs, faults = dict[int, Any](), dict[int, Any](), dict[int, str]()
        for place, (value, sound) in enumerate(
            zip(values, self.records.sound[start:stop], strict=True), start
        ):
            if not sound:
                continue
            if value is None or value in ([], {}):
                self.bare[place] = True
            elif isinstance(value, list | tuple):
                outlines[place] = value
            elif isinstance(value, Mapping):
                runs[place] = value
            else:
                faults[place] = f"segmentation is {short(value)}, expected polygons or run lengths"
        rles, areas, more = read_rles(runs, self.sizes)
        self.empty[[*rles]] = areas == 0
        outlines, wrong, short_rings = sound_polygons(outlines, self.sizes)
        faults |= more | wrong
        lines = [k for k in outlines if not outlines[k]]  # without area, as a flat box
        self.empty[lines] = self.bare[lines] = True
        rings = sum(number for k, number in short_rings.items() if outlines[k] and k not in faults)
        self.file.count("polygons of fewer than 3 points are left out, beside others of their object", rings)
        self.file.count("objects of which all polygons have fewer than 3 points have no area", len(lines))
        broken = np.zeros(len(self.images), dtype=bool)
        broken[[*faults]] = True
        self.bare |= broken & self.flat  # there is nothing to be seen of it, but its box counts
        self.records.refuse(broken & ~self.flat, "segmentation", lambda k: faults[k])
        found = {k: mask for k, mask in (outlines | rles).items() if k not in faults}
        self.covered[[*rles]] = areas
        for k in (np.flatnonzero(~(self.areas[start:stop] > 0)) + start).tolist():
            if outlines.get(k) and k in found:
                self.covered[k] = rle_areas(polygons_to_rles([outlines[k]], self.sizes[k].tolist()))[0]
        return [found.get(k) for k in range(start, start + len(values))]

    def forget(self) -> None:
        """Let go of the JSON; nothing can be read of it, or said about it, after that."""
        self.records.records, self._segmentations, self._given = [], [], {}

    def pack(self) -> CocoAnnotations:
        """Return the sound annotations, masks included, image by image; note what is odd about them."""
        parts = [_flat(self.read_masks(k, k + AT_ONCE)) for k in range(0, max(1, len(self.images)), AT_ONCE)]
        polygons, points, coordinates, runs, counts = map(np.concatenate, zip(*parts, strict=True))
        degenerate, records = self.flat | self.empty, self.records
        why = lambda k: f"{self._bbox(k)} has no area" if self.flat[k] else "the mask has no pixels"  # noqa: E731
        records.note(degenerate, "degenerate", why)
        pixels = "{} reaches {:g} pixels outside {}".format
        far = lambda k: pixels(self._bbox(k), self.reach[k], self._frame(k))  # noqa: E731
        records.note(self.far & ~degenerate, "box", far, fatal=True)
        stated = np.array([value is not None for value in self._given["area"]], dtype=bool)
        odd = stated & ~(self.areas > 0) & ~degenerate
        records.note(odd, "area", self._odd_area)
        degenerate |= self._without_masks(records.sound & ~degenerate)
        order = np.flatnonzero(records.sound)
        return CocoAnnotations(
            ids=self.ids,
            images=self.images.astype(np.int32),
            categories=self.categories.astype(np.int32),
            boxes=self.boxes,
            areas=np.where(np.isnan(self.areas), self.covered, self.areas),
            crowd=self.crowd,
            degenerate=degenerate,
            first=np.zeros(len(self.image_ids) + 1, dtype=np.int64),
            polygons=bounds_of(polygons),
            points=bounds_of(points),
            coordinates=coordinates,
            runs=bounds_of(runs),
            counts=counts,
        ).select(order[np.argsort(self.images[order], kind="stable")])

    def _without_masks(self, among: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which lack the masks that others have: as boxes they would be learnt as full rectangles.

        Where they are more than the others they are refused.
        """
        bare, masked = among & self.bare, among & ~self.bare
        if not bare.any() or not masked.any():
            return np.zeros_like(bare)
        if bare.sum() > masked.sum():
            self.records.refuse(bare, "segmentation", lambda _: "no segmentation, unlike others")
            return np.zeros_like(bare)
        k = int(np.flatnonzero(bare)[0])
        first = f"annotation {self.ids[k]} of image {self.image_ids[self.images[k]]}"
        self.file.note(
            f"{bare.sum()} of {among.sum()} objects have no segmentation, unlike others ({first} the first): "
            "not trained on; measured by their boxes, and as missed by any mask"
        )
        return bare

    def _odd_area(self, k: int) -> str:
        if np.isnan(self.areas[k]):
            return f"area is {short(self._given['area'][k])}, {self.covered[k]:g} is taken instead"
        covers = f"not the {self.covered[k]:g} that it covers: evaluation by size goes by that"
        return f"area is {self.areas[k]:g}, {covers}"

    def clipped(self) -> list[Problem]:
        """Return one line for all boxes outside, for training those a little: there may be thousands."""
        beyond = self.records.sound & (self.reach > ROUNDING) & ~(self.flat | self.empty)
        which = np.flatnonzero(beyond & (~self.far if self.file.training else self.sizes.all(axis=1)))
        if not len(which):
            return []
        first = f"annotation {self.ids[which[0]]} of image {self.image_ids[self.images[which[0]]]}"
        count = "1 box reaches" if len(which) == 1 else f"{len(which)} boxes reach up to"
        first += "" if len(which) == 1 else " the first"
        line = f"{self.file.name}: {count} {self.reach[which].max():.1f} pixels outside the image ({first}): "
        line += f"{'clipped for training, ' if self.file.training else ''}measured as in the file"
        return [Problem("clipped", line, fatal=False)]


def _flat(masks: list[Any]) -> tuple[npt.NDArray[Any], ...]:
    """Polygons of each mask, coordinates of each polygon, coordinates; letters of each mask, letters."""
    outlines = [mask if isinstance(mask, list | tuple) else [] for mask in masks]
    rings = [*chain.from_iterable(outlines)]
    letters = [mask["counts"] if isinstance(mask, Mapping) else "" for mask in masks]
    return (  # numbers of them, where they are of each
        np.array([*map(len, outlines)], dtype=np.int64),
        np.array([*map(len, rings)], dtype=np.int64),
        np.array([*chain.from_iterable(rings)], dtype=np.float32),
        np.array([*map(len, letters)], dtype=np.int64),
        np.frombuffer("".join(letters).encode("ascii"), dtype=np.uint8),
    )
