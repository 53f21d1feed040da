"""Pack what a machine without network needs for `gpu.py`: packages, photos and weights, in parts of 60 MiB.

    python benchmarks/pack.py --out packed --data photos/ --weights resnet50.safetensors
    python benchmarks/gpu.py --out results/gpu --packed packed       # there

Of the packages those of this environment that the other machine lacks are taken as they are installed here
(`--packages`; torch, torchvision and what CUDA needs are there, and Python is the same). Photos go as tar.xz,
weights gzipped: those stored in eight bits shrink to a quarter.
"""

import argparse
import gzip
import importlib.metadata
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

PART = 60 << 20  # bytes
PACKAGES = (
    *(
        "timm",
        "lightning",
        "lightning-utilities",
        "hotcoco",
        "msgspec",
        "jinja2",
        "matplotlib",
        "safetensors",
    ),
    *("pytest", "pluggy", "iniconfig", "huggingface-hub", "tqdm", "pyyaml", "pycocotools", "hypothesis"),
    *(
        "sortedcontainers",
        "contourpy",
        "cycler",
        "fonttools",
        "kiwisolver",
        "pyparsing",
        "python-dateutil",
        "six",
    ),
)


def pack(
    out: Path, data: Path | None, weights: Path | None, packages: tuple[str, ...] = PACKAGES
) -> list[Path]:
    """Write the parts, and return them; those that are there already go first.

    Raises:
        SystemExit: a package is not installed here.
    """
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.part*"):
        old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "packed.tar"
        with tarfile.open(whole, "w") as archive:
            for name in ("packages", "data", "weights"):
                made = Path(folder) / name
                if name == "packages":
                    _packages(made, packages)
                elif name == "data" and data is not None:
                    with tarfile.open(made, "w:xz") as photos:
                        photos.add(data, "data")
                elif name == "weights" and weights is not None:
                    with weights.open("rb") as source, gzip.open(made, "wb") as packed:
                        shutil.copyfileobj(source, packed)
                else:
                    continue
                archive.add(made, name)
        return _cut(whole, out)


def unpack(folder: Path) -> dict[str, str]:
    """Put the parts together, let all that is started import the packages, and say where the rest is.

    Returns:
        "data" and "weights", as far as they were packed.
    """
    import os

    place = folder / "unpacked"
    if not place.is_dir():
        with tempfile.NamedTemporaryFile() as whole:
            for part in sorted(folder.glob("packed.part*")):
                shutil.copyfileobj(part.open("rb"), whole)
            whole.flush()
            with tarfile.open(whole.name) as archive:
                archive.extractall(place, filter="data")
        with tarfile.open(place / "packages", "r:xz") as archive:
            archive.extractall(place / "site", filter="data")
        if (place / "data").is_file():
            with tarfile.open(place / "data", "r:xz") as archive:
                archive.extractall(place / "photos", filter="data")
        if (place / "weights").is_file():
            with gzip.open(place / "weights") as packed, (place / "weights.safetensors").open("wb") as target:
                shutil.copyfileobj(packed, target)
    source = Path(__file__).parent.parent / "src"
    paths = [str(source), str((place / "site").resolve()), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return {"data": str(place / "photos" / "data"), "weights": str(place / "weights.safetensors")}


def _packages(made: Path, names: tuple[str, ...]) -> None:
    """Their installed files, as they lie below site-packages."""
    with tarfile.open(made, "w:xz") as archive:
        for name in names:
            try:
                found = importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:
                sys.exit(f"pack.py: the package {name} is not installed here")
            for file in found.files or ():
                path = Path(str(found.locate_file(file)))
                if ".." not in file.parts and "__pycache__" not in file.parts and path.is_file():
                    archive.add(path, str(file))


def _cut(whole: Path, out: Path) -> list[Path]:
    parts = []
    with whole.open("rb") as source:
        while chunk := source.read(PART):
            parts.append(out / f"packed.part{len(parts):02d}")
            parts[-1].write_bytes(chunk)
    return parts


def main() -> None:
    """Pack, and say what was made."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the parts; one that git ignores")
    parser.add_argument("--data", type=Path, help="photos as class folders")
    parser.add_argument("--weights", type=Path, help="safetensors")
    parser.add_argument(
        "--packages", nargs="+", default=PACKAGES, help="default: what botvision's tests need"
    )
    args = parser.parse_args()
    for part in pack(args.out, args.data, args.weights, tuple(args.packages)):
        print(f"{part}: {part.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
