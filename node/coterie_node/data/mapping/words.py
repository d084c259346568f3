"""A mapping in words, as the people of a site read it before they approve a study."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from coterie_learners.study.design import Design
from coterie_node.data.findings import join_values, quote
from coterie_node.data.installed_source import RowsAddress
from coterie_node.data.mapping.document import ColumnMapping, SiteMapping, TableForm, read_mapping
from coterie_node.data.mapping.mapped_rows import MAPPING_SUFFIX, list_kinds


def is_mapping(address: RowsAddress) -> bool:
    """Whether rows are named by a mapping."""
    return isinstance(address, Path) and address.suffix.lower() == MAPPING_SUFFIX


def describe_rows(address: RowsAddress, design: Design, site: str) -> list[str]:
    """What a mapping does with the columns that a study reads, a line each; nothing for rows without one."""
    if not isinstance(address, Path) or not is_mapping(address):
        return []
    return describe_mapping(read_mapping(address, site), list_kinds(design))


def describe_mapping(mapping: SiteMapping, names: Iterable[str]) -> list[str]:
    """The mapping's head and each of these columns, a line each."""
    head = f"The rows come from {_describe_source(mapping)}; the mapping has the digest {mapping.digest[:16]}."
    return [head, *(f"  {name}: {describe_column(mapping.rule(name))}" for name in names)]


def describe_column(rule: ColumnMapping) -> str:
    """The source of a variable, and how it is converted."""
    unit = f" in {rule.unit}" if rule.unit else ""
    parts = [f"column {quote(rule.source)}{unit}"]
    if rule.levels:
        parts.append(", ".join(f"{quote(word)} is {quote(level)}" for word, level in list(rule.levels.items())[:20]))
    if rule.yes:
        parts.append(f"{join_values(rule.yes, 5)} is 1, {join_values(rule.no, 5)} is 0")
    if rule.converts:
        parts.append(_describe_conversion(rule))
    if rule.date is not None:
        parts.append(f"date as {rule.date.text}" + (f", counted in days since {rule.since}" if rule.since else ""))
    if rule.missing:
        parts.append(f"{join_values(rule.missing, 10)} counts as missing")
    return "; ".join(parts)


def _describe_conversion(rule: ColumnMapping) -> str:
    text = "the value"
    text += f" times {rule.factor:.15g}" if rule.factor != 1.0 else ""
    text += f" divided by {rule.divisor:.15g}" if rule.divisor != 1.0 else ""
    return text + (f" plus {rule.offset:.15g}" if rule.offset else "")


def _describe_source(mapping: SiteMapping) -> str:
    if mapping.sql is not None:
        return f"a query (SHA-256 {mapping.sql.digest[:16]}) on {mapping.sql.database}"
    if mapping.omop is not None:
        entry = mapping.omop.entry
        cohort = f"the cohort {entry.cohort}" if entry.cohort is not None else f"the first {quote(entry.concepts)}"
        return f"an OMOP definition (SHA-256 {mapping.omop.digest[:16]}) of {cohort} on {mapping.omop.database}"
    if mapping.dask is not None:
        return f"{quote(Path(mapping.dask.files).name)} on the cluster {mapping.dask.scheduler}"
    return f"{quote(Path(mapping.file).name)}{_describe_form(mapping.table)}"


def _describe_form(form: TableForm) -> str:
    parts = [] if form.separator == "," else [f"separator {quote(form.separator)}"]
    parts += [] if form.decimal == "." else ["decimal comma"]
    parts += [] if form.encoding == "utf-8" else [form.encoding]
    parts += [f"{join_values(form.missing, 10)} counts as missing"] if form.missing else []
    return f" ({', '.join(parts)})" if parts else ""
