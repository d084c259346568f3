"""`coterie study certify`: does this study's federated fit equal the pooled one, on synthetic data of its shape?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coterie_node.cli.options import Json
from coterie_node.cli.output import print_document
from coterie_node.run.study_files import load_study


def certify_command(
    study: Annotated[Path, typer.Argument(help="Study file (TOML or canonical JSON).")],
    rows: Annotated[int | None, typer.Option(min=10, max=10**7, help="Synthetic rows at each site.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the synthetic rows.")] = 20240,
    out: Annotated[Path | None, typer.Option(help="Default: certificate.json beside the study.")] = None,
    as_json: Json = False,
) -> None:
    """Simulate a study's shape on synthetic data, and store the largest difference to the pooled fit beside it."""
    from coterie_node.analysis.certificate import certify, save_certificate
    from coterie_node.audit.bundle import CERTIFICATE

    certificate = certify(load_study(study), rows, seed)
    save_certificate(certificate, out or study.with_name(CERTIFICATE))
    print_document(certificate.as_dict(), certificate.sentence, as_json)
