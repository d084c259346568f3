"""What would leave a site, and why it may or may not: the real payloads, judged by the real gate, sent to nobody."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import SiteEntry
from coterie_learners.core.masked_sum import decode_fixed_point
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Machine, Site, Step
from coterie_learners.core.registry import learner_of
from coterie_learners.errors import LearnerError, StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Study
from coterie_learners.study.rows import Data
from coterie_learners.sums.opening.labels import LABELS
from coterie_node.data.installed_source import RowsAddress
from coterie_node.data.load import load_site
from coterie_node.errors import ReleaseRefused
from coterie_node.release.approval import describe_release
from coterie_node.release.gate import Gate, Release
from coterie_node.release.policy import Policy
from coterie_node.run.simulate import simulate, site_of
from coterie_node.run.study_files import check_permit

MAX_NUMBERS = 400
# A number of a masked sum has this many words. Steps with other words list their numbers themselves (`Step.bare`).
WORDS_PER_NUMBER = 2


@dataclass(frozen=True)
class PayloadPreview:
    """One payload of one site, with the gate's verdict.

    `disclosed`: the learner's sentences about the step. `sums`: this site's numbers under its masks, where there are
    masks.
    """

    site: str
    release: Release
    disclosed: str = ""
    sums: Mapping[str, Array] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Everything that would leave, for this site's own people."""
        out = {"site": self.site, "disclosed": self.disclosed, **describe_release(self.release)}
        return out if self.sums is None else {**out, "payload": {k: v.tolist() for k, v in self.sums.items()}}

    def text(self) -> str:
        """The same for a terminal; long arrays are cut, JSON has them whole."""
        verdict = self.release.verdict
        small = [f"  {name}: {count}" for name, count in verdict.secret.items()]
        head = f"{self.site}  {verdict.topic}  {verdict.ruling.name.lower().replace('_', ' ')}: {verdict.sentence}"
        below = ["  Cells below the floor (for this site's people only):", *small] if small else []
        said = [f"  {self.disclosed}"] if self.disclosed else []
        payload = self.release.payload if self.sums is None else self.sums
        return "\n".join([head, *said, *below, *(_array(name, v) for name, v in sorted(payload.items()))])


@dataclass
class PreviewGate(Gate):
    """A gate that notes every release with what the learner discloses of it, and with the sums under the masks."""

    out: list[PayloadPreview] = field(default_factory=list)

    def admit(self, step: Step, site: Site, position: int, payload: Payload) -> bytes | None:
        """The verdict's digest, as the site's own gate has it."""
        disclosed = learner_of(self.study).discloses(self.study).find_step(step.topic)
        line, sums = disclosed.line if disclosed else "", sums_under_masks(step, site)
        self.watch = lambda release: self.out.append(PayloadPreview(site.name, release, line, sums))
        return super().admit(step, site, position, payload)


class UnmaskedSite(Site):
    """A site whose masks are zero, so that its own people see what the masks would hide."""

    def mask(self, peer: str, label: str, size: int) -> bytes:
        """Zeros."""
        return bytes(size)


def sums_under_masks(step: Step, site: Site) -> dict[str, Array] | None:
    """The numbers that this site's masks hide in a masked sum, by name; None for another step."""
    site = step.select(site)
    if step.bare is not None:
        return {f"{name}, under masks": np.asarray(value) for name, value in step.bare(site).items()}
    form = None if step.expects is None else step.expects.fields.get("masked")
    if step.public or form is None or form.shape[-1] != WORDS_PER_NUMBER:
        return None
    bare = UnmaskedSite(**{item.name: getattr(site, item.name) for item in fields(site)})
    words = np.asarray(step.make(bare, None)["masked"], dtype=np.uint64)
    return {"sums under masks": decode_fixed_point(words)}


def dry_run(study: Study, files: Mapping[str, RowsAddress], policy: Policy | None = None) -> list[PayloadPreview]:
    """Every payload that the study would make of these files: of all rounds where all sites' files are given.

    With some sites' files only, these sites' first payloads, which need no other site's posts. Stops at the first
    refusal, as the study would. StudyError (CO-S506) after the last day of the study's data permit.
    """
    unknown = sorted(set(files) - set(study.sites))
    if unknown:
        raise StudyError(
            "CO-S105", f"The study {study.name!r} has no site {', '.join(unknown)}. Use the names of its `sites`."
        )
    check_permit(study, int(time.time()))
    loaded = {name: load_site(path, study, name) for name, path in files.items()}
    rows: dict[str, Data] = {name: site_rows.rows for name, site_rows in loaded.items() if site_rows is not None}
    out: list[PayloadPreview] = []
    gates = {name: _gate(study, name, policy or Policy(), out) for name in study.sites}
    if not set(study.owners) - set(rows):
        try:
            simulate(study, rows, gates=gates)
        except (ReleaseRefused, LearnerError):
            if not out:
                raise
    else:
        for name in rows:
            _first(study, name, rows[name], gates[name])
    return out


def _gate(study: Study, name: str, policy: Policy, out: list[PayloadPreview]) -> Gate:
    return PreviewGate(study, policy, out=out)


def _first(study: Study, name: str, data: Data, gate: Gate) -> None:
    """Judge what one site would post first, under keys made for the occasion."""
    keys = {site: SiteKeys.of(secrets.token_bytes(32), secrets.token_bytes(32)) for site in study.sites}
    entries = [SiteEntry(k, site, own.address, own.sealing) for k, (site, own) in enumerate(keys.items(), 1)]
    seat = gate.seat(site_of(study, name, data, keys[name], entries, "dry run"))
    machine = Machine(learner_of(study).script, seat)
    step = machine.awaits
    if step is None or step.who not in ("each", f"only:{name}") or step.talks or step.announces:
        message = f"{name} posts nothing of its patients before it has seen posts of other sites"
        raise StudyError("CO-S106", f"{message}. Give all sites' files, or simulated ones.")
    try:
        payload = machine.draft(study.sites, 0)
        gate.admit(step, machine.seat(study.sites, 0), 0, payload)
        if step.topic == LABELS:
            machine.advance(dict.fromkeys(study.sites, payload))
            assert machine.awaits is not None
            gate.admit(machine.awaits, machine.seat(study.sites, 0), 1, machine.draft(study.sites, 0))
    except ReleaseRefused:
        return


def _array(name: str, value: Any) -> str:
    array = np.asarray(value)
    formatted = np.array2string(array.ravel()[:MAX_NUMBERS], threshold=MAX_NUMBERS, max_line_width=110, prefix="    ")
    suffix = f" ... and {array.size - MAX_NUMBERS} more (--json prints all)" if array.size > MAX_NUMBERS else ""
    return f"  {name} {array.dtype} {array.shape}\n    {formatted}{suffix}"
