"""Any image file, however odd, to an 8-bit RGB picture, or one line that says why not.

What is done with what has no single answer:

* EXIF (and AVIF) orientation is applied; metadata too broken to read counts as "upright".
* 16-bit greyscale is scaled by its full range (4095 for 12-bit TIFF, else 65535), never clipped.
* 32-bit integers have no agreed white: 65535 if every value lies in 0..65535, else the image's own minimum
  and maximum become black and white. Floats: 0..1 and 0..255 are taken at their word, else minimum and
  maximum; not-a-number is black.
* Transparency is composited on white.
* CMYK and YCCK become RGB by (1 - ink) (1 - black), inks as in Adobe's files; LAB by its definition (D50),
  all others as stored: embedded colour profiles are not applied.
* Animations and multi-page files give their first frame.
"""

import errno
import io
import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError
from torch import Tensor

from botvision.io.errors import DataError
from botvision.io.files import replacing

_SUFFIXES = (
    ".apng .avif .bmp .dib .gif .ico .j2c .j2k .jfif .jp2 .jpe .jpeg .jpf .jpg .jpx .mpo .pbm .pcx .pgm .png "
    ".pnm .ppm .psd .sgi .tga .tif .tiff .webp"
)
IMAGE_SUFFIXES = frozenset(_SUFFIXES.split())
_NEEDS_INTERPRETER = frozenset({"EPS", "WMF"})  # reading them starts other programs
_ORIENTATION_TAG = 0x0112
_ORIENTATION_NOTES = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
_PHOTOMETRIC_TAG = 262
_BITS_TAG = 258
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TRANSPOSING = {_UPRIGHT[orientation] for orientation in (5, 6, 7, 8)}
_STDERR_LOCK = threading.Lock()

ImageFile = str | os.PathLike[str] | bytes | IO[bytes]


class Decoded(NamedTuple):
    """A picture read from a file.

    Attributes:
        rgb: of mode "RGB".
        mode: that the file had ("L", "CMYK", "I;16", ...).
        whole: (height, width) without reduction.
    """

    rgb: Image.Image
    mode: str
    whole: tuple[int, int]


def read_image(source: ImageFile, name: str | None = None) -> Image.Image:
    """Decode an image completely and convert it to RGB as the module's text says; see `decode`."""
    return decode(source, name).rgb


def decode(source: ImageFile, name: str | None = None, *, upright: bool = True, reduce: int = 1) -> Decoded:
    """Decode an image and convert it to RGB as the module's text says.

    Args:
        source: path, the file's bytes, or a binary file at the image's start.
        name: how errors call it; the path, or "image" where there is none.
        upright: False leaves the pixels in the order in which they are stored.
        reduce: a JPEG, which is faster to decode at a fraction of its size, may come at most so many times
            smaller: 1, 2, 4 or 8. Its sides are rounded up. All else is decoded whole.

    Raises:
        DataError: one line with the name, if the file is missing, truncated, broken, too large to be decoded
            safely (Pillow's limit on pixels), or no image.
    """
    if isinstance(source, (str, os.PathLike)):
        name = str(source) if name is None else name
        if Path(source).is_dir():
            raise DataError(f"{name}: is a folder, expected an image file")
    name = "image" if name is None else name
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with _quiet(), Image.open(stream) as image:
            if image.format in _NEEDS_INTERPRETER:
                raise DataError(
                    f"{name}: {image.format} pictures are programs, expected pixels (PNG, JPEG, ...)"
                )
            mode, (width, height) = image.mode, image.size
            reduced = reduce > 1 and image.draft(None, (width // reduce or 1, height // reduce or 1))
            _load(image)
            if not reduced:  # a TIFF may have been turned
                width, height = image.size
            turn = _turn(image) if upright else None
            rgb = _to_rgb(image) if turn is None else _turned(_to_rgb(image), turn)
            return Decoded(rgb, mode, (width, height) if turn in _TRANSPOSING else (height, width))
    except DataError:
        raise
    except Exception as error:  # decoders raise nearly every type: OSError, SyntaxError, struct.error, ...
        raise DataError(f"{name}: {_reason(error, source)}") from error


def write_png(pixels: Tensor, path: Path) -> None:
    """Write uint8 (3, H, W), all of it or nothing."""
    with replacing(path) as temporary:
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(temporary, "PNG")


def is_image(source: ImageFile) -> bool:
    """Return whether the content starts like an image that Pillow knows, whatever the file is called."""
    try:
        with _quiet(), Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return image.format is not None
    except (UnidentifiedImageError, FileNotFoundError, PermissionError, IsADirectoryError):
        return False
    except Exception:  # a known header, then damage: an image, though a broken one
        return True


def has_image_suffix(name: str | os.PathLike[str]) -> bool:
    """Return whether the file's name claims to be an image."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


@contextmanager
def _quiet() -> Iterator[None]:
    """Make too large images an error and keep Pillow's other warnings and log lines from the terminal."""
    log, silent = logging.getLogger("PIL"), logging.NullHandler()
    log.addHandler(silent)  # without any handler Python prints the line itself
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        log.removeHandler(silent)


def _load(image: Image.Image) -> None:
    """Decode the pixels; libtiff writes to file descriptor 2 behind Python's back, so TIFFs go apart."""
    if image.format != "TIFF":
        image.load()
        return
    with _STDERR_LOCK, tempfile.TemporaryFile() as heard:
        try:
            terminal = os.dup(2)
        except OSError:  # a service without standard error: nothing to keep clean
            image.load()
            return
        try:
            os.dup2(heard.fileno(), 2)
            image.load()
        except Exception as error:
            heard.seek(0)
            lines = heard.read(2000).decode("utf-8", "replace").splitlines()
            if lines:
                raise OSError(f"{error} ({lines[0].removeprefix('tempfile.tif: ')})") from error
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def _reason(error: Exception, source: ImageFile) -> str:
    """One line for people: no addresses of Python objects, no file name twice."""
    if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, UnidentifiedImageError):
        return "empty file, expected an image" if _is_empty(source) else "not an image in any known format"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"{str(error).split(', could')[0].rstrip('.')}: too large to be decoded safely"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    return f"broken image ({str(error) or type(error).__name__})"


def _is_empty(source: ImageFile) -> bool:
    if isinstance(source, bytes):
        return not source
    return isinstance(source, (str, os.PathLike)) and Path(source).stat().st_size == 0


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes a loaded image upright; None if it is. Pillow turns TIFFs itself and then drops the tag."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # pixels are fine, only the note about them is broken
        return None
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _turned(rgb: Image.Image, turn: Image.Transpose) -> Image.Image:
    turned = rgb.transpose(turn)
    for note in _ORIENTATION_NOTES:  # or the next reader would turn it again
        turned.info.pop(note, None)
    return turned


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.convert("RGB") if image.readonly else image.copy()
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        exact = ImageCms.Flags.NOOPTIMIZE  # else some colours are forty grey levels off
        return ImageCms.buildTransform(lab, srgb, "LAB", "RGB", flags=exact).apply(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return _grey_to_rgb(image)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        rgba = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _grey_to_rgb(image: Image.Image) -> Image.Image:
    """Deep greyscale (modes "I;16*", "I", "F") to 8 bits by the rules of the module's text."""
    values = np.asarray(image).astype(np.float64)
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        bits = (tags.get(_BITS_TAG) or (16,))[0]
        grey = values / (2**bits - 1)
        if tags.get(_PHOTOMETRIC_TAG) == 0:  # WhiteIsZero, which Pillow honours at 8 bits only
            grey = 1 - grey
    else:
        finite = np.isfinite(values)
        values = np.where(finite, values, 0.0)
        low, high = (float(values[finite].min()), float(values[finite].max())) if finite.any() else (0.0, 0.0)
        white = 65535.0 if image.mode != "F" else 1.0 if high <= 1 else 255.0
        stretched = low < 0 or high > white
        grey = (values - low) / max(high - low, 1e-12) if stretched else values / white
        grey = np.where(finite, grey, 0.0)
    grey8 = np.rint(grey.clip(0, 1) * 255).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey8 = np.where(np.asarray(image) == clear, np.uint8(255), grey8)
    return Image.fromarray(grey8).convert("RGB")
