"""Which image the masks of single objects belong to, where each has a file of its own.

For `images/a.png` these are all files in `masks/a/`, or `masks/a_0.png`, `masks/a_1.png`, `masks/a_mask.png`;
in a folder for each image, such as `x/images/x.png` (or `x/image.png`), all in `x/masks/`.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from botvision.data.split_names import SPLITS

_PARTING = re.compile(r"[_\-. ]")


def pieces(
    masks: Mapping[str, Sequence[str]], images: Mapping[str, Sequence[str]], root: Path
) -> dict[str, list[str]]:
    """Return the masks of each image, in order.

    Args:
        masks: files by their path without suffix, of those that have the name of no image.
        images: where the mask of an image's own name would lie, in the same form, the likeliest first.
        root: the data set.
    """
    owners: dict[str, set[str]] = defaultdict(set)
    folders: dict[str, set[str]] = defaultdict(set)
    for image, keys in images.items():
        for key in keys:
            owners[key].add(image)
            folders[_parent(key)].add(image)
    found: dict[str, list[str]] = defaultdict(list)
    for key, files in masks.items():
        image = _by_name(key, owners) or _alone(folders.get(_parent(key), set()), root)
        if image is not None:
            found[image] += files
    return {image: sorted(files) for image, files in found.items()}


def _by_name(key: str, owners: Mapping[str, set[str]]) -> str | None:
    """The image that a mask's name begins with, the longest, or that its folder is called like."""
    folder, _, name = key.rpartition("/")
    cuts = [match.start() for match in _PARTING.finditer(name)]
    names = [*(f"{folder}/{name[:cut]}" for cut in reversed(cuts)), folder]
    return next((image for each in names for image in owners.get(each, ()) if len(owners[each]) == 1), None)


def _alone(images: set[str], root: Path) -> str | None:
    """The only image near a folder of masks, if it has a folder of its own; a split is none."""
    if len(images) != 1:
        return None
    (image,) = images
    parent = PurePosixPath(image).parent
    own = parent.parent if parent.name.lower() == "images" else parent
    name = own.name or root.resolve().name
    alone = own.name and name.lower() not in SPLITS and name.lower() != "images"
    return image if alone or name == PurePosixPath(image).stem else None


def _parent(key: str) -> str:
    return key.rpartition("/")[0]
