"""What the login hangs into the page: passkeys, signatures, and the identity provider if there is one."""

from __future__ import annotations

from coterie_node.site.folder import SiteFolder
from coterie_node.web.access import PagePart
from coterie_node.web.login.passkeys import PasskeyPages


def make_login_part(home: SiteFolder) -> PagePart:
    """The part of one site."""
    routes = PasskeyPages(home).routes
    settings = None if home.config.web is None else home.config.web.oidc
    if settings is not None:
        from coterie_node.web.login.provider import ProviderPages  # a site without a provider needs none of it

        routes += ProviderPages(home, settings).routes
    return PagePart(routes=routes)
