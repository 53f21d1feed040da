"""What the command takes and says of itself, and how words become a command: argparse and dotted keys."""

import argparse
import contextlib
import difflib
import os
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import botvision

Overrides = dict[str, str]
OVERRIDE = re.compile(r"--(?P<key>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?:=(?P<value>.*))?", re.DOTALL)

# As botvision.attention.ablation has them, which imports torch; a test compares the two.
ABLATIONS = ("as-trained", "zero", "even", "own", "content", "position", "shuffled")

PROGRAM = "Train, use and compare Bottleneck Transformers (BoTNet) and the ResNets they come from."

FIRST_STEPS = """
botvision train shapes_botnet14_nano --out runs/first
botvision predict runs/first
botvision check my-data/
botvision cost botnet50 --size 1024 --vs resnet50
"""

MORE = "Each command has its own --help. With --traceback it shows where an error came from."


class UsageError(ValueError):
    """Arguments that make no command; the message is one line."""


class Command(NamedTuple):
    """What a command takes.

    Attributes:
        summary: what it does, in a line.
        arguments: name or flag to options of argparse.
        keys: if it takes configuration keys, how these look on the help page, and what they are.
        examples: command lines.
    """

    summary: str
    arguments: Mapping[str, dict[str, Any]] = {}
    keys: tuple[str, str] | None = None
    examples: str = ""


def _value(metavar: str | None, text: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"metavar": metavar, "help": text, **options}


def _path(metavar: str, text: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    return _value(metavar, text, type=_expanded, **options)


def _number(metavar: str, text: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    return _value(metavar, text, type=_positive, **options)


def _switch(text: str) -> dict[str, Any]:
    return {"action": "store_true", "help": text}


def _expanded(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got ''")
    return os.path.expanduser(text)  # noqa: PTH111  a Path would drop the slash at the end


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def _pixel(text: str) -> tuple[int, int]:
    row, found, column = text.partition(",")
    if not (found and row.strip().isdecimal() and column.strip().isdecimal()):
        raise argparse.ArgumentTypeError(f"expected a pixel y,x such as 120,85, from 0,0 on, got {text!r}")
    return int(row), int(column)


def _fraction(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1, got {text!r}")


DEVICE = _value("NAME", "cpu, cuda, ... (default: a GPU if there is one)", default="auto")
RUN = _path("RUN", "a run folder, its model/ folder, or hf-hub:OWNER/NAME")

# fmt: off
MANUAL: dict[str, Command] = {
    "check": Command(
        "read a whole data set before training: counts, sizes, broken files",
        {
            "data": _path("DATA", "a folder with COCO annotations, a folder or zip with train/<class>/..., "
                "or any folder of images"),
        },
        ("--data.key", "set a value of the data's configuration, e.g. --data.train_annotations FILE"),
        """
botvision check photos/              # photos/train/<class>/..., photos/val/<class>/...
botvision check cifar10_jpeg.zip     # the same inside a zip
botvision check coco/                # COCO: annotations/instances_train*.json, train*/, val*/
botvision check coco/ --data.train_annotations cats.json --data.train_images pictures
botvision check holiday/             # any folder of images
""",
    ),
    "convert": Command(
        "turn labels of other tools into COCO JSON: instance masks, YOLO, Pascal VOC, LabelMe",
        {
            "kind": _value("KIND", "format of the labels: masks, yolo, voc or labelme",
                choices=("masks", "yolo", "voc", "labelme")),
            "folder": _path("FOLDER", "the data set; the images stay where they are"),
            "--out": _path("FILE.json", "the JSON to write; with several splits, that of the training set, "
                "beside FILE_val.json, ... (default: FOLDER/annotations/instances_train.json, ...)"),
            "--part": _value("SUBFOLDER", "only images in this folder of FOLDER, such as images/train; "
                "voc: or images of one list of ImageSets, such as val",
                default=""),
            "--category": _value("NAME", "masks: name of the objects' class (default: object)",
                default="object"),
            "--split-parts": _switch("masks: parts of one value that do not touch become separate objects, "
                "for black-and-white masks"),
        },
        examples="""
botvision convert masks cells/ --category cell   # images/a.jpg, masks/a.png with one number per cell
botvision convert yolo cars/                     # images/train/a.jpg, labels/train/a.txt, data.yaml
botvision convert voc VOC2012/                   # JPEGImages/, Annotations/*.xml, ImageSets/Main/*.txt
botvision convert labelme photos/                # a.jpg, a.json
""",
    ),
    "train": Command(
        "train a model by a recipe, and write a run folder",
        {
            "recipe": _value("RECIPE", "a name from botvision recipes, or a YAML file; not needed with "
                "--resume and --out", nargs="?"),
            "--out": _path("DIR", "run folder (default: runs/RECIPE-sSEED)"),
            "--resume": _switch("continue exactly from the last checkpoint, with the run's own config.yaml"),
        },
        ("--any.key", "replace a value of the recipe, e.g. --train.epochs 3"),
        """
botvision train shapes_botnet14_nano --out runs/first               # a detector, on drawn shapes
botvision train objects_botnet50 --data.root data/ --out runs/mine  # data/annotations/*.json and images
botvision train cifar10_botnet50 --data.root data/ --train.epochs 20 --train.seed 1
botvision train my-recipe.yaml --out runs/mine --model.args.position absolute
botvision train --out runs/mine --resume
""",
    ),
    "eval": Command(
        "evaluate a run (the weights that train.keep says: last or best), or a file of COCO results",
        {
            "run": _path("RUN", "a run folder of botvision train, or a JSON file of COCO results"),
            "--split": _value(None, "split of the run's data to evaluate (default: val)",
                choices=("val", "test", "train")),
            "--attention": _value("HOW", "replace the output of attention, without retraining: zero; even "
                "(all weights equal); own (every cell sees only itself); content or position (these logits "
                "alone); shuffled (every cell gets what another cell asked for); as-trained (no change); "
                "all: a table of these, and of each block alone", choices=(*ABLATIONS, "all")),
            "--block": _number("K", "replace it only in this block, counted from 1 (default: in all)"),
            "--truth": _path("FILE.json", "COCO instances to compare the results with"),
            "--max-detections": _number("N", "most results that count per class and image (default: 100)"),
            "--out": _path("DIR", "folder for RESULTS-eval.json and RESULTS-pr.png (default: beside the "
                "results)"),
        },
        ("--data.key", "replace a value of the data, e.g. --data.root DIR; for detectors also "
            "--model.detector.detections, .score_threshold and .nms"),
        """
botvision eval runs/first
botvision eval runs/mine --split test
botvision eval runs/first --data.root elsewhere/
botvision eval runs/first --attention all                     # does it use its attention? as a table
botvision eval runs/first --attention zero --block 2          # without the attention of the second block
botvision eval runs/cells --model.detector.detections 400     # a detector: more objects per image
botvision eval results.json --truth instances_val2017.json    # COCO results of any program
""",
    ),
    "predict": Command(
        "classify images, or find objects in them: JSON, and a labelled picture of each",
        {
            "run": RUN,
            "paths": _path("PATH", "image files, or folders (searched recursively); none: images of the "
                "evaluation", nargs="*"),
            "--samples": _number("N", "without PATH: how many images (default: 16)", default=16),
            "--out": _path("DIR", "folder for the results, without earlier ones (default: predictions)",
                default="predictions"),
            "--topk": _number("K", "classifier: classes per image (default: 5)"),
            "--score": _value("S", "detector: lowest score that is written and drawn (default: written as "
                "the run says, drawn from 0.5)", type=_fraction),
            "--max-detections": _number("N", "detector: most objects per image (default: the run's)"),
            "--truth": _path("FILE.json", "detector: COCO file with the images' ids; images that are not in "
                "it are left out"),
            "--write": _value("FORMAT", "detector: labelme writes what is drawn as LabelMe JSON into "
                "DIR/labelme/, to be corrected by hand", choices=("labelme",)),
            "--batch": _number("N", "images per step (default: 32; detectors: 4)"),
            "--device": DEVICE,
            "--max-pixels": _number("N", "refuse images with more pixels (default: 67108864)"),
            "--no-pictures": _switch("write only the JSON files"),
        },
        examples="""
botvision predict runs/first             # on validation images, beside the ground truth
botvision predict runs/first photo.jpg --out labelled
botvision predict runs/first photos/ more/cat.png --out top3 --topk 3
botvision predict runs/first photos/ --out plain --no-pictures --device cuda
botvision predict runs/shapes photos/ --out shapes --score 0.3     # a detector: also results.json
botvision predict runs/shapes photos/ --out drawn --write labelme  # labelme photos/ --output drawn/labelme
botvision predict runs/shapes val2017/ --out coco --truth instances_val2017.json --max-detections 300
""",
    ),
    "attend": Command(
        "show what attention looks at: maps of each head and block, distances, positions",
        {
            "run": RUN,
            "images": _path("IMAGE", "image files, or folders (searched recursively)", nargs="+"),
            "--at": _value("Y,X", "pixel whose cell is the query, height first; repeat it for several "
                "queries (default: the middle of what the network sees)", type=_pixel, action="append"),
            "--block": _number("K", "maps of this block alone, counted from 1 as they run (default: all)"),
            "--head": _number("H", "maps of this head alone, counted from 1 (default: all, and their mean)"),
            "--out": _path("DIR", "folder for pictures/, distance.png, position.png, attention.json "
                "(default: attention)", default="attention"),
            "--device": DEVICE,
            "--max-pixels": _number("N", "refuse images with more pixels (default: 67108864)"),
        },
        examples="""
botvision attend runs/first photo.jpg                      # from the middle of the image
botvision attend runs/first photo.jpg --at 120,85          # from row 120, column 85
botvision attend runs/first photo.jpg --at 120,85 --at 40,200 --block 3 --out attention/photo
botvision attend runs/first photos/ --head 1               # maps of one head; distances over all images
""",
    ),
    "push": Command(
        "upload a finished run to the Hugging Face Hub: the model and a card with its numbers, no photos",
        {
            "run": _path("RUN", "a run folder"),
            "repo": _value("OWNER/NAME", "the repository; a new one is private"),
            "--license": _value("ID", "licence of the weights as the hub writes it: apache-2.0, mit, "
                "cc-by-nc-4.0, other, ... (default: unknown)"),
            "--public": _switch("for everyone to see and download; needs --license"),
            "--dry-run": _switch("write what would be uploaded into RUN/hub/, and upload nothing"),
        },
        examples="""
botvision push runs/mine ada/birds --dry-run                        # look at it first: runs/mine/hub/
botvision push runs/mine ada/birds                                  # private; hf auth login comes before
botvision push runs/mine ada/birds --public --license apache-2.0
botvision predict hf-hub:ada/birds photo.jpg                        # use it, here or elsewhere
""",
    ),
    "cost": Command(
        "show what a model costs, stage by stage: parameters, multiply-adds, time of a step",
        {
            "model": _value("MODEL", "a name from botvision models, or any ResNet of timm"),
            "--size": _number("PX", "side, or height and width, in pixels (default: 224)",
                nargs="+", default=[224]),
            "--vs": _value("MODEL", "compare with a second model"),
            "--time": _switch("also time a training step"),
            "--batch": _number("N", "images in this step (default: 1)", default=1),
            "--device": _value("NAME", "device of this step (default: cpu)", default="cpu"),
            "--dtype": _value(None, "precision of this step (default: float32)",
                choices=("float32", "bfloat16"), default="float32"),
        },
        ("--model.args.key", "set an argument of MODEL, e.g. --model.args.c5_stride 1"),
        """
botvision cost botnet50 --size 1024 --vs resnet50
botvision cost botnet_s1_50 --size 224 --time --batch 8
botvision cost botnet50 --size 800 1333 --model.args.c5_blocks "[0, 1, 1]"
""",
    ),
    "compare": Command(
        "put finished runs in one table: mean and spread over seeds, difference to the first",
        {
            "runs": _path("RUN", "run folders, or folders that contain some; the first group is the "
                "baseline", nargs="+"),
            "--out": _path("FILE.md", "also write the table, and its numbers as FILE.json"),
        },
        examples="""
botvision compare runs/resnet-s0 runs/botnet-s0
botvision compare runs/resnet-s* runs/botnet-s* --out results/table.md
botvision compare runs/study-cifar-cpu/
""",
    ),
    "study": Command(
        "run the missing experiments of a study, and report; without STUDY: list all studies",
        {
            "study": _value("STUDY", "a name from botvision study, or a YAML file", nargs="?"),
            "--scale": _value("NAME", "which size of it (default: cpu; studies that come with botvision also "
                "have paper)", default="cpu"),
            "--out": _path("DIR", "folder for runs and report (default: runs/study-STUDY-SCALE)"),
            "--jobs": _number("N", "runs at a time (default: one per GPU; on a CPU, its processors divided "
                "by the threads that the study gives a run)"),
            "--reuse": _path("DIR", "use finished runs of the same configuration and data from this folder "
                "or folders in it"),
            "--report-only": _switch("run nothing, report on the finished runs"),
            "--no-photos": _switch("attention maps without the images below them, for images that must not "
                "be passed on"),
            "--no-pictures": _switch("no attention maps in the report"),
            "--dry-run": _switch("show what would be run and how long it would take"),
        },
        ("--any.key", "replace a value in the recipes of all runs, e.g. --data.root DIR; not one in which "
            "the arms differ"),
        """
botvision study                                                  # the studies, and what they take
botvision study cifar --data.root cifar10_jpeg.zip --dry-run     # what would be run, and how long
botvision study cifar --data.root cifar10_jpeg.zip --jobs 2      # the same again after an interruption
botvision study position --scale paper --data.root coco/         # one run on each GPU
botvision study my-study.yaml --out runs/mine --report-only
""",
    ),
    "recipes": Command(
        "list the recipes that come with botvision, or all values of one",
        {"recipe": _value("RECIPE", "a recipe, by name or file", nargs="?")},
        examples="""
botvision recipes
botvision recipes photos_botnet50    # every key that can be replaced, and its value
""",
    ),
    "models": Command("list the models that come with botvision", examples="botvision models"),
}
# fmt: on


class _Parser(argparse.ArgumentParser):
    """argparse without abbreviations, and with one line instead of a page when an argument is wrong."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def split_overrides(words: Iterable[str]) -> tuple[list[str], Overrides]:
    """Take `--key.sub value` and `--key.sub=value` out of the arguments, wherever they stand."""
    rest: list[str] = []
    overrides: Overrides = {}
    queue = iter(words)
    for word in queue:
        match = OVERRIDE.fullmatch(word)
        if match is None:
            rest.append(word)
            continue
        value = match["value"] if match["value"] is not None else next(queue, None)
        if value is None or (match["value"] is None and value.startswith("--")):
            raise UsageError(f"--{match['key']}: expected a value after it")
        if match["key"] in overrides:
            raise UsageError(f"--{match['key']}: given twice")
        overrides[match["key"]] = value
    return _join_values(rest), overrides


def _join_values(words: Sequence[str]) -> list[str]:
    """Join `--at -1,5`, which argparse takes for two options, into `--at=-1,5`, which it reads.

    Raises:
        UsageError: a pixel of `--at` that is written as two words.
    """
    joined: list[str] = []
    for i, word in enumerate(words):
        apart = re.fullmatch(r"--at (-?\d+),? (-?\d+)", " ".join(words[i : i + 3]))
        if apart:
            meant = f"--at {apart[1]},{apart[2]}"
            raise UsageError(f"--at: expected a pixel y,x in one word, got two; did you mean {meant}?")
        if joined and re.fullmatch(r"--[a-z-]+", joined[-1]) and re.match(r"-[\d.,]", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the arguments, options in any order, and those that are not known.

    Raises:
        SystemExit: `--help` or `--version` has printed.
        UsageError: an unknown command or wrong arguments.
    """
    parser, verbs = _build_parser()
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb is not None and verb not in MANUAL:
        close = difflib.get_close_matches(verb, MANUAL, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(MANUAL)}"
        raise UsageError(f"unknown command {verb!r}; {hint}")
    if verb is None or words[0] != verb:
        return parser.parse_known_args(words)
    args, unknown = verbs[verb].parse_known_intermixed_args(words[1:])
    args.command = verb
    return args, unknown


def _build_parser() -> tuple[_Parser, dict[str, _Parser]]:
    """The parser, and those of the commands."""
    epilog = f"{_examples(FIRST_STEPS)}\n\n{MORE}"
    parser = _Parser(prog="botvision", description=PROGRAM, epilog=epilog)
    parser.add_argument("--version", action="version", version=f"botvision {botvision.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    verbs = {}
    for name, command in MANUAL.items():
        summary, epilog = command.summary, _examples(command.examples)
        verbs[name] = subparsers.add_parser(
            name, help=summary, description=f"{name}: {summary}.", epilog=epilog
        )
        for flag, options in command.arguments.items():
            verbs[name].add_argument(flag, **options)
        if command.keys is not None:
            # For the help page alone: split_overrides takes these out before argparse sees them.
            flag, text = command.keys
            verbs[name].add_argument_group("configuration keys").add_argument(
                flag, metavar="VALUE", help=text
            )
    return parser, verbs


def means_results(args: argparse.Namespace, overrides: Overrides) -> bool:
    """Return whether `eval` is given a file of COCO results and not a run.

    Raises:
        UsageError: arguments of the one beside those of the other.
    """
    results = Path(args.run).is_file()
    own = {"--split": args.split, "--attention": args.attention, "--block": args.block}
    own |= {f"--{key}": "given" for key in overrides}
    others = {"--truth": args.truth, "--max-detections": args.max_detections, "--out": args.out}
    wrong = next((flag for flag, given in (own if results else others).items() if given), None)
    if wrong is not None:
        kind, other = ("run folder", "file") if results else ("file of COCO results", "folder")
        raise UsageError(f"{wrong}: goes with a {kind}, and {args.run} is a {other}")
    if args.block is not None and args.attention in (None, "all"):
        raise UsageError("--block: goes with one way to replace attention, such as --attention zero")
    if results and args.truth is None:
        raise UsageError(f"{args.run}: COCO results need their ground truth: --truth INSTANCES.json")
    return results


def check_study(args: argparse.Namespace, overrides: Overrides) -> None:
    """Refuse arguments of `study` that say how to run one, where none is named. Raises UsageError."""
    options = {flag: o for flag, o in MANUAL["study"].arguments.items() if flag.startswith("--")}
    values = {flag: getattr(args, flag.removeprefix("--").replace("-", "_")) for flag in options}
    given = [f"--{key}" for key in overrides]
    given += [flag for flag, value in values.items() if value not in (False, options[flag].get("default"))]
    if given and args.study is None:
        raise UsageError(f"STUDY is missing, {given[0]} goes with one; botvision study lists them")
    for flag in ("--dry-run", "--reuse", "--jobs"):
        if args.report_only and flag in given:
            raise UsageError(f"--report-only runs nothing, {flag} does not go with it")
    if args.no_photos and args.no_pictures:
        raise UsageError("--no-photos does not go with --no-pictures, which leaves all pictures out")


def dotted_hint(word: str, command: str | None) -> str:
    """Return the key that was meant by `--epochs`, which lacks its section, as the end of an error line."""
    if command != "train":
        return ""
    import dataclasses

    from botvision.config.run import CONFIGS

    name = word.removeprefix("--").split("=")[0]
    for section in (field for config in CONFIGS.values() for field in dataclasses.fields(config)):
        if dataclasses.is_dataclass(section.type) and name in {
            f.name for f in dataclasses.fields(section.type)
        }:
            return f"; did you mean --{section.name}.{name}?"
    return ""


def _examples(text: str) -> str:
    return "examples:\n" + textwrap.indent(text.strip(), "  ")
