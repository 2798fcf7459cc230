"""Last: the requests of all other files covered every operation of docs/openapi.yaml with every
status it names."""

import re

import pytest

import harness

# What the other files are not expected to see, and why.
EXEMPT = {
    ("getDoctor", 404): "comes when the daemon was built without a doctor",
    ("getDoctor", 503): "comes when memory is short or unid ends during the measurement",
    ("pushImage", 507): "needs a file system to fill, which not every machine allows",
    ("makeVolume", 507): "likewise",
}


def operations():
    """(operationId, method, path, {statuses}) out of the document's regular layout."""
    path = method = None
    found, current, in_responses = [], None, False
    for line in (harness.ROOT / "docs/openapi.yaml").read_text().splitlines():
        if line.startswith("components:"):
            break
        if m := re.match(r"  (/\S*):$", line):
            path = m.group(1)
        elif m := re.match(r"    (get|head|post|put|patch|delete|options):$", line):
            method = m.group(1).upper()
        elif m := re.match(r"      operationId: (\w+)$", line):
            current = (m.group(1), method, path, set())
            found.append(current)
        elif re.match(r"      \w+:", line):
            in_responses = line.strip() == "responses:"
        elif in_responses and (m := re.match(r"        '(\d+)':", line)):
            current[3].add(int(m.group(1)))
    return found


def pattern(path):
    return re.compile(
        "^"
        + re.sub(r"\\\{path\\\}", ".+", re.sub(r"\\\{(?!path)\w+\\\}", "[^/]+", re.escape(path)))
        + "$"
    )


def test_every_operation_and_status_was_seen(request):
    files = {item.path.name for item in request.session.items}
    if not {"test_rest.py", "test_gateway.py"} <= files or request.config.option.keyword:
        pytest.skip("the other files were not run")
    missing = []
    wanted, got = set(), set()  # of the gateway: one handler, whatever the method
    for operation, method, path, statuses in operations():
        match = pattern(path)
        seen = {status for m, p, status in harness.SEEN if m == method and match.match(p)}
        if path.startswith("/fn/"):
            wanted |= statuses
            got |= seen
            if not seen:
                missing.append((operation, "never called"))
            continue
        missing += [(operation, s) for s in statuses - seen if (operation, s) not in EXEMPT]
    missing += [("gateway", s) for s in wanted - got]
    assert not missing, missing
    assert len(operations()) > 30
