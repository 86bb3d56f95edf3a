"""CSV files: which columns are numbers, what counts as missing, and what each broken file is told."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.making import read, refusal
from training.data import csv as csv_reader
from training.errors import DatasetContradictsSpec


def csv(text: str, target: str = "label", **about: object):
    return read(text.encode(), "csv", target, **about)


def refused(text: str, target: str = "label"):
    return refusal(text.encode(), "csv", target)


def test_numbers_and_texts_become_columns_and_the_target_classes() -> None:
    data = csv("radius,texture,label\n12.5,smooth,benign\n,rough,malign\n3e2,,benign\n")
    assert [(column.name, column.type) for column in data.columns] == [
        ("radius", "number"),
        ("texture", "category"),
        ("label", "category"),
    ]
    assert data.inputs["radius"].dtype == np.float32
    np.testing.assert_array_equal(data.inputs["radius"], [12.5, np.nan, 300])
    assert data.inputs["texture"].tolist() == ["smooth", "rough", ""]
    assert data.classes == ["benign", "malign"]
    assert data.target.tolist() == [0, 1, 0]


@pytest.mark.parametrize("missing", ["", "NA", "n/a", "NaN", "null", "None"])
def test_what_counts_as_a_missing_number(missing: str) -> None:
    assert np.isnan(csv(f"a,label\n1,x\n{missing},y\n").inputs["a"][1])


def test_na_in_a_column_of_texts_is_a_text() -> None:
    assert csv("country,label\nNA,x\nFR,y\n").inputs["country"].tolist() == ["NA", "FR"]


def test_text_after_many_rows_of_numbers_keeps_the_spelling_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_reader, "_ROWS_AT_ONCE", 2)
    data = csv("a,b,label\n007,1,x\n1.50,2,y\n3,3,x\nfour,4,y\n")
    assert data.inputs["a"].tolist() == ["007", "1.50", "3", "four"]
    assert data.inputs["b"].tolist() == [1, 2, 3, 4]


def test_digits_grouped_by_underscores_are_no_number() -> None:
    assert csv("a,label\n1_000,x\n2,y\n").inputs["a"].tolist() == ["1_000", "2"]


def test_quotes_commas_line_breaks_byte_order_mark_and_empty_lines_are_understood() -> None:
    data = read(b'\xef\xbb\xbfa,label\r\n"x, ""y""\r\nz",1\r\n\r\nq,2\r\n', "csv")
    assert data.inputs["a"].tolist() == ['x, "y"\r\nz', "q"]


def test_whole_numbers_of_few_values_are_classes_in_the_order_of_the_numbers() -> None:
    data = csv("a,label\n1,10\n2,9\n3,10\n4,2\n")
    assert data.classes == ["2", "9", "10"]
    assert data.target.tolist() == [2, 1, 2, 0]


def test_many_whole_numbers_and_fractions_are_a_quantity() -> None:
    rows = "".join(f"{row},{row * 3}\n" for row in range(101))
    assert csv("a,label\n" + rows).classes is None
    data = csv("a,label\n1,0.5\n2,1.5\n")
    assert (data.classes, data.target.dtype) == (None, np.float32)
    assert data.target_column.type == "number"


def test_the_task_decides_what_whole_numbers_are() -> None:
    text = "a,label\n1,10\n2,9\n"
    assert csv(text, task="regression").target.tolist() == [10.0, 9.0]
    assert csv(text, task="classification").classes == ["9", "10"]


@pytest.mark.parametrize(
    ("label", "task", "says"),
    [
        ("0.5", "classification", "fractions"),
        ("1e19", "classification", "over 2\\*\\*53"),
        ("x", "regression", "texts"),
        ("1", "classification", "one class '1'"),
    ],
)
def test_a_target_that_the_task_cannot_use_contradicts_the_spec(label: str, task: str, says: str) -> None:
    with pytest.raises(DatasetContradictsSpec, match=says) as caught:
        csv(f"a,label\n1,{label}\n2,{label}\n", task=task)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("", "empty_file", "empty"),
        ("a,label\n", "no_rows", "no row"),
        ("a,label\n1,x\n2\n", "csv_ragged", r"row 2 \(line 3\) has 1 fields, the header has 2"),
        ('a,label\n"1\n\n2",x\n3,y,z\n', "csv_ragged", r"row 2 \(line 5\) has 3 fields"),
        ("a,a,label\n1,2,x\n", "csv_header_twice", "'a'"),
        ("a,,label\n1,2,x\n", "csv_header_name", "column 2"),
        ("a,b\n1,2\n", "target_absent", "'label'"),
        ("label\nx\n", "no_inputs", "beside the target"),
        ("a,label\n1,x\n2,\n3,y\n4,\n", "target_missing", "row 2.*2 rows"),
        ("a,label\n1,0.5\n2,NaN\n", "target_missing", "row 2"),
        ("a,label\n1,0.5\n2,inf\n", "number_not_finite", "row 2, column 'label'"),
        ("a,label\n1,x\n1e39,y\n", "number_not_finite", "row 2, column 'a'"),
        ('a,label\n"1,x\n', "csv_syntax", "not CSV"),
        ('a,label\n"1"2,x\n', "csv_syntax", r"row 1 \(line 2\)"),
    ],
)
def test_each_broken_file_is_named_with_its_place(text: str, code: str, says: str) -> None:
    import re

    problem = refused(text)
    assert problem.code == code
    assert re.search(says, problem.message)


def test_spaces_around_the_names_of_columns_are_no_part_of_them() -> None:
    assert [column.name for column in csv(" a , label\n1,x\n2,y\n").columns] == ["a", "label"]


def test_a_misspelt_target_is_answered_with_the_nearest_name() -> None:
    assert refused("a,labels\n1,x\n").hint == "did you mean 'labels'?"
    assert "commas" in str(refused("a;label\n1;x\n").hint)


def test_bytes_that_are_no_text_are_refused_with_their_line() -> None:
    problem = refusal(b"a,label\n1,x\n\xff\xfe,y\n", "csv")
    assert (problem.code, problem.message) == ("csv_encoding", "line 3 is not UTF-8")


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    assert refusal(b"a,label\n" + b"1" * (9 * 2**20), "csv").code == "csv_line_too_long"
    assert refusal(b"a,label\n" + b"1" * 200_000 + b",x\n", "csv").code == "csv_syntax"


def test_no_value_of_a_cell_is_repeated_in_an_error() -> None:
    secret = "S3CR3T"
    for text in (f"a,label\n{secret}\n", f"a,label\n1e999,{secret}\n", f"a,label\n{secret},x\n,\n"):
        problem = refused(text)
        assert secret not in problem.message + str(problem.hint)
