"""Zips of pictures by class folder: one size, one number of channels, and archives that mean harm."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.making import archive, picture, read, refusal
from training.data import archive as archive_reader
from training.data.images import common_size
from training.data.limits import Limits


def test_folders_become_classes_and_pixels_channels_first() -> None:
    data = read(archive({"cat/1.png": picture(colour=(1, 2, 3)), "dog/1.png": picture(colour=(4, 5, 6))}), "images")
    assert data.classes == ["cat", "dog"]
    assert data.inputs["image"].shape == (2, 3, 8, 8)
    assert data.inputs["image"][:, :, 0, 0].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert data.target.tolist() == [0, 1]


def test_one_folder_around_the_classes_and_the_litter_of_desktops_are_looked_past() -> None:
    entries = {"pets/cat/1.png": picture(), "pets/dog/1.png": picture()}
    litter = {"__MACOSX/pets/._1.png": b"x", "pets/.DS_Store": b"x", "pets/cat/Thumbs.db": b"x"}
    assert read(archive(entries | litter), "images").classes == ["cat", "dog"]


def test_numbered_folders_are_ordered_by_number() -> None:
    entries = {f"{number}/a.png": picture() for number in (10, 9, 1)}
    assert read(archive(entries), "images").classes == ["1", "9", "10"]


def test_grey_pictures_have_one_channel_and_one_colour_picture_makes_it_three() -> None:
    grey = {f"{name}/1.png": picture(mode="L") for name in "ab"}
    assert read(archive(grey), "images").inputs["image"].shape[1] == 1
    assert read(archive(grey | {"a/2.png": picture()}), "images").inputs["image"].shape[1] == 3


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        ("RGB", "PNG"),
        ("RGBA", "PNG"),
        ("P", "PNG"),
        ("1", "PNG"),
        ("LA", "PNG"),
        ("RGB", "JPEG"),
        ("CMYK", "JPEG"),
        ("RGB", "BMP"),
    ],
)
def test_every_kind_of_picture_that_is_promised_is_read(mode: str, format: str) -> None:
    colour = {"RGB": (9, 9, 9), "RGBA": (9, 9, 9, 128), "LA": (9, 128), "CMYK": (0, 0, 0, 0)}.get(mode, 0)
    entries = {"a/1": picture(mode=mode, colour=colour, format=format), "b/1.png": picture()}
    assert read(archive(entries), "images").rows == 2


def test_the_most_common_size_wins_and_others_are_resized_as_serving_does() -> None:
    odd = np.random.default_rng(0).integers(0, 256, (20, 10, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(odd).save(buffer, "PNG")
    entries = {"a/1.png": picture((8, 6)), "a/2.png": picture((8, 6)), "b/1.png": buffer.getvalue()}
    images = read(archive(entries), "images").inputs["image"]
    assert images.shape == (3, 3, 6, 8)
    expected = np.asarray(Image.fromarray(odd).resize((8, 6), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_array_equal(images[2], expected)


def test_large_pictures_are_brought_to_224_at_most() -> None:
    assert common_size([(448, 224)]) == (224, 112)
    assert common_size([(10_000, 1)]) == (224, 1)
    assert common_size([(8, 8), (16, 16)]) == (8, 8)


def with_entry(name: str, content: bytes = b"x", *, mode: int = 0, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("a/1.png", picture())
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        made.writestr(info, content, method)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name", ["../x.png", "a/../../x.png", "/etc/x.png", "C:/x.png", "..\\x.png", "\\\\host\\x.png"]
)
def test_a_name_that_leaves_the_archive_is_refused_and_shown(name: str) -> None:
    problem = refusal(with_entry(name), "images")
    assert problem.code == "zip_entry_outside"
    assert problem.message == f"entry {name!r} leaves the archive"
    assert problem.hint == "rebuild the archive with relative names"


def test_links_and_devices_are_refused() -> None:
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR):
        assert refusal(with_entry("b/link.png", b"/etc/passwd", mode=kind | 0o777), "images").code == "zip_entry_link"


def test_a_bomb_is_refused_before_it_is_inflated() -> None:
    problem = refusal(with_entry("b/bomb.png", bytes(50_000_000)), "images")
    assert problem.code == "zip_bomb"
    assert "50000000" in problem.message


def test_entries_that_share_their_bytes_are_refused_by_their_sum() -> None:
    """Overlapping entries: each is honest by itself, together they are 300 times the archive."""
    content = zipfile.ZipFile(io.BytesIO(archive({"a/1.png": bytes(range(256)) * 3000})))
    assert content.fp is not None
    content.fp.seek(0)
    whole = content.fp.read()
    directory = content.start_dir
    record = whole[directory : directory + 46 + len("a/1.png")]
    records = b"".join(
        record[:46] + f"a/{index % 10}{index // 10:02}"[:5].encode().ljust(7, b"x") for index in range(400)
    )
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 400, 400, len(records), directory, 0)
    problem = refusal(whole[:directory] + records + end, "images")
    assert problem.code == "zip_bomb"
    assert "the archive would grow" in problem.message


def test_encrypted_and_unknown_methods_and_double_names_are_refused() -> None:
    content = bytearray(archive({"a/1.png": picture()}, method=zipfile.ZIP_STORED))
    place = content.rfind(b"PK\x01\x02")
    content[place + 8] |= 1
    assert refusal(bytes(content), "images").code == "zip_entry_encrypted"
    assert refusal(archive({"a/1.png": picture()}, method=zipfile.ZIP_BZIP2), "images").code == "zip_entry_method"
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = with_entry("a/1.png", picture())
    assert refusal(twice, "images").code == "zip_entry_twice"


def test_more_entries_than_allowed_are_refused_by_the_list_and_by_what_it_claims(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = bytearray(archive({f"a/{index}.png": b"" for index in range(20)}))
    monkeypatch.setattr(archive_reader, "LIMITS", Limits(entries=10))
    assert refusal(bytes(content), "images").code == "zip_too_many_entries"
    place = content.rfind(b"PK\x05\x06")
    content[place + 8 : place + 12] = struct.pack("<HH", 3, 3)  # claims fewer than the list has
    assert refusal(bytes(content), "images").code == "zip_too_many_entries"
    content[place + 12 : place + 16] = struct.pack("<L", 2**31)  # a list of 2 GiB
    assert refusal(bytes(content), "images").code == "zip_too_many_entries"


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ({"1.png": picture()}, "image_without_class"),
        ({"a/b/1.png": picture(), "c/1.png": picture()}, "zip_entry_nested"),
        ({"x/a/b/1.png": picture()}, "zip_entry_nested"),
        ({"a/1.png": b"GIF89a" + bytes(40)}, "image_unreadable"),
        ({"a/1.png": b""}, "image_unreadable"),
        ({"a/1.png": picture()[:45]}, "image_unreadable"),
        ({"a/1.gif": picture(mode="P", format="GIF")}, "image_unreadable"),
        ({"a/1.png": picture(mode="I;16")}, "image_depth"),
        ({"a/1.png": picture((12_000, 12_000), mode="1", colour=0)}, "image_too_large"),
        ({" /1.png": picture()}, "class_name"),
        ({"a/\x1b[31m.png": picture()}, "zip_entry_name"),
        ({"a/.DS_Store": b"x"}, "no_rows"),
        ({"a/": b""}, "no_rows"),
        ({}, "no_rows"),
    ],
)
def test_each_wrong_archive_has_its_own_answer(entries: dict[str, bytes], code: str) -> None:
    assert refusal(archive(entries, method=zipfile.ZIP_STORED), "images").code == code


def test_a_truncated_archive_and_a_file_that_is_none_are_told_apart_from_an_empty_one() -> None:
    content = archive({"a/1.png": picture()})
    assert refusal(content[:-30], "images").code == "zip_unreadable"
    assert refusal(b"hello", "images").code == "zip_unreadable"
    assert refusal(b"", "images").code == "empty_file"


def test_nothing_is_written_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refusal(with_entry("../x.png"), "images")
    read(archive({"a/1.png": picture(), "b/1.png": picture()}), "images")
    assert list(tmp_path.iterdir()) == []
