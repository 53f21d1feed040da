"""The lists of a COCO file: its images and categories, and what was taken otherwise than the file says it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any

import numpy as np
import numpy.typing as npt

from botvision.coco.annotations import Category, ImageRecord
from botvision.coco.doubts import root_categories
from botvision.coco.problems import Label, Records, converted, repeated, short, whole_numbers
from botvision.io.errors import DataError

MAX_PIXELS = 2**31 - 1


class Lists:
    """The lists of a COCO file, images and categories without the broken ones.

    Args:
        content: of the file.
        name: for messages.
        training: images need a file and a size, categories a name; otherwise images are sorted by id.
        needed: keys of the lists.
    """

    def __init__(
        self,
        content: Any,  # noqa: ANN401
        name: str,
        *,
        training: bool,
        needed: Sequence[str] = ("images", "annotations", "categories"),
    ) -> None:
        if not isinstance(content, Mapping):
            expected = "expected a COCO object with images, annotations and categories"
            held = {list: "a list, as results are", str: "a text", NoneType: "null"}.get(
                type(content), "a number"
            )
            raise DataError(f"{name}: holds {held}, {expected}")
        for key in needed:
            if not isinstance(content.get(key), list | tuple):
                expected = f"{', '.join(needed[:-1])} and {needed[-1]}"
                raise DataError(f"{name}: no list {key!r}, expected {expected}")
        self.content, self.name, self.training = content, name, training
        self._counts, self._lines = Counter[str](), list[str]()
        self.images = self._images(content["images"])
        self.categories = self._categories(content["categories"])

    def raise_first(self, *more: Records) -> None:
        """Raise the first fatal problem, for whoever cannot do with a part of the file."""
        for records in (self.image_records, self.category_records, *more):
            for problem in records.problems:
                if problem.fatal:
                    raise DataError(problem.line)

    def roots(self) -> dict[int, str]:
        """Return Roboflow's root category, as `root_categories` finds it."""
        return root_categories(self.content["categories"], self.content["annotations"])

    def note(self, line: str) -> None:
        """Keep a line on what was taken otherwise than the file says it."""
        self._lines.append(line)

    def count(self, what: str, number: int) -> None:
        """Count records that were taken otherwise than the file says it."""
        self._counts[what] += number

    def notes(self) -> list[str]:
        """Return what was noted and counted, one line for each reason."""
        counted = [f"{what} ({number} of them)" for what, number in self._counts.items() if number]
        return [f"{self.name}: {line}" for line in (*self._lines, *counted)]

    def ids(self, values: Sequence[Any]) -> npt.NDArray[np.int64]:
        """Return whole numbers as `whole_numbers`; those that are written as text or decimals are counted."""
        self.count("ids that are text or decimals are read as whole numbers", converted(values))
        return whole_numbers(values)

    def _images(self, raw: Sequence[Any]) -> list[ImageRecord]:
        def label(k: int) -> Label:
            known = int(ids[k]) if ids[k] >= 0 else None
            return f"{self.name}: " + (f"images[{k}]" if known is None else f"image {known}"), known, None

        self.image_records = records = Records(raw, label)
        given, files = records.column("id"), records.column("file_name")
        ids, sides = self.ids(given), [records.column("height"), records.column("width")]
        heights, widths = map(whole_numbers, sides)
        expected = "expected a whole number from 0"
        records.refuse(ids < 0, "image", lambda k: f"id is {short(given[k])}, {expected}")
        records.refuse(repeated(ids, records.sound), "image", lambda _: "the id occurs twice")
        unique = records.sound.copy()
        sized = (heights > 0) & (widths > 0)
        named = [file if isinstance(file, str) else "" for file in files]
        if self.training:
            nameless = [not file for file in named]
            records.refuse(nameless, "image", lambda k: f"file_name is {short(files[k])}, expected a path")
            wrong = "height x width is {} x {}, expected two whole numbers above 0".format
            bare = np.array([a is b is None for a, b in zip(*sides, strict=True)], dtype=bool)
            records.refuse(bare, "image", lambda _: "no height and width, expected two whole numbers above 0")
            records.refuse(~sized, "image", lambda k: wrong(*(short(side[k]) for side in sides)))
            fault = "height x width is {} x {}, too large to be an image"
            large = heights.astype(np.float64) * widths > MAX_PIXELS
            records.refuse(large, "image", lambda k: fault.format(heights[k], widths[k]))
        self.broken_images = ids[unique & ~records.sound]
        sound = np.flatnonzero(records.sound)
        if not self.training:
            sound = sound[np.argsort(ids[sound])]
        size = np.where(sized[:, None], np.stack([heights, widths], axis=1), 0).tolist()
        return [ImageRecord(int(ids[k]), named[k], *size[k]) for k in sound.tolist()]

    def _categories(self, raw: Sequence[Any]) -> list[Category]:
        def label(k: int) -> Label:
            which = f"categories[{k}]" if bad[k] else f"category {ids[k]}"
            return f"{self.name}: {which}", None, None

        self.category_records = records = Records(raw, label)
        names, ids = records.column("name"), self.ids(records.column("id"))
        nameless = np.array([not isinstance(name, str) or not name.strip() for name in names], dtype=bool)
        bad = (ids < 0) | (nameless & self.training)
        records.refuse(bad, "category", lambda _: "expected an id (a whole number from 0) and a name")
        again = repeated(ids, records.sound)
        first = {int(ids[k]): names[k] for k in np.flatnonzero(records.sound & ~again)}
        fault = "the id occurs twice ({}, {})"
        records.refuse(again, "category", lambda k: fault.format(first[int(ids[k])], names[k]))
        return [Category(k, str(k if first[k] is None else first[k])) for k in sorted(first)]
