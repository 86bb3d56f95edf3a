"""The wall of queries: no scope, no rows; one tenant's scope, that tenant's rows; and the check that keeps it so."""

import threading
from collections.abc import Callable

import pytest
from django.db import models

from strongroom import ids
from strongroom.access.models import ApiKey
from strongroom.tenants import scope
from strongroom.tenants.checks import faults, owned_tables_are_scoped
from strongroom.tenants.models import Member, Owned, OwnedManager
from tests.callers import Deposit


def test_without_a_scope_every_use_of_a_table_raises(db: None) -> None:
    uses: list[Callable[[], object]] = [
        lambda: list(ApiKey.objects.all()),
        lambda: ApiKey.objects.count(),
        lambda: ApiKey._base_manager.first(),
        lambda: ApiKey._default_manager.first(),
        lambda: ApiKey(name="x").save(),
        lambda: ApiKey.objects.bulk_create([ApiKey(name="x")]),
        lambda: ApiKey.objects.update(name="x"),
    ]
    for use in uses:
        with pytest.raises(scope.NoScope):
            use()


def test_a_tenant_sees_its_own_rows_only(acme: Deposit, globex: Deposit) -> None:
    with scope.tenant(acme.id):
        assert [key.tenant_id for key in ApiKey.objects.all()] == [acme.id]
        assert not Member.objects.filter(id=globex.owner.id).exists()
        assert ApiKey.objects.exclude(tenant_id=acme.id).update(name="x") == 0


def test_a_row_of_another_tenant_cannot_be_written(acme: Deposit, globex: Deposit) -> None:
    with scope.tenant(acme.id):
        for row in (ApiKey(tenant_id=globex.id, name="x"), globex.owner):
            with pytest.raises(scope.NoScope):
                row.save()
        with pytest.raises(scope.NoScope):
            ApiKey.objects.bulk_create([ApiKey(tenant_id=globex.id, name="x")])


def test_the_operator_sees_all_and_must_name_a_tenant_to_write(acme: Deposit, globex: Deposit) -> None:
    with scope.operator("test"):
        assert ApiKey.objects.count() == 2
        with pytest.raises(scope.NoScope):
            ApiKey(name="x").save()


def test_scopes_do_not_nest_across_tenants(acme: Deposit, globex: Deposit) -> None:
    with scope.tenant(acme.id):
        with scope.tenant(acme.id):
            assert scope.tenant_id() == acme.id
        for inner in (scope.tenant(globex.id), scope.operator("test")):
            with pytest.raises(scope.NoScope), inner:
                pass
    with scope.operator("test"), pytest.raises(scope.NoScope), scope.tenant(acme.id):
        pass
    assert scope.current() == scope.NONE


def test_a_scope_does_not_reach_another_thread(acme: Deposit) -> None:
    seen: list[scope.Scope] = []
    with scope.tenant(acme.id):
        thread = threading.Thread(target=lambda: seen.append(scope.current()))
        thread.start()
        thread.join()
    assert seen == [scope.NONE]


def test_a_failure_inside_undoes_everything(acme: Deposit) -> None:
    def fail() -> None:
        with scope.tenant(acme.id):
            ApiKey.objects.update(name="changed")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with scope.tenant(acme.id):
        assert not ApiKey.objects.filter(name="changed").exists()


def test_every_table_of_ours_passes_the_check() -> None:
    assert owned_tables_are_scoped() == []


def test_the_check_finds_a_table_that_lost_its_managers() -> None:
    class Other(Owned):
        plain = models.Manager()

        class Meta(Owned.Meta):
            app_label = "lost"
            base_manager_name = "plain"

    class Own(Owned):
        objects = models.Manager()

        class Meta(Owned.Meta):
            app_label = "lost"

    class Kept(Owned):
        class Meta(Owned.Meta):
            app_label = "lost"

    (problem,) = faults(Other)
    assert (problem.id, problem.msg) == ("tenants.E001", "the base manager of Other is not scoped to a tenant")
    assert len(faults(Own)) == 3
    assert faults(Kept) == []
    assert isinstance(Kept._base_manager, OwnedManager)


def test_an_id_nobody_has_is_a_scope_with_no_rows(db: None) -> None:
    with scope.tenant(ids.new(), write=False):
        assert not ApiKey.objects.exists()
