"""Raw bodies: what each format becomes, and that hostile ones are refused with their place and reason, never read."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inference.decode import ROWS, decode
from inference.errors import InferenceError, InputRefused, MediaTypeUnsupported
from inference.signature import Signature
from tests.depth import examples
from tests.inference.graphs import signature

TABLE = Signature.from_json(
    signature(
        {"radius": ("FP32", [-1, 1]), "texture": ("BYTES", [-1, 1]), "count": ("INT64", [-1, 1])},
        {"value": ("FP32", [-1, 1])},
    )
)
WIDE = Signature.from_json(
    signature({"features": ("FP32", [-1, 3])}, {"value": ("FP32", [-1, 1])}) | {"columns": ["a", "b", "c"]}
)
NUMBERED = Signature.from_json(signature({"features": ("FP32", [-1, 3])}, {"value": ("FP32", [-1, 1])}))
PICTURE = Signature.from_json(signature({"image": ("UINT8", [-1, 3, 8, 6])}, {"value": ("FP32", [-1, 1])}))
GREY = Signature.from_json(signature({"image": ("UINT8", [-1, 1, 8, 6])}, {"value": ("FP32", [-1, 1])}))
KINDS = [ROWS, "text/csv", "image/png", "image/jpeg", "application/x-npy"]


def rows(of: Signature, document: Any) -> dict[str, Any]:
    return decode(of, ROWS, json.dumps(document).encode())


def npy(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


def image(picture: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


def refusal(of: Signature, content_type: str, body: bytes) -> InputRefused:
    with pytest.raises(InputRefused) as caught:
        decode(of, content_type, body)
    return caught.value


class TestRows:
    def test_one_array_per_column_in_the_models_datatypes(self) -> None:
        arrays = rows(TABLE, [{"radius": 1, "texture": "a", "count": 2}, {"count": 3, "radius": None, "texture": None}])
        np.testing.assert_equal(arrays["radius"], np.array([[1], [np.nan]], "f4"))
        assert arrays["texture"].tolist() == [["a"], [""]]
        assert (arrays["count"].tolist(), arrays["count"].dtype) == ([[2], [3]], np.int64)

    def test_a_wide_input_is_made_of_its_columns_in_their_order(self) -> None:
        assert rows(WIDE, [{"c": 3, "a": 1, "b": 2}])["features"].tolist() == [[1, 2, 3]]

    def test_a_wide_input_without_names_takes_lists(self) -> None:
        assert rows(NUMBERED, [{"features": [1, 2, 3]}, {"features": [4, 5, 6]}])["features"].shape == (2, 3)

    @pytest.mark.parametrize(
        ("row", "path", "code", "hint"),
        [
            ({"radius": 1, "texture": "a"}, "/rows/1/count", "missing", "write null for a value that is not known"),
            ({"radius": "x", "texture": "a", "count": 1}, "/rows/1/radius", "datatype", "expected a number (FP32)"),
            ({"radius": True, "texture": "a", "count": 1}, "/rows/1/radius", "datatype", "expected a number (FP32)"),
            ({"radius": 1, "texture": 7, "count": 1}, "/rows/1/texture", "datatype", "expected text"),
            ({"radius": 1, "texture": "a", "count": 0.5}, "/rows/1/count", "range", "expected INT64"),
            ({"radius": 1, "texture": "a", "count": None}, "/rows/1/count", "datatype", "expected a number (INT64)"),
            ({"radius": 1e300, "texture": "a", "count": 1}, "/rows/1/radius", "range", "expected FP32"),
            ([1], "/rows/1", "row", "expected {column: value}"),
        ],
    )
    def test_a_bad_row_is_named_by_its_place(self, row: Any, path: str, code: str, hint: str) -> None:
        good = {"radius": 1, "texture": "a", "count": 1}
        refused = refusal(TABLE, ROWS, json.dumps([good, row]).encode())
        assert (refused.path, refused.reason, refused.hint) == (path, code, hint)

    def test_an_unknown_column_gets_the_nearest_name(self) -> None:
        body = json.dumps([{"radius": 1, "texture": "a", "count": 1, "radios": 2}]).encode()
        refused = refusal(TABLE, ROWS, body)
        assert (refused.path, refused.hint) == ("/rows/0/radios", "did you mean 'radius'?")
        assert str(refused) == "row 0: 'radios' is not an input of the model, did you mean 'radius'?"

    @pytest.mark.parametrize("body", [b"", b"[", b"{}", b"[]", b"null", b"[1e999999]", b"[" * 100_000])
    def test_what_is_no_list_of_rows_is_refused(self, body: bytes) -> None:
        assert refusal(TABLE, ROWS, body).path.startswith("/rows")


class TestCsv:
    def test_columns_by_name_with_missing_numbers(self) -> None:
        arrays = decode(TABLE, "text/csv; charset=utf-8", '\ufeffcount,texture,radius\n1,ä,\n2,"b,c",NA\n'.encode())
        assert np.isnan(arrays["radius"]).all()
        assert arrays["texture"].tolist() == [["ä"], ["b,c"]]

    def test_a_wide_input_takes_its_columns(self) -> None:
        assert decode(WIDE, "text/csv", b"c,b,a\n3,2,1\n")["features"].tolist() == [[1, 2, 3]]

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b"", "has no rows"),
            (b"radius,texture,count\n", "has no rows"),
            (b"radius,texture\n1,a\n", "column 'count' is missing"),
            (b"radius,texture,count,label\n1,a,2,x\n", "column 'label' is not an input of the model"),
            (b"radius,radius,texture,count\n1,1,a,2\n", "column 'radius' occurs twice"),
            (b"radius,texture,count\n1,a\n", "row 1 has 2 cells"),
            (b"radius,texture,count\nx,a,1\n", "row 1, column 'radius' holds 'x'"),
            (b"radius,texture,count\n1_0,a,1\n", "row 1, column 'radius' holds '1_0'"),
            (b"radius,texture,count\ninf,a,1\n", "row 1, column 'radius' holds 'inf'"),
            (b"radius,texture,count\n1,a,\n", "row 1, column 'count' holds ''"),
            (b"radius,texture,count\n1,a,1.5\n", "column 'count' holds 1.5"),
            (b"radius,texture,count\n1,\xff,1\n", "is not UTF-8 at byte 23"),
            (b'radius,texture,count\n1,"a,1\n', "is no CSV: line 2: unexpected end of data"),
        ],
    )
    def test_a_bad_table_names_row_and_column(self, body: bytes, message: str) -> None:
        assert refusal(TABLE, "text/csv", body).problems[0].message == message


class TestImages:
    @pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "CMYK"])
    def test_any_picture_of_eight_bits_becomes_the_models_channels_and_size(self, mode: str) -> None:
        kind = "JPEG" if mode == "CMYK" else "PNG"
        body = image(Image.new(mode, (20, 30)), kind)
        for of, channels in ((PICTURE, 3), (GREY, 1)):
            array = decode(of, f"image/{kind.lower()}", body)["image"]
            assert (array.shape, array.dtype) == ((1, channels, 8, 6), np.uint8)

    def test_a_picture_of_the_right_size_is_not_changed(self) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype="u1")
        array = decode(PICTURE, "image/png", image(Image.fromarray(pixels)))["image"]
        np.testing.assert_array_equal(array[0], pixels.transpose(2, 0, 1))

    def test_a_picture_is_resized_as_pillow_does_bilinearly(self) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (16, 12, 3), dtype="u1")
        picture = Image.fromarray(pixels)
        expected = np.asarray(picture.resize((6, 8), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        np.testing.assert_array_equal(decode(PICTURE, "image/png", image(picture))["image"][0], expected)

    def test_a_picture_of_another_kind_than_it_says_is_refused(self) -> None:
        body = image(Image.new("RGB", (4, 4)), "GIF")
        assert "is no PNG image" in str(refusal(PICTURE, "image/png", body))

    def test_a_picture_with_too_many_pixels_is_refused_before_it_is_unpacked(self) -> None:
        header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
        body = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
        body += struct.pack(">I", zlib.crc32(b"IHDR" + header))
        body += image(Image.new("RGB", (1, 1)))[33:]
        assert refusal(PICTURE, "image/png", body).problems[0].message == "has too many pixels"

    def test_sixteen_bits_a_channel_are_refused(self) -> None:
        body = image(Image.fromarray(np.zeros((8, 6), "u2")))
        assert "more than 8 bits" in str(refusal(GREY, "image/png", body))

    def test_a_cut_picture_is_refused(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype="u1")
        body = image(Image.fromarray(noise), "JPEG")
        assert "is no JPEG image" in str(refusal(PICTURE, "image/jpeg", body[: len(body) // 2]))

    def test_a_model_without_pictures_takes_none(self) -> None:
        with pytest.raises(MediaTypeUnsupported, match="takes no image; application/json, text/csv are accepted"):
            decode(TABLE, "image/png", image(Image.new("RGB", (4, 4))))


class TestNpy:
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_the_only_input_in_either_order(self, order: Any) -> None:
        array = np.arange(12, dtype="f8").reshape(4, 3)
        read = decode(NUMBERED, "application/x-npy", npy(np.asarray(array, order=order)))["features"]
        assert (read.dtype, read.tolist()) == (np.float32, array.tolist())

    def test_big_endian_numbers_are_read(self) -> None:
        read = decode(NUMBERED, "application/x-npy", npy(np.ones((1, 3), ">f4")))["features"]
        assert read.tolist() == [[1, 1, 1]]

    def test_python_objects_are_never_unpickled(self) -> None:
        body = npy(np.array([[print, None, 1]], dtype=object), allow_pickle=True)
        assert "expected numbers or fixed-width text" in str(refusal(NUMBERED, "application/x-npy", body))

    def test_a_header_that_asks_for_terabytes_is_refused_before_anything_is_allocated(self) -> None:
        body = npy(np.zeros((1, 3), "f4")).replace(b"(1, 3)", b"(1 << 40, 3)".replace(b"1 << 40", b"7000000000000"))
        assert refusal(NUMBERED, "application/x-npy", body).reason == "npy"
        lying = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            lying, {"descr": "<f4", "fortran_order": False, "shape": (7_000_000_000_000, 3)}
        )
        assert "promises 84000000000000 bytes and has 4" in str(
            refusal(NUMBERED, "application/x-npy", lying.getvalue() + bytes(4))
        )

    def test_a_cut_file_is_refused(self) -> None:
        assert "the file is cut" in str(refusal(NUMBERED, "application/x-npy", npy(np.zeros((4, 3), "f4"))[:-1]))

    def test_an_array_of_another_shape_is_refused_as_a_tensor_is(self) -> None:
        refused = refusal(NUMBERED, "application/x-npy", npy(np.zeros((4, 2), "f4")))
        assert str(refused) == "input 'features' has shape [4, 2], expected [-1, 3]"

    def test_a_model_of_several_inputs_takes_no_npy(self) -> None:
        with pytest.raises(MediaTypeUnsupported, match="the model takes several: radius, texture, count"):
            decode(TABLE, "application/x-npy", npy(np.zeros(3)))


@settings(max_examples=examples(300))
@given(st.sampled_from([TABLE, WIDE, NUMBERED, PICTURE]), st.sampled_from(KINDS), st.binary(max_size=400))
def test_any_bytes_are_decoded_or_refused(of: Signature, kind: str, body: bytes) -> None:
    try:
        arrays = decode(of, kind, body)
    except InferenceError:
        return
    assert of.check(arrays) >= 1


@settings(max_examples=examples(200))
@given(st.sampled_from([npy(np.zeros((2, 3), "f4")), image(Image.new("RGB", (6, 8)))]), st.data())
def test_a_damaged_file_is_decoded_or_refused(body: bytes, data: st.DataObject) -> None:
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    for of, kind in ((NUMBERED, "application/x-npy"), (PICTURE, "image/png")):
        with contextlib.suppress(InferenceError):
            of.check(decode(of, kind, bytes(damaged)))
