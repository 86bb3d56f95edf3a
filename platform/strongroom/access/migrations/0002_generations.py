"""The two rows that every process polls."""

from django.db import migrations


def make(apps, editor):
    rows = apps.get_model("access", "Generation").objects.using(editor.connection.alias)
    for name in ("principals", "deployments"):
        rows.get_or_create(name=name)


class Migration(migrations.Migration):
    dependencies = [("access", "0001_initial")]
    operations = [migrations.RunPython(make, migrations.RunPython.noop)]
