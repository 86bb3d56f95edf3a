"""Django's handle on this room."""

from django.apps import AppConfig


class DeploymentsConfig(AppConfig):
    name = "strongroom.deployments"
    label = "deployments"
