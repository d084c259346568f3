"""The release gate: before a payload of this site's own rows leaves, the gate compares it with the floors.

What its readers can solve is the learner's knowledge (`reveals` of the step); the floors are the stricter of the
study's and of this site's own policy. The values behind it and all that ever left this site are judged by the privacy
log (`privacy`). A step that posts from own rows and does not say what it reveals is refused, and so is a payload under
masks that have hidden other numbers.
What sites compute with each other in an interactive step and what a server computes from posts alone are not judged
here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace

from coterie_learners.core.disclosure import Exposure, GateVerdict, Ruling, judge_exposure
from coterie_learners.core.payload import Payload, canonical
from coterie_learners.core.protocol import Site, Step
from coterie_learners.core.registry import learner_of
from coterie_learners.core.study_disclosure import Disclosure
from coterie_learners.study.design import PerStudy
from coterie_learners.study.document import Floors, Study
from coterie_node.errors import ReleaseRefused
from coterie_node.privacy.log import PrivacyLog
from coterie_node.privacy.objections import Grade, Objection, pick_gravest
from coterie_node.release.beside_rows.judgement_elsewhere import JudgementElsewhere, judge_at, label_rows_at
from coterie_node.release.judgement import Judgement, read_patients, stand_on_cohort
from coterie_node.release.policy import Policy

# Fields whose content is hidden by masks, a blinding or an order that are the same whenever the step is made again.
HIDDEN = frozenset({"masked", "masked_blocks", "ciphers", "places"})
# What each study discloses, in words.
_DISCLOSURES: PerStudy[Disclosure] = PerStudy(lambda study: learner_of(study).discloses(study))


@dataclass(frozen=True)
class Release:
    """A payload at the gate: where in the study, what it is, and the verdict on it."""

    position: int
    attempt: int
    payload: Payload
    verdict: GateVerdict


# Whether this site's people have said yes to a release; asked again at every turn until they have.
Consent = Callable[[Release], bool]


def refuse_all(release: Release) -> bool:
    """The consent of a site that has no one to ask: never."""
    return False


@dataclass
class Gate:
    """One site's gate in one run of a study. `watch` hears of every release, passed or refused.

    `log` is the site's privacy log; `vault` is durable private memory, in which the masks that were used are noted.
    """

    study: Study
    policy: Policy = field(default_factory=Policy)
    log: PrivacyLog = field(default_factory=PrivacyLog)
    consent: Consent = refuse_all
    watch: Callable[[Release], None] = lambda _: None
    vault: MutableMapping[str, bytes] = field(default_factory=dict)
    _judgements: dict[str, Judgement | JudgementElsewhere] = field(default_factory=dict, init=False)

    @property
    def floors(self) -> Floors:
        """The stricter of the study's and the site's."""
        return self.study.disclosure.stricter(self.policy.floors)

    def seat(self, site: Site) -> Site:
        """The site on the rows of the study's declared cohort, with the labels of these that the privacy log gives."""
        return self._bind(replace(site, data=stand_on_cohort(self.log, site), bind=self._bind))

    def _bind(self, site: Site) -> Site:
        """The site with the labels and the patients of its own rows, and the floor of its policy."""
        return replace(
            site,
            label_rows=lambda: label_rows_at(self.log, site),
            read_patients=lambda: read_patients(site),
            own_floor=self.policy.floors.cell,
        )

    def admit(self, step: Step, site: Site, position: int, payload: Payload) -> bytes | None:
        """The verdict's digest for the record, or None while a person's yes is waited for.

        What leaves is in the privacy log before this returns. Raises ReleaseRefused if the payload must stay.
        """
        if step.public or step.talks or step.announces or step.concludes:
            return bytes(32)
        with self.log.hold():
            return self._admit(step, step.select(site), position, payload)

    def _admit(self, step: Step, site: Site, position: int, payload: Payload) -> bytes | None:
        exposure = self._exposure(step, site, payload)
        verdict, objection, reason = self._judge(step, site, exposure)
        release = Release(position, site.attempt, payload, verdict)
        self.watch(release)
        if verdict.refused:
            raise ReleaseRefused("CO-R301", f"{site.name}'s release gate keeps {step.topic!r} back: {verdict.sentence}")
        if self.policy.ask or (objection is not None and not reason):
            if not self.consent(release):
                return None
            verdict = replace(verdict, ruling=Ruling.CONSENTED)
        self._spend(step, site, payload)
        if exposure is not None and site.session in self._judgements:
            self._judgements[site.session].write(site, exposure, reason)
        return verdict.digest

    def note_sum(self, step: Step, site: Site, missing: tuple[str, ...]) -> None:
        """Note that the sum of a step exists, or never came to exist as these sites' shares are missing or false."""
        if step.who == "each" and not (step.talks or step.concludes):
            self.log.note_sum(step.select(site).session, site.parties, missing)

    def _spend(self, step: Step, site: Site, payload: Payload) -> None:
        """ReleaseRefused if other numbers left this site under the same masks before.

        After a reorganisation a site posts again under the same masks. If another site has changed what this one
        builds on, the difference of its two posts would be without any mask.
        """
        if HIDDEN.isdisjoint(payload):
            return
        label = f"masks/{site.session}/{site.study.hash.hex()}/{step.topic}/{site.attempt}"
        digest = hashlib.sha256(canonical(payload)).digest()
        if self.vault.setdefault(label, digest) != digest:
            message = f"{site.name} has sent other numbers under the masks of {step.topic!r} before a reorganisation"
            cause = "What it builds on was changed since, and the difference would be without them"
            raise ReleaseRefused("CO-R302", f"{message}. {cause}. Propose the study again.")

    def judge(self, step: Step, site: Site, payload: Payload) -> GateVerdict:
        """The verdict on one payload of a step."""
        site = step.select(site)
        return self._judge(step, site, self._exposure(step, site, payload))[0]

    def _exposure(self, step: Step, site: Site, payload: Payload) -> Exposure | None:
        if step.reveals is None:
            return None
        exposure = self._describe(step, step.reveals(site, payload))
        if step.readers is None:
            return exposure
        return replace(exposure, readers=tuple(r for r in step.readers if r != site.name))

    def _describe(self, step: Step, exposure: Exposure) -> Exposure:
        """The exposure under the words of the study's disclosure, where that speaks of this step."""
        disclosed = _DISCLOSURES(self.study).find_step(step.topic)
        return exposure if disclosed is None else replace(exposure, what=disclosed.what)

    def _judge(self, step: Step, site: Site, exposure: Exposure | None) -> tuple[GateVerdict, Objection | None, str]:
        """The verdict; what the privacy log objects to; and the reason of the person who said yes to that."""
        if exposure is None:
            sentence = f"The learner {self.study.learner.name} does not say what {step.topic!r} reveals."
            return GateVerdict(Ruling.REFUSED, sentence, self.floors, step.topic), None, ""
        verdict = judge_exposure(exposure, self.floors, step.topic)
        if verdict.refused or site.data is None:
            return verdict, None, ""
        if site.session not in self._judgements:
            self._judgements[site.session] = judge_at(site, self.log, self.floors, self.policy.near == "ask")
        objections = self._judgements[site.session].judge(site, exposure)
        return self._weigh(verdict, exposure, objections) if objections else (verdict, None, "")

    def _weigh(
        self, verdict: GateVerdict, exposure: Exposure, objections: Sequence[Objection]
    ) -> tuple[GateVerdict, Objection, str]:
        """The verdict with objections: refused, asked about, or passed because a person said yes to each of them."""
        digest = self.study.hash.hex()
        left, reason = self.log.list_open(digest, objections)
        objection = pick_gravest(left)
        if objection is None:
            kinds = ", ".join(dict.fromkeys(allowed.kind for allowed in objections))
            words = f"{verdict.sentence} A person of this site said yes ({kinds}): {reason}"
            return replace(verdict, ruling=Ruling.CONSENTED, sentence=words), objections[0], reason
        if objection.grade is Grade.ASK and self.consent is not refuse_all:
            sentences = " ".join(dict.fromkeys(asked.sentence_while_held for asked in left))
            secret = {name: count for asked in left for name, count in asked.secret.items()}
            return (
                replace(verdict, sentence=f"{exposure.what} may not go out: {sentences}", secret=secret),
                objection,
                "",
            )
        for refused in left:
            if refused.grade is Grade.REFUSE or self.consent is refuse_all:
                self.log.note_refusal(digest, self.study.name, refused)
        sentence = f"{exposure.what} may not go out: {objection.sentence}"
        return replace(verdict, ruling=Ruling.REFUSED, sentence=sentence, secret=objection.secret), objection, ""
