"""The command `push`: a finished run to the Hugging Face Hub."""

import argparse
import re
import shlex
import shutil
import tempfile
from pathlib import Path

from botvision.backbones.variants import repository
from botvision.cli.parser import UsageError
from botvision.inference.hub import FILES, upload
from botvision.tables.card import UNKNOWN, model_card

# Pictures of numbers; those with photos (sheet.png, pictures/) stay here.
PICTURES = ("curves.png", "precision_recall.png", "confusion.png")
LOOK = "hub"  # folder of --dry-run within the run's


def push(args: argparse.Namespace) -> int:
    """Upload a run's model with its card, or write what would be uploaded.

    Raises:
        ValueError: one line on what is wrong with the arguments, the run or the hub.
    """
    repo, licence = repository(args.repo), args.license or UNKNOWN
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise UsageError(f"--license: expected a licence as the hub writes it, such as mit, got {licence!r}")
    if args.public and licence == UNKNOWN:
        raise UsageError("--public: others need to know what they may do: --license apache-2.0, mit, ...")
    run = _run_folder(Path(args.run))
    with tempfile.TemporaryDirectory() as place:
        _write(run, Path(place), repo, licence)
        print(_listing(Path(place)))
        if args.dry_run:
            _replace(run / LOOK, Path(place))
            print(f"\nwritten: {run / LOOK}/; nothing was uploaded")
            return 0
        address, private = upload(Path(place), repo, public=args.public)
    seen = "private, as it was" if private and args.public else "private" if private else "public"
    print(f"\nuploaded: {address} ({seen}, license: {licence})")
    print(f'next: botvision predict hf-hub:{repo} PATH..., or in Python bv.load("hf-hub:{repo}")')
    return 0


def _run_folder(folder: Path) -> Path:
    """The folder of a finished run. Raises ValueError for any other."""
    if folder.name == "model" and (folder.parent / "summary.json").is_file():
        folder = folder.parent
    if (folder / "config.yaml").is_file() and not (folder / "summary.json").is_file():
        again = f"botvision train --out {shlex.quote(str(folder))} --resume"
        raise ValueError(f"{folder}: the run is not finished and has no numbers yet; go on with {again}")
    return folder


def _write(run: Path, folder: Path, repo: str, licence: str) -> None:
    """Write what is uploaded: the model, if it can be loaded, its card, its numbers."""
    from botvision.backbones.stored import read_description
    from botvision.inference.load import load
    from botvision.inference.predictor import find_model
    from botvision.metrics.attention_use import FILE, load_use
    from botvision.metrics.runs import read_run

    facts, use = read_run(run), load_use(run / FILE)
    load(run, device="cpu")
    source, _ = find_model(run)
    folder.mkdir(parents=True, exist_ok=True)
    for path in [*(source / name for name in FILES), *(run / name for name in ("eval.json", *PICTURES))]:
        if path.is_file() or path.name in FILES:
            shutil.copyfile(path, folder / path.name)
    description = read_description(folder / FILES[0])
    sentence = None if use is None else use.sentence()
    card = model_card(facts, description, repo=repo, licence=licence, use=sentence)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _replace(folder: Path, new: Path) -> None:
    """Put new files into the folder of an earlier dry run. Raises ValueError for one with other files."""
    known = {"README.md", "eval.json", *FILES, *PICTURES}
    there = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    foreign = sorted(set(there) - known)
    if foreign or folder.is_file():
        raise ValueError(
            f"{folder}: holds other files than a dry run writes ({', '.join(foreign[:2])}); move it"
        )
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(new, folder)


def _listing(folder: Path) -> str:
    files = sorted(folder.iterdir())
    return "\n".join(f"{path.name:<22} {path.stat().st_size / 1e6:8.2f} MB" for path in files)
