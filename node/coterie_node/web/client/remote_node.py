"""A node as Python sees it over its API, with the same objects as `coterie.simulate` gives.

node = coterie.Node("https://north.example:8443", token)
study = node.propose(coterie.Study.load("study.toml"))
result = node.study(3).result(); result.summary(); result.params
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from coterie_learners.core.fit import fit_from_json
from coterie_learners.study.document import Study
from coterie_node.audit.replay import Verdict
from coterie_node.audit.result import Cost, Result
from coterie_node.errors import ConfigError, DeadlinePassed, NodeError
from coterie_node.web.client.api_transport import ApiCaller, ApiTransport, open_http
from coterie_node.web.client.float_words import read_floats
from coterie_node.web.client.html import HtmlTable

_ENDED = ("completed", "aborted", "expired")
COLUMNS = ("study", "state", "name", "sites", "joined", "decision", "hash", "remark")


@dataclass(frozen=True)
class ActReceipt:
    """What an act wrote down for the node's daemon, in sentences; `study` is 0 before the ledger has the study."""

    study: int
    hash: str
    by: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class RemoteStudy:
    """One study at a node, by its number on the ledger or its hash."""

    api: ApiCaller
    which: str

    def describe(self) -> dict[str, Any]:
        """What the study does and discloses, its terms, the site's policy, its document."""
        return dict(self.api.get(self._path()))

    def status(self) -> dict[str, Any]:
        """The state of the study, and the sites that it waits for."""
        return dict(self.api.get(self._path("/status")))

    def records(self) -> Iterator[dict[str, Any]]:
        """The ledger's entries of the study, in their order."""
        return _read_pages(self.api, self._path("/records"))

    def result(self) -> Result:
        """The result, as `coterie.simulate` gives it; ApiRefused (CO-F332) if the node has none."""
        return _read_result(self.api.get(self._path("/result")))

    def wait(self, seconds: float, pause: float = 2.0) -> dict[str, Any]:
        """The status of the study once it has ended; DeadlinePassed (CO-R201) after so many seconds."""
        end = time.monotonic() + seconds
        while (status := self.status())["state"].partition(",")[0] not in _ENDED:
            if time.monotonic() >= end:
                culprit = status.get("waits_for") or "the node's daemon"
                message = f"Study {self.which} has not ended after {seconds:g} s; it waits for {culprit}"
                raise DeadlinePassed("CO-R201", f"{message}. Look at its status.")
            time.sleep(pause)
        return status

    def replay(self) -> Verdict:
        """The node's replay of the study: every server step computed again."""
        document = self.api.post(self._path("/replay"), {})
        names = {field.name for field in fields(Verdict)}
        return Verdict(**{name: value for name, value in document.items() if name in names})

    def export(self, path: str | Path) -> Path:
        """Write the study's bundle into a new file, which `coterie.verify` checks."""
        place, body = Path(path), self.api.download(self._path("/bundle"))
        try:
            with place.open("xb") as file:
                file.write(body)
        except OSError as error:
            raise ConfigError("CO-F205", f"{place} cannot be written: {error.strerror}. Name a new file.") from None
        return place

    def approve(self, reason: str = "", signature: dict[str, Any] | None = None) -> ActReceipt:
        """Approve the study for the node's site."""
        return self._act("approve", reason=reason, signature=signature)

    def decline(self, reason: str = "", signature: dict[str, Any] | None = None) -> ActReceipt:
        """Decline the study."""
        return self._act("decline", reason=reason, signature=signature)

    def abort(self, reason: str = "", signature: dict[str, Any] | None = None) -> ActReceipt:
        """End the study for all sites."""
        return self._act("abort", reason=reason, signature=signature)

    def withdraw(self, signature: dict[str, Any] | None = None) -> ActReceipt:
        """Take back what the node's site said of the study."""
        return self._act("withdraw", signature=signature)

    def resume(self, signature: dict[str, Any] | None = None) -> ActReceipt:
        """Vote to go on with the study after a dispute."""
        return self._act("resume", signature=signature)

    def supersede(self, reason: str, successor: int = 0, signature: dict[str, Any] | None = None) -> ActReceipt:
        """State that the study's result is superseded; everybody reads the reason."""
        return self._act("supersede", reason=reason, successor=successor, signature=signature)

    def _act(self, verb: str, **body: Any) -> ActReceipt:
        return _read_receipt(self.api.post(self._path(f"/{verb}"), body))

    def _path(self, tail: str = "") -> str:
        if not self.which.isascii() or not self.which.isalnum():
            raise ConfigError("CO-F304", f"{self.which[:40]!a} is no study's number or hash. See Node.studies().")
        return f"/studies/{self.which}{tail}"


class RemoteNode:
    """A node's API at `url`, with a token of `coterie token create`. `transport` takes the place of HTTP in tests."""

    def __init__(self, url: str, token: str, transport: ApiTransport | None = None) -> None:
        self.url = url
        self._api = ApiCaller(transport or open_http(url), token)

    def __repr__(self) -> str:
        return f"Node({self.url!r})"

    def site(self) -> dict[str, Any]:
        """The site's name, and what the token may do."""
        return dict(self._api.get("/site"))

    def studies(self) -> HtmlTable:
        """The studies on the ledger, the oldest first, as a table that notebooks show."""
        return HtmlTable(COLUMNS, tuple(_read_pages(self._api, "/studies")))

    def study(self, which: int | str) -> RemoteStudy:
        """A study by its number or its hash."""
        return RemoteStudy(self._api, str(which).lower())

    def propose(self, study: Study | str | Path, signature: dict[str, Any] | None = None) -> ActReceipt:
        """Propose a study: a loaded one, a file, or TOML text."""
        document = self._api.post("/studies", {"study": _write_study(study), "signature": signature})
        return _read_receipt(document)

    def ask_text(self, path: str, person: str, **fields: Any) -> dict[str, Any]:
        """What a person of the register signs for the act at `path` (`/studies/3/approve`) with these fields.

        `text`, and the same as `typed_data` (EIP-712). Nothing is done until the signature comes.
        """
        return dict(self._api.post(path, fields | {"person": person}))

    def members(self) -> HtmlTable:
        """The network's members, and votes about them."""
        return HtmlTable(("site", "state", "address", "votes"), tuple(_read_pages(self._api, "/members")))

    def checks(self) -> HtmlTable:
        """What `coterie doctor` finds at the node."""
        return HtmlTable(("check", "well", "found", "cure"), tuple(_read_pages(self._api, "/checks")))

    def releases(self) -> list[dict[str, Any]]:
        """Payloads that wait for a person's yes."""
        return list(_read_pages(self._api, "/releases"))

    def approve_release(self, digest: str, signature: dict[str, Any] | None = None) -> ActReceipt:
        """Let one payload leave, by its digest."""
        if not digest.isalnum():
            raise ConfigError("CO-F311", "A digest has hexadecimal digits alone. See Node.releases().")
        return _read_receipt(self._api.post(f"/releases/{digest}/approve", {"signature": signature}))


def _write_study(study: Study | str | Path) -> str:
    """The text that the API takes: TOML as it stands, or canonical JSON."""
    if isinstance(study, Study):
        return study.document.decode()
    is_text = isinstance(study, str) and "\n" in study
    return str(study) if is_text else Path(study).read_text(encoding="utf-8")


def _read_pages(api: ApiCaller, path: str) -> Iterator[dict[str, Any]]:
    """The items of a list, part by part."""
    cursor: str | None = ""
    while cursor is not None:
        page = api.get(f"{path}?limit=500&cursor={cursor}" if cursor else f"{path}?limit=500")
        try:
            yield from page["items"]
            cursor = page["next"]
        except (LookupError, TypeError):
            raise NodeError("CO-H152", "The answer is no part of a list. Check the versions of both sides.") from None


def _read_receipt(document: dict[str, Any]) -> ActReceipt:
    return ActReceipt(document["study"], document["hash"], document["by"], tuple(document["lines"]))


def _read_result(document: dict[str, Any]) -> Result:
    """A result with every digit of the fit; seconds and gas are what nobody measured."""
    ledger, warnings = document["ledger"], tuple(document["row_warnings"])
    notes = tuple(line for line in (document.get("superseded", ""), *document.get("lost", ())) if line)
    return Result(
        study=document["study"],
        sites=tuple(document["sites"]),
        fit=fit_from_json(read_floats(document["fit"])),
        cost=Cost(ledger["records"], ledger["payload_bytes"], None, {}),
        replay=None,
        model=document["model"],
        notes=notes,
        warnings=warnings,
    )
