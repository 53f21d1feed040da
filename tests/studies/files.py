"""A study that trains in seconds."""

from pathlib import Path

from botvision.studies.plan import Plan, make_plan
from botvision.studies.spec import load_study

TINY = """
title: Small against smaller
question: Which of two?
source: nowhere
baseline: r
metrics: {top1: {title: top-1, chance: 0.5}}
axes: {image-size: {title: Image size (pixels), key: data.image_size}}
arms:
  r:
  bot: {published: {top1: 12.5}, source: a table}
claims:
  - {text: Attention helps., better: bot, worse: r}
  - {text: Attention helps on large images., better: bot, worse: r, axis: image-size, at: highest}
scales:
  cpu:
    data: nothing, the images are drawn
    note: Too small to show anything.
    seeds: [0]
    minutes: 2
    recipe: generated_resnet14_nano
    set:
      data.image_size: 16
      data.num_classes: 2
      data.num_images: 64
      data.num_val_images: 32
      train.batch_size: 16
      train.epochs: 25
      train.log_every: 1
      train.checkpoint_every: 3
    arms:
      r: {label: ResNet}
      bot: {label: BoTNet, set: {model.name: botnet14_nano, model.args.attn_drop: 0.1}}
"""


def write(path: Path, *changes: tuple[str, str]) -> str:
    """Write the study, with parts of its text replaced, and return its path."""
    text = TINY
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)
    return str(path)


def plan_of(folder: Path, *changes: tuple[str, str], **overrides: str) -> Plan:
    """The plan of the study, to be run in `folder`/out; `train__epochs="2"` sets train.epochs."""
    folder.mkdir(parents=True, exist_ok=True)
    study = load_study(write(folder / "tiny.yaml", *changes))
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    return make_plan(study, "cpu", folder / "out", keys)
