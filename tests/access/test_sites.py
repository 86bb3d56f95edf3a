"""What the middleware gives the two sites: the scope of the chosen tenant, the operator's, or none."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.template.response import SimpleTemplateResponse
from django.test import RequestFactory

from strongroom.access.middleware import PrincipalMiddleware, Respond, ScopeMiddleware
from strongroom.access.models import ApiKey
from strongroom.tenants import scope
from strongroom.tenants.models import Role, User
from tests.callers import Deposit


@pytest.fixture
def ask() -> Callable[..., tuple[HttpRequest, scope.Scope]]:
    """Sends a request through the middleware and tells the scope that the view ran in."""

    def asked(path: str, user: Any = None, chosen: UUID | None = None, method: str = "GET") -> Any:
        seen: list[scope.Scope] = []

        def view(request: HttpRequest) -> HttpResponse:
            seen.append(scope.current())
            return HttpResponse()

        request = _request(path, user, chosen, method)
        _between(view)(request)
        return request, seen[0]

    return asked


def _between(view: Respond) -> Respond:
    return PrincipalMiddleware(ScopeMiddleware(view))


def _request(path: str, user: Any, chosen: UUID | None = None, method: str = "GET") -> HttpRequest:
    request = RequestFactory().generic(method, path)
    request.user = user or AnonymousUser()
    request.session = {"tenant_id": str(chosen)} if chosen else {}  # type: ignore[assignment]  # as it is read here
    return request


@pytest.fixture
def operator(db: None) -> Iterator[User]:
    return User.objects.create_user("op@example.test", "a long password", is_operator=True)


def test_a_member_works_in_the_chosen_tenant(acme: Deposit, globex: Deposit, ask: Any) -> None:
    person = acme.member(Role.DEVELOPER, "both@example.test")
    globex.member(Role.VIEWER, "both@example.test")
    for chosen, deposit, role in [
        (None, acme, "developer"),
        (globex.id, globex, "viewer"),
        (acme.id, acme, "developer"),
    ]:
        request, seen = ask("/admin/jobs/job/", person, chosen)
        assert seen.tenant_id == request.principal.tenant_id == request.member.tenant_id == deposit.id
        assert request.member.role == role
        assert [member.tenant_id for member in request.memberships()] == [acme.id, globex.id]


def test_a_member_gets_nothing_from_another_tenant_by_choosing_it(acme: Deposit, globex: Deposit, ask: Any) -> None:
    _, seen = ask("/admin/", acme.owner.user, globex.id)
    assert seen.tenant_id == acme.id


def test_nobody_gets_no_scope(db: None, ask: Any) -> None:
    for path in ("/admin/", "/operator/"):
        request, seen = ask(path)
        assert seen == scope.NONE
        assert request.principal is None
    assert ask("/admin/")[0].memberships() == []


@pytest.mark.parametrize("page", ["login/", "logout/", "jsi18n/"])
def test_pages_around_signing_in_have_no_scope(acme: Deposit, operator: User, ask: Any, page: str) -> None:
    assert ask(f"/admin/{page}", acme.owner.user)[1] == scope.NONE
    assert ask(f"/operator/{page}", operator)[1] == scope.NONE


def test_static_files_and_pages_of_nobody_have_no_scope(acme: Deposit, ask: Any) -> None:
    for path in ("/static/x.js", "/docs", "/administration/", "/"):
        assert ask(path, acme.owner.user)[1] == scope.NONE


def test_only_an_operator_gets_the_operators_scope(acme: Deposit, operator: User, ask: Any) -> None:
    assert ask("/operator/", acme.owner.user)[1] == scope.NONE
    request, seen = ask("/operator/tenants/", operator)
    assert seen.is_operator
    assert (request.actor.kind, request.actor.id) == ("operator", operator.id)
    assert request.principal is None


def test_an_operator_sees_nothing_in_the_members_site(acme: Deposit, operator: User, ask: Any) -> None:
    request, seen = ask("/admin/", operator)
    assert seen == scope.NONE
    assert request.member is None


def test_a_page_is_rendered_inside_the_scope(acme: Deposit) -> None:
    template = engines["django"].from_string("{{ keys.count }} key")

    def view(request: HttpRequest) -> SimpleTemplateResponse:
        return SimpleTemplateResponse(template, {"keys": ApiKey.objects})

    response = _between(view)(_request("/admin/", acme.owner.user))
    assert response.content == b"1 key"


@pytest.mark.parametrize(("status", "kept"), [(200, 1), (302, 1), (400, 0), (422, 0), (500, 0)])
def test_a_failed_answer_undoes_what_the_view_wrote(acme: Deposit, status: int, kept: int) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        ApiKey.objects.create(name="written", prefix="sr_x", secret_sha256=b"x" * 32)
        return HttpResponse(status=status)

    _between(view)(_request("/admin/", acme.owner.user, method="POST"))
    with scope.tenant(acme.id):
        assert ApiKey.objects.filter(name="written").count() == kept


def test_the_scope_ends_with_the_request(acme: Deposit, ask: Any) -> None:
    ask("/admin/", acme.owner.user)
    assert scope.current() == scope.NONE


def test_the_scope_ends_though_the_view_fails(acme: Deposit) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        _between(view)(_request("/admin/", acme.owner.user, method="POST"))
    assert scope.current() == scope.NONE
