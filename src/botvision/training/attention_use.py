"""How much a finished run relies on its attention: its evaluation with attention replaced, beside its own."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from botvision.attention.ablation import Replaced, ablations_without_effect, block_names, find_attention
from botvision.config.run import DetectionRunConfig
from botvision.data.cache import Progress
from botvision.metrics.attention_use import FILE, AttentionUse, effect_of, run_facts, save_use
from botvision.metrics.bootstrap import ImageSampler, per_image_file
from botvision.training.evaluation import Evaluation


def use_file(of: Evaluation) -> Path:
    """Return where `measure_use` writes what it finds: attention_use.json for the run's own images."""
    return of.folder / of.files()[0].name.replace("eval", Path(FILE).stem, 1)


def evaluate_replaced(
    of: Evaluation, replaced: Replaced, progress: Progress | None = None
) -> tuple[Any, AttentionUse]:
    """Evaluate a run with its attention replaced, and hold the result against the run as trained.

    The run's own evaluation is taken as it is, and measured anew for other images than its own.

    Returns:
        The task's metrics with attention replaced, and the one effect.

    Raises:
        ValueError: as of `Evaluation.measure` and `ablated`; of the network before the first image is read.
    """
    blocks = list(attention_blocks(of, replaced))
    table = of.files(replaced)[0]
    with tempfile.TemporaryDirectory() as folder:
        own = _kept(of) or (
            table if replaced.how == "as-trained" else _as_trained(of, Path(folder), progress)
        )
        metrics = of.measure(progress, replaced)
        return metrics, _use(of, blocks, own, [(replaced, table)])


def measure_use(of: Evaluation, progress: Progress | None = None, *, thorough: bool = True) -> AttentionUse:
    """Evaluate a run with its attention replaced in every way, and write the file of `use_file`.

    Args:
        of: the run and its images.
        progress: called with what is being done, how many images of all evaluations are done, of how many.
        thorough: all ways, and each block alone; otherwise zero and even weights in all blocks.

    Raises:
        ValueError: as of `Evaluation.measure`; no attention in the network.
    """
    blocks = attention_blocks(of)
    choices = _choices(blocks) if thorough else [Replaced("zero"), Replaced("even")]
    steps = len(choices) + 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = _kept(of) or _as_trained(of, folder, _part(progress, 0, steps))
        for step, choice in enumerate(choices, 1):
            of.measure(_part(progress, step, steps), choice, folder)
        use = _use(of, list(blocks), own, [(each, folder / of.files(each)[0].name) for each in choices])
    save_use(use, use_file(of))
    return use


def attention_blocks(of: Evaluation, replaced: Replaced | None = None) -> dict[str, str]:
    """Return the position mode of each block of a finished run with attention, by name.

    Raises:
        ValueError: no attention, or none that could be replaced like this.
    """
    try:
        layers = find_attention(of.network)
        with (replaced or Replaced("as-trained")).within(of.network):
            pass
    except ValueError as error:
        raise ValueError(f"{of.folder}: {error}") from None
    return dict(zip(block_names(list(layers)), (layer.mode for layer in layers.values()), strict=True))


def _choices(blocks: Mapping[str, str]) -> list[Replaced]:
    chosen = [Replaced(how) for how in ("zero", "even", "own", "shuffled")]
    if not any(ablations_without_effect(mode) for mode in blocks.values()):
        chosen += [Replaced("content"), Replaced("position")]
    if len(blocks) > 1:
        chosen += [Replaced("zero", number) for number in range(1, len(blocks) + 1)]
    return chosen


def _kept(of: Evaluation) -> Path | None:
    """JSON of the run's own evaluation. One of other images may be of weights that were trained on since."""
    own = of.files()[0]
    return own if own.name == "eval.json" and per_image_file(own, _metrics(of)[0]).is_file() else None


def _as_trained(of: Evaluation, folder: Path, progress: Progress | None) -> Path:
    choice = Replaced("as-trained")
    of.measure(progress, choice, folder)
    return folder / of.files(choice)[0].name


def _metrics(of: Evaluation) -> tuple[str, ...]:
    config = of.task.config
    if not isinstance(config, DetectionRunConfig):
        return ("top1",)
    return ("box_ap", "mask_ap") if config.model.detector.masks else ("box_ap",)


def _use(
    of: Evaluation, blocks: Sequence[str], own: Path, measured: Sequence[tuple[Replaced, Path]]
) -> AttentionUse:
    sampler, metrics, effects = ImageSampler(), _metrics(of), []
    for replaced, table in measured:
        block = None if replaced.block is None else blocks[replaced.block - 1]
        effects.append(effect_of(sampler, (replaced.how, block), own, table, metrics))
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
