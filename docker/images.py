"""Which digest each image of docker/ has: read from images.lock, asked of a registry with `python docker/images.py`.

A tag can be moved to other bytes, and a digest cannot. `--check` ends with 1 for images without a digest: run it before
you publish or deploy.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from coterie_chain.network.programs.executables import GETH, IPFS

LOCK = Path(__file__).parent / "images.lock"
BASE_IMAGE = "python:3.12-slim"
GETH_IMAGE, KUBO_IMAGE = f"ethereum/client-go:v{GETH.version}", f"ipfs/kubo:v{IPFS.version}"
IMAGES = (BASE_IMAGE, GETH_IMAGE, KUBO_IMAGE)
SECONDS = 120
_LINE = re.compile(r"(\S+) (sha256:[0-9a-f]{64})")


def read_lock(text: str) -> dict[str, str]:
    """Digests by image; ValueError names a line that is none."""
    digests = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"images.lock has a line that is no image with a digest: {line[:80]!r}")
        digests[match[1]] = match[2]
    return digests


def pin_image(image: str, digests: Mapping[str, str]) -> str:
    """The image by its tag and, where it is known, its digest: then the digest decides."""
    return f"{image}@{digests[image]}" if image in digests else image


def list_unpinned(digests: Mapping[str, str]) -> list[str]:
    """The images of docker/ without a digest."""
    return [image for image in IMAGES if image not in digests]


def ask_registry(image: str) -> str:
    """The digest of an image's index of platforms; OSError or ValueError where no registry answers."""
    command = ["docker", "buildx", "imagetools", "inspect", "--format", "{{json .Manifest}}", image]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    if done.returncode != 0:
        raise OSError(done.stderr.strip()[-200:])
    return read_lock(f"{image} {json.loads(done.stdout)['digest']}")[image]


def main() -> int:
    """Check the lock, or fill it; returns the exit status."""
    text = LOCK.read_text()
    if "--check" in sys.argv[1:]:
        unpinned = list_unpinned(read_lock(text))
        for image in unpinned:
            message = f"{image} has no digest in docker/images.lock. Run `make lock-images` with a network."
            print(message, file=sys.stderr)
        return 1 if unpinned else 0
    try:
        lines = [f"{image} {ask_registry(image)}" for image in IMAGES]
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
        print(f"No registry answered, and docker/images.lock stays as it is: {error}", file=sys.stderr)
        return 1
    head = "# Digests of the images that docker/ names. Written by `make lock-images`.\n"
    LOCK.write_text(head + "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
