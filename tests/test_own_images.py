"""Folders of the user's own images: classes, names, kinds of pixels, and what is left out with a word."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from raymc.config import Config
from raymc.datasets import load_once
from raymc.datasets.own_folders import files_below
from tests.own_data import RNG, complaint, own, read, write_images


def test_a_folder_of_images_has_its_subfolders_as_labels(tmp_path: Path) -> None:
    grey = write_images(tmp_path / "grey", b__1=("L", (20, 20)), a__2=("L", (20, 20)), a__1=("1", (20, 20)))
    (grey / "notes.txt").write_text("no image")
    data = read(grey)
    assert data.train.x.shape == (3, 1, 20, 20) and data.name == "grey"
    assert data.train.y is not None and data.train.y.tolist() == [0, 0, 1]
    assert np.array_equal(data.train.x[2, 0].numpy(), np.asarray(Image.open(grey / "b/1.png")))
    assert read(grey, side=32).train.x.shape == (3, 1, 32, 32)
    mixed = write_images(tmp_path / "mixed", x=("L", (30, 20)), y=("RGBA", (70, 90)), z=("P", (8, 8)))
    data = read(mixed)
    assert data.train.x.shape == (3, 3, 64, 64) and data.train.y is None
    assert torch.equal(data.train.x[0, 0], data.train.x[0, 2]), "grey in colours"
    large = write_images(tmp_path / "large", x=("RGB", (100, 100)), y=("RGB", (100, 100)))
    assert read(large).train.x.shape == (2, 3, 64, 64) and read(large, side=100).train.x.shape == (2, 3, 100, 100)


def test_folders_that_are_no_set_of_images(tmp_path: Path) -> None:
    alone = write_images(tmp_path / "alone", a__x=("L", (9, 9)), a__y=("L", (9, 9)))
    assert "all labels are a; at least two classes" in complaint(alone)
    (alone / "b").mkdir()
    for label in (None, "folder"):
        assert f"{alone / 'b'} holds no images; expected: .bmp, .jpeg" in complaint(alone, label=label)
    torn = write_images(tmp_path / "torn", x=("L", (99, 99)), y=("L", (9, 9)))
    (torn / "x.png").write_bytes((torn / "x.png").read_bytes()[:200])
    assert f"{torn / 'x.png'} is torn or no image" in complaint(torn)
    Image.fromarray(np.zeros((9, 9), np.float32)).save(torn / "x.tif")
    (torn / "x.png").unlink()
    assert "x.tif is 9x9 F; expected: an image of 8 bits, grey or colour, or grey of 16" in complaint(torn)
    assert "label names a column of a table; of a folder it is folder, or left out" in complaint(torn, label="kind")


def test_the_first_level_is_the_class_however_deep_the_images_lie(tmp_path: Path) -> None:
    size = ("L", (9, 9))
    folder = write_images(tmp_path / "all", a__x=size, a__2024__x=size, b__2024__may__x=size, b__2025__y=size)
    data = read(folder, label="folder")
    assert data.samples == ("a/x.png", "a/2024/x.png", "b/2024/may/x.png", "b/2025/y.png")
    assert data.train.y is not None and data.train.y.tolist() == [0, 0, 1, 1] and data.classes == ("a", "b")
    plain = read(folder)
    assert plain.train.y is None and plain.classes is None and plain.samples == data.samples
    assert "no labels, as not all images lie one folder deep (label: folder takes the first level)" in plain.split
    assert plain.fingerprint == data.fingerprint
    mixed = write_images(tmp_path / "mixed", x=size, a__y=size, b__z=size)
    assert read(mixed).train.y is None and read(mixed).samples == ("x.png", "a/y.png", "b/z.png")
    told = "1 of 3 images lie in no folder below it; the first is x.png; expected: a folder for each class, or no label"
    assert told in complaint(mixed, label="folder")
    flat = write_images(tmp_path / "flat", x=size, y=size)
    assert "2 of 2 images lie in no folder below it" in complaint(flat, label="folder")
    assert read(flat).split == "all, 2; images of 9x9 grey"


def test_what_is_left_out_of_a_folder_is_counted_by_kind(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "all", a__x=("L", (9, 9)), b__x=("L", (9, 9)))
    assert read(folder).source == f"{folder} (images of 9x9 grey)"
    hidden = (".hidden", "a/._x.png", "._y", ".DS_Store", "b/.DS_Store", "b/Thumbs.db", ".thumbs/x.png", "__MACOSX/._x")
    for name in ("a.txt", "b.TXT", "a/c.txt", "a/list.csv", "README", *hidden):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no image")
    told = "without 3 .txt, 2 .DS_Store, 2 ._, 1 (no ending), 1 .csv, 2 other files and 2 hidden folders"
    assert read(folder).source == f"{folder} (images of 9x9 grey; {told})"
    assert read(folder).split == f"all, 2; images of 9x9 grey; {told}"
    assert read(folder).samples == ("a/x.png", "b/x.png")
    (folder / "a/y.HEIC").write_bytes(b"")
    told = f"holds 1 images of a kind that is not read (.heic); the first is {folder / 'a/y.HEIC'}; expected: .bmp"
    assert told in complaint(folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty} holds no images; expected: .bmp, .jpeg, .jpg" in complaint(empty)
    assert complaint(empty).endswith("; found: nothing")
    (empty / "notes.txt").touch()
    (empty / "._x.png").touch()
    assert complaint(empty).endswith("; found: 1 ._, 1 .txt files")


def test_links_to_folders_are_followed_but_not_around_in_circles(tmp_path: Path) -> None:
    write_images(tmp_path / "kept", x=("L", (9, 9)))
    folder = write_images(tmp_path / "all", a__x=("L", (9, 9)))
    (folder / "b").symlink_to(tmp_path / "kept")
    (tmp_path / "kept/up").symlink_to(tmp_path)
    assert read(folder).n_classes == 2


def test_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    write_images(folder, a__x=("L", (9, 9)), b__x=("L", (9, 9)), c__x=("L", (9, 9)))
    for one, other in itertools.permutations("abc", 2):
        (folder / one / f"to{other}").symlink_to(folder / other)
    assert len(list(files_below(folder))) == 3 + 6 + 6, "each way that goes through no folder twice"
    assert len(read(folder).train) == 15 and read(folder, label="folder").n_classes == 3
    upwards = write_images(tmp_path / "upwards", a__x=("L", (9, 9)), b__x=("L", (9, 9)))
    (upwards / "up").symlink_to(tmp_path)
    assert read(upwards).n_classes == 2


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_images(tmp_path / "all", a__x=("L", (9, 9)), b__x=("L", (9, 9)))
    scandir = os.scandir

    def forbidden(place: Any) -> Any:
        if str(place).endswith("b"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", forbidden)
    assert f"{folder / 'b'} cannot be read (Permission denied)" in complaint(folder)


def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "all", x=("L", (9, 9)), y=("L", (9, 9)))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the camera's right is up
    with Image.open(folder / "x.png") as image:
        plain = np.asarray(image)
        image.save(folder / "x.png", exif=exif)
    assert np.array_equal(read(folder).train.x[0, 0].numpy(), np.rot90(plain, -1))


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    """By the formula of one layer over another, alpha c + (1 - alpha) 255, whatever the mode."""
    colour, grey = RNG.integers(0, 256, (2, 9, 9, 3), dtype=np.uint8)
    alpha = RNG.integers(0, 256, (9, 9), dtype=np.uint8)
    alpha[0], alpha[1] = 0, 255
    share = alpha[..., None] / 255
    for mode, pixels in (("RGBA", colour), ("LA", grey[..., :1])):
        folder = tmp_path / mode
        folder.mkdir()
        for name in "xy":
            Image.fromarray(np.concatenate([pixels, alpha[..., None]], 2), mode).save(folder / f"{name}.png")
        found = read(folder).train.x[0].numpy().transpose(1, 2, 0).astype(float)
        assert found.shape == pixels.shape and np.abs(found - (share * pixels + (1 - share) * 255)).max() <= 1
        assert (found[0] == 255).all() and (found[1] == pixels[1]).all()
    folder = tmp_path / "P"
    folder.mkdir()
    palette = Image.fromarray(np.arange(81, dtype=np.uint8).reshape(9, 9) % 3, "P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    for name in "xy":
        palette.save(folder / f"{name}.png", transparency=1)
    row = read(folder).train.x[0, :, 0, :3].T.tolist()
    assert row == [[10, 20, 30], [255, 255, 255], [70, 80, 90]]


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_greys_of_16_bits_are_scaled_by_their_type_and_not_by_the_image(tmp_path: Path, ending: str) -> None:
    values = np.asarray([0, 128, 129, 257, 30_000, 65_535, 1, 2, 3], np.uint16).reshape(3, 3)
    for name, pixels in (("x", values), ("y", values // 100)):
        Image.fromarray(np.kron(pixels, np.ones((3, 3), np.uint16))).save(tmp_path / f"{name}.{ending}")
    found = read(tmp_path).train.x
    assert found.shape == (2, 1, 9, 9)
    for image, pixels in zip(found, (values, values // 100), strict=True):
        assert image[0, ::3, ::3].tolist() == np.rint(pixels / 257).astype(int).tolist()


def test_what_is_transparent_among_greys_of_16_bits_is_white(tmp_path: Path) -> None:
    for name in "xy":
        Image.fromarray(np.full((9, 9), 700, np.uint16)).save(tmp_path / f"{name}.png", transparency=700)
    assert bool((read(tmp_path).train.x == 255).all())


@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="names are bytes on Linux alone")
def test_names_that_are_no_text_are_spelt_out(tmp_path: Path) -> None:
    for name in (b"a\xff", b"b"):
        os.mkdir(os.fsencode(tmp_path) + b"/" + name)
        with open(os.fsencode(tmp_path) + b"/" + name + b"/x.png", "wb") as file:
            Image.new("L", (9, 9)).save(file, "png")
    data = read(tmp_path)
    assert data.samples == ("a\\xff/x.png", "b/x.png") and data.classes == ("a\\xff", "b")
    assert data.samples[0].encode()


def test_of_several_pages_the_first_is_taken_with_a_word(tmp_path: Path) -> None:
    pages = [Image.new("L", (9, 9), shade) for shade in (10, 20)]
    pages[0].save(tmp_path / "x.tiff", save_all=True, append_images=pages[1:])
    pages[1].save(tmp_path / "y.tif")
    data = read(tmp_path)
    assert data.train.x.amax((1, 2, 3)).tolist() == [10, 20]
    assert "; of 1 files with several pages the first" in data.split


def test_a_folder_is_read_anew_when_a_file_in_it_changes(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "all", a__x=("L", (9, 9)), b__x=("L", (9, 9)))
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    config = Config(method="gcml", dataset="all", own=own(folder))
    before = load_once(config)
    assert load_once(config) is before
    Image.new("L", (9, 9), 7).save(folder / "b/x.png")
    assert bool((load_once(config).train.x[1] == 7).all())
