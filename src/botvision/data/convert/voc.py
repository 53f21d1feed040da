"""Pascal VOC: `Annotations/*.xml` and `JPEGImages/`, boxes, through hotcoco's reader.

It makes objects marked as difficult crowds: ignored in evaluation, never trained on.
"""

from pathlib import Path

import hotcoco

from botvision.coco.annotations import NewFile
from botvision.data.cache import Progress
from botvision.data.convert.splits import Labels
from botvision.io.errors import DataError


def read(root: Path, part: str, progress: Progress | None) -> Labels:
    """Read the XML files of a folder.

    Args:
        root: the data set.
        part: only what lies below this folder of it.
        progress: not used.
    """
    folder = root / part
    try:
        content = hotcoco.COCO.from_voc(str(folder)).dataset
    except (ValueError, OSError) as error:
        raise DataError(f"{folder}: {' '.join(str(error).split())}") from error
    if not content["images"]:
        raise DataError(f"{folder}: no XML file in it or in its Annotations/")
    images = folder / "JPEGImages" if (folder / "JPEGImages").is_dir() else folder
    for record in content["images"]:
        record["file_name"] = (images / record["file_name"]).relative_to(root).as_posix()
    names = [str(entry["name"]) for entry in content["categories"]]
    return Labels({"": NewFile(names, content["images"], content["annotations"])})
