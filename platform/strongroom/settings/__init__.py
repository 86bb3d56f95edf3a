"""Django's settings: the environment is read once, here, and chooses embedded, production or test."""

from django_stubs_ext import monkeypatch

monkeypatch()

from strongroom.settings.environment import read

ENVIRONMENT = read()

if ENVIRONMENT.mode == "embedded":
    from strongroom.settings.embedded import *
elif ENVIRONMENT.mode == "production":
    from strongroom.settings.production import *
else:
    from strongroom.settings.test import *
