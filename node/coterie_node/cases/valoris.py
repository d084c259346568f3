"""VALORIS on NHEFS, its columns split over sites."""

from coterie_node.cases.split_nhefs import case_for

CASE = case_for("valoris")
