"""Pascal VOC: `Annotations/a.xml` and `JPEGImages/a.jpg`, or other folders, or XML beside the images; boxes.

- An XML file describes the image of its own name, and only without one that which `<filename>` names.
- Splits are the lists of `ImageSets/Main` (train.txt, val.txt, test.txt; trainval.txt without these two), or
  folders called train, val(id) and test. The lists of single classes (cat_train.txt) are not read.
- Pixels are counted from 1, the last one included.
- Objects marked as difficult become crowds: ignored in evaluation, never trained on. Truncated ones are
  objects like any other. Polygons beside boxes are not read.
"""

import posixpath
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from botvision.data.cache import Progress, reported
from botvision.data.convert.entries import Entry, Found, clip, coco_files, counted, splits_of_folders
from botvision.data.convert.image_index import ImageIndex, is_below
from botvision.data.convert.image_sets import image_sets
from botvision.data.convert.splits import Labels
from botvision.data.convert.voc_xml import NotVocError, VocFile, read_voc
from botvision.data.detection_sources import read_annotated
from botvision.data.images import decode
from botvision.data.left_out import LeftOut
from botvision.io.errors import DataError

_SMALLEST = 8  # at a fraction of its sides a JPEG is decoded faster


def read(root: Path, part: str, progress: Progress | None) -> Labels:
    """Read the XML files of a folder.

    Args:
        root: the data set.
        part: only images of this folder of it (or whose labels lie there), or of this list in `ImageSets`.
        progress: called with what is being done, how many files are done and how many there are.

    Raises:
        DataError: one line that names the file and the object.
    """
    left_out, changed = LeftOut(), Counter[str]()
    index = ImageIndex(root, ".xml", left_out)
    described = _described(root, index, left_out, progress)
    bases = {index.base_of(str(PurePosixPath(label).parent))[0] for label, _ in described.values()}
    without = set().union(*map(index.below, bases)) - described.keys()
    labels = {file: described[file][0] if file in described else file for file in without | described.keys()}
    splits, notes = _splits(root, part, labels, index, left_out)
    chosen = sorted(set().union(*splits.values()))
    changed["without"] = len(without.intersection(chosen))
    entries = [
        _entry(root, file, *described.get(file, ("", None)), changed)
        for file in reported(chosen, "converting", progress)
    ]
    names = [each.name for _, found in described.values() for each in found.objects]
    return Labels(coco_files(entries, splits, names), [*notes, *_notes(changed), *left_out.notes()])


def _described(
    root: Path, index: ImageIndex, left_out: LeftOut, progress: Progress | None
) -> dict[str, tuple[str, VocFile]]:
    """XML file and content of each image that has one."""
    labels = index.others(".xml")
    if not labels:
        raise DataError(f"{root}: no XML file in it or below it, expected Pascal VOC's Annotations/*.xml")
    described: dict[str, tuple[str, VocFile]] = {}
    for label in reported(labels, "reading XML", progress):
        path = PurePosixPath(label)
        base, inside = index.base_of(str(path.parent))
        folders = list(dict.fromkeys([str(PurePosixPath(base, inside)), base, str(path.parent)]))
        try:
            found = read_voc(root / label)
        except NotVocError:
            if index.find(path.stem, folders, ""):
                raise
            left_out.add("no Pascal VOC", label)
            continue
        image = index.find(path.stem, folders, found.filename)
        if image is None:
            left_out.add("without an image of the same name, or of that in <filename>", label)
        elif image in described:
            raise DataError(f"{root / label}: describes {image}, but so does {described[image][0]}")
        else:
            described[image] = label, found
    if not described:
        raise DataError(f"{root}: none of its XML files can be used; {'; '.join(left_out.notes())}")
    return described


def _entry(root: Path, file: str, label: str, found: VocFile | None, changed: Counter[str]) -> Entry:
    """An image is opened, to know that it can be read, and its size."""
    path = root / file
    if found is None or found.size is None:
        size = decode(path, reduce=_SMALLEST).whole
    else:
        size = found.size
        read_annotated(path, size, f"{path} ({label})", _SMALLEST)
    if found is None:
        return Entry(file, size, [])
    named = found.filename.replace("\\", "/").rpartition("/")[2]
    changed["renamed"] += named not in ("", PurePosixPath(file).name)
    changed["several"] += found.several
    changed["polygons"] += found.polygons
    objects = []
    for each in found.objects:
        left, top, right, bottom = box = clip(each.box, size, each.where, changed)
        if right <= left or bottom <= top:
            raise DataError(f"{each.where}: the box lies outside its image")
        changed["difficult"] += each.difficult
        objects.append(Found(each.name, box, (right - left) * (bottom - top), crowd=each.difficult))
    return Entry(file, size, objects)


def _splits(
    root: Path, part: str, labels: Mapping[str, str], index: ImageIndex, left_out: LeftOut
) -> tuple[dict[str, list[str]], list[str]]:
    """Images by split, and what is to be said of it.

    Args:
        root: the data set.
        part: of it, a folder or a list.
        labels: the XML file of each image, or the image itself.
        index: of all images.
        left_out: takes what is in no list, and what is in one but not there.
    """
    lists = image_sets(root, index, sorted(labels), left_out)
    if part and not (root / part).is_dir():
        if not lists.get(part):
            there = f" (there are: {', '.join(lists)})" if lists else ""
            raise DataError(f"{root / part}: no such folder, and no such list in ImageSets/Main{there}")
        return {part: lists[part]}, []
    chosen = _below(part, labels, index)
    if not chosen:
        raise DataError(f"{root / part}: no images with XML files there")
    if not lists:
        return splits_of_folders(chosen) if not part else {"": chosen}, []
    whole = lists.pop("trainval", [])
    if not lists.keys() & {"train", "val"}:
        lists = {"train": whole, **lists}
    splits = {name: [file for file in files if file in set(chosen)] for name, files in lists.items()}
    splits = {name: files for name, files in splits.items() if files}
    times = Counter(file for files in splits.values() for file in files)
    for file in chosen:
        if file not in times:
            left_out.add("in none of these lists of ImageSets", file)
    if not times:
        raise DataError(
            f"{root}: none of its images is in the lists of ImageSets; without these all are taken"
        )
    said = ", ".join(f"{name} ({len(files):,})" for name, files in splits.items())
    notes = [f"lists of ImageSets, a file for each: {said}; --part takes one"]
    if several := sum(count > 1 for count in times.values()):
        notes.append(counted(several, "image", "of these in more than one list"))
    return splits, notes


def _below(part: str, labels: Mapping[str, str], index: ImageIndex) -> list[str]:
    """Images of a folder, and those whose labels lie in it, or would."""
    folder = str(PurePosixPath(posixpath.normpath(Path(part).as_posix())))
    images = str(PurePosixPath(*index.base_of(folder)))
    return sorted(
        file
        for file, label in labels.items()
        if is_below(file, folder) or is_below(label, folder) or is_below(file, images)
    )


def _notes(changed: Counter[str]) -> list[str]:
    texts = {
        "without": ("image", "without an XML file: taken as images without objects"),
        "renamed": (
            "XML file",
            "with another name in <filename> than the image's: the image of the same name is taken",
        ),
        "several": ("object", "with several boxes: each box is taken as an object"),
        "polygons": ("object", "with a polygon beside the box: the box alone is taken"),
        "difficult": ("object", "marked as difficult: ignored in evaluation, not trained on"),
        "clipped": (
            "object",
            "reaching up to 2 pixels or 1 % beyond the image (pixels count from 1): cut off there",
        ),
    }
    return [counted(changed[key], *text) for key, text in texts.items() if changed[key]]
