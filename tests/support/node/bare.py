"""The command as an installation without extras has it: what only an extra brings cannot be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# Modules that the first installation does not bring: those of the extras, and of the development tools.
_ROWS = ("pyarrow", "pandas", "polars", "statsmodels", "sklearn", "causaldata", "openpyxl", "pyreadstat", "dask")
_PAGE = (
    "fastapi",
    "starlette",
    "uvicorn",
    "python_multipart",
    "authlib",
    "joserfc",
    "httpx",
    "argon2",
    "pyotp",
    "segno",
)
_SQL = ("sqlalchemy", "psycopg", "pymysql", "duckdb", "duckdb_engine", "distributed")
_OTHERS = ("tenseal", "pika", "redis", "weasyprint", "resvg_py", "matplotlib", "tno", "docx", "ipfshttpclient", "solcx")
MISSING = ("web3", "requests", "zstandard", "webauthn", *_ROWS, *_PAGE, *_SQL, *_OTHERS)
_HOOK = """
import sys
class Without:
    # Finds what another finder finds, but for what is missing.
    def __init__(self, finder):
        self._finder = finder
    def __getattr__(self, name):
        return getattr(self._finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {missing} else self._finder.find_spec(name, path, target)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
_MAIN = """
from coterie_node.cli.main import main
main()
"""


def run_bare(
    *words: str | Path, folder: Path, script: str = _MAIN, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command, or a script, in a process that has no extras."""
    code = _HOOK.format(missing=MISSING) + script
    command = [sys.executable, "-c", code, *map(str, words)]
    whole = {**os.environ, **(environment or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=folder, env=whole, check=False)
