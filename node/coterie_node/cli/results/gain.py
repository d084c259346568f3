"""`coterie study gain`: a site's own fit beside the joint one; nothing leaves the site."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from coterie_node.cli.options import At, Json, LedgerStudyArgument, NodeOption, Site
from coterie_node.cli.output import print_document
from coterie_node.errors import ConfigError

if TYPE_CHECKING:
    from coterie_chain.ledger.protocol import Ledger, StudyView
    from coterie_learners.core.fit import Fit
    from coterie_learners.core.protocol import Site as LearnerSite
    from coterie_learners.study.document import Study
    from coterie_node.site.folder import SiteFolder


def gain_command(
    which: LedgerStudyArgument,
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    as_json: Json = False,
) -> None:
    """Compare this site's own fit with the joint one: widths of intervals, and the AUC on its held-out rows.

    Reads the site's rows and the ledger, and writes nothing: no record, no payload, no entry of the privacy log.
    """
    from coterie_node.analysis.gain import measure_gain
    from coterie_node.audit.result import finite
    from coterie_node.audit.sources import find_study_number
    from coterie_node.cli.options import open_site
    from coterie_node.run.study_files import check_permit, study_on_ledger

    folder = open_site(node, at, site)
    with folder.open_ledger() as ledger:
        view = ledger.view(find_study_number(ledger, which))
        study = study_on_ledger(view, folder.open_archive())
        check_permit(study, int(time.time()))
        fit = _read_fit(folder, ledger, view)
    gain = measure_gain(seat_own_rows(folder, study), fit)
    print_document(finite(gain.as_dict()), gain.text(), as_json)


def _read_fit(folder: SiteFolder, ledger: Ledger, view: StudyView) -> Fit:
    """The joint fit, as the node wrote it; of a run without a daemon, as the ledger's posts give it."""
    from coterie_learners.core.fit import Fit
    from coterie_node.audit.replay import replay
    from coterie_node.verbs.stored_results import read_stored_result

    try:
        return read_stored_result(folder, view)[1]
    except ConfigError:
        fit = replay(ledger, folder.open_archive(), view.id).fit
        if isinstance(fit, Fit):
            return fit
        raise


def seat_own_rows(folder: SiteFolder, study: Study) -> LearnerSite:
    """The site with its own rows of a study, cut down to its cohort; what that would note is not kept."""
    from collections import ChainMap

    from coterie_learners.core.protocol import Site
    from coterie_node.data.load import load_site
    from coterie_node.privacy.log import PrivacyLog
    from coterie_node.privacy.storage import FolderStorage
    from coterie_node.release.gate import Gate

    loaded = load_site(folder.find_rows(study.hash), study, folder.name, folder.exclude)
    storage = ChainMap[str, bytes]({}, FolderStorage(folder.privacy))  # type: ignore[arg-type]
    gate = Gate(study, log=PrivacyLog(storage))
    return gate.seat(Site(study, folder.name, None if loaded is None else loaded.rows))
