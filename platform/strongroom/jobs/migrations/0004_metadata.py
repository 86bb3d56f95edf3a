import strongroom.vault.fields
from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('jobs', '0003_batches'),
    ]

    operations = [
        migrations.AddField(
            model_name='job',
            name='metadata',
            field=strongroom.vault.fields.SealedJSON(null=True),
        ),
    ]
