"""A raw export of REDCap with its data dictionary, and the CSV that says the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

DICTIONARY = """\
"Variable / Field Name","Form Name","Section Header","Field Type","Field Label",\
"Choices, Calculations, OR Slider Labels","Field Note",\
"Text Validation Type OR Show Slider Number","Text Validation Min","Text Validation Max",Identifier?
record_id,base,,text,Record,,,,,,
name,base,,text,"Name, family",,,,,,y
age,base,,text,Age at admission,,,number_1dp,18,110,
sex,base,,radio,Sex,"1, Female | 2, Male | 9, Not known, asked",,,,,
comorb,base,,checkbox,Comorbidities,"1, Diabetes | -2, Heart failure",,,,,
admitted,base,,text,Admission,,,date_ymd,,,
hint,base,,descriptive,Read this,,,,,,
pain,base,,slider,Pain,0 | 5 | 10,,number,,,
died,base,,yesno,Died,,,,,,
notes,base,,notes,Notes,,,,,,
"""
HEADER = (
    "record_id,redcap_event_name,redcap_repeat_instrument,redcap_repeat_instance,age,sex,comorb___1,comorb____2,died,\
base_complete"
)
N = 90


def draw_records() -> list[tuple[str, str, str, str]]:
    """Age, sex, diabetes and death as the export has them."""
    return [
        (
            "-99" if k == 4 else f"{30 + (k * 37) % 60}.5",
            "-99" if k == 9 else str(1 + k % 2),
            str(int(k % 3 == 0)),
            str(int((k * 29) % 7 < 2)),
        )
        for k in range(N)
    ]


def write_export(folder: Path, event: str = "", change: Callable[[str], str] = str) -> Path:
    lines = [HEADER]
    for k, (age, sex, diabetes, died) in enumerate(draw_records()):
        lines.append(f"{k + 1},base_arm_1,,,{age},{sex},{diabetes},0,{died},2")
        if event:
            lines.append(f"{k + 1},follow_arm_1,,,,,,,,0")
    (folder / "export.csv").write_text(change("\n".join(lines) + "\n"))
    (folder / "dictionary.csv").write_text("\ufeff" + DICTIONARY)
    path = folder / "north.mapping.toml"
    path.write_text(
        f'file = "export.csv"\n[table]\nmissing = ["-99"]\n[redcap]\ndictionary = "dictionary.csv"\nevent = "{event}"\n'
        '[columns.diabetes]\nfrom = "comorb___1"\n'
    )
    return path


def write_plain(folder: Path) -> Path:
    lines = ["died,age,sex,diabetes"]
    words = {"1": "Female", "2": "Male", "-99": ""}
    lines += [f"{died},{'' if age == '-99' else age},{words[sex]},{d}" for age, sex, d, died in draw_records()]
    (folder / "plain.csv").write_text("\n".join(lines) + "\n")
    return folder / "plain.csv"
