"""Models and their versions in the native API. Their files come by the edge (edge/upload.py) and an import job."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from strongroom.registry import catalogue, services
from strongroom.rest import pages
from strongroom.rest.fields import Flag, Moment, PageQuery, PrefixedId, StrictSerializer, Text
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
    format = serializers.ChoiceField(services.SERVED_FORMATS)
    size_bytes = serializers.IntegerField()
    parameters = serializers.IntegerField(allow_null=True)
    metrics = serializers.DictField(child=serializers.FloatField())
    evaluation = serializers.DictField(allow_null=True)
    signature = SignatureBody(allow_null=True)
    card = serializers.DictField(allow_null=True)
    public = serializers.CharField(allow_null=True)
    lineage = serializers.DictField()
    created_at = Moment()


class PublicBody(serializers.Serializer):
    id = PrefixedId("ver")
    name = serializers.CharField()
    task = serializers.CharField()
    format = serializers.CharField()
    size_bytes = serializers.IntegerField()
    parameters = serializers.IntegerField(allow_null=True)
    card = serializers.DictField(allow_null=True)
    created_at = Moment()


class VersionChange(StrictSerializer):
    """Any of these."""

    stage = serializers.ChoiceField(["production"], required=False)
    public = Flag(required=False)


class AdoptBody(StrictSerializer):
    """`public`: as the catalogue names it, owner/model@version."""

    public = Text(max_length=140)


ModelPage, VersionPage = page_of(ModelBody, "ModelPage"), page_of(VersionBody, "ModelVersionPage")
PublicPage = page_of(PublicBody, "PublicModelPage")


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

    @extend_schema(operation_id="stage_model_version", tags=["models"], request=VersionChange, responses=VersionBody)
    def patch(self, request: Any, name: str, version: int) -> Response:
        """Puts a version into production; the one before is archived. Or lets every tenant deploy it, or no longer."""
        row = services.resolve(name, version)
        body = self.body(VersionChange)
        if "stage" in body or not body:
            services.set_stage(self.actor, row, body.get("stage", ""))
        if "public" in body:
            (catalogue.publish if body["public"] else catalogue.withdraw)(self.actor, row)
        return Response(services.document(row))

    @extend_schema(operation_id="delete_model_version", tags=["models"], responses={204: None})
    def delete(self, request: Any, name: str, version: int) -> Response:
        """Destroys one version's weights; 409 in_use while a deployment serves it."""
        services.delete_version(self.actor, services.resolve(name, version))
        return Response(status=204)


class CatalogueView(ResourceView):
    scopes = {"GET": "models:read"}
    queries = {"GET": PageQuery}

    @extend_schema(operation_id="list_catalogue", tags=["models"], parameters=[PageQuery], responses=PublicPage)
    def get(self, request: Any) -> Response:
        """Models that their owners have made public, newest first."""
        return Response(pages.page(catalogue.published(), catalogue.document, **self.query))


class AdoptView(ResourceView):
    scopes = {"POST": "models:write"}

    @extend_schema(operation_id="adopt_model", tags=["models"], request=AdoptBody, responses={201: VersionBody})
    def post(self, request: Any, name: str) -> Response:
        """Makes a public model a version of one's own, to deploy; its weights stay its owner's."""
        version = catalogue.adopt(self.actor, name, self.body(AdoptBody)["public"])
        where = f"/api/v1/models/{name}/versions/{version.number}"
        return Response(services.document(version), status=201, headers={"Location": where})


urlpatterns = [
    path("catalogue", CatalogueView.as_view()),
    path("models/<str:name>/adopt", AdoptView.as_view()),
    path("models", ModelsView.as_view()),
    path("models/<str:name>", ModelView.as_view()),
    path("models/<str:name>/versions", VersionsView.as_view()),
    path("models/<str:name>/versions/<int:version>", VersionView.as_view()),
]
