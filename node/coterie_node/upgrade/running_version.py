"""Whether the daemon that carries out what a command writes is of the command's own release."""

from __future__ import annotations

from importlib.metadata import version

from pydantic_core import from_json

from coterie_chain.http_client import WIRE_FAULTS, HttpClient, Waits
from coterie_node.site.config import ApiPart

_WAITS = Waits(connect=0.5, silence=1.0, answer=1.0)
_MAX_ANSWER_BYTES = 1 << 16


def describe_other_release(api: ApiPart) -> str:
    """A sentence if a daemon of another release answers at this address; empty if none does, or it is of this one."""
    running, own = _read_version(api), version("coterie")
    if running in ("", own):
        return ""
    return (
        f"The running daemon is coterie {running[:20]!r}, this command is {own}: what the daemon does not know, it "
        "puts aside as refused. Start the daemon again with this release (docs/upgrade.md)."
    )


def _read_version(api: ApiPart) -> str:
    if not api.port:
        return ""
    client = HttpClient(f"http://{api.host}:{api.port}", _WAITS, {})
    try:
        return str(from_json(client.get("/health", limit=_MAX_ANSWER_BYTES).body)["version"])
    except (*WIRE_FAULTS, ValueError, KeyError, TypeError):
        return ""
    finally:
        client.close()
