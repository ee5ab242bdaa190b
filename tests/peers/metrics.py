"""Reads an exposition from standard input with Prometheus' own parsers, and prints each sample.

Usage: metrics.py text|openmetrics
"""

import json
import sys

from prometheus_client import parser
from prometheus_client.openmetrics import parser as strict

read = {"text": parser, "openmetrics": strict}[sys.argv[1]].text_string_to_metric_families
seen = set()
for family in read(sys.stdin.read()):
    # Prometheus' own text leaves metrics without a type: here none is.
    assert family.type in ("counter", "gauge"), family
    assert family.documentation, family
    for sample in family.samples:
        key = (sample.name, tuple(sorted(sample.labels.items())))
        assert key not in seen, f"twice: {key}"
        seen.add(key)
        print(json.dumps({"name": sample.name, "labels": sample.labels, "value": sample.value}))
