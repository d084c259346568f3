"""VERTIGO on NHEFS, its columns split over sites."""

from coterie_node.demo.cases.shared.split_nhefs import make_case

CASE = make_case("vertigo")
