"""What the command takes and says of itself: arguments, a summary and some examples for each verb."""

import argparse
from collections.abc import Mapping
from typing import Any

# As botvision.attention.ablation has them, which imports torch; a test compares the two.
ABLATIONS = ("as-trained", "zero", "even", "own", "content", "position", "shuffled")

PROGRAM = "Bottleneck Transformers (BoTNet) and the ResNets they come from: train, use, compare."

FIRST_STEPS = """
botvision train shapes_botnet14_nano --out runs/first
botvision predict runs/first
botvision check my-data/
botvision cost botnet50 --size 1024 --vs resnet50
"""

MORE = "Each command has its own --help, and takes --traceback to show where an error came from."

SUMMARIES = {
    "check": "look through a data set before an hour is wasted: counts, sizes, broken files",
    "convert": "write labels of other tools as COCO JSON: instance masks, YOLO, Pascal VOC",
    "train": "train what a recipe says, into a run folder",
    "eval": "evaluate the weights that a run kept (train.keep: last or best), or a file of COCO results",
    "predict": "classify images, or find the objects in them: JSON, and a picture with labels for each",
    "attend": "what attention looks at in images: maps of each head and block, distances, positions",
    "cost": "what a model costs, stage by stage: parameters, multiply-adds, time of a step",
    "compare": "finished runs as one table: mean and spread over seeds, difference to the first",
    "study": "run the experiments of a study that are not there yet, and report; without STUDY: list them",
    "recipes": "list the recipes that come with botvision, or all values of one",
    "models": "list the models that come with botvision",
}

EXAMPLES = {
    "check": """
botvision check photos/              # photos/train/<class>/..., photos/val/<class>/...
botvision check cifar10_jpeg.zip     # the same inside a zip
botvision check coco/                # COCO: annotations/instances_train*.json, train*/, val*/
botvision check coco/ --data.train_annotations cats.json --data.train_images pictures
botvision check holiday/             # any folder of images
""",
    "convert": """
botvision convert masks cells/ --category cell   # images/a.jpg, masks/a.png with a number for each cell
botvision convert yolo cars/ --part images/train # images/train/a.jpg, labels/train/a.txt, data.yaml
botvision convert voc VOC2012/ --out voc.json    # JPEGImages/, Annotations/*.xml
""",
    "train": """
botvision train shapes_botnet14_nano --out runs/first               # a detector, on drawn shapes
botvision train objects_botnet50 --data.root data/ --out runs/mine  # data/annotations/*.json and images
botvision train cifar10_botnet50 --data.root data/ --train.epochs 20 --train.seed 1
botvision train my-recipe.yaml --out runs/mine --model.args.position absolute
botvision train --out runs/mine --resume
""",
    "eval": """
botvision eval runs/first
botvision eval runs/mine --split test
botvision eval runs/first --data.root elsewhere/
botvision eval runs/first --attention all                     # does it use its attention? in a table
botvision eval runs/first --attention zero --block 2          # without the attention of the second block
botvision eval runs/cells --model.detector.detections 400     # a detector: more objects of an image
botvision eval results.json --truth instances_val2017.json    # COCO results, whoever made them
""",
    "predict": """
botvision predict runs/first             # on images it was evaluated on, beside the truth
botvision predict runs/first photo.jpg
botvision predict runs/first photos/ more/cat.png --out labelled --topk 3
botvision predict runs/first photos/ --no-pictures --device cuda
botvision predict runs/shapes photos/ --score 0.3        # a detector: results.json for COCO's tools, too
botvision predict runs/shapes val2017/ --truth annotations/instances_val2017.json --max-detections 300
""",
    "attend": """
botvision attend runs/first photo.jpg                      # from the middle of the image
botvision attend runs/first photo.jpg --at 120,85          # from row 120, column 85
botvision attend runs/first photo.jpg --at 120,85 --at 40,200 --block 3 --out attention/photo
botvision attend runs/first photos/ --head 1               # maps of one head; distances over all images
""",
    "cost": """
botvision cost botnet50 --size 1024 --vs resnet50
botvision cost botnet_s1_50 --size 224 --time --batch 8
botvision cost botnet50 --size 800 1333 --model.args.c5_blocks "[0, 1, 1]"
""",
    "compare": """
botvision compare runs/resnet-s0 runs/botnet-s0
botvision compare runs/resnet-s* runs/botnet-s* --out results/table.md
botvision compare runs/study-cifar-cpu/
""",
    "study": """
botvision study                                                  # which there are, what they take
botvision study cifar --data.root cifar10_jpeg.zip --dry-run     # what would be run, and how long
botvision study cifar --data.root cifar10_jpeg.zip --jobs 2      # again after an interruption: it goes on
botvision study position --scale paper --data.root coco/         # one run on each GPU
botvision study my-study.yaml --out runs/mine --report-only
""",
    "recipes": """
botvision recipes
botvision recipes photos_botnet50    # every key that can be replaced, with its value
""",
    "models": "botvision models",
}

HELP = {
    "check data": "folder with COCO annotations; folder or zip with train/<class>/...; any folder of images",
    "convert kind": "masks, yolo or voc: what lies beside the images",
    "convert folder": "the data set; the images stay where they are",
    "convert --out": "the JSON to write (default: FOLDER/annotations/instances_train.json)",
    "convert --part": "only images below this folder of FOLDER, such as images/train",
    "convert --category": "masks: what the objects are called (default: object)",
    "recipes recipe": "a recipe, by name or file",
    "study study": "a name that botvision study lists, or a YAML file",
    "study --scale": "which of its sizes (default: cpu; those that come with botvision have paper, too)",
    "study --out": "folder for all of it (default: runs/study-STUDY-SCALE)",
    "study --jobs": "runs at a time (default: one a GPU; on a CPU its processors divided by the threads that "
    "the study gives a run)",
    "study --report-only": "report on the runs that are finished, run nothing",
    "study --reuse": "take finished runs of the same configuration and data from below this folder",
    "study --no-photos": "attention maps without the images below them: where those must not be passed on",
    "study --no-pictures": "no attention in the report",
    "study --dry-run": "say what would be run and how long it would take",
    "train recipe": "a name that botvision recipes lists, or a YAML file; not needed with --resume and --out",
    "train --out": "run folder (default: runs/RECIPE-sSEED)",
    "train --resume": "go on from the last checkpoint, exactly, with the run's own config.yaml",
    "eval run": "a run folder of botvision train, or a JSON file of COCO results",
    "eval --split": "which images of the run's data (default: val)",
    "eval --attention": "replace what attention gives, without retraining: zero; even (all weights equal); "
    "own (every cell sees itself alone); content or position (these logits alone); shuffled (every cell gets "
    "what another one asked for); as-trained (nothing); all: a table of these, and of each block alone",
    "eval --block": "replace it in this block alone, numbered from 1 (default: in all)",
    "eval --truth": "COCO instances to hold the results against",
    "eval --max-detections": "of one class in one image of the results that count (default: 100)",
    "eval --out": "folder for RESULTS-eval.json and RESULTS-pr.png (default: beside the results)",
    "predict run": "a run folder, or the model/ folder in it",
    "predict paths": "image files, or folders (searched to the bottom); none: images of the evaluation",
    "predict --samples": "number of these, without PATH (default: 16)",
    "predict --out": "folder for the results (default: predictions)",
    "predict --topk": "classifier: classes for each image (default: 5)",
    "predict --score": "detector: least score of what is written and drawn (default: the run's, and 0.5)",
    "predict --max-detections": "detector: most objects of an image (default: the run's)",
    "predict --truth": "detector: COCO file that has the images' ids; images that are not in it are left out",
    "predict --batch": "images a step (default: 32; a detector 4)",
    "predict --device": "cpu, cuda, ... (default: a GPU if there is one)",
    "predict --no-pictures": "write the JSON files alone",
    "attend run": "a run folder, or the model/ folder in it",
    "attend images": "image files, or folders (searched to the bottom)",
    "attend --at": "pixel whose cell is the query, height first; several times for several queries (default: "
    "the middle of what the network sees)",
    "attend --block": "maps of this block alone, numbered from 1 as they run (default: all)",
    "attend --head": "maps of this head alone, numbered from 1 (default: all, and their mean)",
    "attend --out": "folder for pictures/, distance.png, position.png, attention.json (default: attention)",
    "attend --device": "cpu, cuda, ... (default: a GPU if there is one)",
    "cost model": "a name that botvision models lists, or any ResNet of timm",
    "cost --size": "side, or height and width, in pixels (default: 224)",
    "cost --vs": "set a second model beside it",
    "cost --time": "measure a training step, too",
    "cost --batch": "images in that step (default: 1)",
    "cost --device": "where it is measured (default: cpu)",
    "cost --dtype": "precision of that step (default: float32)",
    "compare runs": "run folders, or folders that hold some; the first one's group is the baseline",
    "compare --out": "write the table, and the same as FILE.json",
}

# Commands that take configuration keys: how these look on the help page, and what they are.
KEYS = {
    "check": ("--data.key", "a value of the data's configuration, e.g. --data.train_annotations FILE"),
    "train": ("--any.key", "replaces a value of the recipe, e.g. --train.epochs 3"),
    "eval": (
        "--data.key",
        "replaces a value of the data, e.g. --data.root DIR; of a detector --model.detector.detections, "
        ".score_threshold and .nms, too",
    ),
    "study": (
        "--any.key",
        "replaces a value of the recipes of all runs, e.g. --data.root DIR; not one in which the arms differ",
    ),
    "cost": ("--model.args.key", "an argument of MODEL, e.g. --model.args.c5_stride 1"),
}


def positive(text: str) -> int:
    value = int(text)  # argparse names the argument when this raises
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def pixel(text: str) -> tuple[int, int]:
    row, found, column = text.partition(",")
    if not (found and row.strip().isdecimal() and column.strip().isdecimal()):
        raise argparse.ArgumentTypeError(f"expected a pixel y,x such as 120,85, from 0,0 on, got {text!r}")
    return int(row), int(column)


def fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1, got {text}")
    return value


ARGUMENTS: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "check": {"data": {"metavar": "DATA"}},
    "convert": {
        "kind": {"metavar": "KIND", "choices": ("masks", "yolo", "voc")},
        "folder": {"metavar": "FOLDER"},
        "--out": {"metavar": "FILE.json"},
        "--part": {"metavar": "SUBFOLDER", "default": ""},
        "--category": {"metavar": "NAME", "default": "object"},
    },
    "train": {
        "recipe": {"metavar": "RECIPE", "nargs": "?"},
        "--out": {"metavar": "DIR"},
        "--resume": {"action": "store_true"},
    },
    "eval": {
        "run": {"metavar": "RUN"},
        "--split": {"choices": ("val", "test", "train")},
        "--attention": {"metavar": "HOW", "choices": (*ABLATIONS, "all")},
        "--block": {"metavar": "K", "type": positive},
        "--truth": {"metavar": "FILE.json"},
        "--max-detections": {"metavar": "N", "type": positive},
        "--out": {"metavar": "DIR"},
    },
    "predict": {
        "run": {"metavar": "RUN"},
        "paths": {"metavar": "PATH", "nargs": "*"},
        "--samples": {"metavar": "N", "type": positive, "default": 16},
        "--out": {"metavar": "DIR", "default": "predictions"},
        "--topk": {"metavar": "K", "type": positive},
        "--score": {"metavar": "S", "type": fraction},
        "--max-detections": {"metavar": "N", "type": positive},
        "--truth": {"metavar": "FILE.json"},
        "--batch": {"metavar": "N", "type": positive},
        "--device": {"metavar": "NAME", "default": "auto"},
        "--no-pictures": {"action": "store_true"},
    },
    "attend": {
        "run": {"metavar": "RUN"},
        "images": {"metavar": "IMAGE", "nargs": "+"},
        "--at": {"metavar": "Y,X", "type": pixel, "action": "append"},
        "--block": {"metavar": "K", "type": positive},
        "--head": {"metavar": "H", "type": positive},
        "--out": {"metavar": "DIR", "default": "attention"},
        "--device": {"metavar": "NAME", "default": "auto"},
    },
    "cost": {
        "model": {"metavar": "MODEL"},
        "--size": {"metavar": "PX", "nargs": "+", "type": positive, "default": [224]},
        "--vs": {"metavar": "MODEL"},
        "--time": {"action": "store_true"},
        "--batch": {"metavar": "N", "type": positive, "default": 1},
        "--device": {"metavar": "NAME", "default": "cpu"},
        "--dtype": {"choices": ("float32", "bfloat16"), "default": "float32"},
    },
    "compare": {"runs": {"metavar": "RUN", "nargs": "+"}, "--out": {"metavar": "FILE.md"}},
    "study": {
        "study": {"metavar": "STUDY", "nargs": "?"},
        "--scale": {"metavar": "NAME", "default": "cpu"},
        "--out": {"metavar": "DIR"},
        "--jobs": {"metavar": "N", "type": positive},
        "--reuse": {"metavar": "DIR"},
        "--report-only": {"action": "store_true"},
        "--no-photos": {"action": "store_true"},
        "--no-pictures": {"action": "store_true"},
        "--dry-run": {"action": "store_true"},
    },
    "recipes": {"recipe": {"metavar": "RECIPE", "nargs": "?"}},
}
