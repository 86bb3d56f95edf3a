"""The split: disjoint, complete, exact for every class, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data import Column, Data, split
from training.errors import DatasetContradictsSpec


def data(target: list[int] | list[float]) -> Data:
    array = np.array(target)
    is_classes = array.dtype.kind == "i"
    classes = [str(one) for one in range(int(array.max()) + 1)] if is_classes else None
    features = np.zeros((len(array), 1), dtype=np.float32)
    last = Column("label", "category" if is_classes else "number")
    return Data("tabular", {"features": features}, array, classes, (Column("features", "number", (1,)), last))


def spec(
    method: str = "stratified", fractions: tuple[float, ...] = (0.7, 0.15, 0.15), seed: int = 0
) -> dict[str, object]:
    return {"method": method, "fractions": list(fractions), "seed": seed}


def test_digits_are_split_as_the_demo_says() -> None:
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    target = [digit for digit, count in enumerate(counts) for _ in range(count)]
    train, validation, test = split(data(target), spec())
    assert [len(train), len(validation), len(test)] == [1258, 270, 269]


def test_the_draws_never_change() -> None:
    """Golden: a change here changes every model that is trained again from its spec."""
    train, validation, test = split(data([0, 1] * 10), spec(seed=7))
    assert validation.tolist() == GOLDEN_VALIDATION
    assert test.tolist() == GOLDEN_TEST
    assert train.dtype == np.int64


GOLDEN_VALIDATION = [2, 5, 8]
GOLDEN_TEST = [1, 16, 19]


@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    weights=st.tuples(*[st.integers(1, 98)] * 3),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_row_is_in_one_part_and_every_class_within_one_row_of_its_share(
    counts: list[int], weights: tuple[int, int, int], seed: int
) -> None:
    fractions = tuple(weight / sum(weights) for weight in weights)
    target = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(seed).shuffle(target)
    if not len(target):
        return
    made = data(target.tolist())
    try:
        parts = split(made, spec(fractions=fractions, seed=seed))
    except DatasetContradictsSpec:
        # Rounding may leave a part empty only where no class owes it a whole row and together they owe few.
        assert min(fractions) * len(target) < len(counts) + 1
        return
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(target)))
    for part, fraction in zip(parts, fractions, strict=True):
        assert (np.diff(part) > 0).all()
        for one, count in enumerate(counts):
            assert abs(np.count_nonzero(target[part] == one) - count * fraction) < 1
        # what rounding takes in one class it gives back in the next
        assert abs(len(part) - len(target) * fraction) <= len(counts) * 0.5 + 1


@given(rows=st.integers(20, 200), seed=st.integers(0, 1000))
def test_the_same_seed_gives_the_same_parts_and_another_one_others(rows: int, seed: int) -> None:
    made = data([row % 2 for row in range(rows)])
    for method in ("stratified", "random"):
        first, again = split(made, spec(method, seed=seed)), split(made, spec(method, seed=seed))
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        other = split(made, spec(method, seed=seed + 1))
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_random_takes_the_exact_sizes_whatever_the_classes() -> None:
    parts = split(data([0] * 99 + [1]), spec("random"))
    assert [len(part) for part in parts] == [70, 15, 15]


def test_a_quantity_is_spread_over_its_whole_range() -> None:
    values = [float(value) for value in range(100)]
    for part in split(data(values), spec(fractions=(0.6, 0.2, 0.2))):
        bands = np.histogram(np.array(values)[part], bins=10, range=(0, 100))[0]
        assert bands.min() == bands.max()


@pytest.mark.parametrize("rows", [1, 2])
def test_too_few_rows_contradict_the_spec(rows: int) -> None:
    with pytest.raises(DatasetContradictsSpec, match=f"of {rows} rows"):
        split(data([0] * rows), spec())
