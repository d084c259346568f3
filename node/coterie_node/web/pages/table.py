"""The table of all pages: method, path, what a visitor must be, and what answers."""

from __future__ import annotations

from coterie_node.web.access import PageRoute
from coterie_node.web.pages.history import HISTORY_ROUTES
from coterie_node.web.pages.login import LOGIN_ROUTES
from coterie_node.web.pages.network import NETWORK_ROUTES
from coterie_node.web.pages.propose import PROPOSE_ROUTES
from coterie_node.web.pages.result import RESULT_ROUTES
from coterie_node.web.pages.run import RUN_ROUTES
from coterie_node.web.pages.settings import SETTINGS_ROUTES
from coterie_node.web.pages.studies import STUDIES_ROUTES
from coterie_node.web.pages.study import STUDY_ROUTES

PAGE_ROUTES: tuple[PageRoute, ...] = (
    *LOGIN_ROUTES,
    *STUDIES_ROUTES,
    *PROPOSE_ROUTES,
    *STUDY_ROUTES,
    *RUN_ROUTES,
    *RESULT_ROUTES,
    *NETWORK_ROUTES,
    *HISTORY_ROUTES,
    *SETTINGS_ROUTES,
)
