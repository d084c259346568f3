"""Coterie's public face in Python: re-exports only.

import coterie
study = coterie.Study.load("study.toml")
result = coterie.simulate(study, {"north": "north.csv", "south": "south.csv"})
print(result.summary()); result.params; result.bse; result.conf_int()
"""

from coterie_chain.errors import ChainError
from coterie_learners.errors import LearnerError
from coterie_learners.inference import Fit, coefficient_table
from coterie_learners.learner import Learner
from coterie_learners.protocol import Machine, Site, each, interactive, only, server
from coterie_node.analysis import Study
from coterie_node.analysis import analyse as simulate
from coterie_node.audit import Verdict, replay
from coterie_node.conformance import check_learner
from coterie_node.errors import NodeError
from coterie_node.result import Result
from coterie_node.verify import Verified, verify

__all__ = [
    "ChainError",
    "Fit",
    "Learner",
    "LearnerError",
    "Machine",
    "NodeError",
    "Result",
    "Site",
    "Study",
    "Verdict",
    "Verified",
    "check_learner",
    "each",
    "only",
    "replay",
    "server",
    "simulate",
    "coefficient_table",
    "interactive",
    "verify",
]
