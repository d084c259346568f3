"""Acts of forms: done at once at a site without a register of persons, and after a person's signature at one with it.

perform(visit, PageAct("Vote to resume study 3", "/studies/3", lambda by, signer: ...))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.responses import Response

from coterie_node.persons.acts import ActText
from coterie_node.verbs.signing import PersonSigner, prepare_text
from coterie_node.web.access import Visit
from coterie_node.web.guard import go

SIGN = "/sign"


@dataclass(frozen=True)
class PageAct:
    """What a form asks for, in words; `run(by, signer)` does it and returns what the page says then, at `back`."""

    words: str
    back: str
    run: Callable[[str, PersonSigner | None], str]


@dataclass(frozen=True)
class SigningQuestion:
    """A text that waits for a person's signature, and the act that follows."""

    text: ActText
    act: PageAct


def perform(visit: Visit, act: PageAct) -> Response:
    """Do an act in the name of who is signed in; at a site with a register lead to the text that is to be signed."""
    if visit.services.site.folder.persons.read_register() is None:
        return go(visit, act.back, act.run(visit.person.name, None))
    text = prepare_text(visit.person.name, lambda signer: act.run("", signer))
    name = text.digest.hex()[:32]
    visit.services.questions.ask(visit.session.name, name, SigningQuestion(text, act))
    return go(visit, f"{SIGN}/{name}")
