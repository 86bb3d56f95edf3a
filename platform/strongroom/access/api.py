"""API keys in the native API: `/keys`, `/keys/{id}`, `/keys/{id}/rotate`."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from strongroom import ids
from strongroom.access import services
from strongroom.access.scopes import ORDERED
from strongroom.rest import pages
from strongroom.rest.fields import Many, Moment, PageQuery, PrefixedId, StrictSerializer, Text
from strongroom.rest.schema import id_parameter, page_of
from strongroom.rest.views import ResourceView
from strongroom.tenants.names import NAME

MAX_ENTRIES = 100


class Maker(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(["key", "member", "operator", "system"])
    id = serializers.CharField(allow_null=True)


class Key(serializers.Serializer[Any]):
    """A key as it is listed: never its secret."""

    id = PrefixedId("key")
    name = serializers.CharField()
    prefix = serializers.CharField()
    scopes = serializers.ListField(child=serializers.ChoiceField(ORDERED))
    expires_at = Moment(allow_null=True)
    allowed_models = serializers.ListField(child=serializers.CharField())
    allowed_networks = serializers.ListField(child=serializers.CharField())
    created_at = Moment()
    created_by = Maker()
    last_used_at = Moment(allow_null=True)
    revoked_at = Moment(allow_null=True)


class KeyWithSecret(Key):
    """A key in the one answer that holds its secret."""

    secret = serializers.CharField()


KeyPage = page_of(Key, "KeyPage")


class NewKeyBody(StrictSerializer):
    """`allowed_models` are names of deployments; empty lists mean all."""

    name = Text(max_length=80)
    scopes = Many(child=serializers.ChoiceField(ORDERED), allow_empty=False, max_length=MAX_ENTRIES)
    expires_at = Moment(allow_null=True, default=None)
    allowed_models = Many(
        child=serializers.RegexField(rf"^{NAME.pattern}\Z", error_messages={"invalid": "is no name of a deployment"}),
        default=list,
        max_length=MAX_ENTRIES,
    )
    allowed_networks = Many(child=Text(max_length=64), default=list, max_length=MAX_ENTRIES)


class Nothing(StrictSerializer):
    """`{}`"""


class KeysView(ResourceView):
    scopes = {"GET": "keys:write", "POST": "keys:write"}
    queries = {"GET": PageQuery}
    idempotent = "secret"

    @extend_schema(operation_id="list_keys", tags=["keys"], parameters=[PageQuery], responses=KeyPage)
    def get(self, request: Any) -> Response:
        """The tenant's keys, newest first, ended ones included."""
        return Response(pages.page(services.keys(), services.document, **self.query))

    @extend_schema(operation_id="create_key", tags=["keys"], request=NewKeyBody, responses={201: KeyWithSecret})
    def post(self, request: Any) -> Response:
        """A new key; its secret is in this answer only."""
        return _with_secret(services.create(request.principal, **self.body(NewKeyBody)))


class KeyView(ResourceView):
    scopes = {"GET": "keys:write", "DELETE": "keys:write"}

    @extend_schema(operation_id="read_key", tags=["keys"], parameters=[id_parameter("key")], responses=Key)
    def get(self, request: Any, id: UUID) -> Response:
        """One key."""
        return Response(services.document(services.get(id)))

    @extend_schema(operation_id="revoke_key", tags=["keys"], parameters=[id_parameter("key")], responses={204: None})
    def delete(self, request: Any, id: UUID) -> Response:
        """Ends a key within a second, in every process; again changes nothing."""
        services.revoke(self.actor, id)
        return Response(status=204)


class RotationView(ResourceView):
    scopes = {"POST": "keys:write"}
    idempotent = "secret"

    @extend_schema(
        operation_id="rotate_key",
        tags=["keys"],
        parameters=[id_parameter("key")],
        request=Nothing,
        responses={201: KeyWithSecret},
    )
    def post(self, request: Any, id: UUID) -> Response:
        """A new key with the same rights; the old one ends at once."""
        self.body(Nothing)
        return _with_secret(services.rotate(request.principal, id))


def _with_secret(made: services.NewKey) -> Response:
    body = services.document(made.key) | {"secret": made.secret}
    location = f"/api/v1/keys/{ids.text('key', made.key.id)}"
    return Response(body, status=201, headers={"Location": location, "Cache-Control": "no-store"})


urlpatterns = [
    path("keys", KeysView.as_view()),
    path("keys/<key_id:id>", KeyView.as_view()),
    path("keys/<key_id:id>/rotate", RotationView.as_view()),
]
