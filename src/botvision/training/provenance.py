"""Where numbers come from: versions, hardware and commit, to be kept beside every result."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

import botvision

PACKAGES = ("torch", "torchvision", "timm", "lightning", "hotcoco", "safetensors", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Return the versions of Python, botvision and the packages that decide about numbers."""
    found = {"python": platform.python_version(), "botvision": botvision.__version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware(device: torch.device) -> str:
    """Return one line that names the device: GPU, or CPU with its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' * (threads != 1)}"


def commit() -> str | None:
    """Return the commit of the checkout this package runs from, with "+changes" where files differ from it.

    None if it runs from an installed copy or git is not there.
    """
    folder = Path(botvision.__file__).parent
    if not any((parent / ".git").exists() for parent in folder.parents[:3]):
        return None
    head = _git(folder, "rev-parse", "--short=12", "HEAD")
    if head is None:
        return None
    return head + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no", ".") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # looking must not touch the index
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
