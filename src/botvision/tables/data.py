"""What a detection data set holds, and what a detector reached, as text; strings only."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from botvision.tables.basic import table

if TYPE_CHECKING:  # for its name alone: it brings torch
    from botvision.data.check import CheckReport

CATEGORIES = 20  # listed one by one


def check_tables(found: "CheckReport") -> str:
    """Return what a detection data set holds: a row a split, its categories, notes, and the closing line."""
    images, objects = [], []
    for row in found.rows:
        images.append(
            [*(row[key] for key in ("split", "images", "broken", "empty")), _sizes(row), _number(row)]
        )
        counts = [row[key] for key in ("split", "annotations", "crowds", "dropped")]
        objects.append([*counts, _used(row), _areas(row), _memory(row)])
    parts = []
    if found.rows:
        titles = ["split", "images", "broken", "empty", "height x width", "objects an image"]
        parts.append(table(titles, images, "lrrrll"))
        titles = [
            "split",
            "annotations",
            "crowds",
            "no area",
            "categories",
            "small / medium / large",
            "memory",
        ]
        parts.append(table(titles, objects, "lrrrlll"))
    parts += [_categories(found)] if found.categories else []
    parts += ["\n".join(f"note: {warning}" for warning in found.warnings)] if found.warnings else []
    return "\n\n".join([*parts, found.summary])


def _categories(found: "CheckReport") -> str:
    splits = [row["split"] for row in found.rows]
    shown = found.categories[:CATEGORIES]
    rows = [[row["id"], row["name"], *(row[split] for split in splits)] for row in shown]
    rest = found.categories[CATEGORIES:]
    if rest:
        rows.append(["", f"{len(rest)} more", *(sum(row[split] for row in rest) for split in splits)])
    titles = [f"objects of {split}" for split in splits]
    return table(["id", "category", *titles], rows, "rl" + "r" * len(splits))


def _sizes(row: Mapping[str, Any]) -> str:
    if row["size_min"] == row["size_max"]:
        return str(row["size_min"])
    return f"{row['size_min']} to {row['size_max']}, median {row['size_median']}"


def _number(row: Mapping[str, Any]) -> str:
    return f"up to {row['objects_max']}, median {row['objects_median']:g}"


def _used(row: Mapping[str, Any]) -> str:
    return f"{row['categories_used']} of {row['categories']}"


def _areas(row: Mapping[str, Any]) -> str:
    """COCO's sizes: areas below 32 x 32 pixels, below 96 x 96, and all others."""
    return " / ".join(f"{100 * row[size]:.0f}%" for size in ("small", "medium", "large"))


def _memory(row: Mapping[str, Any]) -> str:
    return f"{row['bytes'] / 1e6:.1f} MB, {row['bytes_per_100k'] / 1e6:.0f} MB for 100,000"
