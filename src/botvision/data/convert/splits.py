"""What every reader of labels returns."""

from dataclasses import dataclass, field

from botvision.coco.annotations import NewFile


@dataclass
class Labels:
    """Labels of a folder, ready to be written as COCO JSON.

    Attributes:
        splits: a file for each split, by its name ("train", "val", "test"); "" where the folder has none.
        notes: lines that the user must read: what was left out, guessed or changed.
    """

    splits: dict[str, NewFile]
    notes: list[str] = field(default_factory=list)
