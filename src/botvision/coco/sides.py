"""Which classes are the left and the right of the same thing: told by their names alone."""

import re
from collections import Counter
from collections.abc import Sequence

_SKELETON, _SIDES = 0, 1
_LETTERS = {"l": "left", "lh": "left", "r": "right", "rh": "right"}
_OTHER = {"left": "right", "right": "left"}

Key = tuple[str, tuple[str, ...]]


def side_twins(names: Sequence[str]) -> dict[int, int]:
    """Find the classes that a mirror turns into each other.

    Two names are twins if they differ in nothing but that one says left where the other says right: as a word
    (left_door, Door Left, LeftDoor, leftdoor), or as the letters L and R or LH and RH beside another word
    (mirror_l, L-mirror, door.RH). Case and what stands between the words are not looked at. Names of which
    several are alike in this are nobody's twins.

    Args:
        names: of the classes.

    Returns:
        For the place of each class that has a twin, that of the twin; both directions are there.
    """
    keys = [_key(name) for name in names]
    counts = Counter(keys)
    places = {key: place for place, key in enumerate(keys) if key[_SIDES] and counts[key] == 1}
    mirrored = ((skeleton, tuple(_OTHER[side] for side in sides)) for skeleton, sides in places)
    return {
        place: places[twin] for place, twin in zip(places.values(), mirrored, strict=True) if twin in places
    }


def _key(name: str) -> Key:
    """What is left of a name without its sides, and these in the order in which they come."""
    words = re.sub(r"(?<=[^\W_A-Z])(?=[A-Z])", " ", name)  # leftDoor
    parts: list[str] = []
    sides: list[str] = []
    tokens = [word.lower() for word in re.split(r"[\W_]+", words) if word]
    alone = len(tokens) == 1  # the letters L and R, as others of the alphabet, are no sides
    for token in tokens:
        if token in _LETTERS and not alone:
            sides.append(_LETTERS[token])
            parts.append("*")
        else:
            sides += re.findall("left|right", token)
            parts.append(re.sub("left|right", "*", token))
    return "".join(parts), tuple(sides)
