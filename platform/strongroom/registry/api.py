"""Models and their versions in the native API. Their files come by the edge (edge/upload.py) and an import job."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from strongroom.registry import services
from strongroom.rest import pages
from strongroom.rest.fields import Moment, PageQuery, PrefixedId, StrictSerializer
from strongroom.rest.schema import page_of
from strongroom.rest.views import ResourceView


class ModelBody(serializers.Serializer):
    id = PrefixedId("mdl")
    name = serializers.CharField()
    task = serializers.CharField()
    description = serializers.CharField(allow_null=True)
    latest_version = serializers.IntegerField()
    production_version = serializers.IntegerField(allow_null=True)
    created_at = Moment()


class Tensor(serializers.Serializer):
    name = serializers.CharField()
    datatype = serializers.CharField()
    shape = serializers.ListField(child=serializers.IntegerField())


class SignatureBody(serializers.Serializer):
    inputs = Tensor(many=True)
    outputs = Tensor(many=True)
    classes = serializers.ListField(child=serializers.CharField(), allow_null=True)


class VersionBody(serializers.Serializer):
    id = PrefixedId("ver")
    model = serializers.CharField()
    version = serializers.IntegerField()
    task = serializers.CharField()
    state = serializers.ChoiceField(["ready", "rejected"])
    stage = serializers.ChoiceField(["candidate", "production", "archived"])
    reasons = serializers.ListField(child=serializers.CharField())
    format = serializers.ChoiceField(services.FORMATS)
    size_bytes = serializers.IntegerField()
    parameters = serializers.IntegerField(allow_null=True)
    metrics = serializers.DictField(child=serializers.FloatField())
    evaluation = serializers.DictField(allow_null=True)
    signature = SignatureBody(allow_null=True)
    lineage = serializers.DictField()
    created_at = Moment()


class StageBody(StrictSerializer):
    stage = serializers.ChoiceField(["production"])


ModelPage, VersionPage = page_of(ModelBody, "ModelPage"), page_of(VersionBody, "ModelVersionPage")


class ModelsView(ResourceView):
    scopes = {"GET": "models:read"}
    queries = {"GET": PageQuery}

    @extend_schema(operation_id="list_models", tags=["models"], parameters=[PageQuery], responses=ModelPage)
    def get(self, request: Any) -> Response:
        """The tenant's models, newest first."""
        return Response(pages.page(services.models(), services.model_document, **self.query))


class ModelView(ResourceView):
    scopes = {"GET": "models:read", "DELETE": "models:write"}

    @extend_schema(operation_id="read_model", tags=["models"], responses=ModelBody)
    def get(self, request: Any, name: str) -> Response:
        """One model: its newest version and the one in production."""
        return Response(services.model_document(services.find_model(name)))

    @extend_schema(operation_id="delete_model", tags=["models"], responses={204: None})
    def delete(self, request: Any, name: str) -> Response:
        """Destroys every version; 409 in_use while a deployment serves one."""
        services.delete(self.actor, name)
        return Response(status=204)


class VersionsView(ResourceView):
    scopes = {"GET": "models:read"}
    queries = {"GET": PageQuery}

    @extend_schema(operation_id="list_model_versions", tags=["models"], parameters=[PageQuery], responses=VersionPage)
    def get(self, request: Any, name: str) -> Response:
        """A model's versions, newest first."""
        rows = services.versions().filter(model=services.find_model(name))
        return Response(pages.page(rows, services.document, **self.query))


class VersionView(ResourceView):
    scopes = {"GET": "models:read", "PATCH": "models:write", "DELETE": "models:write"}

    @extend_schema(operation_id="read_model_version", tags=["models"], responses=VersionBody)
    def get(self, request: Any, name: str, version: int) -> Response:
        """One version: metrics, signature, evaluation, lineage."""
        return Response(services.document(services.resolve(name, version)))

    @extend_schema(operation_id="stage_model_version", tags=["models"], request=StageBody, responses=VersionBody)
    def patch(self, request: Any, name: str, version: int) -> Response:
        """Puts a version into production; the one before is archived."""
        row = services.resolve(name, version)
        services.set_stage(self.actor, row, self.body(StageBody)["stage"])
        return Response(services.document(row))

    @extend_schema(operation_id="delete_model_version", tags=["models"], responses={204: None})
    def delete(self, request: Any, name: str, version: int) -> Response:
        """Destroys one version's weights; 409 in_use while a deployment serves it."""
        services.delete_version(self.actor, services.resolve(name, version))
        return Response(status=204)


urlpatterns = [
    path("models", ModelsView.as_view()),
    path("models/<str:name>", ModelView.as_view()),
    path("models/<str:name>/versions", VersionsView.as_view()),
    path("models/<str:name>/versions/<int:version>", VersionView.as_view()),
]
