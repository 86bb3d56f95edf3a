"""The adapter: what it adds, its gradients, its file, and that llama.cpp adds the same."""

from __future__ import annotations

from pathlib import Path

import gguf as package
import numpy as np
import pytest
import torch
from torch import nn

from tests.training.finetune.test_llama import BASE, TOKENS, Exact, logits, network
from tests.training.language.making import TINY, watch
from training.finetune.lora import NAMES, Adapter, projected, written
from training.finetune.served import NotServed, Served
from training.language.memory_file import MemoryFile
from training.language.rewrite import weights_sha256
from training.spec.finetune import TARGETS, Lora, Target

pytestmark = pytest.mark.slow


def adapter(seed: int = 1, **changes: object) -> Adapter:
    """One that has learned something."""
    made = Adapter(Lora(**changes), TINY, seed)  # type: ignore[arg-type]  # fields of the section
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for b in made.b:
            b.normal_(0, 0.1, generator=random)
    return made.eval()


class Adapted(Served, Exact):
    """llama.cpp with an adapter, keys and values in F32."""

    def __enter__(self) -> Adapted:
        return self

    def logits_of(self, tokens: list[int]) -> np.ndarray:
        context = self._context(len(tokens))
        try:
            return np.stack([self._decoded(context, [token], place).copy() for place, token in enumerate(tokens)])
        finally:
            self._library.llama_free(context)


def pair_of(made: Adapter, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    found = made.pair(name)
    assert found is not None
    return found


def test_an_adapter_changes_nothing_before_it_learns() -> None:
    fresh = Adapter(Lora(), TINY, seed=0)
    assert (logits(network(BASE, adapter=fresh), TOKENS) == logits(network(BASE), TOKENS)).all()


def test_the_same_seed_begins_with_the_same_matrices() -> None:
    first, again, other = (Adapter(Lora(), TINY, seed) for seed in (1, 1, 2))
    assert torch.equal(first.a[0], again.a[0])
    assert not torch.equal(first.a[0], other.a[0])


@pytest.mark.parametrize("targets", [list(TARGETS), ["q_proj", "v_proj"], ["down_proj"]])
@pytest.mark.parametrize(("rank", "alpha"), [(8, 16.0), (3, 4.5)])
def test_llama_cpp_adds_the_same_over_the_same_base(targets: list[Target], rank: int, alpha: float) -> None:
    made = adapter(rank=rank, alpha=alpha, targets=targets)
    file, _ = written(made, "tiny")
    with Adapted(BASE.file, threads=1) as served:
        served.adapt(file)
        theirs = served.logits_of(TOKENS)
    ours = logits(network(BASE, adapter=made), TOKENS)
    assert np.abs(ours - logits(network(BASE), TOKENS)).max() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=2e-3)  # llama.cpp rounds nothing here but sums in another order


def test_only_the_targets_get_matrices() -> None:
    made = adapter(targets=["v_proj", "q_proj"])
    assert made.names == [f"blk.{block}.{part}" for block in range(TINY.blocks) for part in ("attn_q", "attn_v")]
    assert made.pair("blk.0.ffn_up") is None
    assert made.weights == sum(parameter.numel() for parameter in made.parameters())


def test_the_file_says_what_it_is_and_holds_every_matrix(tmp_path: Path) -> None:
    made = adapter(rank=4, alpha=12.0)
    file, table = written(made, "vaults")
    path = tmp_path / "adapter.gguf"
    path.write_bytes(b"".join(file.pieces()))
    read = package.GGUFReader(path)
    said = {name: read.fields[name].contents() for name in read.fields if not name.startswith("GGUF.")}
    assert said == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "general.name": "vaults",
        "adapter.type": "lora",
        "adapter.lora.alpha": 12.0,
    }
    tensors = {tensor.name: tensor.data for tensor in read.tensors}
    assert len(tensors) == 2 * len(made.names)
    for name in made.names:
        a, b = pair_of(made, name)
        np.testing.assert_array_equal(tensors[f"{name}.weight.lora_a"], a.detach().numpy())
        np.testing.assert_array_equal(tensors[f"{name}.weight.lora_b"], b.detach().numpy())
    again, same = written(made, "other")
    assert weights_sha256(file, table, watch) == weights_sha256(again, same, watch)


def test_what_is_no_adapter_is_refused_by_llama_cpp() -> None:
    file = MemoryFile()
    file.write(b"GGUF" + bytes(60))
    file.seal()
    with Served(BASE.file, threads=1) as served, pytest.raises(NotServed, match="does not load"):
        served.adapt(file)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_projection_and_its_gradients_are_those_of_three_plain_layers(precision: torch.dtype, dropout: float) -> None:
    made = adapter(dropout=dropout).train()
    weight = torch.randn(TINY.heads * TINY.head_width, TINY.width).to(precision)
    x = torch.randn(7, TINY.width).to(precision).requires_grad_()
    gradient = torch.randn(7, len(weight)).to(precision)
    name = "blk.1." + NAMES["q_proj"]
    a, b = pair_of(made, name)

    torch.manual_seed(5)
    found = projected(x, weight, made, name, watch)
    found.backward(gradient)
    ours = [x.grad, a.grad, b.grad]
    x.grad = a.grad = b.grad = None

    torch.manual_seed(5)
    inner = nn.functional.dropout(x, dropout) if dropout else x
    thin = nn.functional.linear(inner, a.to(precision))
    plain = nn.functional.linear(x, weight) + made.scale * nn.functional.linear(thin, b.to(precision))
    plain.backward(gradient)
    most = 1e-5 if precision == torch.float32 else 0.1
    torch.testing.assert_close(found, plain, atol=most, rtol=most)
    for one, other in zip(ours, [x.grad, a.grad, b.grad], strict=True):
        assert one is not None
        assert other is not None
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, atol=10 * most, rtol=10 * most)
