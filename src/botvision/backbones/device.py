"""Where a network runs, by name."""

import torch


def pick_device(name: str, key: str = "device") -> torch.device:
    """Return the device of that name.

    Args:
        name: "auto" (a GPU of CUDA if there is one, else the CPU), "cpu", "cuda", "cuda:1", "mps", or what
            else torch knows.
        key: what the error calls it.

    Raises:
        ValueError: one line; there is no such device here.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"{key}: expected auto, cpu, cuda, cuda:1, ... or mps, got {name!r}") from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):  # builds without CUDA assert
        here = {0: "torch sees no GPU; use auto or cpu", 1: "torch sees one GPU, cuda:0"}
        seen = here.get(gpus, f"torch sees {gpus} GPUs, cuda:0 to cuda:{gpus - 1}")
        seen = seen if device.type == "cuda" else "torch sees none of that kind"
        raise ValueError(f"{key}: {name} was asked for, but {seen}") from None
    return device
