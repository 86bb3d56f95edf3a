"""NPZ files: the layout of the contract, and headers that lie, ask for memory or carry objects."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from tests.training.making import archive, npy, npz, read, refusal

IMAGES = np.arange(4 * 3 * 5 * 6, dtype=np.uint8).reshape(4, 3, 5, 6)
LABELS = np.array([3, 1, 10, 1])
TARGET = npy("'<i8'", "(4,)", struct.pack("<4q", 3, 1, 10, 1))


@pytest.mark.parametrize("compressed", [False, True])
def test_images_and_integer_labels_come_out_as_they_went_in(compressed: bool) -> None:
    data = read(npz(image=IMAGES, label=LABELS, compressed=compressed), "npz")
    assert data.modality == "image"
    np.testing.assert_array_equal(data.inputs["image"], IMAGES)
    assert data.classes == ["1", "3", "10"]
    assert data.target.tolist() == [1, 0, 2, 0]
    assert data.columns[0].shape == (3, 5, 6)


def test_features_of_any_number_type_become_float32_and_nan_stays_missing() -> None:
    features = np.array([[1, np.nan], [2, 3]])
    for dtype in ("f2", ">f4", "f8"):
        data = read(npz(features=features.astype(dtype), label=np.array(["a", "b"])), "npz")
        assert data.inputs["features"].dtype == np.float32
        np.testing.assert_array_equal(data.inputs["features"], features)
    assert read(npz(features=np.array([[1], [200]], "u1"), label=[0, 1]), "npz").inputs["features"].tolist() == [
        [1],
        [200],
    ]


def test_fortran_order_and_bytes_as_labels_are_understood() -> None:
    data = read(npz(image=np.asfortranarray(IMAGES), label=np.array([b"x", b"y", b"x", b"z"])), "npz")
    np.testing.assert_array_equal(data.inputs["image"], IMAGES)
    assert data.classes == ["x", "y", "z"]


def test_a_target_of_fractions_is_a_quantity() -> None:
    data = read(npz(features=np.ones((2, 1)), price=np.array([1.5, 2.25])), "npz", target="price")
    assert data.classes is None
    assert data.target.tolist() == [1.5, 2.25]


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ({"image": IMAGES}, "target_absent"),
        ({"label": LABELS}, "npz_layout"),
        ({"image": IMAGES, "features": np.ones((4, 2)), "label": LABELS}, "npz_layout"),
        ({"image": IMAGES, "label": LABELS, "x_test": LABELS}, "npz_layout"),
        ({"image": IMAGES.astype("f4"), "label": LABELS}, "npz_image_type"),
        ({"image": IMAGES[:, 0], "label": LABELS}, "npz_image_shape"),
        ({"image": IMAGES.transpose(0, 2, 3, 1), "label": LABELS}, "npz_image_shape"),
        ({"image": IMAGES, "label": LABELS[:3]}, "npz_target_shape"),
        ({"image": IMAGES, "label": LABELS[:, None]}, "npz_target_shape"),
        ({"image": IMAGES[:0], "label": LABELS[:0]}, "no_rows"),
        ({"features": np.ones(4), "label": LABELS}, "npz_features_shape"),
        ({"features": np.array([["a"]] * 4), "label": LABELS}, "npz_features_type"),
        ({"features": np.array([[1e300]] * 4), "label": LABELS}, "number_not_finite"),
        ({"features": np.ones((4, 1)), "label": np.array([0.5, np.nan, 1, 2])}, "target_missing"),
        ({"features": np.ones((4, 1)), "label": np.array(["a", "", "b", "c"])}, "target_missing"),
        ({"features": np.ones((1, 1)), "label": np.array(["x" * 300])}, "class_name_too_long"),
        ({"features": np.ones((1, 1)), "label": np.array([b"\xff"])}, "npz_text"),
        ({"features": np.ones((4, 1)), "label": np.array([1j] * 4)}, "npz_type"),
    ],
)
def test_each_wrong_layout_has_its_own_answer(arrays: dict[str, object], code: str) -> None:
    assert refusal(npz(**arrays), "npz").code == code


def test_the_hint_says_how_to_turn_the_axes() -> None:
    assert "transpose(0, 3, 1, 2)" in str(refusal(npz(image=IMAGES.transpose(0, 2, 3, 1), label=LABELS), "npz").hint)
    assert "[:, None]" in str(refusal(npz(image=IMAGES[:, 0], label=LABELS), "npz").hint)


class Trap:
    """Unpickled, it would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("the pickle was opened",))


def test_objects_are_refused_and_never_unpickled() -> None:
    content = npz(image=IMAGES, label=np.array([Trap(), 1, 2, 3], dtype=object))
    assert refusal(content, "npz").code == "npz_objects"
    member = npy("'|O'", "(1,)", pickle.dumps([Trap()]))
    assert refusal(archive({"image.npy": member, "label.npy": TARGET}), "npz").code == "npz_objects"


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(4, 3, 5, 6)", "(2**40,)", "(-1,)", "(1.5,)", "(True,)", "5"])
def test_a_header_that_lies_about_its_size_takes_no_memory(shape: str) -> None:
    content = archive({"image.npy": npy("'|u1'", shape, b"1234"), "label.npy": TARGET})
    assert refusal(content, "npz").code in {"npz_header_lies", "npz_header"}


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"(" * 1000,
        npy("[('a', '<f4')]", "(1,)", b"1234"),
        npy("'<f16'", "(1,)", bytes(16)),
        npy("'U0'", "(4,)"),
        npy("'|u1'", "(" * 300 + ")" * 300),
        npy("'|u1'", "(1,)", b"1", fortran="'no'"),
        npy("__import__('os').abort()", "(1,)", b"1"),
    ],
)
def test_headers_that_are_none_are_refused(member: bytes) -> None:
    content = archive({"image.npy": member, "label.npy": TARGET})
    assert refusal(content, "npz").code in {"npz_header", "npz_type", "npz_header_lies"}


def test_a_member_that_ends_early_or_fails_its_checksum_is_refused() -> None:
    content = bytearray(npz(image=IMAGES, label=LABELS))
    content[200] ^= 1
    assert refusal(bytes(content), "npz").code == "zip_entry_damaged"
    assert refusal(bytes(content[: len(content) // 2]), "npz").code == "zip_unreadable"


def test_a_declared_modality_that_the_arrays_contradict_is_refused() -> None:
    content = npz(image=IMAGES, label=LABELS)
    assert read(content, "npz", modality="image").rows == 4
    problem = refusal(content, "npz", modality="tabular")
    assert problem.code == "modality_mismatch"
    assert "modality=image" in str(problem.hint)


def test_a_zip_of_something_else_says_what_is_missing() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("readme.txt", "hello")
    assert refusal(buffer.getvalue(), "npz").code == "target_absent"
