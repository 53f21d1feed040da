"""Any image file, however odd, to an 8-bit RGB picture, or one line that says why not.

What is done with what has no single answer:

* EXIF (and AVIF) orientation is applied; metadata too broken to read counts as "upright".
* 16-bit values are scaled, never clipped: white is 4095 in an image that has none above it, as cameras of
  12 bits write them, else 65535.
* 32-bit integers have no agreed white: 4095 or 65535 as above if every value lies in 0..65535, else the
  image's own minimum and maximum become black and white. Floats: 0..1 and 0..255 are taken at their word,
  else minimum and maximum; not-a-number is black.
* Transparency is composited on white, unless nothing but that would be seen. A fourth band of a TIFF which no
  tag calls transparency (such as near infrared) is left out.
* CMYK and YCCK become RGB by (1 - ink) (1 - black), inks as in Adobe's files; LAB by its definition (D50),
  all others as stored: embedded colour profiles are not applied.
* Animations and multi-page files give their first frame.

What was chosen so for one image, and would matter if it was the wrong choice, stands in `Decoded.choices`.
"""

import errno
import functools
import io
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError
from torch import Tensor

from botvision.config.data import MAX_PIXELS
from botvision.data.left_out import Choices
from botvision.io.errors import DataError
from botvision.io.files import replacing, require_regular

_LEAST_REDUCED = 64  # pixels a side: fewer tell pictures no longer apart
_SUFFIXES = (
    ".apng .avif .bmp .dib .gif .ico .j2c .j2k .jfif .jp2 .jpe .jpeg .jpf .jpg .jpx .mpo .pbm .pcx .pgm .png "
    ".pnm .ppm .psd .sgi .tga .tif .tiff .webp"
)
IMAGE_SUFFIXES = frozenset(_SUFFIXES.split())
HEIC, RAW = "HEIC, without pillow-heif", "camera raw"
_UNREAD = {
    HEIC: ".heic .heif .hif",
    RAW: ".3fr .arw .cr2 .cr3 .dng .nef .nrw .orf .pef .raf .rw2 .srw",  # Pillow reads the thumbnail in some
    "JPEG XL": ".jxl", "AVIF": ".avif", "DICOM": ".dcm", "OpenEXR": ".exr", "SVG": ".svg",
}  # fmt: skip
_HEIC_BRANDS = frozenset(b"ftyp" + brand for brand in b"heic heix heim heis hevc hevx mif1 msf1".split())
_KIND_UNREAD = {suffix: kind for kind, suffixes in _UNREAD.items() for suffix in suffixes.split()}
_NEEDS_INTERPRETER = frozenset({"EPS", "WMF"})  # reading them starts other programs
_ORIENTATION_TAG = 0x0112
_ORIENTATION_NOTES = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
_PHOTOMETRIC_TAG, _BITS_TAG, _SAMPLES_TAG, _EXTRA_SAMPLES_TAG, _SUBFILE_TAG = 262, 258, 277, 338, 254
_WHITE_OF_12_BITS = 4095
_MORE_PIXELS = "(predict --max-pixels or data.max_pixels allows more)"
_MORE_BANDS = "of more bands than red, green, blue, which are not called transparency and not used"
_MOST_PAGES = 1000  # that are counted
_OTHER_HALF = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
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
        choices: what was chosen without being asked, and the particulars, as `Choices` collects them.
    """

    rgb: Image.Image
    mode: str
    whole: tuple[int, int]
    choices: dict[str, str]


def read_image(
    source: ImageFile,
    name: str | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    choices: Choices | None = None,
) -> Image.Image:
    """Decode an image completely and convert it to RGB as the module's text says; see `decode`.

    What was chosen without being asked is added to `choices`.
    """
    found = decode(source, name, max_pixels=max_pixels)
    if choices is not None:
        choices.take(found.choices, str(name or (source if isinstance(source, str | Path) else "image")))
    return found.rgb


def decode(
    source: ImageFile,
    name: str | None = None,
    *,
    upright: bool = True,
    reduce: int = 1,
    max_pixels: int = MAX_PIXELS,
) -> Decoded:
    """Decode an image and convert it to RGB as the module's text says.

    Args:
        source: path, the file's bytes, or a binary file at the image's start.
        name: how errors call it; the path, or "image" where there is none.
        upright: False leaves the pixels in the order in which they are stored.
        reduce: a JPEG, which is faster to decode at a fraction of its size, may come at most so many times
            smaller: 1, 2, 4 or 8, but with no side below 64 pixels. Its sides are rounded up. All else is
            decoded whole.
        max_pixels: larger images are refused before anything is decoded.

    Raises:
        DataError: one line with the name, if the file is missing, truncated, broken, too large, no image, or
            no regular file (pipes and devices are not waited for).
    """
    if isinstance(source, (str, os.PathLike)):
        name = str(source) if name is None else name
        if Path(source).is_dir():
            raise DataError(f"{name}: is a folder, expected an image file")
        require_regular(source, name)
    name = "image" if name is None else name
    called = source if isinstance(source, (str, os.PathLike)) else name
    if kind_unread(called) == RAW and not _is_empty(source):
        raise DataError(f"{name}: {RAW}, which cannot be read, expected a developed picture")
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    _allow(max_pixels)
    _register_heif()
    try:
        with _quiet(), Image.open(stream) as image:
            _refuse(image, name, max_pixels)
            mode, (width, height), deep = image.mode, image.size, _is_deep(image)
            choices: dict[str, str] = {}
            reduced = reduce > 1 and image.draft(
                None, (max(width // reduce, _LEAST_REDUCED), max(height // reduce, _LEAST_REDUCED))
            )
            _load(image)
            if not reduced:  # a TIFF may have been turned
                width, height = image.size
            turn = _turn(image) if upright else None
            rgb = _to_rgb(image, choices)
            if deep and "transparency" not in image.info and rgb.mode == "RGB":
                rgb = _brightened(rgb, image, stream, choices)
            rgb = rgb if turn is None else _turned(rgb, turn)
            _note_pages(image, choices)  # last: it moves on in the file
            size = (width, height) if turn in _TRANSPOSING else (height, width)
            return Decoded(rgb, mode, size, choices)
    except DataError:
        raise
    except Exception as error:  # decoders raise nearly every type: OSError, SyntaxError, struct.error, ...
        raise DataError(f"{name}: {_reason(error, source, called)}") from error


def write_png(pixels: Tensor, path: Path) -> None:
    """Write uint8 (3, H, W), all of it or nothing."""
    with replacing(path) as temporary:
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(temporary, "PNG")


def is_image(source: ImageFile) -> bool:
    """Return whether the content starts like an image that Pillow knows, whatever the file is called."""
    if isinstance(source, str | os.PathLike) and not (Path(source).is_file() and Path(source).stat().st_size):
        return False  # nothing to read, or what would never end
    _register_heif()
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


def kind_unread(name: str | os.PathLike[str]) -> str | None:
    """Return what a file's name says it is, if that is a picture which Pillow alone does not read."""
    return _KIND_UNREAD.get(Path(name).suffix.lower())


@functools.cache
def _register_heif() -> None:
    """Have Pillow read HEIC, where the package for it is installed."""
    with suppress(ImportError):
        from pillow_heif import register_heif_opener  # pyrefly: ignore[missing-import]

        register_heif_opener()


def _allow(max_pixels: int) -> None:
    """Raise Pillow's own limit, that of the whole process, if larger images are asked for."""
    if max_pixels > max(MAX_PIXELS, Image.MAX_IMAGE_PIXELS or max_pixels):
        Image.MAX_IMAGE_PIXELS = max_pixels


def _refuse(image: Image.Image, name: str, max_pixels: int) -> None:
    """Raise DataError for an image that must not be decoded."""
    if image.format in _NEEDS_INTERPRETER:
        raise DataError(f"{name}: {image.format} pictures are programs, expected pixels (PNG, JPEG, ...)")
    if image.width * image.height > max_pixels:
        raise DataError(
            f"{name}: {image.height} x {image.width} pixels (height x width), too large to be decoded "
            f"safely: more than {max_pixels / 1e6:.4g} million {_MORE_PIXELS}"
        )


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


def _reason(error: Exception, source: ImageFile, called: str | os.PathLike[str]) -> str:
    """One line for people: no addresses of Python objects, no file name twice."""
    if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, UnidentifiedImageError):
        if _is_empty(source):
            return "empty file, expected an image"
        kind = HEIC if _beginning(source)[4:] in _HEIC_BRANDS else kind_unread(called)
        return f"cannot be read ({kind})" if kind else "not an image in any known format"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"{str(error).partition(' exceeds')[0]}: too large to be decoded safely {_MORE_PIXELS}"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    return f"broken image ({str(error) or type(error).__name__})"


def _is_empty(source: ImageFile) -> bool:
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return path.is_file() and path.stat().st_size == 0
    return not _beginning(source)


def _beginning(source: ImageFile) -> bytes:
    """The first 12 bytes, with which a file says what it is; a binary file is left at its start."""
    if isinstance(source, bytes):
        return source[:12]
    with Path(source).open("rb") if isinstance(source, (str, os.PathLike)) else nullcontext(source) as file:
        file.seek(0)
        found = file.read(12)
        file.seek(0)
        return found


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


def _note_pages(image: Image.Image, choices: dict[str, str]) -> None:
    """Say how many pages or frames there are; previews beside a photo and layers of a drawing are none."""
    if image.format in ("MPO", "PSD") or not getattr(image, "is_animated", False):
        return
    pages = 1
    with suppress(Exception):  # whatever comes behind the picture that was read may be broken
        if image.format == "TIFF":
            for number in range(1, _MOST_PAGES):  # smaller copies and masks are no pages
                image.seek(number)
                pages += not getattr(image, "tag_v2", {}).get(_SUBFILE_TAG, 0) & 5
        else:
            pages = image.n_frames  # pyrefly: ignore[missing-attribute]
    if pages > 1:
        choices["with several pages or frames, of which the first is used"] = f"{pages:,}"


def _to_rgb(image: Image.Image, choices: dict[str, str]) -> Image.Image:
    tags = getattr(image, "tag_v2", {})
    more = image.mode == "RGBA" and image.format == "TIFF" and _EXTRA_SAMPLES_TAG not in tags
    if more or (image.mode == "RGB" and tags.get(_PHOTOMETRIC_TAG) == 2 and tags.get(_SAMPLES_TAG, 3) > 3):
        choices[_MORE_BANDS] = ""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.convert("RGB") if image.readonly else image.copy()
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        exact = ImageCms.Flags.NOOPTIMIZE  # else some colours are forty grey levels off
        return ImageCms.buildTransform(lab, srgb, "LAB", "RGB", flags=exact).apply(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return _grey_to_rgb(image, choices)
    if not more and (image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info):
        rgba = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        if rgba.getchannel("A").getextrema()[1] == 0:
            choices["transparent everywhere, whose colours are used"] = ""
            return rgba.convert("RGB")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _grey_to_rgb(image: Image.Image, choices: dict[str, str]) -> Image.Image:
    """Deep greyscale (modes "I;16*", "I", "F") to 8 bits by the rules of the module's text."""
    values = np.asarray(image).astype(np.float64)
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        bits = (tags.get(_BITS_TAG) or (16,))[0]
        grey = values / (2**bits - 1 if bits != 16 else _white_of(values.max(initial=0), choices))
        if tags.get(_PHOTOMETRIC_TAG) == 0:  # WhiteIsZero, which Pillow honours at 8 bits only
            grey = 1 - grey
    else:
        finite = np.isfinite(values)
        values = np.where(finite, values, 0.0)
        low, high = (float(values[finite].min()), float(values[finite].max())) if finite.any() else (0.0, 0.0)
        white = 65535.0 if image.mode != "F" else 1.0 if high <= 1 else 255.0
        stretched = low < 0 or high > white
        if image.mode != "F" and not stretched:
            white = _white_of(high, choices)
        grey = (values - low) / max(high - low, 1e-12) if stretched else values / white
        grey = np.where(finite, grey, 0.0)
    grey8 = np.rint(grey.clip(0, 1) * 255).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey8 = np.where(np.asarray(image) == clear, np.uint8(255), grey8)
    return Image.fromarray(grey8).convert("RGB")


def _white_of(highest: float, choices: dict[str, str]) -> int:
    """Return which of the values of 16 bits is white, by the highest that there is."""
    if highest > _WHITE_OF_12_BITS:
        return 65535
    if highest > 0:
        choices[f"of 16 bits without a value above {_WHITE_OF_12_BITS}, which is taken for white"] = (
            f"up to {highest:.0f}"
        )
    return _WHITE_OF_12_BITS


def _is_deep(image: Any) -> bool:  # noqa: ANN401  an image file of Pillow, whose tiles have no type
    """Whether an image that is not loaded yet has 16 bits a colour, of which Pillow keeps the upper 8."""
    mode = _raw_mode(image.tile[0].args) if image.tile else ""
    return mode.startswith("RGB") and mode[-3:] in _OTHER_HALF


def _raw_mode(arguments: Any) -> str:  # noqa: ANN401  of a decoder: its mode, or that and more
    return arguments if isinstance(arguments, str) else str((arguments or [""])[0])


def _brightened(
    rgb: Image.Image, image: Image.Image, stream: str | os.PathLike[str] | IO[bytes], choices: dict[str, str]
) -> Image.Image:
    """Scale colours of 16 bits, `rgb` being their upper halves, by 4095 if none is above; see `_white_of`."""
    alpha = image.getchannel("A") if image.mode == "RGBA" and _MORE_BANDS not in choices else None
    upper = np.asarray(rgb).astype(np.uint16)
    if (alpha is not None and alpha.getextrema()[0] != 255) or upper.max() > _WHITE_OF_12_BITS >> 8:
        return rgb
    if not isinstance(stream, str | os.PathLike):
        stream.seek(0)
    with Image.open(stream) as again:
        halves = []
        tiles: Any = again.tile
        for tile in tiles:
            mode, rest = _raw_mode(tile.args), () if isinstance(tile.args, str) else tile.args[1:]
            other = mode[:-3] + _OTHER_HALF[mode[-3:]]
            halves.append(tile._replace(args=(other, *rest) if rest else other))
        again.tile = halves
        _load(again)
        values = upper << 8 | np.asarray(again.convert("RGB"))
    white = _white_of(float(values.max()), choices)
    return Image.fromarray(np.rint(np.arange(white + 1) * (255 / white)).astype(np.uint8)[values])
