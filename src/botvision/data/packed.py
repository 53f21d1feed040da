"""RGB pictures with 32 bits a pixel: red, green, blue, and a byte without meaning.

This is how Pillow holds them. Resampling with all channels of a pixel side by side is several times faster
than plane by plane, and four bytes can be taken apart and turned as one number, three cannot.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_SHIFTS = (0, 8, 16)  # red is the lowest byte: numbers are read as little-endian wherever this runs


def pack(picture: Image.Image | Tensor) -> Tensor:
    """A picture to uint8 (H, W, 4), new memory.

    Args:
        picture: of mode "RGB", or uint8 (3, H, W).
    """
    if isinstance(picture, Image.Image):
        memory = bytearray(picture.tobytes("raw", "RGBX"))
        return torch.frombuffer(memory, dtype=torch.uint8).view(picture.height, picture.width, 4)
    planes = picture.numpy()
    words = planes[0].astype("<u4")
    for plane, shift in zip(planes[1:], _SHIFTS[1:], strict=True):
        words |= plane.astype("<u4") << np.uint32(shift)
    return torch.from_numpy(words.view(np.uint8)).view(*planes.shape[1:], 4)


def unpack(packed: Tensor, mirrored: bool = False) -> Tensor:
    """uint8 (H, W, 4), whose rows may lie apart, to uint8 (3, H, W), new memory, contiguous.

    Args:
        packed: the picture.
        mirrored: left to right.
    """
    if mirrored:
        packed = packed.view(torch.int32).flip(1).view(torch.uint8)
    words = packed.numpy().view("<u4")[..., 0]
    planes = np.empty((3, *words.shape), dtype=np.uint8)
    for plane, shift in zip(planes, _SHIFTS, strict=True):
        np.right_shift(words, np.uint32(shift), out=plane, casting="unsafe")  # keeps the lowest byte
    return torch.from_numpy(planes)
