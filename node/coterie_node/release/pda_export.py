"""This site's table for networks that run the R package pda, compared with the floors as at the gate."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from coterie_chain.keys.private_files import replace_private
from coterie_learners.cola.cola import build_table, expose_posted_table
from coterie_learners.cola.plan import TablePlan
from coterie_learners.cola.tables.pattern_counts import count_patterns
from coterie_learners.core.disclosure import judge_exposure
from coterie_learners.core.protocol import Site
from coterie_learners.errors import StudyError
from coterie_learners.study.rows import CodedRows
from coterie_node.data.pda import as_pda
from coterie_node.errors import ReleaseRefused
from coterie_node.privacy.log import PrivacyLog
from coterie_node.privacy.objections import pick_gravest
from coterie_node.release.judgement import Judgement
from coterie_node.release.policy import Policy


def write_table(path: Path, plan: TablePlan, rows: CodedRows, policy: Policy, log: PrivacyLog | None = None) -> None:
    """This site's table as pda reads it, without what lies below the study's floor; ReleaseRefused as at the gate.

    The table is a release like any other: it is compared with `log` and written into it.
    """
    needed = set(plan.fields) - {"suppressed", "saturated", "constant"}
    if not plan.design.formula.intercept or needed != {"keys", "n", "cross", "outcome"} or plan.levels:
        raise StudyError(
            "CO-S327", "pda's tables hold counts and X'y: a logit or a Poisson model with an intercept and no offset."
        )
    table = build_table(plan, count_patterns(plan.tally, rows))
    log = PrivacyLog() if log is None else log
    session = f"pda/{plan.study.hash.hex()}/{secrets.token_hex(8)}"
    site = Site(plan.study, path.stem, rows, session=session, parties=(path.stem,))
    exposure, floors = expose_posted_table(plan, site, table), plan.study.disclosure.stricter(policy.floors)
    verdict = judge_exposure(exposure, floors, "table")
    if verdict.refused:
        raise ReleaseRefused("CO-R301", f"The release gate keeps the table back: {verdict.sentence}")
    with log.hold():
        judgement, digest = Judgement(log, floors, policy.near == "ask"), plan.study.hash.hex()
        left, reason = log.list_open(digest, judgement.judge(site, exposure))
        for objection in left:
            log.note_refusal(digest, plan.study.name, objection)
        gravest = pick_gravest(left)
        if gravest is not None:
            raise ReleaseRefused("CO-R301", f"The release gate keeps the table back: {gravest.sentence}")
        judgement.write(site, exposure, reason)
    replace_private(path, json.dumps(as_pda(plan.design, plan.grid, table)) + "\n")
