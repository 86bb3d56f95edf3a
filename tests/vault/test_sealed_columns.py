"""Sealed columns: plain in memory, sealed in the database, bound to table, column, tenant and row."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.core.exceptions import FieldError
from django.db import connection, models, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strongroom.errors import Unavailable
from strongroom.idempotency.models import Answer
from strongroom.tenants import scope
from strongroom.vault import fields, keys, services
from tests.depth import examples
from tests.sealing import independent

VALUE = {"columns": ["MARKER income", "age"], "größe": 1.5, "none": None}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def row(**values: Any) -> Answer:
    key = uuid4().bytes * 2
    return Answer(
        principal_id=uuid4(),
        route="r",
        key_sha256=key,
        body_sha256=key,
        expires_at=datetime(2030, 1, 1, tzinfo=UTC),
        **values,
    )


def made(**values: Any) -> Answer:
    answer = row(**values)
    answer.save()
    return answer


def again(answer: Answer) -> Answer:
    return Answer.objects.get(id=answer.id)


def stored(answer: Answer) -> bytes:
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, answer FROM idempotency_answer")
        found = {UUID(str(id_)): content for id_, content in cursor.fetchall()}
    return bytes(found[answer.id])


def overwrite(answer: Answer, content: bytes) -> None:
    Answer.objects.filter(id=answer.id).update(answer=fields.Sealed(content))


@given(JSON)
@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_comes_back_as_it_was(inside: UUID, value: object) -> None:
    assert again(made(answer=value)).answer == value


def test_the_database_holds_nothing_readable(inside: UUID) -> None:
    answer = made(answer=VALUE)
    content = stored(answer)
    assert content[:5] == b"\x01\0\0\0\x01"
    assert b"MARKER" not in content
    assert b"income" not in content
    assert stored(made(answer=VALUE))[5:] != content[5:]


def test_a_stored_value_is_the_one_of_the_page(inside: UUID) -> None:
    """docs/formats/artefact.md, opened with nothing of ours but the field key."""
    answer = made(answer=VALUE)
    content = stored(answer)
    key = AESGCM(independent.hkdf(keys._field_key(inside, 1).reveal(), b"strongroom field 1"))
    place = b"idempotency_answer.answer" + inside.bytes + answer.id.bytes
    assert json.loads(key.decrypt(content[5:17], content[17:], place)) == VALUE


def test_none_is_null(inside: UUID) -> None:
    answer = made(answer=None)
    assert again(answer).answer is None
    assert Answer.objects.filter(answer__isnull=True).count() == 1


def test_a_changed_value_is_saved_and_an_unread_one_stays_as_it_was(inside: UUID) -> None:
    answer = made(answer=VALUE)
    before = stored(answer)
    unread = again(answer)
    unread.status = 200
    unread.save()
    assert stored(answer) == before
    read = again(answer)
    read.answer["age"] = 7
    read.save()
    assert again(answer).answer == VALUE | {"age": 7}


def test_rows_made_together_are_sealed_one_by_one(inside: UUID) -> None:
    Answer.objects.bulk_create([row(answer=number) for number in range(5)])
    assert sorted(answer.answer for answer in Answer.objects.all()) == list(range(5))


def test_deferred_and_refreshed_columns_open_too(inside: UUID) -> None:
    answer = made(answer=VALUE)
    deferred = Answer.objects.defer("answer").get(id=answer.id)
    assert deferred.answer == VALUE
    answer.answer = "unsaved"
    answer.refresh_from_db()
    assert answer.answer == VALUE


def test_a_value_is_updated_without_its_row_in_memory(inside: UUID) -> None:
    answer = made(answer=None)
    value = services.sealed(Answer, "answer", VALUE, tenant_id=inside, row_id=answer.id)
    assert Answer.objects.filter(id=answer.id).update(answer=value) == 1
    assert again(answer).answer == VALUE
    (content,) = Answer.objects.filter(id=answer.id).values_list("answer", flat=True)
    assert isinstance(content, services.Sealed)
    assert services.opened(Answer, "answer", content, tenant_id=inside, row_id=answer.id) == VALUE
    assert services.sealed(Answer, "answer", None, tenant_id=inside, row_id=answer.id) is None
    assert services.opened(Answer, "answer", None, tenant_id=inside, row_id=answer.id) is None


def test_a_plain_value_is_refused_in_an_update(inside: UUID) -> None:
    answer = made(answer=VALUE)
    with pytest.raises(TypeError, match=r"services\.sealed"):
        Answer.objects.filter(id=answer.id).update(answer={"plain": 1})


def test_a_sealed_column_is_never_searched(inside: UUID) -> None:
    for lookup in ("answer", "answer__exact", "answer__contains", "answer__gt", "answer__in"):
        with pytest.raises(FieldError):
            list(Answer.objects.filter(**{lookup: b"x"}))


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes", object()])
def test_what_is_no_json_is_refused_before_it_is_stored(inside: UUID, value: object) -> None:
    with pytest.raises((TypeError, ValueError)), transaction.atomic():
        made(answer=value)
    assert not Answer.objects.exists()


# --- bound to its place


def test_content_moved_to_another_row_does_not_open(inside: UUID) -> None:
    first, second = made(answer="first"), made(answer="second")
    overwrite(first, stored(second))
    with pytest.raises(services.ColumnCorrupt, match=f"idempotency_answer.answer of row {first.id}"):
        _ = again(first).answer


def test_content_of_another_tenant_does_not_open(tenant_id: UUID, other_tenant_id: UUID) -> None:
    with scope.tenant(tenant_id):
        content = stored(made(answer="secret"))
    with scope.tenant(other_tenant_id):
        answer = made(answer="mine")
        overwrite(answer, content)
        with pytest.raises(services.ColumnCorrupt):
            _ = again(answer).answer


def test_content_of_another_column_does_not_open(inside: UUID) -> None:
    answer = made(answer="secret")
    place = fields.Place("idempotency_answer.headers", inside, answer.id)
    with pytest.raises(services.ColumnCorrupt):
        fields._open(place, fields.Sealed(stored(answer)))


def test_any_changed_byte_and_any_cut_is_refused(inside: UUID) -> None:
    answer = made(answer="x")
    content = stored(answer)
    for place in (0, *range(5, len(content))):
        overwrite(answer, content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(services.ColumnCorrupt):
            _ = again(answer).answer
    for length in range(len(content)):
        overwrite(answer, content[:length])
        with pytest.raises(services.ColumnCorrupt):
            _ = again(answer).answer


def test_a_value_opens_in_its_scope_only_cached_key_or_not(tenant_id: UUID, other_tenant_id: UUID) -> None:
    with scope.tenant(tenant_id):
        answer = made(answer=VALUE)
        unread, other = again(answer), again(answer)
    with pytest.raises(scope.NoScope):
        _ = unread.answer
    with scope.tenant(other_tenant_id), pytest.raises(scope.NoScope):
        _ = other.answer
    with scope.operator("support"):
        assert again(answer).answer == VALUE


def test_while_keys_are_away_a_column_is_503_and_the_rest_of_the_row_is_there(inside: UUID, ring: Path) -> None:
    answer = made(answer=VALUE)
    keys.forget(inside)
    ring.rename(ring.with_name("unmounted"))
    unread = again(answer)
    assert unread.route == "r"
    with pytest.raises(Unavailable):
        _ = unread.answer
    with pytest.raises(Unavailable), transaction.atomic():
        made(answer=VALUE)
    made(answer=None)


def test_an_older_generation_still_opens_and_the_next_save_takes_the_new_one(inside: UUID) -> None:
    answer = made(answer=VALUE)
    keys.TenantKey.objects.filter(tenant_id=inside).update(state="retired")
    services.create_tenant_keys(inside)
    keys.forget(inside)
    read = again(answer)
    assert read.answer == VALUE
    read.save()
    assert stored(answer)[1:5] == b"\0\0\0\x02"
    assert again(answer).answer == VALUE


# --- where it may stand


def test_a_model_without_a_tenant_or_a_uuid_is_refused_by_the_system_check() -> None:
    class Bare(models.Model):
        secret = fields.SealedJSON()

        class Meta:
            app_label = "vault"
            managed = False

    (problem,) = Bare._meta.get_field("secret").check()
    assert "tenant" in problem.msg


def test_a_column_that_is_not_sealed_is_named(inside: UUID) -> None:
    with pytest.raises(TypeError, match="route of Answer is not sealed"):
        services.sealed(Answer, "route", 1, tenant_id=inside, row_id=uuid4())
