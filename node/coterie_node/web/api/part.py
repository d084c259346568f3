"""The API as a part of the node's page: mounted under its prefix, with tokens in place of the page's sessions."""

from __future__ import annotations

from starlette.routing import Mount

from coterie_node.site.folder import SiteFolder
from coterie_node.web.access import PagePart
from coterie_node.web.api.app import build_api
from coterie_node.web.api.services import open_services
from coterie_node.web.client.api_transport import API_PREFIX


def open_api_part(folder: SiteFolder) -> PagePart:
    """The API of a site, for the page that serves it."""
    return PagePart(mounts=(Mount(API_PREFIX, build_api(open_services(folder))),))
