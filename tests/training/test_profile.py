"""The profile of a data set, in the words of the contract, and its warnings."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.training.making import npz, read
from training.data import Data, profile


def codes(data: Data) -> list[tuple[str, str | None]]:
    return [(warning["code"], warning["column"]) for warning in profile(data)["warnings"]]


def test_images_have_the_lines_of_the_contract() -> None:
    images = np.zeros((4, 3, 2, 2), dtype=np.uint8)
    images[0], images[1], images[2] = 255, 7, 9
    document = profile(read(npz(image=images, label=np.array([0, 1, 1, 0])), "npz"))
    assert document["rows"] == 4
    assert document["modality"] == "image"
    assert document["columns"] == [
        {"name": "image", "type": "image", "shape": [3, 2, 2], "missing": 0, "unique": None, "min": 0, "max": 255,
         "mean": 67.75, "classes": None},
        {"name": "label", "type": "category", "shape": None, "missing": 0, "unique": 2, "min": None, "max": None,
         "mean": None, "classes": [{"name": "0", "rows": 2}, {"name": "1", "rows": 2}]},
    ]  # fmt: skip
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_columns_of_a_csv_have_their_statistics() -> None:
    text = b"a,b,price\n1,x,0.5\n2,,1.5\n,x,2.5\n"
    a, b, price = profile(read(text, "csv", target="price"))["columns"]
    assert (a["type"], a["missing"], a["unique"], a["min"], a["max"], a["mean"]) == ("number", 1, 2, 1, 2, 1.5)
    assert (b["type"], b["missing"], b["unique"], b["min"]) == ("category", 1, 1, None)
    assert (price["type"], price["unique"], price["mean"], price["classes"]) == ("number", 3, 1.5, None)


def test_a_matrix_of_features_is_one_line() -> None:
    features = np.array([[1, np.nan], [3, 4]])
    line = profile(read(npz(features=features, label=[0, 1]), "npz"))["columns"][0]
    assert (line["type"], line["shape"], line["missing"], line["max"]) == ("number", [2], 1, 4)


def test_a_column_without_any_number_has_none_in_its_profile() -> None:
    line = profile(read(b"a,b,label\n,1,x\n,2,y\n", "csv"))["columns"][0]
    assert (line["missing"], line["unique"], line["min"], line["mean"]) == (2, 0, None, None)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("a,label\n1,x\n1,x\n2,y\n2,y\n2,y\n3,x\n", ("duplicate_rows", None)),
        ("a,b,label\n1,5,x\n2,5,y\n", ("constant_column", "b")),
        ("a,b,label\n1,,x\n2,5,y\n", ("missing_values", "b")),
        ("a,label\n1,x\n2,x\n", ("one_class", "label")),
        ("a,label\n" + "".join(f"{row},{'x' if row else 'y'}\n" for row in range(11)), ("class_imbalance", "label")),
        ("a,label\n1,x\n2,y\n3,x\n4,x\n", ("few_rows_of_class", "label")),
        ("a,b,label\n" + "".join(f"v{row},1,{row % 2}\n" for row in range(257)), ("many_values", "a")),
    ],
)
def test_each_warning_is_given_where_it_is_due(text: str, warning: tuple[str, str | None]) -> None:
    assert warning in codes(read(text.encode(), "csv"))


def test_a_sound_data_set_has_no_warning() -> None:
    rows = "".join(f"{row},{'abc'[row % 3]},{row % 2}\n" for row in range(30))
    assert codes(read(("a,b,label\n" + rows).encode(), "csv")) == []


def test_rows_are_double_only_with_equal_targets_and_missing_equals_missing() -> None:
    def double(text: str) -> list[str]:
        return [w["message"] for w in profile(read(text.encode(), "csv"))["warnings"] if w["code"] == "duplicate_rows"]

    assert double("a,b,label\n1,x,p\n1,x,q\n1,x,p\n") == ["1 row repeats an earlier one, target included"]
    assert double("a,b,label\n,x,p\n,x,p\n,x,p\n2,,q\n") == ["2 rows repeat an earlier one, target included"]
    assert double("a,b,label\n1,x,p\nx,1,p\n") == []


def test_constant_pictures_are_warned_of() -> None:
    content: dict[str, Any] = {"image": np.full((6, 1, 2, 2), 3, dtype=np.uint8), "label": [0, 1, 0, 1, 0, 1]}
    assert ("constant_column", "image") in codes(read(npz(**content), "npz"))
