"""The model card of a run: the page that others see of it on the Hugging Face Hub."""

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import yaml

from botvision.backbones.variants import AUTO, HUB, weights_for
from botvision.metrics.attention_use import TITLES as SCORES
from botvision.metrics.runs import Run
from botvision.tables.markdown import percent, short, table

TITLES = SCORES | {"box_ap50": "box AP50", "mask_ap50": "mask AP50", "side_accuracy": "side accuracy"}
UNKNOWN = "unknown"
_MOST_CLASSES = 100

_PAGE = """---
{header}---

# {title}

{summary} Made with botvision.

## Use

With botvision installed (in a checkout of it, `pip install ".[train]"`):

```python
import botvision as bv

model = bv.load("hf-hub:{repo}")
found = model.predict("photo.jpg")  # or a PIL image, an array, a tensor, a list of these
print(found.names, found.scores)
found.plot().save("found.png")
```

## Results

{results}

{remarks}

## Training

{facts}

Classes: {classes}.

## Licence

{licence}
"""


def model_card(
    run: Run, description: Mapping[str, Any], *, repo: str, licence: str, use: str | None = None
) -> str:
    """Return the README.md of a model's repository, with the header that the hub reads.

    Of the data it names the name and the counts; it holds no path of this machine.

    Args:
        run: the finished run.
        description: its model.json.
        repo: OWNER/NAME.
        licence: as the hub calls it, such as "apache-2.0"; or `UNKNOWN`.
        use: what `eval --attention all` said of it, if it was asked.
    """
    masks = bool(description.get("detector", {}).get("masks", True))
    tasks = {"classify": "image-classification", "detect": "object-detection"}
    task = "image-segmentation" if run.task == "detect" and masks else tasks[run.task]
    does = {"image-classification": "names the class of an image"}
    does |= {"object-detection": "finds objects with their boxes"}
    does |= {"image-segmentation": "finds objects with their boxes and masks (instance segmentation)"}
    title, classes = repo.partition("/")[2], list(description.get("classes", []))
    named = [_code(name) for name in classes[:_MOST_CLASSES]]
    more = len(classes) - len(named)
    header = _header(run, title, task, licence)
    scores = [[f"{TITLES[name]} (%)", percent(value)] for name, value in run.scores.items()]
    network = f"`{run.model}`" if run.task == "classify" else f"Mask R-CNN on `{run.model}`"
    network = network if masks or run.task == "classify" else f"Faster R-CNN on `{run.model}`"
    return _PAGE.format(
        header=yaml.safe_dump(header, sort_keys=False, allow_unicode=True),
        title=title,
        repo=repo,
        summary=f"{network}: {does[task]}, {len(classes)} {'class' if len(classes) == 1 else 'classes'}.",
        results=table(["measure", "value"], scores, "lr"),
        remarks=" ".join([*_remarks(run), *([f"{use[:1].upper()}{use[1:].rstrip('.')}."] if use else [])]),
        facts=table(["run", "value"], _facts(run), "ll"),
        classes=", ".join(named) + (f" and {more} more, see model.json" if more else ""),
        licence="Unknown: the author has not named one. Ask before you use this model."
        if licence == UNKNOWN
        else f"`{licence}`, for these weights. The training data may have terms of their own.",
    )


def _header(run: Run, title: str, task: str, licence: str) -> dict[str, Any]:
    kinds = {"top1": "accuracy", "box_ap": "box_map", "mask_ap": "mask_map"}
    metrics = [
        {"type": kinds.get(name, name), "name": TITLES[name], "value": round(value, 4)}
        for name, value in run.scores.items()
    ]
    tags = ["botvision", "pytorch", *(["botnet"] if "botnet" in run.model else [])]
    tags += {"image-segmentation": ["instance-segmentation", "object-detection"]}.get(task, [])
    result = {"task": {"type": task}, "dataset": {"name": run.data, "type": "custom"}, "metrics": metrics}
    return {
        "library_name": "botvision",
        "pipeline_tag": task,
        "license": licence,
        "tags": tags,
        "model-index": [{"name": title, "results": [result]}],
    }


def _remarks(run: Run) -> list[str]:
    """What one must know to read the numbers."""
    images = "the validation images" if run.val_images is None else _images(run.val_images, "validation ")
    lines = [f"Measured on {images}; one run with one seed ({run.seed})."]
    if _setting(run, "data.val_is_train"):
        lines += ["These are the images it was trained on: the numbers say nothing about new images."]
    elif run.kept == "best":
        lines += ["The best epoch was chosen on the same images, which flatters the numbers a little."]
    if run.task == "detect":
        lines += ["AP: mean over IoU 0.50 to 0.95; AP50: at IoU 0.50."]
    return lines


def _start(run: Run, weights: object) -> str:
    """What a run started from, without the folders of the machine."""
    if weights is None:
        return "random weights"
    name = str(weights)
    if name == AUTO:
        return f"timm's {weights_for(run.model)}"
    path = PurePath(name)
    if name.startswith(HUB) or len(path.parts) == 1:
        return name
    generic = path.name in ("model", "model.safetensors", "best.ckpt")
    return "/".join([part for part in path.parts if part != "model"][-2:]) if generic else path.name


def _facts(run: Run) -> Sequence[tuple[str, str]]:
    height, width = run.size.split("x")
    trained = "" if run.train_images is None else f", {_images(run.train_images, 'training ')}"
    measured = "" if run.val_images is None else f", {_images(run.val_images, 'validation ')}"
    start = _setting(run, "model.weights")
    macs = " (backbone and neck)" if run.task == "detect" else ""
    versions = [
        f"{name} {run.versions[name]}" for name in ("botvision", "torch", "timm") if name in run.versions
    ]
    rows = [
        ("data", f"{run.data}{trained}{measured}"),
        ("started from", _start(run, start)),
        ("epochs", f"{run.epochs}; weights of the {run.kept or 'last'} epoch"),
        ("seed", str(run.seed)),
        ("image size", f"{height} x {width} (height x width)"),
        (
            "size",
            f"{short(run.params / 1e6)} million parameters, {short(run.macs / 1e9)} G multiply-adds{macs}",
        ),
        ("precision", run.precision),
        ("hardware", run.hardware or UNKNOWN),
        ("versions", ", ".join(versions) or UNKNOWN),
    ]
    return rows if run.configured else [row for row in rows if row[0] != "started from"]


def _setting(run: Run, key: str) -> object:
    return json.loads(run.settings[key]) if run.configured and key in run.settings else None


def _images(count: int, which: str) -> str:
    return f"{count:,} {which}image{'' if count == 1 else 's'}"


def _code(name: str) -> str:
    return f"`{' '.join(name.replace('`', chr(39)).split())}`"
