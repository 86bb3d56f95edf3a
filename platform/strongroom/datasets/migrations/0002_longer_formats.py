from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('datasets', '0001_initial'),
    ]

    operations = [
        migrations.AlterField(
            model_name='datasetversion',
            name='format',
            field=models.CharField(max_length=16),
        ),
    ]
