"""How much a finished run relies on its attention: its evaluation with attention replaced, beside its own."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botvision.attention.ablation import Replaced, ablations_without_effect, block_names, find_attention
from botvision.backbones.weights import load_model
from botvision.config.recipes import load_config
from botvision.config.run import DetectionRunConfig
from botvision.data.cache import Progress
from botvision.detection.weights import load_detector
from botvision.metrics.attention_use import (
    FILE,
    AttentionUse,
    Effect,
    effect_of,
    run_facts,
    save_use,
)
from botvision.metrics.bootstrap import ImageSampler, per_image_file
from botvision.training.run import check_finished, evaluate, evaluation_files


@dataclass(frozen=True)
class Images:
    """Which images an evaluation is of: arguments of `evaluate`."""

    folder: Path
    split: str = "val"
    overrides: Mapping[str, Any] | None = None

    @property
    def files(self) -> tuple[Path, Path]:
        """Where the evaluation as trained is written."""
        return evaluation_files(self.folder, self.split, self.overrides)

    @property
    def use_file(self) -> Path:
        """Where `measure_use` writes what it found: attention_use.json for the run's own images."""
        return self.folder / self.files[0].name.replace("eval", Path(FILE).stem, 1)


def evaluate_replaced(
    of: Images, replaced: Replaced, progress: Progress | None = None
) -> tuple[Any, AttentionUse]:
    """Evaluate a run with its attention replaced, and hold the result against the run as trained.

    The files are those that `evaluation_files` names. The run's own evaluation is taken as it is, and
    measured anew for other images than its own.

    Returns:
        The task's metrics with attention replaced, and the one effect.

    Raises:
        ValueError: as of `evaluate` and `ablated`; all is checked before the first image is read.
    """
    blocks = attention_blocks(of.folder, replaced)
    label = replaced.how, None if replaced.block is None else list(blocks)[replaced.block - 1]
    table = evaluation_files(of.folder, of.split, of.overrides, replaced)[0]
    with _as_trained(of, replaced.how, progress) as own:
        metrics = evaluate(of.folder, of.split, of.overrides, progress, replaced)
        return metrics, _use(of, list(blocks), own or table, [(*label, table)])


def measure_use(
    of: Images, progress: Progress | None = None, *, thorough: bool = True
) -> tuple[AttentionUse, Path]:
    """Evaluate a run with its attention replaced in every way, and write attention_use.json.

    Args:
        of: the run and its images.
        progress: called with what is being done, how many images of all evaluations are done, of how many.
        thorough: all ways, and each block alone; otherwise zero and even weights in all blocks.

    Returns:
        What was found, and the file.

    Raises:
        ValueError: as of `evaluate`; no attention in the network.
    """
    blocks = attention_blocks(of.folder)
    choices = _choices(blocks) if thorough else [Replaced("zero"), Replaced("even")]
    names = list(blocks)
    steps = len(choices) + 1
    with _as_trained(of, "", _part(progress, 0, steps)) as own, tempfile.TemporaryDirectory() as folder:
        measured = []
        for step, choice in enumerate(choices, 1):
            evaluate(of.folder, of.split, of.overrides, _part(progress, step, steps), choice, Path(folder))
            table = evaluation_files(of.folder, of.split, of.overrides, choice)[0]
            block = None if choice.block is None else names[choice.block - 1]
            measured.append((choice.how, block, Path(folder) / table.name))
        assert own is not None
        use = _use(of, names, own, measured)
    save_use(use, of.use_file)
    return use, of.use_file


def attention_blocks(folder: Path, replaced: Replaced | None = None) -> dict[str, str]:
    """Return the position mode of each block of a finished run with attention, by name.

    Raises:
        ValueError: no finished run, no attention, or none that could be replaced like this.
    """
    check_finished(folder)
    detector = isinstance(load_config(folder / "config.yaml"), DetectionRunConfig)
    network, _ = load_detector(folder / "model") if detector else load_model(folder / "model")
    try:
        layers = find_attention(network)
        with (replaced or Replaced("as-trained")).within(network):
            pass
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    return dict(zip(block_names(list(layers)), (layer.mode for layer in layers.values()), strict=True))


def _choices(blocks: Mapping[str, str]) -> list[Replaced]:
    chosen = [Replaced(how) for how in ("zero", "even", "own", "shuffled")]
    if not any(ablations_without_effect(mode) for mode in blocks.values()):
        chosen += [Replaced("content"), Replaced("position")]
    if len(blocks) > 1:
        chosen += [Replaced("zero", number) for number in range(1, len(blocks) + 1)]
    return chosen


@contextmanager
def _as_trained(of: Images, how: str, progress: Progress | None) -> Iterator[Path | None]:
    """JSON of the evaluation as trained, for a while; None where that is what is evaluated anyway."""
    own = of.files[0]
    if own == of.folder / "eval.json" and per_image_file(own, _metrics(of.folder)[0]).is_file():
        yield own
    elif how == "as-trained":
        yield None
    else:  # what was evaluated before may be of weights that were trained on since
        with tempfile.TemporaryDirectory() as folder:
            choice = Replaced("as-trained")
            evaluate(of.folder, of.split, of.overrides, progress, choice, Path(folder))
            yield Path(folder) / evaluation_files(of.folder, of.split, of.overrides, choice)[0].name


def _metrics(folder: Path) -> tuple[str, ...]:
    config = load_config(folder / "config.yaml")
    if not isinstance(config, DetectionRunConfig):
        return ("top1",)
    return ("box_ap", "mask_ap") if config.model.detector.masks else ("box_ap",)


def _use(
    of: Images, blocks: Sequence[str], own: Path, measured: Sequence[tuple[str, str | None, Path]]
) -> AttentionUse:
    sampler, metrics = ImageSampler(), _metrics(of.folder)
    effects: list[Effect] = [
        effect_of(sampler, (how, block), own, table, metrics) for how, block, table in measured
    ]
    trained = {name: sampler.sampled(per_image_file(own, name), name) for name in metrics}
    return AttentionUse(
        split=of.split,
        images=trained[metrics[0]].images,
        as_trained={name: trained[name].whole for name in effects[0].scores},
        blocks=tuple(blocks),
        effects=tuple(effects),
        run=run_facts(json.loads((of.folder / "summary.json").read_text(encoding="utf-8"))),
    )


def _part(progress: Progress | None, step: int, steps: int) -> Progress | None:
    """Progress of one of several evaluations on the scale of all of them."""
    if progress is None:
        return None

    def moved(label: str, done: int, total: int) -> None:
        if label == "evaluating":
            progress(label, step * total + done, steps * total)

    return moved
