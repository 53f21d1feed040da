"""How many images fit into a GPU's memory at once: tried by whole steps, not computed."""

import gc
import math
from collections.abc import Callable

import torch

from botvision.io.errors import lacks_memory

# Batches of a detector hold other images and objects each time, and other programs may need a little.
RESERVE = 0.1
# Whatever fits: larger batches leave an epoch too few steps.
LEAST_BATCHES, MOST_IMAGES = 16, 1024


class BatchTooLargeError(ValueError):
    """A batch does not fit into a GPU's memory; one line with what does."""


def largest_batch(trial: Callable[[int], Callable[[], object]], most: int) -> int:
    """Return the largest batch whose steps fit into memory, found to an eighth, less a reserve.

    Args:
        trial: takes a number of images and returns an optimiser step of that many, made from nothing.
        most: images that are not exceeded, 1 or more.

    Returns:
        Images a batch; from 16 on a multiple of 8. 0 if not even one fits.
    """
    fits, too_many = 0, most + 1
    while too_many - fits > max(1, fits // 8):
        images = (fits + too_many) // 2 if too_many <= most else min(max(2, 2 * fits), most)
        if _fits(trial, images):
            fits = images
        else:
            too_many = images
    if fits < most:
        fits = max(math.floor((1 - RESERVE) * fits), min(fits, 1))
    return fits if fits < 16 else fits // 8 * 8


def _fits(trial: Callable[[int], Callable[[], object]], images: int) -> bool:
    enough = True
    try:
        step = trial(images)
        for _ in range(2):  # the first makes the optimiser's state
            step()
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        enough = False
    step = None  # before the next trial, which needs the room
    release()
    return enough


def release() -> None:
    """Give back the memory of what nobody holds any longer."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def most_images(images: int) -> int:
    """Return the largest batch worth trying on so many training images."""
    return max(1, min(MOST_IMAGES, images // LEAST_BATCHES))


def describe(device: torch.device) -> str:
    """Return the name of a GPU, how much memory it has and how much of that is free, in GB (1e9 bytes)."""
    free, whole = torch.cuda.mem_get_info(device)
    return f"{torch.cuda.get_device_name(device)}: {whole / 1e9:.1f} GB, {free / 1e9:.1f} GB of it free"


def advice(batch: int, accumulate: int, fitting: int) -> str:
    """Return which keys make an optimiser step of as many images from batches that fit, or about as many."""
    images = batch * accumulate
    smaller = max(n for n in range(1, fitting + 1) if images % n == 0)
    smaller = smaller if 2 * smaller >= fitting else fitting
    times = math.ceil(images / smaller)
    step = f"{'' if smaller * times == images else 'about '}{images} images a step"
    return f"--train.batch_size {smaller} --train.accumulate {times} has {step}"
