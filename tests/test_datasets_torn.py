"""Whatever can be wrong with a dataset's files is one line that names the file and what is expected."""

from __future__ import annotations

import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raymc.datasets import load
from raymc.datasets.catalogue import SOURCES
from raymc.datasets.source import Source
from raymc.errors import InputError
from tests.fabricated_data import bytes_of, small, write_batches, write_idx


def complaint(source: Source, root: Path) -> str:
    with pytest.raises(InputError) as caught:
        source.load(root)
    text = str(caught.value)
    assert "\n" not in text
    return text


IMAGES = "MNIST/raw/train-images-idx3-ubyte"


@pytest.mark.parametrize(
    ("torn", "words"),
    [
        (lambda b: b"", "starts with nothing"),
        (lambda b: b"\x1f\x8b\x08\x00" + b[4:], "starts with 1f 8b 08 00"),
        (lambda b: b[:9], "ends within its head"),
        (lambda b: b[:-7], "9401 bytes after its head"),
        (lambda b: b + b"x", "9409 bytes after its head"),
        (lambda b: b[:4] + struct.pack(">I", 11) + b[8:], "holds 11x28x28"),
    ],
)
def test_a_torn_idx_file_is_named(mnist: Path, torn: Callable[[bytes], bytes], words: str) -> None:
    path = mnist / IMAGES
    path.write_bytes(torn(path.read_bytes()))
    text = complaint(small("mnist", (12, 5)), mnist)
    assert str(path) in text and words in text and "expected: an idx file of 12x28x28 bytes" in text


def test_a_missing_file_or_folder_is_named_with_the_way_to_get_it(mnist: Path) -> None:
    (mnist / IMAGES).unlink()
    assert f"{mnist / IMAGES} is missing" in complaint(small("mnist", (12, 5)), mnist)
    text = complaint(SOURCES["cifar10"], mnist)
    assert str(mnist / "cifar-10-batches-py") in text and "python -m raymc.data get cifar10" in text
    assert "obtain it from" in complaint(SOURCES["coil20"], mnist)


def test_labels_outside_the_classes_are_refused(mnist: Path) -> None:
    write_idx(mnist / "MNIST/raw/train-labels-idx1-ubyte", np.full(12, 10, np.uint8))
    text = complaint(small("mnist", (12, 5)), mnist)
    assert "train-labels-idx1-ubyte holds labels 10 to 10; expected: 0 to 9" in text


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps([1]), pickle.dumps({"data": bytes_of(2, 3)})])
def test_a_torn_pickle_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py/data_batch_1").write_bytes(content)
    text = complaint(SOURCES["cifar10"], tmp_path)
    assert str(tmp_path / "cifar-10-batches-py/data_batch_1") in text and "expected: a CIFAR batch" in text


class Harm:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("harm"),))


def test_a_pickle_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar-100-python").mkdir()
    (tmp_path / "cifar-100-python/train").write_bytes(pickle.dumps({"data": Harm(), "fine_labels": []}))
    assert "is torn or no such pickle" in complaint(SOURCES["cifar100"], tmp_path)
    assert not (tmp_path / "harm").exists()


def test_a_truncated_strip_a_wrong_count_and_torn_labels_are_named(compact: Path) -> None:
    source = small("cifar100", (7, 2))
    assert "holds 7 images; expected: 8 images" in complaint(small("cifar100", (8, 2)), compact)
    path = compact / "cifar100/labels.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert f"{path} is torn" in complaint(source, compact)
    np.savez(path, train=np.arange(7))
    assert "labels.npz lacks an array (train_fine" in complaint(source, compact)
    strip = compact / "cifar100/train/train_001.webp"
    strip.write_bytes(strip.read_bytes()[:-900])
    assert f"{strip} is torn or no image" in complaint(source, compact)
    for path in (compact / "cifar100/train").iterdir():
        path.unlink()
    assert "holds no *.webp" in complaint(source, compact)


def test_coil_files_that_are_torn_missing_or_of_another_size_are_named(coil: Path) -> None:
    source = small("coil20", (144,), classes=2)
    path = coil / "coil-20-proc/obj1__3.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:5000])
    assert f"{path} is torn or no image" in complaint(source, coil)
    Image.fromarray(bytes_of(448, 416)).save(path)
    assert f"{path} is 416x448 L; expected: a PNG of 128x128" in complaint(source, coil)
    Image.fromarray(bytes_of(64, 64)).save(path)
    assert "mixes images of 128x128 grey and 64x64 grey" in complaint(source, coil)
    path.unlink()
    assert f"{path} is missing" in complaint(source, coil)


def test_an_image_folder_with_other_classes_or_an_empty_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "imagenet10/a").mkdir(parents=True)
    assert "has 1 subfolders; expected: 10" in complaint(SOURCES["imagenet10"], tmp_path)
    assert "holds no images" in complaint(small("imagenet10", (3,), classes=1), tmp_path)
    Image.new("RGB", (9, 9)).save(tmp_path / "imagenet10/a/0.png")
    assert "holds 1 images; expected: 3" in complaint(small("imagenet10", (3,), classes=1), tmp_path)


def test_an_imbalanced_set_of_another_size_is_named(tmp_path: Path) -> None:
    write_batches(tmp_path, [1, 1, 0, 0, 0], [1])
    text = complaint(small("imb_cifar10", (5, 1), in_files=(6, 1)), tmp_path)
    assert "cifar-10-batches-py: 5 images for train; expected: 6" in text
    text = complaint(small("imb_cifar10", (3, 1), in_files=(5, 1)), tmp_path)
    assert "cifar-10-batches-py: 4 images of train are left; expected: 3" in text


TINY = small("tiny_imagenet", (6, 4), classes=2)


def test_missing_parts_of_tiny_imagenet_are_named(tiny: Path) -> None:
    folder = tiny / "tiny-imagenet-200"
    image = folder / "train/n01/images/n01_2.JPEG"
    assert f"{folder / 'train'} has 2 subfolders; expected: 200" in complaint(SOURCES["tiny_imagenet"], tiny)
    kept = image.read_bytes()
    image.unlink()
    assert f"{image.parent} holds 2 images; expected: 3" in complaint(TINY, tiny)
    image.write_bytes(kept)
    (folder / "val/images/val_2.JPEG").unlink()
    assert f"{folder / 'val/images/val_2.JPEG'} is missing" in complaint(TINY, tiny)
    (folder / "val/val_annotations.txt").unlink()
    assert "val_annotations.txt is missing; expected: lines of" in complaint(TINY, tiny)
    shutil.rmtree(folder / "train/n01/images")
    assert f"{folder / 'train/n01/images'} holds 0 images" in complaint(TINY, tiny)
    shutil.rmtree(folder / "train")
    assert f"{folder / 'train'} is missing; expected: 2 subfolders" in complaint(TINY, tiny)
    shutil.rmtree(folder)
    text = complaint(TINY, tiny)
    assert f"{folder} is missing" in text and "https://cs231n.stanford.edu/tiny-imagenet-200.zip" in text


@pytest.mark.parametrize("name", ["train/n20/images/n20_1.JPEG", "val/images/val_1.JPEG"])
def test_torn_images_of_tiny_imagenet_and_those_of_another_size_are_named(tiny: Path, name: str) -> None:
    path = tiny / "tiny-imagenet-200" / name
    path.write_bytes(path.read_bytes()[:-900])
    assert f"{path} is torn or no image" in complaint(TINY, tiny)
    Image.new("RGB", (64, 63)).save(path)
    assert f"{path} is 64x63 RGB; expected: a JPEG of 64x64" in complaint(TINY, tiny)


@pytest.mark.parametrize(
    ("torn", "words"),
    [
        (lambda lines: lines[:3], "names 3 images in 3 lines; expected: 4"),
        (lambda lines: [*lines[:3], lines[0]], "names 3 images in 4 lines; expected: 4"),
        (
            lambda lines: [lines[0], "val_1.JPEG\tn99\t0"],
            "line 2, names the class 'n99'; expected: a subfolder of train",
        ),
        (lambda lines: ["val_0.JPEG n01"], "line 1, is 'val_0.JPEG n01'; expected: lines of"),
        (lambda lines: ["\0\x85\t"], "line 1, is '\\x00'; expected: lines of"),
    ],
)
def test_torn_annotations_of_tiny_imagenet_are_named(
    tiny: Path, torn: Callable[[list[str]], list[str]], words: str
) -> None:
    path = tiny / "tiny-imagenet-200/val/val_annotations.txt"
    path.write_text("\n".join(torn(path.read_text().splitlines())), encoding="utf-8")
    text = complaint(TINY, tiny)
    assert str(path) in text and words in text


def test_short_stl_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "stl10_binary").mkdir()
    (tmp_path / "stl10_binary/train_X.bin").write_bytes(b"123")
    text = complaint(SOURCES["stl10"], tmp_path)
    assert "train_X.bin has 3 bytes; expected: 138240000 (5000 images of 96 pixels)" in text


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown dataset cifer20; did you mean cifar20?"):
        load("cifer20", str(tmp_path))
