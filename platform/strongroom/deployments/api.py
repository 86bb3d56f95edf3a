"""Deployments in the native API. Predictions are the edge's."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from strongroom.deployments import services
from strongroom.rest import pages
from strongroom.rest.fields import Flag, Moment, PageQuery, PrefixedId, StrictSerializer, Text, Whole
from strongroom.rest.schema import page_of
from strongroom.rest.views import ResourceView


class TrafficBody(StrictSerializer):
    """One model version's part of the requests; in this version one, with weight 100."""

    model = Text(max_length=63)
    version = Whole(min_value=1)
    weight = Whole(min_value=0, max_value=100, default=100)
    mode = serializers.ChoiceField(["live", "shadow"], default="live")


class LimitsBody(StrictSerializer):
    """Null: the default again."""

    requests_per_second = Whole(min_value=1, allow_null=True, required=False)
    concurrency = Whole(min_value=1, max_value=10_000, allow_null=True, required=False)
    deadline_ms = Whole(min_value=1, max_value=600_000, allow_null=True, required=False)


class BatchingBody(StrictSerializer):
    max_batch = Whole(min_value=1, max_value=4096, required=False)
    # a bound, which is kept at any value: what waits forms the next batch, and nothing ever waits for a timer
    max_delay_ms = Whole(min_value=0, max_value=1000, required=False)


class PolicyBody(StrictSerializer):
    top_k = Whole(min_value=1, allow_null=True, required=False)
    decimals = Whole(min_value=0, max_value=15, allow_null=True, required=False)
    scores = Flag(required=False)


class SwitchBody(StrictSerializer):
    """Any of these."""

    versions = TrafficBody(many=True, required=False)
    limits = LimitsBody(required=False)
    batching = BatchingBody(required=False)
    output_policy = PolicyBody(required=False)
    # of a language model: prompts and answers of all that run at once; null for as many as the model looks back on
    context_tokens = Whole(min_value=512, max_value=1 << 24, allow_null=True, required=False)
    # of a language model: cells map one read-only copy of its weights, slower, instead of a repacked one each
    share = Flag(required=False)


class NewDeployment(SwitchBody):
    name = Text(max_length=63)
    versions = TrafficBody(many=True)
    device = serializers.ChoiceField(["cpu"], default="cpu")


class ReplicasBody(serializers.Serializer):
    min = serializers.IntegerField()
    max = serializers.IntegerField()
    ready = serializers.IntegerField()


class DeploymentBody(serializers.Serializer):
    id = PrefixedId("dep")
    name = serializers.CharField()
    state = serializers.ChoiceField(["loading", "ready", "failed", "draining"])
    versions = TrafficBody(many=True)
    device = serializers.CharField()
    replicas = ReplicasBody()
    batching = BatchingBody()
    context_tokens = serializers.IntegerField(allow_null=True)
    share = serializers.BooleanField()
    limits = LimitsBody()
    output_policy = PolicyBody()
    error = serializers.DictField(allow_null=True)
    urls = serializers.DictField(child=serializers.CharField())
    created_at = Moment()


DeploymentPage = page_of(DeploymentBody, "DeploymentPage")


class DeploymentsView(ResourceView):
    scopes = {"GET": "deployments:read", "POST": "deployments:write"}
    queries = {"GET": PageQuery}
    idempotent = True

    @extend_schema(
        operation_id="list_deployments", tags=["deployments"], parameters=[PageQuery], responses=DeploymentPage
    )
    def get(self, request: Any) -> Response:
        """The tenant's deployments, newest first."""
        return Response(pages.page(services.live(), services.document, **self.query))

    @extend_schema(
        operation_id="create_deployment", tags=["deployments"], request=NewDeployment, responses={202: DeploymentBody}
    )
    def post(self, request: Any) -> Response:
        """Serves a model version under a name."""
        body = self.body(NewDeployment)
        request.principal.require_model(body["name"])
        row = services.deploy(self.actor, body)
        return _accepted(row)


class DeploymentView(ResourceView):
    scopes = {"GET": "deployments:read", "PATCH": "deployments:write", "DELETE": "deployments:write"}

    @extend_schema(operation_id="read_deployment", tags=["deployments"], responses=DeploymentBody)
    def get(self, request: Any, name: str) -> Response:
        """One deployment."""
        return Response(services.document(services.resolve(name)))

    @extend_schema(
        operation_id="switch_deployment", tags=["deployments"], request=SwitchBody, responses={200: DeploymentBody}
    )
    def patch(self, request: Any, name: str) -> Response:
        """Changes the version, the limits, the batching or the output policy."""
        request.principal.require_model(name)
        return Response(services.document(services.switch(self.actor, name, self.body(SwitchBody))))

    @extend_schema(operation_id="stop_deployment", tags=["deployments"], responses={202: DeploymentBody})
    def delete(self, request: Any, name: str) -> Response:
        """Drains it; then there is none of the name."""
        request.principal.require_model(name)
        return _accepted(services.stop(self.actor, name))


def _accepted(row: Any) -> Response:
    return Response(services.document(row), status=202, headers={"Location": f"/api/v1/deployments/{row.name}"})


urlpatterns = [
    path("deployments", DeploymentsView.as_view()),
    path("deployments/<str:name>", DeploymentView.as_view()),
]
