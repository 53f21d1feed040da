"""Pascal VOC as COCO JSON."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from botvision.coco.read import read_coco
from botvision.data.convert import voc
from botvision.data.convert.folder import Conversion, to_coco
from botvision.io.errors import DataError
from tests.data.convert.files import picture, write

SIZE = "<size><width>60</width><height>40</height><depth>3</depth></size>"


def box(*sides: object) -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    return f"<bndbox>{''.join(f'<{n}>{v}</{n}>' for n, v in zip(names, sides, strict=True))}</bndbox>"


def thing(name: str = "cat", *sides: object, rest: str = "") -> str:
    return f"<object><name>{name}</name>{rest}{box(*(sides or (11, 5, 30, 20)))}</object>"


def xml(*objects: str, file: str = "a.jpg", size: str = SIZE) -> str:
    return f"<annotation><filename>{file}</filename>{size}{''.join(objects)}</annotation>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set of one image with one cat."""
    picture(tmp_path / "JPEGImages" / "a.jpg")
    write(tmp_path / "Annotations" / "a.xml", xml(thing()))
    return tmp_path


def convert(root: Path, part: str = "") -> Conversion:
    return to_coco("voc", root, root / "annotations" / "x.json", part=part)


def found(root: Path, split: str = "") -> dict[str, list[tuple[str, list[float]]]]:
    """Class and box of each object of each image."""
    content = json.loads(convert(root).files[split].read_text())
    names = {each["id"]: each["name"] for each in content["categories"]}
    objects = {each["file_name"]: [] for each in content["images"]}
    files = {each["id"]: each["file_name"] for each in content["images"]}
    for each in content["annotations"]:
        objects[files[each["image_id"]]].append((names[each["category_id"]], each["bbox"]))
    return objects


def one(root: Path, content: str | bytes) -> list[tuple[str, list[float]]]:
    """The objects of an XML file."""
    data = content if isinstance(content, bytes) else content.encode()
    (root / "Annotations" / "a.xml").write_bytes(data)
    return found(root)["JPEGImages/a.jpg"]


def refused(root: Path, content: str | bytes) -> str:
    """What is said of an XML file, whose name it must begin with."""
    with pytest.raises(DataError) as error:
        one(root, content)
    assert str(error.value).startswith(f"{root / 'Annotations' / 'a.xml'}: ")
    assert not (root / "annotations").exists()
    return str(error.value)


def test_boxes_are_counted_from_1_and_difficult_objects_are_crowds(root: Path) -> None:
    file = read_coco(convert(root).files[""])
    assert [image.file for image in file.images] == ["JPEGImages/a.jpg"]
    assert file.annotations.boxes.tolist() == [[10, 4, 20, 16]]
    assert file.annotations.areas.tolist() == [320]
    assert not file.annotations.crowd.any()
    whole = [thing("cat", 1, 1, 60, 40), thing("dog", "2.5", "1e0", 3, "2.25")]
    assert one(root, xml(*whole)) == [("cat", [0, 0, 60, 40]), ("dog", [1.5, 0, 1.5, 2.25])]
    marks = {"1": 1, "true": 1, "0": 0, "False": 0, "": 0, "Unspecified": 0}
    hard = [thing(rest=f"<truncated>1</truncated><difficult>{mark}</difficult>") for mark in marks]
    write(root / "Annotations" / "a.xml", xml(*hard))
    done = convert(root)
    assert read_coco(done.files[""]).annotations.crowd.tolist() == [bool(m) for m in marks.values()]
    assert done.notes == ["2 objects marked as difficult: ignored in evaluation, not trained on"]


def test_names_are_what_xml_says(root: Path) -> None:
    written = {
        "salt &amp; pepper": "salt & pepper", "&lt;unknown&gt;": "<unknown>", "caf&#233;": "café",
        "stra&#xDF;e": "straße", " big\n dog ": "big dog", "<![CDATA[<i>]]>": "<i>", "a<!-- b -->c": "ac",
    }  # fmt: skip
    objects = one(root, xml(*map(thing, written)))
    assert [name for name, _ in objects] == [*written.values()]
    attribute = "<attributes><attribute><name>colour</name><value>red</value></attribute></attributes>"
    part = f"<part><name>head</name>{box(1, 1, 5, 5)}</part>"
    for rest in (attribute, part):
        for text in (thing(rest=rest), f"<object>{rest}<name>cat</name>{box(11, 5, 30, 20)}</object>"):
            assert one(root, xml(text)) == [("cat", [10, 4, 20, 16])]


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("UTF-16", "utf-16"), ("UTF-16", "utf-8"), ("utf-8", "utf-8-sig"), ("windows-1252", "cp1252"),
        ("ISO-8859-1", "latin-1"), ("gbk", "gbk"), ("gbk", "utf-8-sig"), ("", "utf-16"), ("", "utf-8"),
    ],
)  # fmt: skip
def test_encodings(root: Path, declared: str, encoding: str) -> None:
    head = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else ""
    name = "猫" if encoding == "gbk" else "chât"
    assert one(root, (head + xml(thing(name))).encode(encoding)) == [(name, [10, 4, 20, 16])]
    assert one(root, b"\n " + (head + xml(thing("cat"))).encode()) == [("cat", [10, 4, 20, 16])]


def test_several_boxes_and_polygons_in_an_object(root: Path) -> None:
    both = thing(rest=box(1, 1, 4, 4))
    assert one(root, xml(both, thing())) == [
        ("cat", [0, 0, 4, 4]), ("cat", [10, 4, 20, 16]), ("cat", [10, 4, 20, 16])
    ]  # fmt: skip
    write(root / "Annotations" / "a.xml", xml(both, thing(rest="<polygon><x1>1</x1></polygon>")))
    assert convert(root).notes == [
        "1 object with several boxes: each box is taken as an object",
        "1 object with a polygon beside the box: the box alone is taken",
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (xml(thing(), thing("dog", "NaN", 5, 20, 20)), "object 2 (dog): xmin is NaN, expected a number"),
        (xml(thing("dog", 1, 5, 20, "-inf")), "object 1 (dog): ymax is -inf, expected a number"),
        (xml(thing("dog", 1, "", 20, 20)), "object 1 (dog): ymin is missing, expected a number"),
        (xml(thing("dog", 1, "1,5", 20, 20)), "object 1 (dog): ymin is 1,5, expected a number"),
        (xml(thing("dog", 1, 5, 64, 20)), "object 1 (dog): reaches x = 64, outside its image of 40 x 60"),
        (xml(thing("dog", 1, -3, 6, 20)), "object 1 (dog): reaches y = -4, outside its image of 40 x 60"),
        (xml(thing(" ")), "object 1: no <name>"),
        (xml(f"<object>{box(1, 1, 5, 5)}</object>"), "object 1: no <name>"),
        (xml(thing(rest="<name>b</name>")), "object 1: 2 names, expected one"),
        (xml("<object><name>cat</name></object>"), "object 1 (cat): no <bndbox>"),
        (xml(thing(rest="<difficult>maybe</difficult>")), "difficult is 'maybe', expected 0 or 1"),
        (xml(size="<size><width>60.5</width><height>40</height></size>"), "size: 40 x 60.5, expected whole"),
        (xml(size="<size><width>nan</width><height>40</height></size>"), "size: width is nan"),
        (xml()[:70], "not valid XML: "),
        ("", "not valid XML: "),
        (b"\0\1\2", "not valid XML: "),
        (xml(thing("ch\xe2t")).encode("latin-1"), "not valid XML: "),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "unknown encoding: klingon"),
        ("<annotations/>", "its root is <annotations>, expected Pascal VOC's <annotation>"),
        ("<annotation>" + "<part>" * 2_000_000, "more than 100 elements within one another"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(root: Path, content: str | bytes, fault: str) -> None:
    assert fault in refused(root, content)


def test_no_entity_is_expanded_and_no_other_file_is_read(root: Path) -> None:
    write(root / "secret", "dog")
    outside = f'<!DOCTYPE annotation [<!ENTITY x SYSTEM "{root / "secret"}">]>' + xml(thing("&x;"))
    levels = "".join(f'<!ENTITY e{k} "{f"&e{k - 1};" * 10}">' for k in range(1, 12))
    bomb = f'<!DOCTYPE annotation [<!ENTITY e0 "dog">{levels}]>' + xml(thing("&e11;"))
    for text in (outside, bomb):
        assert "declares a document type (DOCTYPE)" in refused(root, text)
    assert "undefined entity" in refused(root, xml(thing("&x;")))


def test_sizes_are_those_of_the_images(root: Path) -> None:
    for size in ("", SIZE.replace("60", "0"), "<size/>", SIZE.replace("60", "60.0")):
        write(root / "Annotations" / "a.xml", xml(thing(), size=size))
        image = read_coco(convert(root).files[""]).images[0]
        assert (image.height, image.width) == (40, 60)
    write(root / "Annotations" / "a.xml", xml(thing(), size=SIZE.replace("60", "640")))
    match = (
        r"a\.jpg \(Annotations/a\.xml\): 40 x 60 pixels \(height x width\), but its annotations say 40 x 640"
    )
    with pytest.raises(DataError, match=match):
        convert(root)


def test_a_turned_photo_has_the_size_that_its_labels_mean(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(root / "JPEGImages" / "a.jpg", exif=exif)
    for size, expected in (("", (60, 40)), (SIZE, (40, 60))):
        write(root / "Annotations" / "a.xml", xml(thing(), size=size))
        image = read_coco(convert(root).files[""]).images[0]
        assert (image.height, image.width) == expected


def test_boxes_that_reach_a_little_beyond_are_cut_off(root: Path) -> None:
    picture(root / "JPEGImages" / "a.jpg", (40, 600))
    sides = [(0, 0, 606, 42), (5, 5, 600, 40)]
    write(root / "Annotations" / "a.xml", xml(*(thing("cat", *each) for each in sides), size=""))
    done = convert(root)
    boxes = read_coco(done.files[""]).annotations.boxes.tolist()
    assert boxes == [[0, 0, 600, 40], [4, 4, 596, 36]]
    assert len(done.notes) == 1
    assert done.notes[0].startswith("1 object reaching up to 2 pixels or 1 % beyond the image")


def test_the_image_is_that_of_the_same_name(root: Path) -> None:
    """Whatever <filename> says; only without one it is looked at."""
    for name in ("b.jpg", "c.jpg", "d.png", "e.f.jpg"):
        picture(root / "JPEGImages" / name)
    for name, named in {
        "a": "a",
        "b": "a.jpg",
        "c": "C:\\pics\\c.jpg",
        "other": "pics\\d.png",
        "e.f": "",
    }.items():
        write(root / "Annotations" / f"{name}.xml", xml(thing(name), file=named))
    assert {file: name for file, [(name, _)] in found(root).items()} == {
        "JPEGImages/a.jpg": "a", "JPEGImages/b.jpg": "b", "JPEGImages/c.jpg": "c",
        "JPEGImages/d.png": "other", "JPEGImages/e.f.jpg": "e.f",
    }  # fmt: skip
    assert convert(root).notes == [
        "1 label file naming another image in <filename>: that of the file's own name is taken"
    ]


def test_images_that_are_not_there_or_not_in_the_folder(root: Path) -> None:
    picture(root.parent / f"{root.name}-x.jpg")
    for name, file in (("b", f"../../{root.name}-x.jpg"), ("c", "/etc/passwd"), ("d", "d.heic"), ("e", "\0")):
        write(root / "Annotations" / f"{name}.xml", xml(thing(), file=file.replace("\0", "e" * 5000)))
    done = convert(root)
    assert (done.images, done.annotations) == (1, 1)
    assert done.notes == [
        "left out: 4 files, without an image of the same name, or of that in <filename> (Annotations/b.xml, "
        "Annotations/c.xml, Annotations/d.xml, ...)"
    ]
    (root / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"none of its .xml files can be used; left out: 5 files, without"):
        convert(root)


def test_one_image_has_one_file(root: Path) -> None:
    write(root / "Annotations" / "b.xml", xml(thing()))
    with pytest.raises(
        DataError, match=r"b\.xml: describes JPEGImages/a\.jpg, but so does Annotations/a\.xml"
    ):
        convert(root)
    (root / "Annotations" / "b.xml").unlink()
    picture(root / "JPEGImages" / "a.png")
    done = convert(root)
    assert names(done.files[""]) == ["a"]  # <filename> names one of them
    assert done.notes == [
        "left out: 1 file, of one name with another image, which <filename> names "
        "(JPEGImages/a.png: JPEGImages/a.jpg)"
    ]
    write(root / "Annotations" / "a.xml", xml(thing(), file="x.jpg"))
    with pytest.raises(DataError, match="which is meant"):
        convert(root)


def test_of_two_images_the_one_named_in_other_capitals_is_meant(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png"):
        picture(tmp_path / name)
    write(tmp_path / "a.xml", xml(thing(), file="C:\\x\\A.PNG"))
    done = convert(tmp_path)
    assert names(done.files[""]) == ["a"]
    assert "which <filename> names (a.jpg: a.png)" in done.notes[0]


def test_pipes_are_never_waited_for(root: Path) -> None:
    (root / "ImageSets" / "Main").mkdir(parents=True)
    os.mkfifo(root / "ImageSets" / "Main" / "train.txt")
    assert convert(root).notes == ["left out: 1 file, no regular file (ImageSets/Main/train.txt)"]
    (root / "Annotations" / "a.xml").unlink()
    os.mkfifo(root / "Annotations" / "a.xml")
    with pytest.raises(
        DataError, match=r"no XML file in .*; left out: 2 files, no regular file \(Annotations/a"
    ):
        convert(root)


def test_images_without_xml_are_without_objects(root: Path) -> None:
    picture(root / "JPEGImages" / "empty" / "b.jpg")
    picture(root / "JPEGImages" / "c.png")
    picture(root / "SegmentationClass" / "a.png")
    write(root / "Annotations" / "c.xml", xml(file="c.png"))
    done = convert(root)
    assert done.notes == [
        "1 image without a label file: taken as images without objects",
        "masks are not read, the boxes alone: 1 in SegmentationClass",
    ]
    assert {file: len(objects) for file, objects in found(root).items()} == {
        "JPEGImages/a.jpg": 1, "JPEGImages/c.png": 0, "JPEGImages/empty/b.jpg": 0
    }  # fmt: skip


def test_files_that_are_no_labels(root: Path) -> None:
    write(root / "Annotations" / "._a.xml", "\0\5\26\7")
    write(root / "__MACOSX" / "Annotations" / "a.xml", xml(thing()))
    write(root / "Annotations" / ".ipynb_checkpoints" / "a-checkpoint.xml", xml(thing()))
    write(root / "project.xml", "<project/>")
    os.mkfifo(root / "Annotations" / "pipe.xml")
    (root / "Annotations" / "link.xml").symlink_to("/etc/hostname")
    (root / "JPEGImages" / "loop").symlink_to(root)
    (root / "Annotations" / "itself.xml").symlink_to("itself.xml")
    done = convert(root)
    assert (done.images, done.annotations) == (1, 1)
    assert done.notes == [
        "left out: 3 files, hidden (Annotations/._a.xml, Annotations/.ipynb_checkpoints/a-checkpoint.xml, "
        "__MACOSX/Annotations/a.xml)",
        "left out: 2 files, no regular file (Annotations/itself.xml, Annotations/pipe.xml)",
        "left out: 1 file, a link out of the folder (Annotations/link.xml)",
        "left out: 1 file, not Pascal VOC's (project.xml)",
    ]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/a.png", "annotations/a.xml"), ("a.jpg", "a.xml"), ("a.jpg", "Annotations/a.xml"),
        ("images/x/a.jpg", "xmls/x/a.xml"), ("images/a.jpg", "a.xml"),
        ("VOC/JPEGImages/a.JPG", "VOC/Annotations/a.XML"),
        ("images/a.jpg", "annotations/x/a.xml"), ("a.jpg", "a.jpg.xml"), ("x/a.jpg", "x/a.xml"),
    ],
)  # fmt: skip
def test_folders_of_images_and_labels(tmp_path: Path, image: str, label: str) -> None:
    picture(tmp_path / image)
    write(tmp_path / label, xml(thing(), file=""))
    assert found(tmp_path) == {image: [("cat", [10, 4, 20, 16])]}


@pytest.fixture
def listed(root: Path) -> Path:
    """Images a to f, of which a to d are listed in ImageSets."""
    for name in "bcdef":
        picture(root / "JPEGImages" / f"{name}.jpg")
        write(
            root / "Annotations" / f"{name}.xml",
            xml(thing("dog" if name == "f" else "cat"), file=f"{name}.jpg"),
        )
    (root / "JPEGImages" / "d.jpg").rename(root / "JPEGImages" / "d d.jpg")
    (root / "Annotations" / "d.xml").unlink()
    write(root / "Annotations" / "d d.xml", xml(thing(), file="d d.jpg"))
    main = root / "ImageSets" / "Main"
    for name, text in {
        "train": "a\nb.jpg\n\nb\n", "val": '\ufeffJPEGImages/c.jpg\r\n"d d"\n', "trainval": "a\nb\nc\nd d\n",
        "cat_train": "a  1\ne -1\n", "default": "e",
    }.items():  # fmt: skip
        write(main / f"{name}.txt", text)
    write(root / "ImageSets" / "Segmentation" / "train.txt", "f")
    return root


def names(path: Path) -> list[str]:
    return [Path(image["file_name"]).stem for image in json.loads(path.read_text())["images"]]


def test_lists_of_image_sets_are_splits(listed: Path) -> None:
    done = convert(listed)
    assert {split: names(path) for split, path in done.files.items()} == {
        "train": ["a", "b"],
        "val": ["c", "d d"],
    }
    assert {path.name for path in done.files.values()} == {"x.json", "x_val.json"}
    assert done.notes == [
        "lists of ImageSets, a file for each: train (2), val (2); --part takes one",
        "left out: 3 files, other lists of ImageSets than train, val, test and trainval (ImageSets/Main/"
        "cat_train.txt, ImageSets/Main/default.txt, ImageSets/Segmentation/train.txt)",
        "left out: 2 files, in none of these lists of ImageSets (JPEGImages/e.jpg, JPEGImages/f.jpg)",
    ]
    contents = [json.loads(path.read_text())["categories"] for path in done.files.values()]
    assert [[each["name"] for each in content] for content in contents] == [["cat", "dog"]] * 2
    for part, expected in (("val", ["c", "d d"]), ("trainval", ["a", "b", "c", "d d"])):
        done = to_coco("voc", listed, listed / "part.json", part=part)
        assert (names(listed / "part.json"), list(done.files)) == (expected, [part])
    with pytest.raises(
        DataError, match=r"nothing: no such folder, nor a list of ImageSets \(train, val, trainval\)"
    ):
        to_coco("voc", listed, listed / "part.json", part="nothing")


def test_folders_of_lists_in_small_letters_and_lists_elsewhere(listed: Path) -> None:
    (listed / "ImageSets" / "Main").rename(listed / "ImageSets" / "main")
    (listed / "ImageSets").rename(listed / "imagesets")
    assert [names(path) for path in convert(listed).files.values()] == [["a", "b"], ["c", "d d"]]
    (listed / "imagesets" / "main").rename(listed / "lists")
    write(listed / "train_list.txt", "JPEGImages/a.jpg Annotations/a.xml")
    write(listed / "trainer.txt", "a")
    done = convert(listed)
    assert names(done.files[""]) == ["a", "b", "c", "d d", "e", "f"]
    assert (
        "left out: 5 files, not in ImageSets, so not read as lists of a split (lists/cat_train.txt, "
        in str(done.notes)
    )


def test_lists_that_do_not_fit(listed: Path) -> None:
    main = listed / "ImageSets" / "Main"
    for name in ("train", "val"):
        (main / f"{name}.txt").unlink()
    write(main / "test.txt", "f 1\na\nmissing\n../secret\n")
    done = convert(listed)
    assert {split: names(path) for split, path in done.files.items()} == {
        "train": ["a", "b", "c", "d d"], "test": ["f", "a"]
    }  # fmt: skip
    assert done.notes == [
        "lists of ImageSets, a file for each: train (4), test (2); --part takes one",
        "1 image of these in more than one list",
        "left out: 3 files, other lists of ImageSets than train, val, test and trainval (ImageSets/Main/"
        "cat_train.txt, ImageSets/Main/default.txt, ImageSets/Segmentation/train.txt)",
        "left out: 2 files, named in ImageSets/Main/test.txt, but not there (missing, ../secret)",
        "left out: 1 file, in none of these lists of ImageSets (JPEGImages/e.jpg)",
    ]
    for name in ("test", "trainval"):
        write(main / f"{name}.txt", "nothing")
    with pytest.raises(DataError, match="none of the images is in a list of ImageSets"):
        convert(listed)
    picture(listed / "JPEGImages" / "x" / "a.jpg")
    write(main / "test.txt", "a")
    with pytest.raises(
        DataError, match=r"test\.txt: entry 1: 'a' may be JPEGImages/a\.jpg or JPEGImages/x/a\.jpg"
    ):
        convert(listed)
    (main / "test.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"test\.txt: not a text file in UTF-8"):
        convert(listed)


def test_folders_called_train_and_valid_are_splits(tmp_path: Path) -> None:
    for folder, name in (("train", "a"), ("train", "b"), ("valid", "c"), ("test", "d")):
        picture(tmp_path / folder / f"{name}.jpg")
        write(tmp_path / folder / f"{name}.xml", xml(thing(name), file=f"{name}.jpg"))
    done = to_coco("voc", tmp_path)
    assert {split: names(path) for split, path in done.files.items()} == {
        "train": ["a", "b"], "val": ["c"], "test": ["d"]
    }  # fmt: skip
    done = to_coco("voc", tmp_path, tmp_path / "x.json", part="valid")
    assert (names(tmp_path / "x.json"), done.categories) == (["c"], ["a", "b", "c", "d"])


@pytest.mark.parametrize("part", ["JPEGImages/train", "Annotations/train", "./JPEGImages/train/"])
def test_a_part_is_a_folder_of_images_or_of_labels(root: Path, part: str) -> None:
    for name in ("b", "c"):
        picture(root / "JPEGImages" / "train" / f"{name}.jpg")
    write(root / "Annotations" / "train" / "b.xml", xml(thing("dog"), file="b.jpg"))
    done = convert(root, part=part)
    assert (names(done.files[""]), done.categories) == (["b", "c"], ["cat", "dog"])
    with pytest.raises(DataError, match="no XML file"):
        voc.read(root / "JPEGImages", "", None)


def test_boxes_without_area_are_left_out_and_counted(root: Path) -> None:
    """Swapped corners, and a box beside its image."""
    flat = thing("dog", 30, 5, 20, 20), thing("dog", 62, 5, 62, 9)
    assert one(root, xml(thing(), *flat)) == [("cat", [10, 4, 20, 16])]
    note = "left out: 2 objects without area (Annotations/a.xml: object 2 (dog))"
    assert note in convert(root).notes


@pytest.mark.parametrize(("image", "label"), [("IMG_1.JPG", "img_1"), ("cafe\u0301.jpg", "caf\u00e9")])
def test_names_that_differ_in_capitals_or_encoded_accents(root: Path, image: str, label: str) -> None:
    picture(root / "JPEGImages" / image)
    write(root / "Annotations" / f"{label}.xml", xml(thing("dog"), file=""))
    assert found(root)[f"JPEGImages/{image}"] == [("dog", [10, 4, 20, 16])]
    note = "1 label file whose name is its image's but for capital letters or encoded accents"
    assert note in convert(root).notes
    for named in (f"C:\\pics\\{label}.jpg", label):  # which is no other name
        write(root / "Annotations" / f"{label}.xml", xml(thing("dog"), file=named))
        assert [each for each in convert(root).notes if "naming" in each] == []


@pytest.mark.parametrize("named", ["IMG_\u00e9.jpg", "D:\\pics\\img_\u00e9.JPG", "img_\u00e9"])
def test_names_inside_that_differ_in_capitals_or_encoded_accents(root: Path, named: str) -> None:
    picture(root / "JPEGImages" / "IMG_e\u0301.JPG")
    write(root / "Annotations" / "0001.xml", xml(thing("dog"), file=named))
    assert found(root)["JPEGImages/IMG_e\u0301.JPG"] == [("dog", [10, 4, 20, 16])]
    note = "1 label file whose name is its image's but for capital letters or encoded accents"
    assert note in convert(root).notes
    picture(root / "JPEGImages" / "img_\u00c9.jpg")
    assert any("left out: 1 file, without an image" in note for note in convert(root).notes)


def test_images_of_formats_that_are_not_read_are_left_out_by_name(root: Path) -> None:
    (root / "JPEGImages" / "b.dcm").write_bytes(b"")
    write(root / "Annotations" / "b.xml", xml(thing("dog"), file="b.dcm"))
    assert convert(root).notes == ["left out: 1 file, cannot be read (DICOM) (JPEGImages/b.dcm)"]
