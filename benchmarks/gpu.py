"""Everything that wants a GPU, in the order of its worth, each stage with its own time and its own files.

    python benchmarks/gpu.py --out results/gpu                       # all stages: about 14 minutes
    python benchmarks/gpu.py --out results/gpu --stages tests kernels
    python benchmarks/gpu.py --out results/gpu --budget 600          # no stage begins that would end later
    python benchmarks/gpu.py --out /tmp/toy --toy                    # every stage on a CPU at toy size
    python benchmarks/gpu.py --out $OUT --packed packed              # on a bare machine: what pack.py made

A stage is a command of its own, so that one that fails or runs out of time costs no other. OUT/gpu.json says
how each went and is written anew after each, and so is OUT/gpu.tar.gz with all files of all stages. What is
there already is not made again.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from botvision.io.files import replacing, write_json

HERE = Path(__file__).parent
PYTHON = sys.executable


@dataclass(frozen=True)
class Stage:
    """What is run.

    Attributes:
        name: also of its folder in OUT.
        seconds: after which it is ended.
        commands: run one after the other in the checkout, up to the first that fails; "{out}" is the stage's
            folder, "{data}" and "{weights}" what was packed.
        toy: the same on a CPU, in seconds.
    """

    name: str
    seconds: int
    commands: Sequence[Sequence[str]]
    toy: Sequence[Sequence[str]]


@dataclass
class Outcome:
    """How a stage went: "passed", "failed", "out of time", or why it was left out; and its last lines."""

    name: str
    how: str
    seconds: float = 0.0
    said: list[str] = field(default_factory=list)


def _script(name: str, *words: str) -> list[str]:
    return [PYTHON, str(HERE / f"{name}.py"), "--out", "{out}", *words]


def _training(recipes: Sequence[str], *words: str) -> list[list[str]]:
    """A ResNet and its BoTNet, each trained, then the latter with its attention replaced."""
    command = [PYTHON, "-m", "botvision"]
    runs = [f"{{out}}/{recipe}" for recipe in recipes]
    trained = [
        [*command, "train", recipe, "--out", run, *words] for recipe, run in zip(recipes, runs, strict=True)
    ]
    return [*trained, [*command, "eval", runs[-1], "--attention", "all"]]


_PHOTOS = _training(
    ("photos_resnet50", "photos_botnet50"),
    *("--data.root", "{data}", "--model.weights", "{weights}"),
    *("--train.epochs", "6", "--train.precision", "bf16-mixed"),
)
_DRAWN = _training(
    ("generated_resnet14_nano", "generated_botnet14_nano"),
    *("--data.num_images", "8", "--data.num_val_images", "4", "--data.image_size", "32"),
    *("--train.epochs", "1", "--train.batch_size", "4"),
)
_SMOKE = ("--smoke", "--device", "cpu", "--seconds", "0.01")
_TESTS = [PYTHON, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
STAGES = (
    Stage("tests", 150, [_TESTS], [_TESTS]),
    Stage(
        "kernels",
        150,
        [
            _script(
                "attention",
                "--device",
                "cuda",
                "--parts",
                "time",
                "--grids",
                "14",
                "32",
                "64",
                "--seconds",
                "0.5",
            )
        ],
        [_script("attention", *_SMOKE, "--parts", "time")],
    ),
    Stage(
        "networks",
        150,
        [_script("backbones", "--device", "cuda", "--sizes", "224", "1024", "--seconds", "2")],
        [_script("backbones", *_SMOKE, "--parts", "time")],
    ),
    Stage("training", 180, _PHOTOS, _DRAWN),
    Stage(
        "detectors",
        100,
        [_script("mask_rcnn", "--device", "cuda", "--sizes", "1024", "--parts", "time", "--seconds", "4")],
        [_script("mask_rcnn", *_SMOKE, "--parts", "time")],
    ),
    Stage(
        "memory",
        90,
        [_script("attention", "--device", "cuda", "--parts", "memory", "--grids", "64")],
        [_script("attention", *_SMOKE, "--parts", "memory")],
    ),
    Stage("sam", 60, [_script("sam", "--device", "cuda")], [_script("sam", *_SMOKE)]),
)


def main() -> None:
    """Run the stages that are asked for and not there yet."""
    args = _arguments().parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    began, places = time.monotonic(), _places(args)
    outcomes = _before(out)
    for stage in STAGES:
        if stage.name not in args.stages or outcomes.get(stage.name, Outcome("", "")).how == "passed":
            continue
        left = args.budget - (time.monotonic() - began)
        if stage.name == "training" and not (args.toy or places):
            outcomes[stage.name] = Outcome(stage.name, "left out: needs --data and --weights, or --packed")
        elif left < 20:
            outcomes[stage.name] = Outcome(stage.name, f"left out: {max(0, left):.0f} s were left")
        else:
            outcomes[stage.name] = _run(
                stage, out, places, args.toy, min(stage.seconds * (4 if args.toy else 1), left)
            )
        found = outcomes[stage.name]
        print(f"{stage.name}: {found.how}, {found.seconds:.0f} s", *found.said[-3:], sep="\n  ", flush=True)
        write_json(out / "gpu.json", [asdict(each) for each in outcomes.values()])
        _tar(out)
    sys.exit(0 if all(each.how == "passed" for each in outcomes.values()) else 1)


def _run(stage: Stage, out: Path, places: dict[str, str], toy: bool, seconds: float) -> Outcome:
    """One stage; its whole output is OUT/NAME/output.txt."""
    folder, began = out / stage.name, time.monotonic()
    folder.mkdir(exist_ok=True)
    how, environment = "passed", dict(os.environ)
    if toy:
        environment["BOTVISION_GPU_TESTS"] = "cpu"
    with (folder / "output.txt").open("w") as output:
        for command in stage.toy if toy else stage.commands:
            words = [word.format(out=folder, **places) for word in command]
            process = subprocess.Popen(
                words, cwd=HERE.parent, env=environment, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            try:
                code = process.wait(max(1.0, seconds - (time.monotonic() - began)))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that it has started
                process.wait()
                how = "out of time"
                break
            if code != 0:
                how = f"failed: exit code {code}"
                break
    said = (folder / "output.txt").read_text(errors="replace").splitlines()[-12:]
    return Outcome(stage.name, how, round(time.monotonic() - began, 1), said)


def _before(out: Path) -> dict[str, Outcome]:
    path = out / "gpu.json"
    return {each["name"]: Outcome(**each) for each in json.loads(path.read_text())} if path.is_file() else {}


def _tar(out: Path) -> None:
    """All files but weights and checkpoints, in one: so they come back from where few files do."""
    with replacing(out / "gpu.tar.gz") as temporary, tarfile.open(temporary, "w:gz") as archive:
        for path in sorted(out.rglob("*")):
            heavy = path.suffix in (".ckpt", ".safetensors", ".gz", ".tmp")
            if path.is_file() and not heavy:
                archive.add(path, path.relative_to(out))


def _places(args: argparse.Namespace) -> dict[str, str]:
    """What was packed, unpacked and installed; elsewhere what the command line names."""
    if args.packed is not None:
        from pack import unpack

        return unpack(args.packed)
    given = args.data is not None and args.weights is not None
    return {"data": str(args.data.resolve()), "weights": str(args.weights.resolve())} if given else {}


def _arguments() -> argparse.ArgumentParser:
    names = [stage.name for stage in STAGES]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--stages", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--budget", type=float, default=840, help="seconds for all (default: %(default)s)")
    parser.add_argument("--toy", action="store_true", help="on a CPU, everything small")
    parser.add_argument("--packed", type=Path, help="folder that pack.py has made")
    parser.add_argument("--data", type=Path, help="photos of the stage training, as class folders")
    parser.add_argument("--weights", type=Path, help="ImageNet weights of a ResNet-50, for the same stage")
    return parser


if __name__ == "__main__":
    main()
