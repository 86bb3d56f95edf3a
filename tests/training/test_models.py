"""The catalogue and the list of layers: shapes by arithmetic are torch's own, misfits are explained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.training.given import LENET_LAYERS
from training.models.catalogue import Misfit, check, layers_of, network
from training.models.layers import LayerMisfit, build, shapes
from training.spec.model import CatalogueModel, Layer, LayeredModel

pytestmark = pytest.mark.slow

LENET = CatalogueModel(name="lenet")
SPELLED = LayeredModel.model_validate({"kind": "layers", "layers": LENET_LAYERS}).filled()


def read(*layers: dict[str, Any]) -> list[Layer]:
    return TypeAdapter(list[Layer]).validate_python(list(layers))


def parameters(layers: list[Layer], shape: tuple[int, ...]) -> int:
    return sum(each.numel() for each in build(layers, shape).parameters())


def test_lenet_has_62006_parameters_and_is_the_same_by_name_and_spelled_out() -> None:
    assert layers_of(LENET, 10) == layers_of(SPELLED, 10)
    assert parameters(layers_of(LENET, 10), (3, 32, 32)) == 62_006


def test_width_multiplies_hidden_sizes_and_depth_the_hidden_layers() -> None:
    wide = [layer.out for layer in layers_of(CatalogueModel(name="lenet", width=2.0), 10) if hasattr(layer, "out")]
    assert wide == [12, 32, 240, 168, 10]
    deep = layers_of(CatalogueModel(name="mlp", width=0.5, depth=2), 3)
    assert [layer.op for layer in deep] == ["flatten", "linear", "relu", "linear", "relu", "linear"]
    assert parameters(deep, (8,)) == 8 * 64 + 64 + 64 * 64 + 64 + 64 * 3 + 3
    assert parameters(layers_of(CatalogueModel(name="mlp"), 10), (64,)) == 64 * 128 + 128 + 128 * 10 + 10
    assert parameters(layers_of(CatalogueModel(name="linear"), 2), (3, 4, 4)) == 48 * 2 + 2


image_layers = st.one_of(
    st.builds(
        lambda out, kernel, stride: {"op": "conv2d", "out": out, "kernel": kernel, "stride": stride},
        st.integers(1, 5),
        st.integers(1, 4),
        st.integers(1, 3),
    ),
    st.builds(
        lambda op, kernel, stride: {"op": op, "kernel": kernel, "stride": stride},
        st.sampled_from(["max_pool", "avg_pool"]),
        st.integers(1, 3),
        st.none() | st.integers(1, 3),
    ),
    st.sampled_from([{"op": op} for op in ("relu", "gelu", "silu", "tanh", "sigmoid", "leaky_relu", "dropout")]),
)
flat_layers = st.one_of(
    st.builds(lambda out: {"op": "linear", "out": out}, st.integers(1, 6)),
    st.sampled_from([{"op": op} for op in ("relu", "gelu", "dropout", "flatten")]),
)


@given(st.lists(image_layers, max_size=5), st.lists(flat_layers, max_size=4), st.integers(1, 3), st.integers(4, 14))
def test_arithmetic_gives_the_shapes_that_torch_gives(
    first: list[dict[str, Any]], then: list[dict[str, Any]], channels: int, side: int
) -> None:
    layers = read(*first, {"op": "flatten"}, *then)
    try:
        expected = shapes(layers, (channels, side, side))
    except LayerMisfit:
        return
    module = build(layers, (channels, side, side))
    value = torch.zeros(2, channels, side, side)
    for layer, shape in zip(module, expected[1:], strict=True):
        value = layer(value)
        assert tuple(value.shape[1:]) == shape


@pytest.mark.parametrize(
    ("model", "shape", "outputs", "path", "words"),
    [
        (LENET, (1, 8, 8), 10, "/model/name", "lenet does not fit data of shape 1×8×8"),
        (LENET, (30,), 10, "/model/name", "conv2d needs an image, gets 30"),
        (SPELLED, (3, 12, 12), 10, "/model/layers/3", "a kernel of 5 does not fit 6×4×4"),
        (SPELLED, (3, 32, 32), 7, "/model/layers/11", "the last layer gives 10 values, the data need 7"),
        (LayeredModel(kind="layers", layers=read({"op": "linear", "out": 2})), (1, 4, 4), 2, "/model/layers/0", "flat"),
    ],
)
def test_a_network_that_does_not_fit_the_data_says_where_and_why(
    model: Any, shape: tuple[int, ...], outputs: int, path: str, words: str
) -> None:
    with pytest.raises(Misfit) as caught:
        check(model, shape, outputs)
    assert caught.value.path == path
    assert words in caught.value.message


def test_the_same_seed_draws_the_same_weights() -> None:
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(torch.cat([one.flatten() for one in network(LENET, (3, 32, 32), 10).parameters()]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
