"""Usage and budgets in the native API: `/usage`, `/budgets`, `/budgets/tenant`, `/budgets/{key}`.

(An api.py stands above all rooms: this one says deployments and models by name.)
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from strongroom import ids
from strongroom.access import services as access
from strongroom.access.models import ApiKey
from strongroom.deployments.models import Deployment
from strongroom.metering import budgets, usage
from strongroom.metering.ledger import PERIODS
from strongroom.registry.models import ModelVersion
from strongroom.rest import pages
from strongroom.rest.bodies import moment
from strongroom.rest.fields import Moment, PageQuery, PrefixedId, StrictSerializer, Whole
from strongroom.rest.schema import id_parameter, page_of
from strongroom.rest.views import ResourceView
from strongroom.tenants.names import NAME


class UsageRow(serializers.Serializer[Any]):
    """What one principal used of one model version in one minute, hour or day, from `start` on.

    tokens_cached are of tokens_in, tokens_cancelled of tokens_out: they were made, and nobody waited for them.
    """

    start = Moment()
    deployment = serializers.CharField(allow_null=True)
    model = serializers.CharField(allow_null=True)
    version = serializers.IntegerField(allow_null=True)
    key = PrefixedId("key", allow_null=True)
    member = PrefixedId("mem", allow_null=True)
    calls = serializers.IntegerField()
    items = serializers.IntegerField()
    errors = serializers.IntegerField()  # type: ignore[assignment]  # DRF takes fields out of the class
    compute_ms = serializers.FloatField()
    queue_ms = serializers.FloatField()
    tokens_in = serializers.IntegerField()
    tokens_cached = serializers.IntegerField()
    tokens_out = serializers.IntegerField()
    tokens_cancelled = serializers.IntegerField()


# `from` is no name that Python lets a class have.
UsageQuery: type[PageQuery] = type(
    "UsageQuery",
    (PageQuery,),
    {
        "__doc__": "Which usage, and how it is added up.",
        "__module__": __name__,
        "cursor": serializers.CharField(default=None, max_length=usage.MAX_CURSOR),
        "deployment": serializers.RegexField(rf"^{NAME.pattern}\Z", default=None),
        "key": PrefixedId("key", default=None),
        "from": Moment(default=None, help_text="The first moment."),
        "to": Moment(default=None, help_text="The first moment that is left out."),
        "by": serializers.ChoiceField(list(usage.SPANS), default="minute"),
    },
)


class Budget(serializers.Serializer[Any]):
    """How many tokens may be used in a window: prompt and answer, cached or not, cancelled or not.

    `reserved` is held by requests that run; it is spent by them or comes back. `subject` is "tenant" or a key.
    """

    subject = serializers.CharField()
    tokens = serializers.IntegerField()
    period = serializers.ChoiceField(list(PERIODS), allow_null=True)
    spent = serializers.IntegerField()
    reserved = serializers.IntegerField()
    remaining = serializers.IntegerField()
    window_start = Moment()


class BudgetBody(StrictSerializer):
    """`period` null: once and for all. Days and months are UTC's; another period begins a new window."""

    tokens = Whole(min_value=0, max_value=budgets.MOST_TOKENS)
    period = serializers.ChoiceField(list(PERIODS), allow_null=True, default=None)


UsagePage = page_of(UsageRow, "UsagePage")
BudgetPage = page_of(Budget, "BudgetPage")


class UsageView(ResourceView):
    scopes = {"GET": "usage:read"}
    queries = {"GET": UsageQuery}

    @extend_schema(operation_id="list_usage", tags=["usage"], parameters=[UsageQuery], responses=UsagePage)
    def get(self, request: Any) -> Response:
        """What was used, newest first; of the last seconds not all is counted yet."""
        asked = self.query
        name, key = asked["deployment"], asked["key"]
        found = None if name is None else list(Deployment.objects.filter(name=name).values_list("id", flat=True))
        which = usage.Asked(asked["by"], found, key, asked["from"], asked["to"])
        return Response(usage.page(which, _named, limit=asked["limit"], cursor=asked["cursor"]))


class BudgetsView(ResourceView):
    scopes = {"GET": "tenant:read"}
    queries = {"GET": PageQuery}

    @extend_schema(operation_id="list_budgets", tags=["budgets"], parameters=[PageQuery], responses=BudgetPage)
    def get(self, request: Any) -> Response:
        """The budgets of the tenant and of its keys, newest first."""
        return Response(pages.page(budgets.budgets(), budgets.document, **self.query))


class TenantBudgetView(ResourceView):
    scopes = {"GET": "tenant:read", "PUT": "tenant:write", "DELETE": "tenant:write"}

    @extend_schema(operation_id="read_tenant_budget", tags=["budgets"], responses=Budget)
    def get(self, request: Any) -> Response:
        """The budget of all keys and members together."""
        return Response(budgets.document(budgets.find(None)))

    @extend_schema(operation_id="set_tenant_budget", tags=["budgets"], request=BudgetBody, responses=Budget)
    def put(self, request: Any) -> Response:
        """Sets it; every process keeps to it within a second."""
        return Response(budgets.document(budgets.put(self.actor, None, **self.body(BudgetBody))))

    @extend_schema(operation_id="remove_tenant_budget", tags=["budgets"], responses={204: None})
    def delete(self, request: Any) -> Response:
        """From now on nothing bounds the tenant as a whole."""
        budgets.remove(self.actor, None)
        return Response(status=204)


class KeyBudgetView(ResourceView):
    scopes = {"GET": "keys:write", "PUT": "keys:write", "DELETE": "keys:write"}

    @extend_schema(operation_id="read_key_budget", tags=["budgets"], parameters=[id_parameter("key")], responses=Budget)
    def get(self, request: Any, id: UUID) -> Response:
        """A key's budget."""
        return Response(budgets.document(budgets.find(id)))

    @extend_schema(
        operation_id="set_key_budget",
        tags=["budgets"],
        parameters=[id_parameter("key")],
        request=BudgetBody,
        responses=Budget,
    )
    def put(self, request: Any, id: UUID) -> Response:
        """Sets it; the tenant's budget holds beside it."""
        key = access.get(id)
        return Response(budgets.document(budgets.put(self.actor, key.id, **self.body(BudgetBody))))

    @extend_schema(
        operation_id="remove_key_budget", tags=["budgets"], parameters=[id_parameter("key")], responses={204: None}
    )
    def delete(self, request: Any, id: UUID) -> Response:
        """From now on only the tenant's budget bounds the key."""
        budgets.remove(self.actor, id)
        return Response(status=204)


def _named(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A page's rows with names for ids: three questions however long it is."""
    deployments = Deployment.objects.in_bulk([row["deployment_id"] for row in rows])
    versions = ModelVersion.objects.filter(id__in=[row["version_id"] for row in rows])
    models = {id: (name, number) for id, name, number in versions.values_list("id", "model__name", "number")}
    principals = ApiKey.objects.filter(id__in=[row["principal_id"] for row in rows])
    keys = set(principals.values_list("id", flat=True))
    return [_document(row, deployments, models, keys) for row in rows]


def _document(
    row: dict[str, Any], deployments: dict[UUID, Deployment], models: dict[UUID, tuple[str, int]], keys: set[UUID]
) -> dict[str, Any]:
    deployment = deployments.get(row.pop("deployment_id"))
    model, version = models.get(row.pop("version_id"), (None, None))
    principal = row.pop("principal_id")
    return {
        "start": moment(row.pop("start")),
        "deployment": deployment and deployment.name,
        "model": model,
        "version": version,
        "key": ids.text("key", principal) if principal in keys else None,
        "member": None if principal in keys else ids.text("mem", principal),
    } | row


urlpatterns = [
    path("usage", UsageView.as_view()),
    path("budgets", BudgetsView.as_view()),
    path("budgets/tenant", TenantBudgetView.as_view()),
    path("budgets/<key_id:id>", KeyBudgetView.as_view()),
]
