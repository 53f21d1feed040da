"""A configuration to a trained network and its run folder.

Everything that can be wrong is looked at before the first step and before the folder is made: data, classes,
the model's arguments, the image size, the device.
"""

import json
import resource
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from botvision.backbones.pretrained import has_weights, is_name
from botvision.backbones.variants import AUTO, check_arguments, check_weights, weights_for
from botvision.config.detector import needs_weights
from botvision.config.recipes import (
    BEING_TRAINED,
    LOCK,
    check_new_folder,
    config_to_dict,
    load_config,
    with_absolute_paths,
)
from botvision.config.run import AnyRunConfig, DetectionRunConfig
from botvision.config.schema import ConfigError
from botvision.io.errors import lacks_memory, text_of
from botvision.io.files import remove_leftovers, write_json, write_text
from botvision.io.lock import locked
from botvision.io.progress import CountBar
from botvision.io.read import read_object, read_text
from botvision.training import memory, provenance
from botvision.training.checkpoint import (
    CHECKPOINTS,
    RunState,
    check_data_of_run,
    check_folder,
    checkpoint_to_use,
    read_checkpoint,
)
from botvision.training.loop import Job, Stepper, assemble, fit, open_fabric
from botvision.training.task import AnyTask, Outcome, Splits

# What says of a folder that its run is finished.
RESULTS = ("summary.json", "eval.json")


def task_of(config: AnyRunConfig) -> AnyTask:
    """Return the task of a configuration: a `Classification` or a `Detection`.

    Raises:
        ConfigError: an argument of the model that does not describe its architecture.
    """
    try:
        check_arguments(config.model.args, "model.args.")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if isinstance(config, DetectionRunConfig):
        from botvision.training.detect import Detection

        return Detection(config)
    from botvision.training.classify import Classification

    return Classification(config)


def train(config: AnyRunConfig, out: str | Path, resume: bool = False, progress: bool = True) -> Path:
    """Train a classifier or a detector, as the configuration says.

    Args:
        config: from `build_config`.
        out: the run folder; new or empty, or the one to resume.
        resume: go on from `checkpoints/last.ckpt`, exactly: on a CPU with the same number of threads, losses
            and weights are those of a run that was never interrupted. `train.epochs` may be larger than
            before; the learning rate then follows the schedule of the new length from the restored step on
            (with cosine it jumps up again where the old run had come down). The data may have moved.
        progress: a bar for the epoch and a line for each finished one, on the error stream.

    Returns:
        The run folder; its files are described in docs/runs.md.

    Raises:
        ValueError: whatever is wrong with configuration, data or folder, in one line, before the first step;
            DivergedError where the loss stops being a number.
    """
    folder, config = Path(out), with_absolute_paths(config)
    if not resume:
        check_new_folder(folder)
    elif not (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder}: no run to resume, there is no config.yaml")
    elif config.train.batch_size == "auto":  # which the run has replaced by a number
        config = _of_batch(config, load_config(folder / "config.yaml").train.batch)
    with CountBar(shown=progress) as bar, locked(folder / LOCK, BEING_TRAINED, bar.say):
        for part in (folder, folder / "model", folder / CHECKPOINTS):
            remove_leftovers(part)
        try:
            _train(config, folder, resume, bar)
        except OSError as error:
            if error.filename is None and error.errno is not None:  # of a full disk, which says no name
                raise OSError(error.errno, error.strerror, str(folder)) from error
            raise
    return folder


def _train(config: AnyRunConfig, folder: Path, resume: bool, bar: CountBar) -> None:
    state = check_folder(folder, config, resume)
    if state is not None and state.finished and _is_exported(folder, config, state):
        more = "a larger train.epochs extends it"
        if state.out_of_steps(config.train):
            more = f"train.max_steps {config.train.max_steps} has ended it"
        elif state.stopped_early:
            more = "train.early_stop 0 lets it go on"
        epochs = "1 epoch" if state.epoch == 1 else f"{state.epoch} epochs"
        bar.say(f"{folder}: nothing to do, the run is finished ({epochs}); {more}")
        return
    fabric = open_fabric(config.train.device)
    on_gpu = fabric.device.type == "cuda"
    with torch.random.fork_rng([fabric.device] if on_gpu else []):
        if config.train.batch_size == "auto":
            config = _with_largest_batch(config, fabric.device, bar)
        try:
            outcome = _open_and_fit(config, folder, state, fabric, bar)
        except RuntimeError as error:
            if not on_gpu or not lacks_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold the network, whose room the trials need
            failed = error.with_traceback(None)
        else:
            bar.say(f"{folder}: {outcome.headline()} (weights of the {config.train.keep} epoch)")
            return
        memory.release()
        raise _too_large(config, fabric.device, bar) or failed


def _open_and_fit(
    config: AnyRunConfig,
    folder: Path,
    state: RunState | None,
    fabric: Any,  # noqa: ANN401
    bar: CountBar,
) -> Outcome:
    resume = (folder / "config.yaml").is_file()
    job, warm_start = _open_and_build(config, fabric, fresh=state is None, bar=bar)
    state = _opened(folder, job, state, warm_start)
    if state.step and not state.finished:
        bar.say(f"{folder}: going on after step {state.step} (epoch {state.epoch + 1})")
    elif resume and not state.step:
        bar.say(f"{folder}: no checkpoint yet, starting at the first step")
    if warm_start is not None:
        bar.say(warm_start)
    if not state.finished:
        images, held = len(job.splits.train), len(job.splits.val)
        bar.say(
            f"{folder}: {images} images to train on, {held} to measure on, "
            f"{job.steps} step{'s' * (job.steps != 1)} an epoch, {config.train.epochs} epochs"
        )
        fit(folder, job, state, bar)
    return _finish(folder, job, state)


def _with_largest_batch(config: AnyRunConfig, device: torch.device, bar: CountBar) -> AnyRunConfig:
    """Return the configuration with a number in the place of `train.batch_size` auto."""
    if device.type != "cuda":
        raise ConfigError(
            f"train.batch_size: auto needs a GPU of CUDA, this run is on {device.type}: expected a number"
        )
    images = _largest_batch(config, bar, memory.most_images)
    if not images:
        raise memory.BatchTooLargeError(f"out of memory ({memory.describe(device)}): not even one image fits")
    config = _of_batch(config, images)
    train = config.train
    step = f"{train.batch * train.accumulate} images an optimiser step"
    rate = "" if config.optim.lr_batch else f"; optim.lr {config.optim.lr:g} is taken as it is"
    bar.say(f"train.batch_size auto: {train.batch} ({memory.describe(device)}), {step}{rate}")
    return config


def _too_large(config: AnyRunConfig, device: torch.device, bar: CountBar) -> Exception | None:
    """Return what to say of a batch that did not fit, with the largest that does; None if it does fit."""
    train, found = config.train, memory.describe(device)
    fitting = _largest_batch(config, bar, lambda _: train.batch)
    if fitting >= train.batch:
        return None
    advice = "not even one does: smaller images need less"
    if fitting:
        advice = f"{fitting} do: {memory.advice(train.batch, train.accumulate, fitting)}"
    return memory.BatchTooLargeError(f"out of memory ({found}): {train.batch} images do not fit, {advice}")


def _largest_batch(config: AnyRunConfig, bar: CountBar, limit: Callable[[int], int]) -> int:
    """Return the largest batch that fits, 0 for none; at most what `limit` says of the number of images."""
    task = task_of(config)
    splits = task.open()

    def trial(images: int) -> Stepper:
        bar("trying a batch", images, most)
        return Stepper(task_of(_of_batch(config, images)), splits)

    most = limit(len(splits.train))
    return memory.largest_batch(trial, most)


def _of_batch(config: AnyRunConfig, images: int) -> AnyRunConfig:
    return replace(config, train=replace(config.train, batch_size=images))


def export_unfinished(run: Path, out: Path, task: AnyTask | None = None) -> str:
    """Write the model of a run that is not finished into another folder, to be used meanwhile.

    Args:
        run: its folder.
        out: folder for model.json and model.safetensors.
        task: of the run, for data that have moved; as its configuration says unless given.

    Returns:
        A line on the weights taken.

    Raises:
        ValueError: there is no checkpoint yet, each is broken, or the data cannot be opened.
    """
    task = task or task_of(load_config(run / "config.yaml"))
    path, content = checkpoint_to_use(run, task.config.train.keep)
    state, splits = content["state"], task.open()
    state.data_images = [len(splits.train), len(splits.val)]  # their number decides nothing here
    check_data_of_run(state, task.config, splits)
    task.export(_build_model(task, splits, content["evaluated"]), out, splits)
    begun = f"{state.epoch} of {task.config.train.epochs} epochs"
    return f"{run}: the run is not finished: weights of {path.name}, after step {state.step} ({begun} done)"


def _open_and_build(
    config: AnyRunConfig,
    fabric: Any,  # noqa: ANN401
    fresh: bool,
    bar: CountBar,
) -> tuple[Job, str | None]:
    """Open and build everything; returns also what became of the weights that it starts from.

    Args:
        config: of the run.
        fabric: of the run.
        fresh: the run begins: it starts from `model.weights`, and its images have not been read before.
        bar: receives a line for each thing that is worth knowing beforehand.
    """
    task = task_of(config)
    if fresh:
        _check_weights(config)
    splits = task.open()
    torch.manual_seed(config.train.seed)
    model = _build_model(task, splits)
    warm_start = _warm_start(task, model.to(fabric.device), splits, bar) if fresh else None
    task.probe(model.cpu(), splits)
    for split in (splits.train, splits.val):
        split.cache_images(bar)
        if fresh and not split.verify(bar):
            bar.say(f"{split.name}: {len(split)} images are not read beforehand; botvision check does it")
        for note in split.notes:
            bar.say(f"note: {note}")
        for line in split.passed_over:
            bar.say(line)
    for note in splits.shared(bar) if fresh else []:
        bar.say(f"note: {note}")
    job = assemble(task, fabric, splits, model)
    waiting = len(splits.train) - len(job.train_loader) * config.train.batch * fabric.world_size
    if waiting > 0.1 * len(splits.train):
        bar.say(
            f"{waiting} of {len(splits.train)} training images fill no whole batch and sit out each epoch "
            "(others each time); a smaller train.batch_size uses more"
        )
    return job, warm_start


def _build_model(task: AnyTask, splits: Splits, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
    config = task.config.model
    try:
        return task.build(splits, weights)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        given = f" with {config.args}" if config.args else ""
        raise ConfigError(f"model {config.name}{given}: {text_of(error)}") from None


def _check_weights(config: AnyRunConfig) -> None:
    """Raise ConfigError for weights that are neither a file nor known by name."""
    try:
        if config.model.weights is not None:
            check_weights(config.model.weights, config.model.name)
    except ValueError as error:
        raise ConfigError(f"model.weights: {error}") from None


def _warm_start(task: AnyTask, model: nn.Module, splits: Splits, bar: CountBar) -> str | None:
    """Load the weights that the run starts from; returns what became of them."""
    config = task.config.model
    source = weights_for(config.name) if config.weights == AUTO else config.weights
    if source is None:
        if not config.args.get("pretrained"):
            more = "; --model.weights auto starts from pretrained weights" if has_weights(config.name) else ""
            bar.say(f"{config.name} starts from nothing, with random weights{more}")
        return None
    found = _fetched(source, task.config, bar) if is_name(source) else _file_of(Path(source))
    try:
        report = task.warm_start(model, found, splits, bar)
    except ValueError as error:
        if isinstance(found, Path):  # which the error names
            raise
        raise ConfigError(f"model.weights: {source}: {str(error).removeprefix('the weights: ')}") from None
    return f"weights from {source}:\n{report}"


def _file_of(path: Path) -> Path:
    """The weights in a run folder; a file itself."""
    inside = [path / "model" / "model.safetensors", path / "model.safetensors"]
    found = next((file for file in inside if file.is_file()), path)
    if found.is_dir():
        raise ConfigError(
            f"model.weights: {path} holds no model.safetensors, expected a run folder or such a file"
        )
    return found


def _fetched(name: str, config: AnyRunConfig, bar: CountBar) -> Path | Mapping[str, Tensor]:
    """Weights by name."""
    from botvision.detection.pretrained import fetch  # takes a second, which few runs need

    bar.say(f"fetching the weights of {name}, unless they are here")
    try:
        return fetch(name)
    except ValueError as error:
        raise ConfigError(f"model.weights: {error}; {_instead(config)}") from None


def _instead(config: AnyRunConfig) -> str:
    """What to type where weights cannot be had, and what it costs."""
    from_nothing = "--model.weights none"
    if isinstance(config, DetectionRunConfig) and needs_weights(config.model.detector):
        from_nothing += " --model.detector.norm group --model.detector.frozen_stages 0"
    return (
        "--model.weights FILE starts from a file or a run folder, "
        f"{from_nothing} from nothing, which takes many more images and epochs"
    )


def _opened(folder: Path, job: Job, state: RunState | None, warm_start: str | None) -> RunState:
    """Make the folder and say in it what the run is; config.yaml comes last, it makes the folder a run.

    The results of an earlier, shorter stretch go first: a run that goes on must not pass for a finished one.
    """
    state, config = RunState() if state is None else state, job.config
    check_data_of_run(state, config, job.splits)
    folder.mkdir(parents=True, exist_ok=True)
    for name in RESULTS:
        (folder / name).unlink(missing_ok=True)
    earlier = _earlier_stretches(folder / "versions.json", state.step)
    write_json(folder / "versions.json", [*earlier, {"from_step": state.step, **_made_with(job)}])
    if warm_start is not None:
        write_text(folder / "warm_start.txt", f"{warm_start}\n")
    text = yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True)
    write_text(folder / "config.yaml", text)
    return state


def _earlier_stretches(path: Path, step: int) -> list[dict[str, Any]]:
    """What versions.json says of the steps before `step`; a stretch without a checkpoint left nothing."""
    try:
        found = json.loads(read_text(path))
        return [stretch for stretch in found if stretch["from_step"] < step]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []


def _finish(folder: Path, job: Job, state: RunState) -> Outcome:
    """Export the weights to keep, evaluate them, draw; summary.json comes last: the folder is complete."""
    task, config, splits, device = job.task, job.config, job.splits, job.fabric.device
    facts = {
        "task": config.task, "recipe": config.recipe, "model": config.model.name, "data": splits.name,
        "seed": config.train.seed, "epochs": state.epoch, "steps": state.step,
        "best_epoch": state.best_epoch, "kept": config.train.keep,
        "image_size": list(config.data.size),
        "train_images": len(splits.train), "val_images": len(splits.val),
        "train_seconds": round(state.seconds, 3), "step_ms": state.step_ms,
        "peak_memory_mb": _peak_memory_mb(device),
        "batch_size": config.train.batch * config.train.accumulate,
        **_made_with(job),
    }  # fmt: skip
    kept = read_checkpoint(folder / CHECKPOINTS / f"{config.train.keep}.ckpt")
    model = task.build(splits, kept["evaluated"])
    task.export(model, folder / "model", splits)
    found = task.measure(task.place(model, device), job.val_loader, job.fabric)
    outcome = task.write(found, (folder / "eval.json", folder / f"{task.picture}.png"), "val")
    measured = task.finish(folder, splits, model, outcome)
    write_json(folder / "summary.json", {**facts, **measured, "val_held_back": splits.held_back})
    return outcome


def _made_with(job: Job) -> dict[str, Any]:
    return {
        "hardware": provenance.hardware(job.fabric.device), "precision": job.config.train.precision,
        "commit": provenance.commit(), "versions": provenance.versions(),
    }  # fmt: skip


def _is_exported(folder: Path, config: AnyRunConfig, state: RunState) -> bool:
    """Whether `_finish` has been here after the last step and with the weights now asked for."""
    try:
        summary = read_object(folder / "summary.json")
    except (OSError, ValueError):
        return False
    return (summary.get("steps"), summary.get("kept")) == (state.step, config.train.keep)


def _peak_memory_mb(device: torch.device) -> float:
    """Most memory in MB (1e6 bytes) held so far: of the GPU, or of this process on a CPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    try:  # not what getrusage says on Linux, which a process inherits from the one that started it
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6, 1)
    return round(int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6, 1)
