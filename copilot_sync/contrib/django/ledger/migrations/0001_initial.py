"""The table of the calls."""

from typing import Any, ClassVar, List

from django.db import migrations, models


class Migration(migrations.Migration):
    """Creates it."""

    initial = True
    dependencies: ClassVar[List[Any]] = []
    operations: ClassVar[List[Any]] = [
        migrations.CreateModel(
            name="Call",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("began_at", models.DateTimeField(db_index=True)),
                ("model", models.CharField(max_length=200)),
                ("answered_model", models.CharField(blank=True, max_length=200)),
                ("label", models.CharField(blank=True, max_length=200)),
                ("user", models.CharField(blank=True, max_length=200)),
                ("input_tokens", models.BigIntegerField(blank=True, null=True)),
                ("output_tokens", models.BigIntegerField(blank=True, null=True)),
                ("seconds", models.FloatField()),
                ("attempts", models.IntegerField()),
                ("outcome", models.CharField(max_length=200)),
                ("conversation_id", models.CharField(blank=True, max_length=200)),
            ],
            options={"ordering": ("-began_at", "-pk"), "default_permissions": ("view",)},
        ),
    ]
