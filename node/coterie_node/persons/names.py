"""Names of persons: one spelling for each, and no two in a register that look alike.

A name is in Unicode's composed form (NFC), of one script, without what nobody sees. Two names are taken for one if they
are equal after compatibility folding (NFKC, case, spaces) and after letters that look like others are put together.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from coterie_learners.study.document import Text
from coterie_node.errors import ConfigError

_MAX_NAME = 100
# Scripts that one name mixes as a rule.
_JAPANESE = frozenset({"CJK", "HIRAGANA", "KATAKANA"})
# Letters of Cyrillic and Greek that look like Latin ones, after case folding.
_FOREIGN = (
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u04bb\u051b\u051d\u0432"
    "\u043a\u043c\u043d\u0442\u03b1\u03bf\u03c1\u03bd\u03b9\u03ba\u03b2\u03c4\u03c5\u03c7\u03b7"
)
_LATIN = "aeopcyxljsdhqwbkmhtaopvlkbtyxn"
_DASHES = "\u2012\u2013\u2014\u2212\u02bc`"
_LOOK_ALIKE = (
    str.maketrans(_FOREIGN, _LATIN)
    | str.maketrans(_DASHES, "----''")
    | str.maketrans("01i\u0131|\u2019\u2018\u2010", "olll\u006c''-", " ")
)
# Latin letters with which languages write names: those of Basic Latin to Extended-A, Vietnamese, Pinyin, Romanian and
# others of Extended-B, Azerbaijani, Hausa and Ewe, and Extended Additional.
_LATIN_NAMES: tuple[range, ...] = (
    range(0x180),
    range(0x1A0, 0x1A2),
    range(0x1AF, 0x1B1),
    range(0x1CD, 0x1DD),
    range(0x1E6, 0x1EE),
)
_LATIN_NAMES += (range(0x1F4, 0x1F6), range(0x1F8, 0x220), range(0x226, 0x234), range(0x1E00, 0x1F00))
_LATIN_NAMES += tuple(range(c, c + 1) for c in (0x18F, 0x259, 0x181, 0x253, 0x18A, 0x257, 0x190, 0x25B, 0x186, 0x254))
_NAME_TEXT: TypeAdapter[str] = TypeAdapter(Annotated[Text, Field(min_length=1)])


def check_person_name(name: str) -> str:
    """The name as it was typed; ConfigError (CO-F431) if it could be taken for another one."""
    scripts = {_find_script(letter) for letter in name if letter.isalpha()}
    if not scripts or len(name) > _MAX_NAME or not _is_plain(name):
        cause = f"A person's name has 1 to {_MAX_NAME} characters, with letters, single spaces and nothing invisible"
    elif not unicodedata.is_normalized("NFC", name):
        cause = "The name is not in Unicode's composed form (NFC)"
    elif odd := [letter for letter in name if _is_odd_latin(letter)]:
        cause = f"The name has the {unicodedata.name(odd[0])}, which is no letter of a name"
    elif len(scripts) > 1 and not scripts <= _JAPANESE:
        cause = f"The name mixes letters of {' and '.join(sorted(scripts))}, which look alike"
    else:
        return name
    raise ConfigError("CO-F431", f"{cause}: {name[:_MAX_NAME]!a}. Type the name again.")


def fold_name(name: str) -> str:
    """What two names share that are taken for one."""
    return unicodedata.normalize("NFKC", name).casefold().translate(_LOOK_ALIKE)


def _is_odd_latin(letter: str) -> bool:
    """Whether a letter is one of phonetics, such as a script g, or a click that looks like a small l."""
    return letter.isalpha() and _find_script(letter) == "LATIN" and not any(ord(letter) in r for r in _LATIN_NAMES)


def _is_plain(name: str) -> bool:
    try:
        _NAME_TEXT.validate_python(name)
    except ValidationError:
        return False
    return name == " ".join(name.split())


def _find_script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").split()[0]
