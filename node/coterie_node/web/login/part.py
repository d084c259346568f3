"""What the login hangs into the page: passkeys, signatures, and the identity provider if there is one."""

from __future__ import annotations

from coterie_node.site.folder import SiteFolder
from coterie_node.web.access import PagePart
from coterie_node.web.login.passkeys import PasskeyPages


def make_login_part(home: SiteFolder) -> PagePart:
    """The part of one site."""
    return PagePart(routes=PasskeyPages(home).routes)
