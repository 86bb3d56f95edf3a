"""Conversations and preferences as JSON Lines: what is read, and what each broken row is told, by its number."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.depth import examples
from tests.training.finetune.given import Json, jsonl, prefers, said, small_choices, small_talk, talk
from tests.training.language.making import sealed
from training.data import chat_jsonl
from training.data.chat_jsonl import Conversations, Message, load, parse, profile
from training.data.limits import Limits
from training.errors import DataRefused

GOOD = talk("user: Hello", "assistant: Hi")
CHOICE = prefers("Hello", "Hi", "Go away")


def read(content: bytes) -> Conversations:
    return parse(io.BytesIO(content))


def refusal(content: bytes) -> DataRefused:
    with pytest.raises(DataRefused) as caught:
        read(content)
    assert caught.value.message
    assert caught.value.hint
    return caught.value


# ---- what is read


def test_conversations_are_read_in_the_order_of_the_file() -> None:
    found = read(jsonl(talk("system: Be brief.", "user: Hello", "assistant: Hi", "user: Bye", "assistant: Bye!"), GOOD))
    first, second = found.conversations
    assert (first.row, second.row, found.rows, found.shape) == (1, 2, 2, "messages")
    assert [message.plain() for message in first.messages] == said(
        "system: Be brief.", "user: Hello", "assistant: Hi", "user: Bye", "assistant: Bye!"
    )
    assert [message.is_learned for message in first.messages] == [False, False, True, False, True]


def test_an_answer_of_weight_0_is_read_and_not_learned() -> None:
    row = talk("user: a", "assistant: b", "user: c", "assistant: d")
    row["messages"][1]["weight"] = 0
    row["messages"][3]["weight"] = 1
    (found,) = read(jsonl(row)).conversations
    assert [message.is_learned for message in found.messages] == [False, False, False, True]


def test_preferences_are_read_under_either_name_of_the_question() -> None:
    other = {"prompt" if key == "input" else key: value for key, value in CHOICE.items()}
    found = read(jsonl(CHOICE, other))
    assert found.shape == "preferences"
    for preference in found.preferences:
        assert preference.question == (Message("user", "Hello", False),)
        assert (preference.preferred.content, preference.other.content) == ("Hi", "Go away")


def test_what_openai_writes_beside_the_messages_and_asks_for_nothing_is_passed_over() -> None:
    nothing: Json = {"tools": [], "parallel_tool_calls": True}
    assert read(jsonl({**GOOD, **nothing})).rows == 1
    assert read(jsonl({**CHOICE, "input": {**CHOICE["input"], **nothing}})).rows == 1


def test_empty_lines_a_byte_order_mark_and_line_ends_of_windows_are_understood_and_a_row_is_its_line() -> None:
    line = json.dumps(GOOD).encode()
    found = read(b"\xef\xbb\xbf" + line + b"\r\n\r\n  \n" + line)
    assert [row.row for row in found.conversations] == [1, 4]


def test_letters_of_every_kind_stay_as_they_are() -> None:
    text = "naïve 語 😀 \u2028 <|im_end|> \\n"
    (found,) = read(jsonl(talk(f"user: {text}", f"assistant: {text}"))).conversations
    assert [message.content for message in found.messages] == [text, text]


# ---- what is refused


def broken(**changes: Any) -> Json:
    """A row whose answer is changed."""
    return {"messages": [*said("user: Hello"), {"role": "assistant", "content": "Hi", **changes}]}


REFUSED: list[tuple[Json | str | bytes, str, str, str]] = [
    ('{"messages": [', "jsonl_syntax", "is not JSON", "one JSON object on one line"),
    ("[" * 100_000, "jsonl_syntax", "nested too deeply", "such as"),
    ('{"messages": NaN}', "jsonl_syntax", "NaN is no number", "such as"),
    ('{"a": 1, "a": 2}', "jsonl_syntax", "the key 'a' is there twice", "such as"),
    (
        '{"messages": 0, ' + ", ".join(f'"{n}": 0' for n in [*range(200_000), 199_999]) + "}",
        "jsonl_syntax",
        "twice",
        "such",
    ),
    ('{"messages": ' + "9" * 5000 + "}", "jsonl_syntax", "is not JSON", "such as"),
    (b"\xff\xfe", "jsonl_encoding", "is not UTF-8, from its byte 1 on", "UTF-8"),
    ("[1]", "jsonl_row", "is a list, not an object", "such as"),
    ({}, "no_messages", "has no messages", "such as"),
    ({"mesages": []}, "unknown_key", "has the unknown key 'mesages'", "did you mean 'messages'?"),
    ({**GOOD, "note": "x"}, "unknown_key", "has the unknown key 'note'", "known: messages"),
    ({**GOOD, "tools": [{}]}, "tools", "has tools, which are not learned", "leave rows with tools out"),
    ({"messages": []}, "no_messages", "has no messages", "a list of messages"),
    ({"messages": "Hello"}, "no_messages", "has a text as messages", "a list of messages"),
    ({"messages": ["Hello"]}, "message", "has a text as messages[0]", '"role"'),
    ({"messages": said("user: a") * 600}, "too_many_messages", "has 600 messages", "512 are the most"),
    (talk("user: Hello"), "no_answer", "ends with a message of the role user", "of the role assistant"),
    (talk("assistant: Hi"), "no_question", "begins with an answer", "before the answer"),
    (broken(weight=0), "no_answer", "has no answer that is not of weight 0", "leave the row out"),
    (broken(weight=2), "weight", "has the weight '2' in messages[1]", "0 does not"),
    (broken(weight=True), "weight", "has the weight 'True'", "0 does not"),
    (broken(role="asistant"), "unknown_role", "has the unknown role 'asistant' in messages[1]", "'assistant'?"),
    (broken(role=None), "unknown_role", "has no role in messages[1]", "one of system"),
    (broken(role=["user"]), "unknown_role", "has the unknown role", "one of system"),
    (broken(content=""), "content", "has an empty content in messages[1]", "leave the message"),
    (broken(content=" \n"), "content", "has an empty content in messages[1]", "leave the message"),
    (broken(content=None), "content", "has no content in messages[1]", "is a text"),
    (broken(content=[{"type": "text", "text": "Hi"}]), "content", "has a list as content", "is a text"),
    (broken(tool_calls=[]), "unknown_key", "has the unknown key 'tool_calls' in messages[1]", "known: role"),
    (broken(name="Ann"), "unknown_key", "has the unknown key 'name' in messages[1]", "known: role"),
    (
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\\ud83d"}]}',
        "content",
        "has half a character in messages[1]: \\ud83d alone",
        "correct the escape",
    ),
    ({"input": "Hello"}, "no_messages", "has no messages in its input", '{"messages"'),
    ({**CHOICE, "input": {**CHOICE["input"], "x": 1}}, "unknown_key", "the unknown key 'x' in its input", "known"),
    ({**CHOICE, "input": talk("user: a", "assistant: b")}, "no_question", "ends its input with an answer", "leave"),
    ({**CHOICE, "preferred_output": []}, "no_messages", "has no preferred_output", "a list of messages"),
    (
        {**CHOICE, "non_preferred_output": said("user: x")},
        "no_answer",
        "has not exactly one answer in non_preferred_output",
        "one message",
    ),
    (prefers("a", "same", "same"), "same_answers", "prefers an answer to itself", "leave the row out"),
]


@pytest.mark.parametrize(("row", "code", "words", "hint"), REFUSED)
def test_a_broken_row_is_named_with_what_is_wrong_and_the_remedy(
    row: Json | str | bytes, code: str, words: str, hint: str
) -> None:
    line = row if isinstance(row, bytes) else (row if isinstance(row, str) else json.dumps(row)).encode()
    first = CHOICE if isinstance(row, dict) and "input" in row else GOOD
    found = refusal(jsonl(first, first) + line + b"\n")
    assert found.code == code
    assert found.message.startswith("row 3 ")
    assert words in found.message
    assert found.hint is not None
    assert hint in found.hint


@pytest.mark.parametrize(("first", "second"), [(GOOD, CHOICE), (CHOICE, GOOD)])
def test_two_shapes_in_one_file_are_refused(first: Json, second: Json) -> None:
    found = refusal(jsonl(first, second))
    assert (found.code, found.hint) == ("jsonl_shape", "upload two data sets")
    assert "row 2 holds" in found.message


@pytest.mark.parametrize("content", [b"", b"\n\n", b"  \n"])
def test_a_file_without_a_row_is_refused(content: bytes) -> None:
    assert refusal(content).code == "no_rows"


def test_lines_and_rows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_jsonl, "LIMITS", Limits(line_bytes=200))
    assert refusal(jsonl(GOOD, talk("user: " + "a" * 300, "assistant: b"))).code == "jsonl_line_too_long"
    monkeypatch.setattr(chat_jsonl, "MOST_ROWS", 2)
    assert refusal(jsonl(GOOD, GOOD, GOOD)).code == "too_many_rows"


def test_a_data_set_declared_as_another_modality_is_refused() -> None:
    content = jsonl(GOOD)
    assert load(sealed(content), {"modality": "text"}).rows == load(sealed(content), {}).rows == 1
    with pytest.raises(DataRefused, match="declared as image") as caught:
        load(sealed(content), {"modality": "image"})
    assert caught.value.code == "modality_mismatch"


def read_or_refuse(content: bytes) -> None:
    refused = None
    try:
        found = read(content)
    except DataRefused as problem:
        refused = problem
    if refused is not None:
        assert re.fullmatch(r"[a-z0-9_]{3,40}", refused.code)
        assert 0 < len(refused.message.encode()) < 500
        assert refused.hint
        return
    assert profile(found)["rows"] == found.rows > 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["user", "assistant", "a", "", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["messages", "role", "content", "weight", "input", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=examples(200))
@given(rows=st.lists(JSON, min_size=1, max_size=3))
def test_any_json_is_a_data_set_or_a_refusal(rows: list[Any]) -> None:
    read_or_refuse("".join(json.dumps(row) + "\n" for row in rows).encode())


@settings(max_examples=examples(200))
@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=3), cut=st.integers(0, 10_000))
@pytest.mark.parametrize("good", [jsonl(*small_talk(2)), jsonl(*small_choices(2))], ids=["messages", "preferences"])
def test_good_files_with_bytes_changed_or_cut(good: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(good)
    for place, value in changes:
        content[place % len(content)] = value
    read_or_refuse(bytes(content[: cut % len(content)]) if cut % 2 else bytes(content))


# ---- the profile


def test_the_profile_counts_rows_and_characters_and_names_no_text() -> None:
    found = profile(read(jsonl(GOOD, GOOD, talk("user: secret words", "assistant: more of them"))))
    assert found == {
        "rows": 3,
        "modality": "text",
        "columns": [
            {
                "name": "messages",
                "type": "text",
                "shape": None,
                "missing": 0,
                "unique": 2,
                "min": 7,
                "max": 24,
                "mean": round(38 / 3, 6),
                "classes": None,
            }
        ],
        "warnings": [{"code": "duplicate_rows", "column": None, "message": "1 row repeats an earlier one"}],
    }
    assert "secret" not in json.dumps(found)


def test_preferences_have_a_column_for_each_of_their_parts() -> None:
    found = profile(read(jsonl(*small_choices(3))))
    assert [column["name"] for column in found["columns"]] == ["input", "preferred_output", "non_preferred_output"]
    assert found["warnings"] == []
