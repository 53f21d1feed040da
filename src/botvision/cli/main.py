"""The command `botvision`: words to one of its commands, and what goes wrong in it to one line.

Exit codes: 0 done; 2 something the user can put right, said in one line; 130 interrupted, 143 ended by
SIGTERM, 129 by SIGHUP; 141 the reader of the output went away. torch and all behind it is imported inside
the commands: `--help` answers at once.
"""

import argparse
import contextlib
import errno
import io
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botvision.cli.output import warn
from botvision.cli.parser import (
    MANUAL,
    Overrides,
    UsageError,
    check_study,
    dotted_hint,
    means_results,
    parse,
    split_overrides,
)
from botvision.io.errors import lacks_memory
from botvision.io.text import printable_output

if TYPE_CHECKING:
    from botvision.config.data import DataConfig, DetectionDataConfig
    from botvision.tables.models import ModelCost

# Packages of botvision[train].
EXTRA = {
    "lightning",
    "hotcoco",
    "jinja2",
    "matplotlib",
    "contourpy",
    "tensorboard",
    "yaml",
    "tqdm",
    "msgspec",
}


class Ended(KeyboardInterrupt):
    """The process was told to end.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def ended(number: int, _: object) -> None:
    """Handle a signal: an exception in the command; the next one ends the process at once."""
    signal.signal(number, signal.SIG_DFL)
    raise Ended(number)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; those of the process by default.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name that is no text must not end a command
            stream.reconfigure(errors="backslashreplace")
    debug = "--traceback" in words
    try:
        code = _dispatch([word for word in words if word != "--traceback"])
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as stop:
        return _stopped(stop)
    except BrokenPipeError:
        # What is still buffered has no reader; without this Python would report it once more on its way out.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if debug or package not in EXTRA:
            raise
        return warn(f'{package} is not installed: pip install "botvision[train]"')
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        if debug or (isinstance(error, RuntimeError) and not (lacks_memory(error) or lost_worker(error))):
            raise
        return warn(one_line(error))


def _stopped(stop: KeyboardInterrupt) -> int:
    number = next((e.number for e in (stop, stop.__context__) if isinstance(e, Ended)), signal.SIGINT)
    how = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    return warn(f"{how}{'' if isinstance(stop, Ended) else stop}", 128 + number)


def one_line(error: Exception) -> str:
    """Return what the command says of an error that a library or the system raised."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or 'cannot be used').lower()}"
    if lacks_memory(error):
        return "out of memory; try a smaller batch (train: --train.batch_size) or smaller images"
    if lost_worker(error):
        return (
            "a process that loads images was killed, most often for want of memory; "
            "fewer data.num_workers need less"
        )
    return str(error) or type(error).__name__


def lost_worker(error: Exception) -> bool:
    """Return whether a loader process has gone, or had no room in shared memory, as torch says it."""
    words = ("DataLoader worker", "shared memory", "</torch_")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in words)


def _dispatch(words: list[str]) -> int:
    words, overrides = split_overrides(words)
    try:
        args, unknown = parse(words)
    except SystemExit as stop:  # --help and --version have printed already
        return int(stop.code or 0)
    if unknown:
        raise UsageError(f"unknown argument {unknown[0]}{dotted_hint(unknown[0], args.command)}")
    if args.command is None:
        return _dispatch(["--help"])
    if overrides and MANUAL[args.command].keys is None:
        raise UsageError(f"--{next(iter(overrides))}: {args.command} takes no configuration keys")
    with printable_output():
        return COMMANDS[args.command](args, overrides)


def _check(args: argparse.Namespace, overrides: Overrides) -> int:
    _only("data.", overrides, "check")
    _must_exist(args.data)
    from botvision.data.check import check_data
    from botvision.io.progress import CountBar
    from botvision.tables.data import check_tables

    with CountBar() as bar:
        found = check_data(_data_config(args.data, overrides) if overrides else args.data, bar)
    for problem in found.problems:
        warn(problem)
    print(check_tables(found))
    splits = {row["split"] for row in found.rows}
    if found.ok and found.kind == "detection" and "train" not in splits:
        split = "" if "val" in splits else " --split test"
        print(f"next: botvision eval RUN --data.root {shlex.quote(args.data)}{split}")
    elif found.ok and found.kind != "images":
        detection = found.kind == "detection"
        recipe = "objects_botnet50" if detection else "photos_botnet50"
        keys = {"data.root": args.data, **found.keys, **overrides}
        if detection and not any(row["masks"] for row in found.rows):
            keys["model.detector.masks"] = "false"
        most = max(row["objects_max"] for row in found.rows) if detection else 0
        if most > 100:
            keys["model.detector.detections"] = str(-(-3 * most // 200) * 100)
        given = " ".join(f"--{key} {shlex.quote(value)}" for key, value in keys.items())
        print(f"next: botvision train {recipe} {given}")
    return 0 if found.ok else 2


def _data_config(root: str, overrides: Overrides) -> "DataConfig | DetectionDataConfig":
    """The data configuration of a recipe with these keys; the folder, or they, tell if for detection."""
    import dataclasses

    from botvision.config.data import DataConfig, DetectionDataConfig
    from botvision.config.schema import Text, build
    from botvision.data.coco_folder import is_detection_data

    given = {key.removeprefix("data."): Text(value) for key, value in overrides.items()}
    of_detection = {field.name for field in dataclasses.fields(DetectionDataConfig)}
    of_detection -= {field.name for field in dataclasses.fields(DataConfig)}
    detection = is_detection_data(Path(root)) or bool(of_detection & set(given))
    return build(DetectionDataConfig if detection else DataConfig, {"root": root, **given}, "data.")


def _convert(args: argparse.Namespace, _: Overrides) -> int:
    _must_exist(args.folder, kind="folder")
    if args.out and Path(args.out).is_file():
        raise ValueError(f"{args.out}: is there already; --out names another file")
    from botvision.data.convert.entries import counted
    from botvision.data.convert.folder import to_coco
    from botvision.io.progress import CountBar

    with CountBar() as bar:
        done = to_coco(
            args.kind, args.folder, args.out, part=args.part, category=args.category,
            split_parts=args.split_parts, overwrite=False, progress=bar,
        )  # fmt: skip
    images, objects = counted(done.images, "image"), counted(done.annotations, "object")
    kinds = len(done.categories)
    print(f"{images} with {objects} of {kinds:,} {'category' if kinds == 1 else 'categories'}")
    for note in done.notes:
        print(f"note: {note}")
    print()
    for path in done.files.values():
        print(f"written: {path}")
    print(f"next: {_check_command(args.folder, args.part, done.files)}")
    return 0


def _check_command(folder: str, part: str, files: Mapping[str, Path]) -> str:
    """The command that checks converted labels."""
    from botvision.data.coco_folder import naming_key

    shown = [path for split, path in files.items() if split != "test" or "val" not in files]
    keys = {naming_key(Path(folder), path, part): path for path in shown}
    named = [f" --data.{key} {shlex.quote(str(path.resolve()))}" for key, path in keys.items() if key]
    return f"botvision check {shlex.quote(folder)}{''.join(named)}"


def _train(args: argparse.Namespace, overrides: Overrides) -> int:
    from botvision.backbones.variants import check_arguments, check_name, check_weights
    from botvision.config import recipes
    from botvision.config.recipes import build_config, check_new_folder, load_recipe, resumed_config
    from botvision.io.lock import refuse_held

    if args.recipe is None and not (args.resume and args.out):
        raise UsageError("RECIPE is missing; only --resume with --out DIR goes without")
    config = None if args.recipe is None else build_config(load_recipe(args.recipe), overrides)
    out = Path(args.out or f"runs/{config.recipe}-s{config.train.seed}" if config else args.out)
    refuse_held(out / recipes.LOCK, recipes.BEING_TRAINED)
    if args.resume or config is None:
        config = resumed_config(out, overrides, config.recipe if config else None)
    else:
        check_new_folder(out)
    if config.data.root is not None and not getattr(config.data, "download", False):
        _must_exist(config.data.root, "data.root: ")
    if config.data.missing_root:
        raise ValueError(config.data.missing_root)
    check_name(config.model.name)
    check_arguments(config.model.args, "model.args.")
    if not args.resume and config.model.weights is not None:
        try:
            check_weights(config.model.weights, config.model.name)
        except ValueError as error:
            raise ValueError(f"model.weights: {error}") from None
    again = f"to go on: botvision train --out {shlex.quote(str(out))} --resume"
    try:
        from botvision.training.run import train  # it takes seconds, the mistakes above do not wait for it

        train(config, out, resume=args.resume)
    except KeyboardInterrupt as stop:
        begun = (out / "config.yaml").is_file()
        raise KeyboardInterrupt(f"; {again if begun else 'nothing was written yet'}") from stop
    except (OSError, RuntimeError, MemoryError) as error:
        known = isinstance(error, OSError) or lost_worker(error) or lacks_memory(error)
        if not known or not (out / "config.yaml").is_file():
            raise
        room = "make room there; " if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) else ""
        raise ValueError(f"{one_line(error)}; {room}{again}") from error
    from botvision.tables.runs import summary_table

    print(summary_table(json.loads((out / "summary.json").read_text(encoding="utf-8"))))
    run = shlex.quote(str(out))
    print(f"\nwritten: {out}/ with model/, checkpoints/, tables (metrics.csv, *.json) and pictures (*.png)")
    print(f"next: botvision eval {run}, or botvision predict {run} PATH...")
    return 0


def _eval(args: argparse.Namespace, overrides: Overrides) -> int:
    _must_exist(args.run, kind="run folder or results file")
    results = means_results(args, overrides)
    if results:
        _must_exist(args.truth, "--truth: ")
    from botvision.cli.evaluate import evaluate_results, evaluate_run

    if results:
        evaluate_results(args)
    else:
        evaluate_run(args, overrides)
    return 0


def _must_be_model(run: str) -> None:
    from botvision.backbones.variants import HUB

    if not run.startswith(HUB):
        _must_exist(run, kind="run folder")


def _predict(args: argparse.Namespace, _: Overrides) -> int:
    _must_be_model(args.run)
    for path in [*args.paths, *([args.truth] if args.truth else [])]:
        _must_exist(path)
    from botvision.cli.predict import check_new, predict
    from botvision.cli.unfinished import model_of

    check_new(Path(args.out))

    with model_of(args.run) as args.model:
        return predict(args)


def _attend(args: argparse.Namespace, _: Overrides) -> int:
    _must_be_model(args.run)
    for path in args.images:
        _must_exist(path)
    from botvision.cli.attend import attend
    from botvision.cli.unfinished import model_of

    with model_of(args.run) as args.model:
        return attend(args)


def _push(args: argparse.Namespace, _: Overrides) -> int:
    _must_exist(args.run, kind="run folder")
    from botvision.cli.push import push

    return push(args)


def _cost(args: argparse.Namespace, overrides: Overrides) -> int:
    if len(args.size) > 2:
        raise UsageError(f"--size: expected a side, or height and width, got {len(args.size)} numbers")
    _only("model.args.", overrides, "cost")
    from botvision.backbones.variants import check_name
    from botvision.config.schema import parse_value
    from botvision.tables.models import cost_tables

    given = {key.removeprefix("model.args."): parse_value(value, key) for key, value in overrides.items()}
    named = [(args.model, given), *([(args.vs, {})] if args.vs else [])]
    for name, _ in named:
        check_name(name)
    print(cost_tables([_cost_of(name, given, args) for name, given in named]))
    return 0


def _cost_of(name: str, given: Mapping[str, Any], args: argparse.Namespace) -> "ModelCost":
    import torch

    from botvision.backbones import cost
    from botvision.backbones.models import create_model, list_models
    from botvision.tables.models import ModelCost

    size = (args.size[0], args.size[-1])
    sized = {"img_size": size} if name in list_models() else {}  # timm's own ResNets have no such argument
    try:
        model = create_model(name, **{**sized, **given})
    except (TypeError, AssertionError, RuntimeError) as error:
        if lacks_memory(error):
            raise
        raise ValueError(f"model {name} with {dict(given)}: {str(error) or type(error).__name__}") from error
    time = None
    if args.time:
        dtype = getattr(torch, args.dtype)
        time = cost.step_time(model, size, batch=args.batch, device=args.device, dtype=dtype)
    return ModelCost(name, cost.count(model, size), cost.stage_table(model, size), time)


def _compare(args: argparse.Namespace, _: Overrides) -> int:
    from botvision.io.files import write_json, write_text
    from botvision.metrics.compare import compare
    from botvision.metrics.runs import read_run, run_folders
    from botvision.tables.runs import comparison_table

    if args.out and Path(args.out).suffix != ".md":
        raise UsageError(f"--out: expected a name that ends in .md, got {args.out}")
    comparison = compare(read_run(run) for named in args.runs for run in run_folders(named))
    table = comparison_table(comparison)
    print(table, end="")
    if args.out:
        path, numbers = Path(args.out), Path(args.out).with_suffix(".json")
        write_text(path, table)
        write_json(numbers, comparison.to_json())
        print(f"\nwritten: {path}, {numbers}")
    return 0


def _study(args: argparse.Namespace, overrides: Overrides) -> int:
    check_study(args, overrides)
    from botvision.cli.study import study

    return study(args, overrides)


def _recipes(args: argparse.Namespace, _: Overrides) -> int:
    import yaml

    from botvision.config.recipes import build_config, config_to_dict, load_recipe, recipe_promises

    if args.recipe is not None:
        values = config_to_dict(build_config(load_recipe(args.recipe), {}))
        print(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip())
        print(f"\nany of these can be replaced: botvision train {shlex.quote(args.recipe)} --train.epochs 3")
        return 0
    promises = recipe_promises()
    width = max(map(len, promises))
    for name, promise in promises.items():
        print(f"{name:<{width}}  {promise}".rstrip())
    print("\nnext: botvision train RECIPE [--data.root DIR], or botvision recipes RECIPE for all its values")
    return 0


def _models(args: argparse.Namespace, _: Overrides) -> int:
    from botvision.backbones.variants import VARIANTS
    from botvision.tables.models import model_table

    print(model_table(VARIANTS))
    print("\ntimm's networks work, too; its botnet26t_256 and sebotnet33ts_256 are BoTNets with weights.")
    print("next: botvision cost MODEL --vs resnet50")
    return 0


def _must_exist(path: str, where: str = "", kind: str = "file or folder") -> None:
    """Raise ValueError at once for a path that is not there, before torch is imported."""
    if not Path(path).expanduser().exists():
        raise ValueError(f"{where}{path}: no such {kind}")


def _only(prefix: str, overrides: Overrides, command: str) -> None:
    """Raise UsageError for a key of another part of the configuration."""
    wrong = next((key for key in overrides if not key.startswith(prefix)), None)
    if wrong is not None:
        raise UsageError(f"--{wrong}: {command} takes --{prefix}KEY alone")


COMMANDS: Mapping[str, Callable[[argparse.Namespace, Overrides], int]] = {
    "check": _check,
    "convert": _convert,
    "train": _train,
    "eval": _eval,
    "predict": _predict,
    "attend": _attend,
    "push": _push,
    "cost": _cost,
    "compare": _compare,
    "study": _study,
    "recipes": _recipes,
    "models": _models,
}
