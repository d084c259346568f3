"""A site's rows in the study's words: what gate, snapshot, privacy log and every learner see of a mapped site."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from coterie_learners.study.design import Design
from coterie_node.data.arrow import pa
from coterie_node.data.arrow_values import Values
from coterie_node.data.findings import FileOrigin, Origin, printable, quote
from coterie_node.data.mapping.convert import Conversion, ValueKind
from coterie_node.data.mapping.document import SiteMapping, read_mapping
from coterie_node.data.source import Batch, check_header, stamp_file
from coterie_node.data.tables.table import SiteTable, open_table

MAPPING_SUFFIX = ".toml"


@dataclass(frozen=True)
class MappedRows:
    """The study's columns of a table, converted as the mapping says."""

    origin: Origin
    mapping: SiteMapping
    path: FileOrigin
    table: SiteTable
    plan: Mapping[str, Conversion]

    @property
    def rows(self) -> int | None:
        """None: they are read once and kept in memory."""
        return None

    def batches(self) -> Iterator[Batch]:
        """The study's columns; DataError if a value cannot be converted at all."""
        names = tuple(dict.fromkeys(source for rule in self.plan.values() for source in rule.sources))
        for batch in self.table.batches(names):
            yield {name: self._convert(name, conversion, batch) for name, conversion in self.plan.items()}

    def places(self, rows: Sequence[int]) -> list[str]:
        """The places of the rows in the site's own file."""
        return self.table.places(rows)

    def stamp(self) -> str:
        """The stamps of the mapping and of what it names."""
        return f"{stamp_file(self.path)}; {self.table.stamp()}"

    def digest(self) -> bytes:
        """SHA-256 of the mapping's digest and the table's."""
        total = hashlib.sha256(b"coterie mapping\0" + bytes.fromhex(self.mapping.digest))
        total.update(self.table.digest())
        return total.digest()

    def _convert(self, name: str, conversion: Conversion, batch: Batch) -> Values:
        try:
            return conversion.apply(batch)
        except (pa.ArrowException, OverflowError) as error:
            cause = printable(str(error).splitlines()[0])[:120]
            raise self.origin.error(
                "CO-D171",
                f"The column {quote(conversion.rule.source)} cannot become {quote(name)}: {cause}. "
                "Correct the mapping, or store the column as text or numbers.",
            ) from None


def open_mapped(path: Path, design: Design, site: str) -> MappedRows:
    """The rows behind a mapping, with the study's columns; DataError if it is none, or a column is missing."""
    mapping = read_mapping(path, site)
    table = open_mapped_table(mapping, path, site)
    provenance = (("mapping", mapping.digest), *table.provenance)
    origin = replace(table.origin, provenance=provenance)
    plan = {name: Conversion(mapping.rule(name), mapping.table, kind) for name, kind in list_kinds(design).items()}
    check_header(origin, table.header, [source for conversion in plan.values() for source in conversion.sources])
    return MappedRows(origin, mapping, FileOrigin.of(site, path), table, plan)


def open_mapped_table(mapping: SiteMapping, path: Path, site: str) -> SiteTable:
    """The table that a mapping names, whose file is looked for beside the mapping."""
    if mapping.sql is not None:
        from coterie_node.data.tables.sql_table import open_query

        return open_query(mapping.sql, path.parent, site)
    if mapping.omop is not None:
        from coterie_node.data.omop.omop_table import open_omop

        return open_omop(mapping.omop, path.parent, site)
    if mapping.dask is not None:
        text = "Rows on a cluster stay there, and this command reads rows. Name one part as `file` in another mapping."
        raise FileOrigin.of(site, path).error("CO-D184", text)
    origin = FileOrigin.of(site, path.parent / Path(mapping.file).expanduser())
    if origin.path.suffix == MAPPING_SUFFIX:
        text = f"`file` names {mapping.file}, which holds no rows. Write its lines here in place of `file`."
        raise FileOrigin.of(site, path).error("CO-D170", text)
    stamp_file(origin)
    table = open_table(origin, mapping.table.dialect, mapping.table.sheet)
    if mapping.redcap is None:
        return table
    from coterie_node.data.redcap.redcap_table import open_redcap

    dictionary = FileOrigin.of(site, path.parent / Path(mapping.redcap.dictionary).expanduser())
    stamp_file(dictionary)
    return open_redcap(table, dictionary, mapping.redcap.event, mapping.table.missing)


def list_kinds(design: Design) -> dict[str, ValueKind]:
    """What each column that the study reads holds; identifying ones are text."""
    kinds: dict[str, ValueKind] = {name: design.study.variables[name].type for name in design.file_columns}
    return kinds | dict.fromkeys(design.identifier, "text")
