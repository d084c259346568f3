"""The flow of a site's rows into a study, after CONSORT and RECORD: read, left out by which rule, used.

Exact counts are for the site's own people. For others they are banded: whole multiples of the floor, rounded down, and
"fewer than" the floor. All counts are banded, totals too, so that no difference of two of them is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:  # commands that read a stored flow need no reader of files
    from coterie_node.data.source import RowSource


_WIDTH, _BOX, _STEP, _LINE = 640, 300, 74, 18
_CLIP = 48
# The colours of a light page stand in each shape, where every program reads them; those of a dark one here.
_STYLE = (
    "<style>@media screen and (prefers-color-scheme:dark){.fl-ink,.fl-tip{fill:#e6eaee}.fl-box,.fl-way{stroke:#a8b2bd}"
    ".fl-in{fill:#1f3044}.fl-out{fill:#43331d}}</style>"
)


@dataclass(frozen=True)
class FlowStep:
    """How many one rule left out, and why; `unknown` of them as a value is missing."""

    rule: str
    left_out: int
    unknown: int = 0
    unit: Literal["rows", "patients"] = "rows"
    detail: str = ""


@runtime_checkable
class Prepared(Protocol):
    """Rows that conditions let in, with counts of the others in the latest pass."""

    read: int
    steps: tuple[FlowStep, ...]
    patients: int | None

    @property
    def source(self) -> RowSource:
        """The rows behind."""


@dataclass(frozen=True)
class Flow:
    """`read` rows of the file, the rules in their order, and what is `used`; `patients` that visits were joined into.

    Steps before `joined` are of rows, the others of patients.
    """

    read: int
    steps: tuple[FlowStep, ...]
    used: int
    patients: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The flow as JSON has it."""
        plain = asdict(self)
        return plain if self.patients is not None else {k: v for k, v in plain.items() if k != "patients"}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Flow:
        """The flow of its JSON."""
        steps = tuple(FlowStep(**step) for step in plain["steps"])
        return cls(int(plain["read"]), steps, int(plain["used"]), plain.get("patients"))


def parse_flow(plain: object) -> Flow | None:
    """The flow of a stored result; None for any other value."""
    try:
        return Flow.from_dict(plain) if isinstance(plain, dict) else None
    except (LookupError, TypeError, ValueError):
        return None


def band_count(count: int, floor: int) -> str:
    """A count for others: 0, fewer than the floor, or the multiple of the floor below it."""
    if floor < 2 or not count:
        return str(count)
    return f"fewer than {floor}" if count < floor else f"at least {count // floor * floor}"


def list_flow_lines(flow: Flow, floor: int = 0) -> list[str]:
    """The flow as lines of text; `floor`: 0 for exact counts."""
    return [" ".join(parts) if isinstance(parts, tuple) else parts for parts in _list_boxes(flow, floor)]


def _list_boxes(flow: Flow, floor: int) -> list[str | tuple[str, str]]:
    """What stays as texts, and what is left out as pairs (mark, text)."""
    boxes: list[str | tuple[str, str]] = [f"{band_count(flow.read, floor)} rows read"]
    joined = flow.patients is None
    for step in flow.steps:
        if step.unit == "patients" and not joined:
            boxes.append(f"{band_count(flow.patients or 0, floor)} patients")
            joined = True
        boxes.append(("-", _describe_step(step, floor)))
    if not joined:
        boxes.append(f"{band_count(flow.patients or 0, floor)} patients")
    unit = "rows" if flow.patients is None else "patients"
    return [*boxes, f"{band_count(flow.used, floor)} {unit} used"]


def _describe_step(step: FlowStep, floor: int) -> str:
    text = f"{band_count(step.left_out, floor)} {step.unit} left out: {step.rule}"
    if floor > 1:  # neither detail is banded
        return text
    text += f" ({step.detail})" if step.detail else ""
    return f"{text} ({step.unknown} of them as a value is missing)" if step.unknown else text


def draw_flow(flow: Flow, floor: int = 0) -> str:
    """The flow as SVG, which loads nothing; all text is escaped."""
    parts: list[str] = []
    y = 10
    boxes = _list_boxes(flow, floor)
    for place, box in enumerate(boxes):
        if isinstance(box, tuple):
            parts += _draw_box(330, y, _clip_lines(box[1]), "fl-out", "#fff4e5")
            parts.append(
                f'<path d="M150 {y + 22} H330" class="fl-way" stroke="#555" fill="none" marker-end="url(#a)"/>'
            )
        else:
            parts += _draw_box(0, y, _clip_lines(box), "fl-in", "#eef4ff")
        if place + 1 < len(boxes):
            start = y + (0 if isinstance(box, tuple) else 44)
            parts.append(f'<path d="M150 {start} V{y + _STEP}" class="fl-way" stroke="#555" fill="none"/>')
        y += _STEP
    arrow = '<path class="fl-tip" d="M0 0 L7 3 L0 6z"/>'
    marker = f'<marker id="a" orient="auto" markerWidth="8" markerHeight="8" refX="7" refY="3">{arrow}</marker>'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}" role="img"'
    )
    style = 'font-family="sans-serif" font-size="12"'
    title = "<title>Flow of rows into the study</title>"
    return f"{head} {style}>{title}{_STYLE}<defs>{marker}</defs>{''.join(parts)}</svg>"


def _clip_lines(text: str) -> list[str]:
    """At most two lines; a longer text ends with an ellipsis."""
    first, rest = text[:_CLIP], text[_CLIP:]
    if rest and " " in first:
        cut = first.rindex(" ")
        first, rest = text[:cut], text[cut + 1 :]
    if len(rest) > _CLIP:
        rest = rest[: _CLIP - 1] + "…"
    return [first, rest] if rest else [first]


def _draw_box(x: int, y: int, lines: Sequence[str], kind: str, colour: str) -> list[str]:
    texts = "".join(
        f'<text class="fl-ink" x="{x + 8}" y="{y + _LINE * (k + 1)}">{escape(line)}</text>'
        for k, line in enumerate(lines)
    )
    return [
        f'<rect x="{x}" y="{y}" width="{_BOX}" height="44" class="fl-box {kind}" fill="{colour}" stroke="#555"/>{texts}'
    ]
