"""The scripts of the contracts room as modules."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

CONTRACTS = Path(__file__).resolve().parents[3] / "contracts"


def load_script(name: str) -> ModuleType:
    """A script of the contracts room."""
    spec = spec_from_file_location(name, CONTRACTS / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
