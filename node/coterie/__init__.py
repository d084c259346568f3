"""Coterie's public face in Python: re-exports only.

import coterie
study = coterie.Study.load("study.toml")
result = coterie.simulate(study, {"north": "north.csv", "south": "south.csv"})
print(result.summary()); result.params; result.bse; result.conf_int()
"""

from coterie_chain.errors import ChainError
from coterie_learners.core.fit import Fit, coefficient_table
from coterie_learners.core.protocol import Machine, Site, each, interactive, only, server
from coterie_learners.core.registry import Learner
from coterie_learners.errors import LearnerError
from coterie_node.analysis.analyse import Study
from coterie_node.analysis.analyse import analyse as simulate
from coterie_node.analysis.conformance import check_learner
from coterie_node.audit.replay import Verdict, replay
from coterie_node.audit.result import Result
from coterie_node.audit.verify import Verified, verify
from coterie_node.errors import NodeError
from coterie_node.web.client.remote_node import RemoteNode as Node

__all__ = [
    "ChainError",
    "Fit",
    "Learner",
    "LearnerError",
    "Machine",
    "Node",
    "NodeError",
    "Result",
    "Site",
    "Study",
    "Verdict",
    "Verified",
    "check_learner",
    "coefficient_table",
    "each",
    "interactive",
    "only",
    "replay",
    "server",
    "simulate",
    "verify",
]
