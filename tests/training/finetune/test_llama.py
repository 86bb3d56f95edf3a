"""The llama of torch computes what llama.cpp computes: for every kind of weights, of rope and of heads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.depth import examples
from tests.training.language.making import TINY, arrays, fields, model, sealed, watch
from training.errors import Cancelled
from training.finetune.base_model import Base, BaseUnsuitable, open_base
from training.finetune.llama import Llama, Ragged, Weights
from training.finetune.lora import Adapter
from training.language.gguf import Field
from training.language.trial import Trial
from training.spec.finetune import Lora

pytestmark = pytest.mark.slow

TOKENS = np.random.default_rng(0).integers(3, TINY.vocabulary, 48).tolist()


class Exact(Trial):
    """llama.cpp with keys and values in F32, where its own rounding does not hide an error of ours."""

    def _context_parameters(self) -> Any:
        parameters = super()._context_parameters()
        parameters.type_k = parameters.type_v = 0  # GGML_TYPE_F32
        parameters.flash_attn_type = 0
        return parameters


def opened(data: bytes) -> Base:
    return open_base(sealed(data))


def network(
    base: Base, precision: torch.dtype = torch.float32, adapter: Adapter | None = None, *, keep: bool = True
) -> Llama:
    return Llama(base, Weights(base, precision, keep=keep), adapter, watch).eval()


def logits(llama: Llama, *rows: list[int]) -> NDArray[np.float32]:
    with torch.inference_mode():
        found: NDArray[np.float32] = (llama(Ragged.of(rows)) @ llama.head.T).float().numpy()
    return found


def served(base: Base, kind: type[Trial] = Exact) -> NDArray[np.float32]:
    with kind(base.file, threads=1) as trial:
        return trial.logits(TOKENS)


def difference(data: bytes, kind: type[Trial] = Exact) -> float:
    base = opened(data)
    return float(np.abs(logits(network(base), TOKENS) - served(base, kind)).max())


@pytest.mark.parametrize(
    ("type", "most"), [("F32", 1e-4), ("F16", 0.05), ("BF16", 0.2), ("Q8_0", 1.0), ("Q4_0", 1.5), ("Q4_1", 1.5)]
)
def test_logits_are_llama_cpps_but_for_how_it_rounds_what_it_multiplies(type: str, most: float) -> None:
    assert difference(model(type=type)) < most


def rope(**values: Field) -> dict[str, Field]:
    return fields() | {f"llama.rope.{name.replace('__', '.')}": value for name, value in values.items()}


WIDE = replace(TINY, head_width=32, rope_base=500_000.0)
WIDE_HEAD = fields(WIDE) | {
    f"llama.{name}": Field("u32", 32) for name in ("attention.key_length", "attention.value_length")
}
FACTORS = arrays() | {"rope_freqs.weight": np.linspace(1, 8, TINY.head_width // 2).astype(np.float32)}


@pytest.mark.parametrize(
    "data",
    [
        model(weights_=arrays(tied=False)),
        model(fields(replace(TINY, key_value_heads=4)), arrays(replace(TINY, key_value_heads=4))),
        model(fields(replace(TINY, key_value_heads=1)), arrays(replace(TINY, key_value_heads=1))),
        model(WIDE_HEAD, arrays(WIDE)),
        model(rope(scaling__type=Field("text", "linear"), scaling__factor=Field("f32", 4.0))),
        model(rope(scaling__factor=Field("f32", 4.0))),
        model(rope(scale_linear=Field("f32", 2.0))),
        model(rope(scaling__type=Field("text", "none"), scaling__factor=Field("f32", 4.0))),
        model(weights_=FACTORS),
    ],
    ids=[
        *("untied", "a key for each head", "one key for all", "wide heads", "linear rope", "linear unless said"),
        *("the old name of a scale", "no rope scaling", "llama 3's factors"),
    ],
)
def test_every_shape_that_is_served_is_computed_alike(data: bytes) -> None:
    assert difference(data) < 1e-4


def test_a_scaled_rope_is_not_computed_as_a_plain_one() -> None:
    plain, scaled = (opened(data) for data in (model(), model(rope(scale_linear=Field("f32", 2.0)))))
    assert np.abs(logits(network(plain), TOKENS) - served(scaled)).max() > 0.01


@pytest.mark.parametrize(
    "head",
    [
        rope(scaling__type=Field("text", "yarn"), scaling__factor=Field("f32", 2.0)),
        rope(scaling__attn_factor=Field("f32", 1.5)),
    ],
)
def test_a_rope_that_torch_does_not_turn_alike_is_refused(head: dict[str, Field]) -> None:
    with pytest.raises(BaseUnsuitable, match="yarn"):
        opened(model(head))


def test_weights_that_are_read_anew_each_time_are_the_same_weights() -> None:
    base = opened(model(type="Q4_0"))
    assert (logits(network(base), TOKENS) == logits(network(base, keep=False), TOKENS)).all()


def test_bf16_stays_near() -> None:
    base = opened(model())
    near, exact = logits(network(base, torch.bfloat16), TOKENS), logits(network(base), TOKENS)
    assert 0 < np.abs(near - exact).max() < 0.6
    assert (near.argmax(axis=1) == exact.argmax(axis=1)).mean() > 0.9


BASE = opened(model())
PLAIN = network(BASE)


@settings(max_examples=examples(40))
@given(st.lists(st.lists(st.integers(0, TINY.vocabulary - 1), min_size=1, max_size=20), min_size=1, max_size=5))
def test_a_row_is_computed_as_if_it_were_alone(rows: list[list[int]]) -> None:
    alone = np.concatenate([logits(PLAIN, row) for row in rows])
    np.testing.assert_allclose(logits(PLAIN, *rows), alone, atol=2e-5)


def test_a_token_does_not_see_what_comes_after_it() -> None:
    changed = [*TOKENS[:-1], (TOKENS[-1] + 1) % TINY.vocabulary]
    before, after = logits(PLAIN, TOKENS), logits(PLAIN, changed)
    assert (before[:-1] == after[:-1]).all()
    assert (before[-1] != after[-1]).any()


def trained(recompute: bool, dropout: float = 0.0) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    adapter = Adapter(Lora(dropout=dropout), TINY, seed=1)
    for b in adapter.b:
        torch.nn.init.normal_(b, std=0.1, generator=torch.Generator().manual_seed(2))
    llama = Llama(BASE, Weights(BASE, torch.float32, keep=True), adapter, watch).train()
    hidden = llama(Ragged.of([TOKENS[:20], TOKENS[20:]]), recompute=recompute)
    hidden.square().mean().backward()
    return {name: parameter.grad for name, parameter in adapter.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_of_what_is_computed_twice_are_bit_for_bit_those_of_what_is_kept(dropout: float) -> None:
    kept, again = trained(False, dropout), trained(True, dropout)
    assert len(kept) == len(again) == 2 * 7 * TINY.blocks
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    assert all(gradient.abs().max() > 0 for gradient in kept.values())


@pytest.mark.parametrize("after", [1, 5, 14, 20, 27])
def test_who_wants_the_end_is_heard_before_every_matrix_there_and_back(after: int) -> None:
    asked = 0

    def look() -> None:
        nonlocal asked
        asked += 1
        if asked == after:
            raise Cancelled

    llama = Llama(BASE, Weights(BASE, torch.float32, keep=True), Adapter(Lora(), TINY, 0), look).train()
    with pytest.raises(Cancelled):
        llama(Ragged.of([TOKENS])).sum().backward()
    assert asked == after
