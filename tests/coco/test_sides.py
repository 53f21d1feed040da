"""Left and right of the same thing, told by the names of the classes."""

import pytest

from botvision.coco.sides import side_twins


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_mirror", "right_mirror"),
        ("back_left_door", "back_right_door"),
        ("mirror left", "mirror right"),
        ("Left-Mirror", "Right-Mirror"),
        ("LeftMirror", "RightMirror"),
        ("mirrorLeft", "mirrorRight"),
        ("LEFT_DOOR", "RIGHT_DOOR"),
        ("leftdoor", "rightdoor"),
        ("left", "right"),
        ("mirror_l", "mirror_r"),
        ("L-mirror", "R-mirror"),
        ("mirrorL", "mirrorR"),
        ("door.LH", "door.RH"),
        ("Left Mirror", "right_mirror"),
        ("turn left then right", "turn right then left"),
    ],
)
def test_names_that_differ_in_the_side_alone_are_twins(left: str, right: str) -> None:
    assert side_twins(["wheel", right, "hood", left]) == {1: 3, 3: 1}


@pytest.mark.parametrize(
    "names",
    [
        ["l", "r", "m"],  # letters, to be read
        ["left_mirror", "right_door"],
        ["left_mirror", "mirror"],
        ["bright", "light", "flight"],
        ["left_mirror", "LeftMirror", "right_mirror"],  # which of the two?
        ["turn left then right", "turn left then left"],
        [],
    ],
)
def test_others_are_not(names: list[str]) -> None:
    assert side_twins(names) == {}


def test_twins_are_found_among_many() -> None:
    assert side_twins(["left_eye", "left_ear", "nose", "right_ear", "right_eye"]) == {0: 4, 1: 3, 3: 1, 4: 0}
