"""GGUF: what is written is read again, by us and by the format's own package; each broken head is refused by name."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf as package
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.depth import examples
from tests.training.language import making
from tests.training.language.making import read, refusal
from training.errors import ImportRefused
from training.language import gguf
from training.language.gguf import Field, Tensor, Writer
from training.language.tensor_types import BF16, BY_NAME, BY_NUMBER, F32

EVERY_KIND = {
    "u8": Field("u8", 255),
    "i8": Field("i8", -128),
    "u16": Field("u16", 65535),
    "i16": Field("i16", -1),
    "u32": Field("u32", 2**32 - 1),
    "i32": Field("i32", -(2**31)),
    "f32": Field("f32", 0.5),
    "bool": Field("bool", True),
    "text": Field("text", "naïve 😀"),
    "u64": Field("u64", 2**64 - 1),
    "i64": Field("i64", -(2**63)),
    "f64": Field("f64", 1e300),
    "texts": Field("[text]", ["a", "", "ĠĠ"]),
    "numbers": Field("[i32]", [3, -1]),
    "flags": Field("[bool]", [True, False]),
    "nothing": Field("[u8]", []),
}
TWO = [Tensor("a", (64, 3), BY_NAME["Q8_0"]), Tensor("b", (5,), F32)]


def written(fields: dict[str, Field] | None = None, tensors: list[Tensor] | None = None) -> bytes:
    made = bytearray()
    tensors = TWO if tensors is None else tensors
    writer = Writer(made.extend, EVERY_KIND if fields is None else fields, tensors)
    for tensor in tensors:
        writer.data(bytes([len(tensor.name)]) * tensor.size_bytes)
    writer.close()
    assert len(made) == writer.size_bytes
    return bytes(made)


# ---- what is read


def test_what_is_written_is_read_again_value_by_value() -> None:
    head = read(written())
    assert head.fields == EVERY_KIND
    assert head.metadata["texts"] == ["a", "", "ĠĠ"]
    assert [(tensor.name, tensor.shape, tensor.type.name, tensor.size_bytes) for tensor in head.tensors] == [
        ("a", (64, 3), "Q8_0", 3 * 2 * 34),
        ("b", (5,), "F32", 20),
    ]
    assert head.data_offset % 32 == 0


def test_the_formats_own_package_reads_what_we_write(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(making.model())
    reader = package.GGUFReader(tmp_path / "model.gguf")
    expected = making.fields()
    for key, field in expected.items():
        value = reader.fields[key].contents()
        assert value == (pytest.approx(field.value) if field.kind == "f32" else field.value), key
    for tensor in reader.tensors:
        np.testing.assert_array_equal(np.array(tensor.data), making.arrays()[tensor.name])


def test_we_read_what_the_formats_own_package_writes(tmp_path: Path) -> None:
    writer = package.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_block_count(7)
    writer.add_token_list(["a", "b"])
    array = np.arange(128, dtype=np.float32).reshape(2, 64)
    writer.add_tensor("x", array)
    quantised = package.quantize(array, package.GGMLQuantizationType.Q4_0)
    writer.add_tensor("y", quantised, raw_dtype=package.GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = (tmp_path / "model.gguf").read_bytes()
    head = read(data)
    assert head.metadata == {
        "general.architecture": "llama",
        "llama.block_count": 7,
        "tokenizer.ggml.tokens": ["a", "b"],
    }
    assert [tensor.shape for tensor in head.tensors] == [(64, 2), (64, 2)]
    assert making.stored(data) == {"x": array.tobytes(), "y": quantised.tobytes()}


def test_block_sizes_are_those_of_the_formats_own_package() -> None:
    sizes = {kind.value: size for kind, size in package.GGML_QUANT_SIZES.items()}
    for number, kind in BY_NUMBER.items():
        assert (kind.block, kind.block_bytes) == sizes[number], kind.name
        assert package.GGMLQuantizationType(number).name == kind.name


def test_version_2_reads_as_version_3() -> None:
    data = bytearray(written())
    data[4] = 2
    assert read(bytes(data)).version == 2
    assert read(bytes(data)).fields == EVERY_KIND


def test_the_last_tensor_needs_no_padding() -> None:
    data = written()
    assert read(data[:-12]).tensors == read(data).tensors


def test_tensors_may_lie_in_any_order() -> None:
    data = written({"k": Field("u8", 1)}, [Tensor("a", (8,), F32), Tensor("b", (8,), F32)])
    swapped = bytearray(data)
    first, second = (data.index(struct.pack("<Q", 1) + name) + 8 + 1 + 4 + 8 + 4 for name in (b"a", b"b"))
    swapped[first : first + 8], swapped[second : second + 8] = data[second : second + 8], data[first : first + 8]
    a, b = read(bytes(swapped)).tensors
    assert a.offset == b.offset + 32


def test_an_alignment_of_its_own_is_kept() -> None:
    data = written({"general.alignment": Field("u32", 256)})
    head = read(data)
    assert (head.data_offset % 256, [tensor.offset % 256 for tensor in head.tensors]) == (0, [0, 0])


def test_a_writer_takes_each_tensor_in_pieces_and_no_byte_too_many() -> None:
    made = bytearray()
    writer = Writer(made.extend, {}, [Tensor("a", (8,), F32), Tensor("b", (2,), BF16)])
    writer.data(b"x" * 20)
    with pytest.raises(ValueError, match="13 bytes for a tensor that has 12 left"):
        writer.data(b"y" * 13)
    with pytest.raises(ValueError, match="0 of 2 tensors"):
        writer.close()
    writer.data(b"y" * 12)
    writer.data(b"z" * 4)
    writer.close()
    assert making.stored(bytes(made)) == {"a": b"x" * 20 + b"y" * 12, "b": b"zzzz"}


# ---- what is refused


def head(*, magic: bytes = b"GGUF", version: int = 3, tensors: int = 0, keys: int = 0, rest: bytes = b"") -> bytes:
    return magic + struct.pack("<IQQ", version, tensors, keys) + rest


def text(content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(content) if length is None else length) + content


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(
    name: bytes = b"t", shape: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0, dimensions: int | None = None
) -> bytes:
    count = len(shape) if dimensions is None else dimensions
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", count, *shape, kind, offset)


def one(table: bytes, data: int = 32, count: int = 1) -> bytes:
    made = head(tensors=count, rest=table)
    return made + bytes(-len(made) % 32) + bytes(data)


def aligned(value: int) -> bytes:
    return head(keys=1, rest=key(b"general.alignment", 4, struct.pack("<I", value)))


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "gguf_unreadable"),
    "three bytes": (b"GGU", "gguf_unreadable"),
    "noise": (bytes(range(64)), "gguf_unreadable"),
    "a zip": (b"PK\x03\x04" + bytes(60), "gguf_unreadable"),
    "a pickle": (b"\x80\x04\x95" + bytes(60), "gguf_unreadable"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "gguf_version"),
    "version of yesterday": (head(version=1), "gguf_version"),
    "version of tomorrow": (head(version=4), "gguf_version"),
    "ends in the counts": (head()[:20], "gguf_truncated"),
    "more tensors than bytes": (head(tensors=1000), "gguf_lying_size"),
    "more tensors than anybody has": (head(tensors=2**63), "gguf_lying_size"),
    "more keys than bytes": (head(keys=1000), "gguf_lying_size"),
    "more keys than anybody has": (head(keys=2**62), "gguf_lying_size"),
    "key longer than the file": (head(keys=1, rest=text(b"k" * 20, 200)), "gguf_lying_size"),
    "key longer than keys are": (head(keys=1, rest=text(b"k" * 20, 2**60)), "gguf_lying_size"),
    "key of nothing": (head(keys=1, rest=key(b"", 0, b"\x01")), "gguf_key"),
    "key of control characters": (head(keys=1, rest=key(b"a\nb", 0, b"\x01")), "gguf_key"),
    "key that is no text": (head(keys=1, rest=key(b"\xff\xfe", 0, b"\x01")), "gguf_text"),
    "key twice": (head(keys=2, rest=key(b"k", 0, b"\x01") * 2), "gguf_key"),
    "value of an unknown type": (head(keys=1, rest=key(b"k", 13, b"\x01")), "gguf_value_type"),
    "value that is cut": (head(keys=1, rest=key(b"k", 10, b"\x01")), "gguf_truncated"),
    "neither true nor false": (head(keys=1, rest=key(b"k", 7, b"\x02")), "gguf_value"),
    "text that is no text": (head(keys=1, rest=key(b"k", 8, text(b"\xc3"))), "gguf_text"),
    "text longer than the file": (head(keys=1, rest=key(b"k", 8, text(b"a", 2**50))), "gguf_lying_size"),
    "array of arrays": (head(keys=1, rest=key(b"k", 9, struct.pack("<IQ", 9, 1) + bytes(20))), "gguf_nested"),
    "array of an unknown type": (
        head(keys=1, rest=key(b"k", 9, struct.pack("<IQ", 99, 1) + bytes(20))),
        "gguf_value_type",
    ),
    "array longer than the file": (
        head(keys=1, rest=key(b"k", 9, struct.pack("<IQ", 4, 1_000_000) + bytes(20))),
        "gguf_lying_size",
    ),
    "array of more texts than bytes": (
        head(keys=1, rest=key(b"k", 9, struct.pack("<IQ", 8, 1_999_999) + bytes(2000))),
        "gguf_lying_size",
    ),
    "alignment of nothing": (aligned(0), "gguf_alignment"),
    "alignment that is no power": (aligned(48), "gguf_alignment"),
    "alignment of a gigabyte": (aligned(2**30), "gguf_alignment"),
    "alignment that is text": (head(keys=1, rest=key(b"general.alignment", 8, text(b"32"))), "gguf_alignment"),
    "tensor without a name": (one(tensor(b"")), "gguf_tensor_name"),
    "tensor with a long name": (one(tensor(b"n" * 64)), "gguf_lying_size"),
    "tensor without dimensions": (one(tensor(shape=())), "gguf_tensor_shape"),
    "tensor of five dimensions": (one(tensor(shape=(1, 1, 1, 1, 1))), "gguf_tensor_shape"),
    "tensor of a billion dimensions": (one(tensor(dimensions=10**9)), "gguf_tensor_shape"),
    "tensor of nothing": (one(tensor(shape=(8, 0))), "gguf_tensor_shape"),
    "tensor whose size overflows": (one(tensor(shape=(2**33, 2**33))), "gguf_tensor_shape"),
    "tensor of part of a block": (one(tensor(shape=(33,), kind=2)), "gguf_tensor_shape"),
    "tensor of an unknown type": (one(tensor(kind=4)), "gguf_tensor_type"),
    "tensor that lies askew": (one(tensor(offset=8), data=64), "gguf_tensor_offset"),
    "tensor beyond the end": (one(tensor(shape=(16,))), "gguf_truncated"),
    "tensor far beyond the end": (one(tensor(offset=2**63)), "gguf_truncated"),
    "tensor twice": (one(tensor() + tensor(offset=32), data=64, count=2), "gguf_tensor_name"),
    "tensors over each other": (one(tensor(b"a") + tensor(b"b"), count=2), "gguf_overlap"),
    "a hole before the first": (one(tensor(offset=32), data=64), "gguf_hole"),
    "a hole between": (one(tensor(b"a") + tensor(b"b", offset=64), data=96, count=2), "gguf_hole"),
    "bytes behind the last": (one(tensor(), data=96), "gguf_end"),
    "bytes behind a head without tensors": (head() + bytes(100), "gguf_end"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_each_broken_file_is_refused_with_code_and_remedy(case: str) -> None:
    data, code = HOSTILE[case]
    assert refusal(lambda: read(data)).code == code


def test_a_refusal_names_the_key_and_the_tensor_and_what_they_say() -> None:
    assert "'k' is neither true nor false: 2" in refusal(lambda: read(HOSTILE["neither true nor false"][0])).message
    assert "tensor 'b' begins within 'a'" in refusal(lambda: read(HOSTILE["tensors over each other"][0])).message
    assert "1000000" in refusal(lambda: read(HOSTILE["array longer than the file"][0])).message


def test_files_of_other_kinds_are_told_what_they_are() -> None:
    assert "safetensors" in str(refusal(lambda: read(HOSTILE["a zip"][0])).hint)
    assert "never opened" in str(refusal(lambda: read(HOSTILE["a pickle"][0])).hint)
    assert "little-endian" in str(refusal(lambda: read(HOSTILE["big-endian"][0])).hint)


@pytest.mark.parametrize("claim", [2**20, 2**40, 2**63, 2**64 - 1])
def test_what_a_head_claims_is_never_asked_for(claim: int) -> None:
    """A sparse file that says it is a terabyte long would have room for it all."""
    data = head(keys=2, rest=key(b"k", 9, struct.pack("<IQ", 8, claim)))
    asked: list[int] = []

    def source(offset: int, size: int) -> bytes:
        asked.append(size)
        return (data[offset : offset + size] + bytes(size))[:size]

    with pytest.raises(ImportRefused):
        gguf.read_head(source, 2**40)
    assert max(asked) <= 2**18
    assert sum(asked) <= gguf.MOST_HEAD_BYTES


GOOD = written(
    {"general.architecture": Field("text", "llama"), "n": Field("u32", 2), "t": Field("[text]", ["a", "bc"])},
    [Tensor("a", (32, 2), BY_NAME["Q4_0"]), Tensor("b", (3,), F32)],
)


@settings(max_examples=examples(500))
@given(
    changes=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6),
    cut=st.one_of(st.none(), st.integers(0, len(GOOD))),
    more=st.binary(max_size=40),
)
def test_a_changed_or_cut_file_is_read_or_refused_and_nothing_else(
    changes: list[tuple[int, int]], cut: int | None, more: bytes
) -> None:
    data = bytearray(GOOD)
    for place, value in changes:
        data[place] = value
    data = data[:cut] + more
    outcome: Any = attempt(lambda: read(bytes(data)))
    if isinstance(outcome, ImportRefused):
        assert outcome.code.startswith("gguf_")
        assert outcome.hint
    else:
        assert all(tensor.offset + tensor.size_bytes <= len(data) for tensor in outcome.tensors)


@settings(max_examples=examples(300))
@given(numbers=st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=30))
def test_numbers_at_random_are_read_or_refused_and_nothing_else(numbers: list[int]) -> None:
    """Plausible counts in front, so that reading gets further than the magic."""
    tail = b"".join(struct.pack("<Q", number) for number in numbers[2:])
    data = head(tensors=numbers[0] % 4, keys=numbers[1] % 4, rest=tail)
    outcome = attempt(lambda: read(data))
    assert isinstance(outcome, ImportRefused | gguf.Head)


def attempt(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except ImportRefused as problem:
        return problem
