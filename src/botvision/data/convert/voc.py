"""Pascal VOC: `Annotations/a.xml` and `JPEGImages/a.jpg`, or other folders, or XML beside the images; boxes.

- An XML file describes the image of its own name, and only without one that which `<filename>` names.
- Splits are the lists of `ImageSets/Main` (train.txt, val.txt, test.txt; trainval.txt without these two), or
  folders called train, val(id) and test. The lists of single classes (cat_train.txt) are not read.
- Pixels are counted from 1, the last one included.
- Objects marked as difficult become crowds: ignored in evaluation, never trained on. Truncated ones are
  objects like any other. Polygons beside boxes are not read.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from botvision.data.cache import Progress
from botvision.data.convert.entries import Found, clip, counted, leave_out_flat
from botvision.data.convert.labelled import MASKS, Format, Labelled
from botvision.data.convert.splits import Labels
from botvision.data.convert.voc_xml import VocFile, read_voc

_FORMAT = Format("Pascal VOC", ".xml", "<filename>", read_voc)


def read(root: Path, part: str, progress: Progress | None) -> Labels:
    """Read the XML files of a folder.

    Args:
        root: the data set.
        part: only images of this folder of it (or whose labels lie there), or of this list in `ImageSets`.
        progress: called with what is being done, how many files are done and how many there are.

    Raises:
        DataError: one line that names the file and the object.
    """
    data = Labelled(root, _FORMAT, progress)
    names = [each.name for _, file in data.described.values() for each in file.objects]
    labels = data.labels(part, names, _objects, _notes, progress)
    masks = {folder: count for folder in MASKS if (count := data.images_in(folder))}
    if masks:
        there = " and ".join(f"{count:,} in {folder}" for folder, count in masks.items())
        labels.notes.append(f"masks are not read, the boxes alone: {there}")
    return labels


def _objects(file: VocFile, size: tuple[int, int], changed: Counter[str]) -> Sequence[Found]:
    changed["several"] += file.several
    changed["polygons"] += file.polygons
    objects = []
    for each in file.objects:
        left, top, right, bottom = box = clip(each.box, size, each.where, changed)
        if right <= left or bottom <= top:
            leave_out_flat(each.where, changed)
            continue
        changed["difficult"] += each.difficult
        objects.append(Found(each.name, box, (right - left) * (bottom - top), crowd=each.difficult))
    return objects


def _notes(changed: Counter[str]) -> list[str]:
    texts = {
        "several": "with several boxes: each box is taken as an object",
        "polygons": "with a polygon beside the box: the box alone is taken",
        "difficult": "marked as difficult: ignored in evaluation, not trained on",
    }
    return [counted(changed[key], "object", text) for key, text in texts.items() if changed[key]]
