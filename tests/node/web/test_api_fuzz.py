"""Calls that schemathesis makes up from the API's own document: none ends in a defect. `make fuzz-api` sends 20,000."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core import NotSet
from schemathesis.core.result import Ok
from support.node.api import ApiAnswer, ApiClient, ApiHouse, open_house
from support.node.houses import NodeNetwork, study_file

from coterie_node.web.api.app import build_routes, write_openapi
from coterie_node.web.live.places import WorkPlaces

CALLS = int(os.environ.get("COTERIE_API_CALLS", "600"))
SEED = int(os.environ.get("COTERIE_API_SEED", "1"))


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_no_generated_call_ends_in_a_defect(tmp_path: Path) -> None:
    network = NodeNetwork(tmp_path)
    study = network.propose(study_file(tmp_path))
    network.approve(study, "south", "west")
    network.settle()
    network.propose(study_file(tmp_path, "second"), by="south")
    network.settle()
    with open_house(network, audits=WorkPlaces(2, 2, "audits"), stream_seconds=0.0) as house:
        statuses = fuzz(house)
    for log in network.logs.values():
        log.close()
    assert statuses.total() >= CALLS
    assert statuses[200] > 0
    assert not [status for status in statuses if status >= 500]


def fuzz(house: ApiHouse) -> Counter[int]:
    """The statuses of so many calls, spread over all operations, valid ones and others."""
    schema = schemathesis.openapi.from_dict(write_openapi(build_routes()))
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    statuses: Counter[int] = Counter()
    client, each = house.client(), CALLS // (2 * len(operations)) + 1
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            send_all(client, operation, mode, each, statuses)
        print(operation.label, dict(sorted(statuses.items())), flush=True)
    return statuses


def send_all(client: ApiClient, operation: Any, mode: GenerationMode, count: int, statuses: Counter[int]) -> None:
    """Send `count` generated calls of one operation."""
    checks = list(HealthCheck)

    @seed(SEED)
    @settings(max_examples=count, phases=[Phase.generate], database=None, suppress_health_check=checks, deadline=None)
    @given(case=operation.as_strategy(generation_mode=mode), known=st.sampled_from(["", "1", "2", "9"]))
    def send(case: Any, known: str) -> None:
        answer = send_case(client, case, known)
        statuses[answer.status_code] += 1
        assert answer.status_code < 500, (case.method, case.path, case.body, answer.text)

    send()


def send_case(client: ApiClient, case: Any, known: str) -> ApiAnswer:
    """One call; `known` takes the place of a study's number, so that what lies behind it is reached as well."""
    values = dict(case.path_parameters or {})
    values |= {"study": known} if known and "study" in values else {}
    path = case.path
    for name, value in values.items():
        path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
    query = urlencode({k: v for k, v in (case.query or {}).items() if v is not None}, doseq=True)
    headers = {k: str(v) for k, v in (case.headers or {}).items() if str(v).isascii() and str(v).isprintable()}
    headers = {k: v for k, v in headers.items() if k.lower() not in ("authorization", "content-type")}
    body = None if isinstance(case.body, NotSet | bytes) else case.body
    return client.request(case.method, f"{path}?{query}" if query else path, json=body, headers=headers)
