"""Taking a model in: what is sealed is what was tried, in the type that was asked for; the facts are read from it."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from functools import partial
from typing import Any, Literal

import gguf as package
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.depth import examples
from tests.training.language import making
from tests.training.language.making import TOKENS, arrays, fields, folder, model, refusal, sealed
from training.errors import Cancelled, ImportRefused
from training.language import structure
from training.language.gguf import Field
from training.language.importing import Facts, take_in
from training.language.memory_file import MemoryFile
from training.language.structure import Hyperparameters
from training.language.tensor_types import BY_NAME, F32
from training.language.trial import Trial


def taken(
    data: bytes, format: Literal["gguf", "safetensors-zip"] = "gguf", wanted: str = "keep", **spec: Any
) -> tuple[bytes, Facts]:
    write, facts = take_in(sealed(data), format, {"weights": wanted, **spec}, threads=2, watch=making.watch)
    served = io.BytesIO()
    write(served)  # type: ignore[arg-type]  # a SealWriter is written to in the same way
    return served.getvalue(), facts


GOOD = model()


# ---- what is served


def test_a_model_that_is_kept_comes_out_as_it_went_in() -> None:
    served, _ = taken(GOOD)
    assert served == GOOD


def test_the_facts_describe_what_is_served() -> None:
    served, facts = taken(GOOD)
    assert facts["card"] == {
        "architecture": "llama",
        "name": "Tiny",
        "license": "apache-2.0",
        "parameters": sum(array.size for array in arrays().values()),
        "type": "F32",
        "size_bytes": len(served),
        "context_length": 128,
        "embedding_length": 64,
        "blocks": 2,
        "vocabulary": len(TOKENS),
        "tokenizer": "smollm",
        "chat_template": True,
        "tools": False,
    }
    digest = hashlib.sha256()
    for name, stored in sorted(making.stored(served).items()):
        digest.update(name.encode() + b"\0" + stored)
    assert (facts["parameters"], facts["weights_sha256"]) == (facts["card"]["parameters"], digest.hexdigest())
    assert any("the same tokens" in line for line in facts["report"])


def test_a_template_that_reads_tools_and_writes_calls_is_said_to_have_them() -> None:
    written = "{% for m in messages %}{{ m.content }}{% endfor %}{% if tools %}<tool_call>{% endif %}"
    for template, tools in ((written, True), (written.replace("<tool_call>", "tools"), False), (None, False)):
        _, facts = taken(model(fields(chat_template=template)))
        assert (facts["card"]["chat_template"], facts["card"]["tools"]) == (template is not None, tools)


def test_hidden_bytes_between_tensors_do_not_come_through() -> None:
    """The file is written anew: padding is zeros, and an alignment of its own is llama.cpp's again."""
    data = model({"general.alignment": Field("u32", 1024), **fields()})
    served, _ = taken(data.replace(bytes(900), b"\x01" * 900))
    assert served == GOOD


@pytest.mark.parametrize(("wanted", "matrix", "head"), [("q4_0", "Q4_0", "Q8_0"), ("bf16", "BF16", "BF16")])
@pytest.mark.parametrize("source", ["F32", "F16", "BF16", "Q4_1", "Q8_0"])
def test_matrices_are_written_in_the_wanted_type(wanted: str, matrix: str, head: str, source: str) -> None:
    data = model(type=source)
    served, facts = taken(data, wanted=wanted)
    stored, before = making.stored(served), making.floats(data)
    for tensor in making.read(served).tensors:
        if not structure.is_matrix(tensor):
            assert stored[tensor.name] == making.stored(data)[tensor.name]
            continue
        kind = head if tensor.name == "token_embd.weight" else matrix
        assert tensor.type.name == kind
        expected = package.quantize(before[tensor.name], package.GGMLQuantizationType[kind])
        assert stored[tensor.name] == expected.tobytes(), tensor.name
    assert facts["card"]["type"] == matrix


def test_a_folder_of_safetensors_is_served_as_gguf_with_three_tokenizers_of_one_mind() -> None:
    served, facts = taken(folder(), "safetensors-zip", "q4_0", name="My model")
    assert making.read(served).metadata["general.name"] == facts["card"]["name"] == "My model"
    assert facts["card"]["type"] == "Q4_0"
    assert any("the model's own" in line for line in facts["report"])


def test_a_folder_gives_the_model_that_it_was_made_from() -> None:
    """The same answer from llama.cpp, weight by weight and pair of rows by pair of rows."""
    kept, _ = taken(model(type="BF16"))
    served, _ = taken(folder(), "safetensors-zip", "bf16")
    np.testing.assert_allclose(answer(served), answer(kept), atol=1e-5)


def answer(data: bytes) -> Any:
    file = MemoryFile()
    file.write(data)
    with Trial(file, threads=1) as trial:
        return trial.logits([1, 5, 9, 100, 42])


@pytest.mark.parametrize("type", sorted(structure.MATRIX_TYPES))
def test_llama_loads_and_answers_weights_of_every_type_that_is_served(type: str) -> None:
    wide = Hyperparameters(1, 256, 512, 4, 2, 64, 64, len(TOKENS), 1e-5)
    kind = BY_NAME[type]
    shapes = wide.tensors()
    random = np.random.default_rng(1)
    tensors = {
        name: (np.asarray(random.normal(size=shape[::-1]) / 10, np.float32), kind if len(shape) > 1 else F32)
        for name, shape in shapes.items()
    }
    _, facts = taken(making.file(fields(wide), tensors))
    assert facts["card"]["type"] == type


def test_weights_of_part_of_a_block_stay_bf16() -> None:
    narrow = Hyperparameters(1, 48, 40, 3, 3, 16, 64, len(TOKENS), 1e-5)
    served, facts = taken(model(fields(narrow), arrays(narrow)), wanted="q4_0")
    assert facts["card"]["type"] == "BF16"
    assert {tensor.type.name for tensor in making.read(served).tensors} == {"F32", "BF16"}


def test_a_model_that_does_not_say_its_splitting_as_it_is_goes_no_further() -> None:
    """The vocabulary of the folder is cut by digits; its tokenizer.json says it is not."""
    told = making.tokenizer(pre="gpt-2")
    served, _ = taken(folder({"tokenizer.json": told}), "safetensors-zip", "bf16")
    assert making.read(served).metadata["tokenizer.ggml.pre"] == "gpt-2"


# ---- what is refused


def bad_template(source: str) -> bytes:
    return model(fields(chat_template=source))


def not_finite(type: str) -> bytes:
    """A block's scale that is no number, in the bytes themselves."""
    data = bytearray(model(type=type))
    tensor = next(tensor for tensor in making.read(bytes(data)).tensors if tensor.name == "blk.0.ffn_up.weight")
    data[tensor.offset : tensor.offset + 2] = b"\x00\x7e"
    return bytes(data)


def overflowing() -> bytes:
    """Finite weights, and answers that are not."""
    huge = arrays()
    huge["output_norm.weight"] = np.full(64, 3e38, np.float32)
    huge["token_embd.weight"] = huge["token_embd.weight"] * np.float32(1e3)
    return model(None, huge)


REFUSED: dict[str, tuple[bytes, str]] = {
    "noise": (bytes(range(256)) * 4, "gguf_unreadable"),
    "cut": (GOOD[: len(GOOD) // 2], "gguf_truncated"),
    "another architecture": (model(fields(general_architecture="gemma3")), "architecture_unknown"),
    "another tokenizer": (model(fields(ggml_model="llama")), "tokenizer_unknown"),
    "another splitting": (model(fields(pre="tekken")), "tokenizer_unknown"),
    "a template that is too long": (bad_template("x" * 70_000), "chat_template"),
    "a template that is no template": (bad_template("{% for %}"), "template_invalid"),
    "a template that reaches out": (bad_template("{{ ''.__class__.__mro__ }}"), "template_forbidden"),
    "a template that refuses": (bad_template("{{ raise_exception('no') }}"), "template_raised"),
    "a template that is a number": (model(fields(chat_template=Field("u32", 1))), "chat_template"),
    "a begin that is put before and not named": (model(fields(pre="llama-bpe", bos_token_id=None)), "vocabulary"),
    "a scale that is no number": (not_finite("Q4_0"), "weights_not_finite"),
    "a kind of value that llama does not read": (
        model(fields() | {"tokenizer.ggml.scores": Field("text", "1")}),
        "model_not_runnable",
    ),
    "weights that are no numbers": (
        model(None, arrays() | {"blk.0.ffn_up.weight": np.full((96, 64), np.nan, np.float32)}),
        "weights_not_finite",
    ),
    "answers that are no numbers": (overflowing(), "model_not_finite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_each_model_that_cannot_be_served_is_refused_with_code_and_remedy(case: str) -> None:
    data, code = REFUSED[case]
    assert refusal(lambda: taken(data)).code == code


def test_what_the_head_shows_is_refused_before_a_weight_is_read() -> None:
    """The weights are damaged too, and that would be found later."""
    nan = arrays() | {"blk.0.ffn_up.weight": np.full((96, 64), np.nan, np.float32)}
    settings_ = {"eos_token": "<|im_end|>", "chat_template": "{% for %}"}
    data = folder({"tokenizer_config.json": settings_}, arrays_=nan)
    assert refusal(lambda: taken(data, "safetensors-zip")).code == "template_invalid"
    assert refusal(lambda: taken(model(fields(chat_template="{% for %}"), nan))).code == "template_invalid"


def test_a_scale_that_is_no_number_is_found_when_it_is_recoded_too() -> None:
    assert refusal(lambda: taken(not_finite("Q4_0"), wanted="bf16")).code == "weights_not_finite"


def test_numbers_too_large_for_the_wanted_type_are_refused_by_the_tensors_name() -> None:
    """A scale is a half, and a sixteen-bit float ends a little below the largest of 32."""
    for wanted, size in (("q4_0", 1e6), ("bf16", 3.4e38)):
        huge = arrays() | {"blk.0.ffn_up.weight": np.full((96, 64), size, np.float32)}
        problem = refusal(partial(taken, model(None, huge), wanted=wanted))
        assert (problem.code, "'blk.0.ffn_up.weight'" in problem.message) == ("weights_not_finite", True)


def test_llamas_own_words_come_with_its_refusal() -> None:
    data = REFUSED["a kind of value that llama does not read"][0]
    assert "tokenizer.ggml.scores" in refusal(lambda: taken(data)).message


def test_a_wish_that_nobody_knows_is_a_defect_of_the_caller() -> None:
    with pytest.raises(ValueError, match="q3"):
        taken(GOOD, wanted="q3")


def test_a_cancel_ends_it_between_two_pieces() -> None:
    looks = 0

    def want() -> None:
        nonlocal looks
        looks += 1
        if looks > 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        take_in(sealed(GOOD), "gguf", {"weights": "q4_0"}, threads=1, watch=want)


@settings(max_examples=examples(80))
@given(
    changes=st.lists(st.tuples(st.integers(0, making.read(GOOD).data_offset), st.integers(0, 255)), max_size=3),
    cut=st.one_of(st.none(), st.integers(0, len(GOOD))),
)
def test_a_changed_or_cut_model_is_served_or_refused_and_nothing_else(
    changes: list[tuple[int, int]], cut: int | None
) -> None:
    """Head and vocabulary of a stranger, up to llama.cpp and beyond: nothing ends the process."""
    data = bytearray(GOOD)
    for place, value in changes:
        data[place] = value
    said: ImportRefused | None = None
    try:
        served, facts = taken(bytes(data[:cut]))
        assert facts["card"]["size_bytes"] == len(served)
    except ImportRefused as problem:
        said = problem
    assert said is None or said.hint


@pytest.mark.parametrize("package", ["tokenizers", "llama_cpp"])
def test_without_the_extra_the_import_fails_and_nothing_else_does(package: str) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "import training.kinds.import_model, training.language.gguf, training.language.structure\n"
        "try:\n    import training.language.importing\nexcept ImportError:\n    print('missing')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True, text=True)
    assert done.stdout.strip() == "missing"
