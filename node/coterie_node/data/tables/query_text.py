"""What the text of a query may say: one SELECT with an order, and no word by which a server does more than read rows.

The words are looked for everywhere, so that neither quotation marks nor a comment hide one. They are no wall: the
session is read-only too, and the account should be one that can read alone.
"""

from __future__ import annotations

import re

from coterie_node.data.findings import Origin, quote

_SELECT = re.compile(r"\s*(select|with)\b", re.IGNORECASE)
# SELECT ... INTO makes a table or a file, which a read-only session may allow; MariaDB carries out /*! comments.
_WRITES = re.compile(r"\binto\b|/\*M?!", re.IGNORECASE)
# What locks rows or counts on, and functions of servers that read or write files, end sessions, or reach other servers.
_NAMES = (
    r"lo_(?:import|export|unlink|put|get|open|create|creat|from_bytea|truncate|truncate64)|lowrite|loread",
    r"load_file|load_extension|pg_read(?:_binary)?_file|pg_file_\w+|pg_ls_\w+|pg_stat_file|pg_current_logfile",
    r"pg_terminate_backend|pg_cancel_backend|pg_reload_conf|pg_rotate_logfile|pg_promote|pg_switch_wal|pg_backup_\w+",
    r"pg_create_\w+|pg_drop_\w+|pg_(?:logical|replication|wal_replay)_\w+|pg_export_snapshot|pg_stat_\w*reset\w*",
    r"pg_notify|pg_(?:try_)?advisory\w*|get_lock|release_(?:all_)?locks?|master_pos_wait|dblink\w*|set_config|nextval",
    r"setval|next\s+value\s+for|(?:query|cursor)_to_xml\w*|sys_exec|sys_eval",
)
_REACHES = re.compile(
    r"\bfor\s+(?:no\s+key\s+|key\s+)?(?:update|share)\b|\block\s+in\s+share\s+mode\b|"
    rf"\b(?:{'|'.join(_NAMES)})\b|\bu&[\"']",
    re.IGNORECASE,
)
# Texts, quoted names and comments, in which a word is no part of the statement.
_ASIDE = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|--[^\n]*|/\*.*?\*/", re.DOTALL)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_ORDER = re.compile(r"\border\s+by\b", re.IGNORECASE)


def check_query(origin: Origin, text: str) -> None:
    """DataError (CO-D174) for a text that is no single ordered SELECT, or that could do more than read rows."""
    if not _SELECT.match(text) or ";" in text.rstrip().rstrip(";"):
        message = f"The query begins {quote(text.strip())}: it must be one SELECT (or WITH), without a semicolon inside"
        raise origin.error("CO-D174", f"{message}. Correct it.")
    if _WRITES.search(text):
        message = "The query has the word INTO, or a comment that the server carries out: it could write"
        raise origin.error("CO-D174", f"{message}. Leave it out, of texts and comments too.")
    if reach := _REACHES.search(text) or _REACHES.search(_COMMENT.sub(" ", text)):
        message = f"The query has {quote(reach[0])}, which locks rows or reaches beyond them"
        raise origin.error("CO-D174", f"{message}. Leave it out, of texts and comments too.")
    if not _ORDER.search(_ASIDE.sub(" ", text)):
        raise origin.error(
            "CO-D174", "The query has no ORDER BY, and rows in another order are other rows. Order by a unique column."
        )
