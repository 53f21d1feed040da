"""What `check` found in a data set."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from botvision.tables.markdown import table

if TYPE_CHECKING:  # for its name alone: it brings torch
    from botvision.data.check_report import CheckReport

CATEGORIES = 20  # listed one by one


def check_tables(found: "CheckReport") -> str:
    """Return what a data set holds, a row a split; its categories; notes, and the closing line."""
    parts = []
    if found.rows:
        parts = _detection_tables(found) if found.kind == "detection" else [_images_table(found)]
    if found.warnings:
        parts.append("\n".join(f"note: {warning}" for warning in found.warnings))
    return "\n\n".join([*parts, found.summary])


def _images_table(found: "CheckReport") -> str:
    header, align = ["split", "images", "broken", "height x width", "modes"], "lrrll"
    rows = [[row["split"], row["images"], row["broken"], _sizes(row), row["modes"]] for row in found.rows]
    if found.kind == "classification":
        header[3:3], align = ["classes", "images a class"], "lrrrlll"
        for cells, row in zip(rows, found.rows, strict=True):
            per_class = f"{row['class_min']} to {row['class_max']}, median {row['class_median']:g}"
            cells[3:3] = [row["classes"], per_class]
    return table(header, rows, align)


def _detection_tables(found: "CheckReport") -> list[str]:
    images, objects = [], []
    for row in found.rows:
        number = f"up to {row['objects_max']}, median {row['objects_median']:g}"
        images.append([*(row[key] for key in ("split", "images", "broken", "empty")), _sizes(row), number])
        used = f"{row['categories_used']} of {row['categories']}"
        # COCO's sizes: areas below 32 x 32 pixels, below 96 x 96, and all others.
        areas = " / ".join(f"{100 * row[size]:.0f}%" for size in ("small", "medium", "large"))
        memory = f"{row['bytes'] / 1e6:.1f} MB, {row['bytes_per_100k'] / 1e6:.0f} MB for 100,000"
        counts = [row[key] for key in ("split", "annotations", "crowds", "dropped")]
        objects.append([*counts, used, areas, memory])
    titles = ["split", "images", "broken", "empty", "height x width", "objects an image"]
    parts = [table(titles, images, "lrrrll")]
    titles = ["split", "annotations", "crowds", "no area", "categories", "small / medium / large", "memory"]
    parts.append(table(titles, objects, "lrrrlll"))
    return [*parts, *([_categories(found)] if found.categories else [])]


def _categories(found: "CheckReport") -> str:
    splits = [row["split"] for row in found.rows]
    shown, rest = found.categories[:CATEGORIES], found.categories[CATEGORIES:]
    rows = [[row["id"], row["name"], *(row[split] for split in splits)] for row in shown]
    if rest:
        rows.append(["", f"{len(rest)} more", *(sum(row[split] for row in rest) for split in splits)])
    titles = [f"objects of {split}" for split in splits]
    return table(["id", "category", *titles], rows, "rl" + "r" * len(splits))


def _sizes(row: Mapping[str, Any]) -> str:
    if row["size_min"] == row["size_max"]:
        return str(row["size_min"])
    return f"{row['size_min']} to {row['size_max']}, median {row['size_median']}"
