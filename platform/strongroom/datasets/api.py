"""Data sets in the native API: read and delete. Uploads are the edge's (edge/upload.py)."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from strongroom.access.api import Maker
from strongroom.datasets import services
from strongroom.datasets.models import DatasetVersion
from strongroom.rest import pages
from strongroom.rest.fields import Moment, PageQuery, PrefixedId
from strongroom.rest.schema import page_of
from strongroom.rest.views import ResourceView


class DatasetBody(serializers.Serializer):
    """One version of a data set; `columns` is null in lists and before the check."""

    id = PrefixedId("ds")
    name = serializers.CharField()
    version = serializers.IntegerField()
    state = serializers.ChoiceField(["checking", "ready", "failed"])
    format = serializers.ChoiceField(services.FORMATS)
    modality = serializers.ChoiceField(services.MODALITIES)
    target = serializers.CharField()
    size_bytes = serializers.IntegerField()
    fingerprint = serializers.CharField()
    rows = serializers.IntegerField(allow_null=True)
    columns = serializers.ListField(child=serializers.DictField(), allow_null=True)
    warnings = serializers.ListField(child=serializers.DictField())
    error = serializers.DictField(allow_null=True)
    created_at = Moment()
    created_by = Maker()


DatasetPage = page_of(DatasetBody, "DatasetPage")


def _in_list(version: DatasetVersion) -> dict[str, Any]:
    return services.document(version, columns=False)


class DatasetsView(ResourceView):
    scopes = {"GET": "datasets:read"}
    queries = {"GET": PageQuery}

    @extend_schema(operation_id="list_datasets", tags=["datasets"], parameters=[PageQuery], responses=DatasetPage)
    def get(self, request: Any) -> Response:
        """The newest version of each data set."""
        return Response(pages.page(services.newest(), _in_list, **self.query))


class DatasetView(ResourceView):
    scopes = {"GET": "datasets:read", "DELETE": "datasets:write"}

    @extend_schema(operation_id="read_dataset", tags=["datasets"], responses=DatasetBody)
    def get(self, request: Any, name: str) -> Response:
        """The newest version of a data set."""
        return Response(services.document(services.resolve(name)))

    @extend_schema(operation_id="delete_dataset", tags=["datasets"], responses={204: None})
    def delete(self, request: Any, name: str) -> Response:
        """Destroys every version; 409 in_use while a job reads one."""
        services.delete(self.actor, name)
        return Response(status=204)


class VersionView(ResourceView):
    scopes = {"GET": "datasets:read", "DELETE": "datasets:write"}

    @extend_schema(operation_id="read_dataset_version", tags=["datasets"], responses=DatasetBody)
    def get(self, request: Any, name: str, version: int) -> Response:
        """One version: statistics, classes, warnings, or why it cannot be used."""
        return Response(services.document(services.resolve(name, version)))

    @extend_schema(operation_id="delete_dataset_version", tags=["datasets"], responses={204: None})
    def delete(self, request: Any, name: str, version: int) -> Response:
        """Destroys one version; its number and fingerprint stay in the lineage."""
        services.delete_version(self.actor, services.resolve(name, version))
        return Response(status=204)


urlpatterns = [
    path("datasets", DatasetsView.as_view()),
    path("datasets/<str:name>", DatasetView.as_view()),
    path("datasets/<str:name>/versions/<int:version>", VersionView.as_view()),
]
