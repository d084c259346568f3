"""Small JSON files that people hand each other, read by a strict schema."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from coterie_learners.study.document import Frozen
from coterie_node.errors import ConfigError

Model = TypeVar("Model", bound=Frozen)


def read_strict(path: Path, model: type[Model], largest: int, code: str, what: str, cure: str = "") -> Model:
    """A file's content, of which `largest` bytes are read; ConfigError names `what` it should be, and the `cure`."""
    try:
        with path.open("rb") as file:
            return model.model_validate_json(file.read(largest))
    except OSError as error:
        raise ConfigError(code, f"{path} cannot be read as {what}: {error.strerror}. Check its path.{cure}") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(code, f"{path} is not {what}: {where}: {first['msg']}.{cure}") from None
