"""Finding a key that no cache knows, with a thousand and with a million keys in the table: medians."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.report import Figure
from tests.nodes import Node

# Runs inside `manage.py shell` of the node. Rows are copied from the one real key; only their hashes differ.
PROGRAM = """
import json, statistics, time
from django.db import connections
from strongroom.access import services
from strongroom.access.models import ApiKey
from strongroom.tenants import scope
OWN = {{
    "id": "gen_random_uuid()",
    "secret_sha256": "sha256((random()::text || n)::bytea)",
    "prefix": "'sr_' || substr(md5(n::text), 1, 10)",
}}
secret = {secret!r}
table, columns = ApiKey._meta.db_table, [field.column for field in ApiKey._meta.concrete_fields]
with scope.operator("bench"):
    like = ApiKey.objects.get(secret_sha256=services.secrets.digest(secret))
    with connections[scope.alias()].cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {{table}} ({{', '.join(columns)}}) SELECT {{', '.join(OWN.get(c, c) for c in columns)}} "
            f"FROM {{table}}, generate_series(1, %s) n WHERE id = %s",
            [{count} - ApiKey.objects.count(), like.id],
        )
took = []
for _ in range(300):
    began = time.perf_counter()
    services.find(secret)
    took.append(time.perf_counter() - began)
print(json.dumps(statistics.median(took) * 1e6))
"""


def measure(node: Node, key: str) -> Iterator[Figure]:
    few = node.shell(PROGRAM.format(secret=key, count=1_000))
    yield Figure("key look-up, 1 thousand keys, p50", few, "us")
    many = node.shell(PROGRAM.format(secret=key, count=1_000_000))
    yield Figure.against("key look-up, 1 million keys, p50", many, "us", few)
