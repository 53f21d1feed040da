"""Odd and broken images: everything readable is read right, everything else is one line."""

import io
import json
import os
import socket
import struct
import sys
import types
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from botvision.data import images
from botvision.data.images import decode, has_image_suffix, is_image, read_image
from botvision.io.errors import DataError

DATA = Path(os.environ.get("BOTVISION_DATA", Path(__file__).parents[3] / "shared" / "data"))
ODD = DATA / "odd_images"
needs_odd_images = pytest.mark.skipif(
    not ODD.is_dir(), reason=f"the collection of odd images is not at {ODD}"
)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def manifest() -> list[dict]:
    return json.loads((ODD / "manifest.json").read_text()) if ODD.is_dir() else []


def tiff(values: np.ndarray, bits: int, photometric: int) -> bytes:
    """A little-endian, uncompressed greyscale TIFF of one strip, written out by hand."""
    data = values.tobytes()
    height, width = values.shape
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1)]
    tags += [(278, height), (279, len(data))]
    table = b"".join(
        tag.to_bytes(2, "little")
        + (4).to_bytes(2, "little")
        + (1).to_bytes(4, "little")
        + value.to_bytes(4, "little")
        for tag, value in tags
    )
    return (
        b"II*\0"
        + (8 + len(data)).to_bytes(4, "little")
        + data
        + len(tags).to_bytes(2, "little")
        + table
        + bytes(4)
    )


@needs_odd_images
@pytest.mark.parametrize("entry", manifest(), ids=lambda entry: entry["file"])
def test_every_odd_file_is_read_or_named_in_one_line(entry, capfd):
    path = ODD / entry["file"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if {"open_err", "load_err", "huge"} & entry.keys():
            with pytest.raises(DataError) as caught:
                read_image(path)
            message = str(caught.value)
            assert message.startswith(f"{path}: ")
            assert "\n" not in message
            assert "0x" not in message  # no address of a Python object
        else:
            image = read_image(path)
            width, height = entry["size"]
            turned = entry.get("orient", 1) in (5, 6, 7, 8)
            assert image.mode == "RGB"
            assert image.size == ((height, width) if turned else (width, height))
    assert capfd.readouterr() == ("", "")


@needs_odd_images
def test_turned_photographs_all_show_the_same_picture():
    pictures = [np.asarray(read_image(path), dtype=np.float64) for path in sorted(ODD.glob("exif*/hopper*"))]
    assert len(pictures) == 7
    for picture in pictures[1:]:  # re-encoded after turning, one as WebP: equal up to the codecs' losses
        assert np.abs(picture - pictures[0]).mean() < 12
        assert np.corrcoef(picture.ravel(), pictures[0].ravel())[0, 1] > 0.97


@needs_odd_images
def test_cmyk_jpeg_and_tiff_show_red_letters_on_black():
    for name in ("pil_sample_cmyk.jpg", "tiff_tiled_cmyk_jpeg.tif"):
        pixels = np.asarray(read_image(ODD / "cmyk_ycck" / name))
        assert pixels[3, 3, 0] > 240  # the corner is red
        assert pixels[3, 3, 1:].max() < 40
        assert pixels[90, 50].max() < 20  # the ground is black, not white: Adobe's inks are stored inverted


@needs_odd_images
def test_deep_greyscale_of_both_byte_orders_is_the_same():
    little, big = (
        np.asarray(read_image(ODD / "16bit" / f"16bit{name}.tif")) for name in (".deflate", ".MM.deflate")
    )
    assert (little == big).all()
    assert little.max() == 43  # its brightest value is 694, of the 4095 that 12 bits have


@needs_odd_images
def test_lab_white_is_white():
    assert read_image(ODD / "float_or_lab" / "lab.tif").getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize(
    ("lab", "rgb"),
    [((138, 209, 198), (255, 0, 0)), ((137, 128, 128), (128, 128, 128)), ((0, 128, 128), (0, 0, 0))],
)
def test_lab_colours_are_those_of_srgb(lab, rgb):
    """Values of CIE L*a*b* at D50, a and b offset by 128."""
    bands = [Image.new("L", (2, 2), value) for value in lab]
    file = io.BytesIO()
    Image.merge("LAB", bands).save(file, "TIFF")
    assert np.abs(np.asarray(read_image(file.getvalue())).astype(int) - rgb).max() <= 3


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    read = np.asarray(read_image(encoded(Image.fromarray(ramp), "PNG")))
    assert read[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


@pytest.mark.parametrize(("photometric", "expected"), [(1, [0, 128, 255]), (0, [255, 127, 0])])
def test_tiff_in_which_white_is_zero_is_inverted(photometric, expected):
    ramp = np.array([[0, 32768, 65535]], dtype="<u2")
    assert np.asarray(read_image(tiff(ramp, 16, photometric)))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, float("nan"), 1.0], [0, 0, 255]),
        ([float("nan")] * 3, [0, 0, 0]),
        ([7.0, 1000.0, 1993.0], [0, 128, 255]),
    ],
)
def test_floats(values, expected):
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert np.asarray(read_image(encoded(image, "TIFF")))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"), [([0, 257, 65535], [0, 1, 255]), ([0, 500000, 1000000], [0, 128, 255])]
)
def test_32_bit_integers(values, expected):
    image = Image.fromarray(np.array([values], dtype=np.int32))
    assert np.asarray(read_image(encoded(image, "TIFF")))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_becomes_white(mode):
    image = Image.new(mode, (2, 1), (0,) * len(mode))
    image.putpixel((1, 0), (10,) * (len(mode) - 1) + (255,))
    assert np.asarray(read_image(encoded(image, "PNG")))[0].tolist() == [[255] * 3, [10] * 3]


def test_half_transparency_is_mixed_with_white():
    image = Image.new("RGBA", (1, 1), (0, 100, 200, 128))
    mixed = [round(value * 128 / 255 + 255 * 127 / 255) for value in (0, 100, 200)]
    assert np.abs(np.asarray(read_image(encoded(image, "PNG")))[0, 0] - mixed).max() <= 1


@pytest.mark.parametrize(
    ("mode", "clear", "pixels"), [("P", 1, [0, 1]), ("L", 7, [9, 7]), ("RGB", (1, 2, 3), [0, 0])]
)
def test_transparent_colour_becomes_white(mode, clear, pixels):
    image = Image.new(mode, (2, 1))
    if mode == "P":
        image.putpalette([10, 20, 30, 40, 50, 60])
    for x, value in enumerate(pixels):
        image.putpixel((x, 0), ((9, 9, 9), clear)[x] if mode == "RGB" else value)
    read = np.asarray(read_image(encoded(image, "PNG", transparency=clear)))[0].tolist()
    assert read[1] == [255] * 3
    assert read[0] == {"P": [10, 20, 30], "L": [9] * 3, "RGB": [9] * 3}[mode]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_orientation_brings_the_marked_corner_back(orientation, kind):
    # By the EXIF standard: which visual side the stored row 0 and column 0 are.
    row, column = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "lt", 6: "rt", 7: "rb", 8: "lb"}[orientation]
    stored = np.zeros((4, 6, 3), dtype=np.uint8)
    stored[0, 0] = 255
    image = Image.fromarray(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    read = np.asarray(read_image(encoded(image, kind, exif=exif, **options)))
    y, x = (int(value) for value in np.argwhere(read[..., 0] == 255)[0])
    assert read.shape[:2] == ((4, 6) if orientation < 5 else (6, 4))
    assert (y == 0) == ("t" in row + column)
    assert (x == 0) == ("l" in row + column)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (3, 2), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_image(content).getpixel((0, 0)) == (255, 0, 0)


def test_content_counts_not_the_extension(tmp_path):
    path = tmp_path / "really_a_png.jpg"
    path.write_bytes(encoded(Image.new("RGB", (2, 3), "lime"), "PNG"))
    assert read_image(path).getpixel((1, 1)) == (0, 255, 0)
    assert decode(path.read_bytes()).mode == "RGB"
    bare = path.rename(tmp_path / "bare")
    assert is_image(bare)
    assert not has_image_suffix(bare)
    assert not is_image(b"just text")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"hello", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS"),
    ],
)
def test_no_image(tmp_path, content, reason):
    path = tmp_path / "thing.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        read_image(path)
    assert str(caught.value).startswith(str(path))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jpg: no such file$"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="is a folder"):
        read_image(tmp_path)


def test_truncated_jpeg_is_broken_at_any_cut():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), "JPEG")
    assert read_image(content).size == (64, 64)
    for cut in (10, 200, len(content) // 2, len(content) - 100):
        with pytest.raises(DataError, match=r"^upload\.jpg: "):
            read_image(content[:cut], "upload.jpg")


def test_a_warning_sized_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # 150 pixels only make Pillow warn
    with pytest.raises(DataError, match="too large to be decoded safely"):
        read_image(encoded(Image.new("RGB", (15, 10)), "PNG"))


def test_error_of_a_worker_is_one_line_again():
    trace = "Caught DataError in worker 0.\nOriginal Traceback (most recent call last):\n  File x\n"
    wrapped = DataError(trace + "botvision.io.errors.DataError: a.jpg: broken image (why)\n")
    assert str(wrapped) == "a.jpg: broken image (why)"


def test_a_turned_image_is_not_turned_again(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), (200, 30, 30)).save(tmp_path / "a.jpg", exif=exif)
    image = read_image(tmp_path / "a.jpg")
    assert image.size == (20, 40)
    assert ImageOps.exif_transpose(image).size == (20, 40)


PAGES = "with several pages or frames, of which the first is used"
BITS = "of 16 bits without a value above 4095, which is taken for white"
BANDS = "of more bands than red, green, blue, which are not called transparency and not used"


def coloured_tiff(values: np.ndarray, extra: int | None) -> bytes:
    """A little-endian, uncompressed TIFF of one strip (H, W, bands), with ExtraSamples or without."""
    height, width, bands = values.shape
    bits, data = values.dtype.itemsize * 8, values.tobytes()
    at = 8 + len(data) + len(data) % 2
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, bands, at), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 8), (277, 3, 1, bands), (278, 4, 1, height), (279, 4, 1, len(data))]
    tags += [] if extra is None else [(338, 3, 1, extra)]
    table = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<I", at + 2 * bands) + data.ljust(at - 8, b"\0")
    return head + struct.pack(f"<{bands}H", *[bits] * bands) + struct.pack("<H", len(tags)) + table + bytes(4)


def deep_png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a colour, uint16 (H, W, 3)."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_a_camera_of_12_bits_is_not_black():
    ramp = np.array([[0, 1024, 4095]], dtype=np.uint16)
    for content in (encoded(Image.fromarray(ramp), "PNG"), encoded(Image.fromarray(ramp), "TIFF")):
        found = decode(content)
        assert np.asarray(found.rgb)[0].tolist() == [[0] * 3, [64] * 3, [255] * 3]
        assert found.choices == {BITS: "up to 4095"}
    brighter = decode(encoded(Image.fromarray(ramp + 1), "PNG"))  # 4096 is above what 12 bits have
    assert (brighter.rgb.getpixel((2, 0)), brighter.choices) == ((16, 16, 16), {})
    assert decode(encoded(Image.fromarray(ramp * 0), "PNG")).choices == {}


@pytest.mark.parametrize("compressed", [False, True])
def test_colours_of_12_bits_are_not_black(tmp_path, compressed):
    values = np.random.default_rng(0).integers(0, 4096, (9, 7, 3)).astype(np.uint16)
    content = deep_png(values) if compressed else coloured_tiff(values, None)
    found = decode(content)
    assert np.abs(np.asarray(found.rgb) - values / 4095 * 255).max() <= 0.5
    assert list(found.choices) == [BITS]
    (tmp_path / "a.bin").write_bytes(content)
    assert decode(tmp_path / "a.bin").rgb == found.rgb
    full = decode(deep_png(values * 16) if compressed else coloured_tiff(values * 16, None))
    assert np.abs(np.asarray(full.rgb) - values * 16 / 257).max() < 1
    assert full.choices == {}


@pytest.mark.parametrize(
    ("extra", "pixel", "noted"),
    [(None, (200, 100, 50), True), (0, (200, 100, 50), True), (2, (255, 255, 255), False)],
)
def test_a_fourth_band_is_transparency_only_where_a_tag_says_so(extra, pixel, noted):
    values = np.array([[[200, 100, 50, 0], [1, 2, 3, 255]]], dtype=np.uint8)
    found = decode(coloured_tiff(values, extra))
    assert (found.rgb.getpixel((0, 0)), found.rgb.getpixel((1, 0))) == (pixel, (1, 2, 3))
    assert (BANDS in found.choices) == noted


def test_near_infrared_beside_colours_of_12_bits():
    values = np.array([[[4095, 2000, 0, 17]]], dtype=np.uint16)
    assert decode(coloured_tiff(values, None)).rgb.getpixel((0, 0)) == (255, 125, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_everywhere_shows_its_colours(mode):
    image = Image.new(
        "P" if mode == "P" else mode, (2, 2), 0 if mode == "P" else (90,) * (len(mode) - 1) + (0,)
    )
    if mode == "P":
        image.putpalette([90, 90, 90])
    found = decode(encoded(image, "PNG", **({"transparency": 0} if mode == "P" else {})))
    assert found.rgb.getextrema() == ((90, 90),) * 3
    assert list(found.choices) == ["transparent everywhere, whose colours are used"]


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP"])
def test_pages_and_frames_are_counted(kind):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    found = decode(content)
    assert (found.rgb.getpixel((0, 0)), found.choices) == ((255, 0, 0), {PAGES: "3"})
    assert decode(encoded(frames[0], kind)).choices == {}


def test_smaller_copies_in_a_tiff_are_no_pages():
    page, copy = Image.new("L", (8, 8)), Image.new("L", (4, 4))
    copy.encoderinfo = {"tiffinfo": {254: 1}}
    content = encoded(page, "TIFF", save_all=True, append_images=[copy])
    assert decode(content).choices == {}


def test_the_preview_beside_a_photo_is_no_page():
    photo, preview = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (4, 4))
    assert decode(encoded(photo, "MPO", save_all=True, append_images=[preview])).choices == {}


def test_the_limit_on_pixels_is_checked_before_decoding_and_can_be_raised(monkeypatch):
    content = encoded(Image.new("RGB", (15, 10)), "PNG")
    with pytest.raises(
        DataError, match=r"^image: 10 x 15 pixels .* more than 0\.000149 million \(predict --max"
    ):
        decode(content[:60], max_pixels=149)  # there are no pixels to decode
    assert read_image(content, max_pixels=150).size == (15, 10)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # Pillow's own, of which it refuses the double
    monkeypatch.setattr(images, "MAX_PIXELS", 20)
    with pytest.raises(DataError, match=r"too large to be decoded safely \(predict --max-pixels"):
        read_image(content, max_pixels=20)
    assert read_image(content, max_pixels=150).size == (15, 10)


def test_pipes_sockets_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.png"))
        for name in ("pipe.png", "zero.png", "s.png"):
            assert not is_image(tmp_path / name)
            with pytest.raises(DataError, match=rf"{name}: no regular file$"):
                read_image(tmp_path / name)


def test_formats_that_are_not_read_are_named(tmp_path):
    heic, raw = tmp_path / "IMG_1.HEIC", tmp_path / "a.dng"
    heic.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(120))
    raw.write_bytes(encoded(Image.new("L", (2, 2)), "TIFF"))  # its thumbnail
    with pytest.raises(DataError, match=r"IMG_1\.HEIC: cannot be read \(HEIC, without pillow-heif\)"):
        read_image(heic)
    with pytest.raises(DataError, match=r"a\.dng: camera raw, which cannot be read"):
        read_image(raw)


def test_heic_is_read_where_the_package_for_it_is_installed(monkeypatch):
    calls = []
    package = types.ModuleType("pillow_heif")
    vars(package)["register_heif_opener"] = lambda: calls.append("registered")
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    images._register_heif.cache_clear()
    read_image(encoded(Image.new("L", (2, 2)), "PNG"))
    images._register_heif.cache_clear()
    assert calls == ["registered"]
