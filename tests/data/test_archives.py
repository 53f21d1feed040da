"""CIFAR in its official archive, by whichever of its names; never fetched without being asked for."""

import pickle
import shutil
import tarfile
from typing import Any

import numpy as np
import pytest
import torchvision

from botvision.data.classification import DataConfig, open_splits
from botvision.io.errors import DataError


def config(root, **changes) -> DataConfig:
    values: dict[str, Any] = {"root": str(root), "image_size": 8, **changes}
    return DataConfig(**values)


def fake_cifar(root, monkeypatch, train_count=20, test_count=10):
    """The official archive's layout with a few random pictures, and torchvision told the new checksums."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def write(name, content):
        path = folder / name
        path.write_bytes(pickle.dumps(content))
        return [name, torchvision.datasets.utils.calculate_md5(path)]

    def batch(count):
        data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        return {"data": data, "labels": [index % 10 for index in range(count)]}

    official = torchvision.datasets.CIFAR10
    monkeypatch.setattr(official, "train_list", [write("data_batch_1", batch(train_count))])
    monkeypatch.setattr(official, "test_list", [write("test_batch", batch(test_count))])
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    meta, checksum = write("batches.meta", {"label_names": names})
    monkeypatch.setattr(official, "meta", {"filename": meta, "key": "label_names", "md5": checksum})
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_cifar10_archive(tmp_path, monkeypatch, packed):
    folder = fake_cifar(tmp_path / "d", monkeypatch)
    first = pickle.loads((folder / "data_batch_1").read_bytes())["data"][0]
    if packed:
        archive = folder.parent / "cifar-10-python.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(folder, folder.name)
        shutil.rmtree(folder)
        checksum = torchvision.datasets.utils.calculate_md5(archive)
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", checksum)
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/")  # nobody may call
    splits = open_splits(config(tmp_path / "d", image_size=32))
    assert splits.name == "CIFAR-10"
    assert (len(splits.train), len(splits.val), splits.classes[3]) == (20, 10, "cat")
    assert splits.train.targets[:3].tolist() == [0, 1, 2]
    assert splits.train.load(0).flatten().tolist() == first.tolist()  # the archive is channels, rows, columns


@pytest.mark.parametrize("packed", [False, True])
def test_cifar10_by_the_name_of_its_archive_or_folder(tmp_path, monkeypatch, packed):
    folder = fake_cifar(tmp_path, monkeypatch)
    archive = tmp_path / "cifar-10-python.tar.gz"
    if packed:
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(folder, arcname=folder.name)
        shutil.rmtree(folder)
        md5 = torchvision.datasets.utils.calculate_md5(archive)
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", md5)
    splits = open_splits(config(archive if packed else folder))
    assert (splits.name, len(splits.train), len(splits.val)) == ("CIFAR-10", 20, 10)
    if not packed:
        monkeypatch.chdir(folder)
        assert open_splits(config(".")).name == "CIFAR-10"


def test_damaged_cifar_archive_is_refused(tmp_path, monkeypatch):
    folder = fake_cifar(tmp_path, monkeypatch)
    (folder / "test_batch").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"missing or damaged; data\.download true fetches it"):
        open_splits(config(tmp_path, source="cifar10"))


def test_cifar_without_files_or_network(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"cifar-100-python.* is missing or damaged"):
        open_splits(config(tmp_path, source="cifar100"))
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(DataError, match="cannot be fetched") as caught:
        open_splits(config(tmp_path, source="cifar10", download=True))
    assert "\n" not in str(caught.value)
