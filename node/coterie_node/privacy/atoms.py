"""Atoms: patients, or their values, with the same membership in all releases; the columns of every span test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie_node.privacy.patients import ColumnVersions, Indices, PatientMask
from coterie_node.privacy.spans import Groups, Whole


@dataclass(frozen=True)
class Atoms:
    """The membership of atoms in releases.

    `matrix` (r, k): 1 where a release has the atom. `groups`: the atoms' patients. `of` (n,): each patient's group.
    """

    matrix: Whole
    groups: Groups
    of: Whole


def split_patients(bits: Sequence[PatientMask]) -> Atoms:
    """Atoms of patients by their membership in releases, each given as bits by patient."""
    of, first = _refine(bits)
    matrix = np.array([row[first] for row in bits], dtype=np.int64)
    weights = np.bincount(of, minlength=len(first)).astype(np.int64)
    return Atoms(matrix, Groups(np.arange(len(first)), weights), of)


def split_units(bits: Sequence[PatientMask], column: ColumnVersions, versions: Sequence[int]) -> Atoms:
    """Atoms of units (a patient with a value) of one column, which release r read in its version `versions[r]`.

    A group is one of patients all of whose units have the same membership.
    """
    plain = split_patients(bits)
    changed = column.find_changes_since(min(versions))
    changed = changed[np.any([row[changed] for row in bits], axis=0)]
    if not len(changed):
        return plain
    codes = _unit_codes(bits, column, versions, changed)
    return _with_units(plain, codes, changed)


def _refine(bits: Sequence[PatientMask]) -> tuple[Whole, Whole]:
    """Each patient's atom (n,), and a patient of each atom (k,)."""
    of = np.zeros(len(bits[0]), np.int64)
    for row in bits:
        of = 2 * of + row
        present = np.bincount(of) > 0
        of = (np.cumsum(present) - 1)[of]
    count = int(of.max(initial=-1)) + 1
    first = np.zeros(count, np.int64)
    first[of[::-1]] = np.arange(len(of))[::-1]
    return of, first


def _unit_codes(
    bits: Sequence[PatientMask], column: ColumnVersions, versions: Sequence[int], patients: Indices
) -> NDArray[np.int32]:
    """For each release and patient (r, m): 0 if the patient is not in it, else 1 + the first version of that value."""
    used = sorted(set(versions))
    values = np.array([column.at_version(version, patients) for version in used])
    first = np.array([np.argmax(values == row, axis=0) for row in values])
    place = {version: k for k, version in enumerate(used)}
    rows = [np.where(row[patients], 1 + first[place[v]], 0) for row, v in zip(bits, versions, strict=True)]
    return np.array(rows, dtype=np.int32)


def _with_units(plain: Atoms, codes: NDArray[np.int32], changed: Indices) -> Atoms:
    """The atoms of patients with those whose values changed taken out, as groups with one column for each unit."""
    kinds, inverse, counts = np.unique(codes, axis=1, return_inverse=True, return_counts=True)
    weights = plain.groups.weights.copy()
    np.subtract.at(weights, plain.of[changed], 1)
    columns, owners = [plain.matrix], [plain.groups.of]
    for k, kind in enumerate(kinds.T):
        units = np.unique(kind[kind > 0])
        columns.append(np.array([kind == unit for unit in units], dtype=np.int64).T.reshape(len(kind), -1))
        owners.append(np.full(len(units), len(weights) + k))
    of = plain.of.copy()
    of[changed] = len(weights) + inverse.ravel()
    # An atom that has lost all its patients must not look like one that touches nobody.
    matrix = np.hstack(columns)
    matrix[:, : len(weights)][:, weights == 0] = 0
    return Atoms(matrix, Groups(np.concatenate(owners), np.concatenate([weights, counts])), of)
