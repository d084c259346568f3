"""A bundle names the file that its maker's program came from, and never a name of a public index alone."""

from __future__ import annotations

import json

import pytest

from coterie_node.audit.release_file import ReleaseFile, find_release_file, read_origin

USUAL = ReleaseFile("coterie-1.2.3-py3-none-any.whl", "")
DIGEST = "ab" * 32


def test_a_program_from_a_wheel_names_it_with_its_digest() -> None:
    url = "file:///srv/coterie-1.2.3%2Blocal-py3-none-any.whl"
    origin = json.dumps({"url": url, "archive_info": {"hashes": {"sha256": DIGEST}}})
    release = read_origin(origin, USUAL)
    assert release == ReleaseFile("coterie-1.2.3+local-py3-none-any.whl", DIGEST)
    assert f"sha256sum coterie-1.2.3+local-py3-none-any.whl    # {DIGEST}" in release.guide


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "[]",
        '{"url": 7}',
        '{"url": "file:///srv/tree", "dir_info": {"editable": true}}',
        '{"url": "x.tar.gz", "archive_info": {"hashes": {"sha256": "00"}}}',
    ],
)
def test_a_program_from_elsewhere_names_the_usual_file_without_a_digest(text: str | None) -> None:
    assert read_origin(text, USUAL) == USUAL


def test_the_guide_never_installs_a_name_from_an_index() -> None:
    for release in (USUAL, find_release_file()):
        installs = [line for line in release.guide.splitlines() if "pip install" in line]
        assert installs == [f"    python -m pip install ./{release.wheel}"]
