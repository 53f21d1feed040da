"""Pascal VOC as COCO JSON."""

from pathlib import Path

import pytest

from botvision.coco.read import read_coco
from botvision.data.convert.folder import to_coco
from botvision.io.errors import DataError
from tests.data.convert.files import picture, write

VOC = """<annotation><filename>a.jpg</filename>
<size><width>60</width><height>40</height><depth>3</depth></size>
<object><name>cat</name><difficult>{}</difficult>
<bndbox><xmin>11</xmin><ymin>5</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object></annotation>"""


def test_voc_boxes(tmp_path: Path) -> None:
    picture(tmp_path / "JPEGImages" / "a.jpg")
    write(tmp_path / "Annotations" / "a.xml", VOC.format(0))
    done = to_coco("voc", tmp_path, tmp_path / "x.json")
    file = read_coco(done.files[""])
    assert [image.file for image in file.images] == ["JPEGImages/a.jpg"]
    assert file.annotations.boxes.tolist() == [[10, 4, 20, 16]]
    assert not file.annotations.crowd.any()
    write(tmp_path / "Annotations" / "a.xml", VOC.format(1))
    assert read_coco(to_coco("voc", tmp_path, tmp_path / "x.json").files[""]).annotations.crowd.all()
    write(tmp_path / "Annotations" / "a.xml", VOC[:90])
    with pytest.raises(DataError, match=r"a\.xml"):
        to_coco("voc", tmp_path, tmp_path / "x.json")
    (tmp_path / "Annotations" / "a.xml").unlink()
    with pytest.raises(DataError, match="no XML file"):
        to_coco("voc", tmp_path, tmp_path / "x.json")
