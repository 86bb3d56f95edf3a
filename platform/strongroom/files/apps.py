"""Django's handle on this room."""

from django.apps import AppConfig


class FilesConfig(AppConfig):
    name = "strongroom.files"
    label = "files"
