"""NIST's reference data for linear models (StRD, itl.nist.gov/div898/strd), and their exact least squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction

Row = tuple[float, ...]

NORRIS_X = """\
0.2 337.4 118.2 884.6 10.1 226.5 666.3 996.3 448.6 777.0 558.2 0.4 0.6 775.5 666.9 338.0 447.5 11.6
556.0 228.1 995.8 887.6 120.2 0.3 0.3 556.8 339.1 887.2 999.0 779.0 11.1 118.3 229.2 669.1 448.9 0.5"""
NORRIS_Y = """\
0.1 338.8 118.1 888.0 9.2 228.1 668.5 998.5 449.1 778.9 559.2 0.3 0.1 778.1 668.8 339.3 448.9 10.8
557.7 228.3 998.0 888.8 119.6 0.3 0.6 557.6 339.3 888.0 998.5 778.9 10.2 117.6 228.9 668.4 449.2 0.2"""
PONTIUS_Y = """\
.11019 .21956 .32949 .43899 .54803 .65694 .76562 .87487 .98292 1.09146 1.20001 1.30822 1.41599
1.52399 1.63194 1.73947 1.84646 1.95392 2.06128 2.16844 .11052 .22018 .32939 .43886 .54798 .65739
.76596 .87474 .98300 1.09150 1.20004 1.30818 1.41613 1.52408 1.63159 1.73965 1.84696 1.95445 2.06177
2.16829"""
LONGLEY = """60323 83.0 234289 2356 1590 107608 1947
61122 88.5 259426 2325 1456 108632 1948
60171 88.2 258054 3682 1616 109773 1949
61187 89.5 284599 3351 1650 110929 1950
63221 96.2 328975 2099 3099 112075 1951
63639 98.1 346999 1932 3594 113270 1952
64989 99.0 365385 1870 3547 115094 1953
63761 100.0 363112 3578 3350 116219 1954
66019 101.2 397469 2904 3048 117388 1955
67857 104.6 419180 2822 2857 118734 1956
68169 108.4 442769 2936 2798 120445 1957
66513 110.8 444546 4681 2637 121950 1958
68655 112.6 482704 3813 2552 123366 1959
69564 114.2 502601 3931 2514 125368 1960
69331 115.7 518173 4806 2572 127852 1961
70551 116.9 554894 4007 2827 130081 1962"""
FILIP = """0.8116 -6.860120914 0.9072 -4.324130045 0.9052 -4.358625055 0.9039 -4.358426747 0.8053 -6.955852379
0.8377 -6.661145254 0.8667 -6.355462942 0.8809 -6.118102026 0.7975 -7.115148017 0.8162 -6.815308569 0.8515 -6.519993057
0.8766 -6.204119983 0.8885 -5.853871964 0.8859 -6.109523091 0.8959 -5.79832982 0.8913 -5.482672118 0.8959 -5.171791386
0.8971 -4.851705903 0.9021 -4.517126416 0.909 -4.143573228 0.9139 -3.709075441 0.9199 -3.499489089 0.8692 -6.300769497
0.8872 -5.953504836 0.89 -5.642065153 0.891 -5.031376979 0.8977 -4.680685696 0.9035 -4.329846955 0.9078 -3.928486195
0.7675 -8.56735134 0.7705 -8.363211311 0.7713 -8.107682739 0.7736 -7.823908741 0.7775 -7.522878745 0.7841 -7.218819279
0.7971 -6.920818754 0.8329 -6.628932138 0.8641 -6.323946875 0.8804 -5.991399828 0.7668 -8.781464495 0.7633 -8.663140179
0.7678 -8.473531488 0.7697 -8.247337057 0.77 -7.971428747 0.7749 -7.676129393 0.7796 -7.352812702 0.7897 -7.072065318
0.8131 -6.774174009 0.8498 -6.478861916 0.8741 -6.159517513 0.8061 -6.835647144 0.846 -6.53165267 0.8751 -6.224098421
0.8856 -5.910094889 0.8919 -5.598599459 0.8934 -5.290645224 0.894 -4.974284616 0.8957 -4.64454848 0.9047 -4.290560426
0.9129 -3.885055584 0.9209 -3.408378962 0.9219 -3.13200249 0.7739 -8.726767166 0.7681 -8.66695597 0.7665 -8.511026475
0.7703 -8.165388579 0.7702 -7.886056648 0.7761 -7.588043762 0.7809 -7.283412422 0.7961 -6.995678626 0.8253 -6.691862621
0.8602 -6.392544977 0.8809 -6.067374056 0.8301 -6.684029655 0.8664 -6.378719832 0.8834 -6.065855188 0.8898 -5.752272167
0.8964 -5.132414673 0.8963 -4.811352704 0.9074 -4.098269308 0.9119 -3.66174277 0.9228 -3.2644011"""
WAMPLER = (759, -2048, 2048, -2048, 2523, -2048, 2048, -2048, 1838, -2048, 2048, -2048, 1838, -2048, 2048, -2048, 2523,
           -2048, 2048, -2048, 759)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Outcome (n) and covariates (n, q), with powers of a single covariate up to `degree`, and an intercept or not."""

    y: tuple[float, ...]
    x: tuple[Row, ...]
    degree: int = 1
    intercept: bool = True

    @property
    def design(self) -> list[list[Fraction]]:
        """The columns of each row, exactly."""
        first = [Fraction(1)] * self.intercept
        if self.degree > 1:
            return [first + [Fraction(row[0]) ** k for k in range(1, self.degree + 1)] for row in self.x]
        return [first + [Fraction(value) for value in row] for row in self.x]


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split())


def _column(values: Sequence[float]) -> tuple[Row, ...]:
    return tuple((value,) for value in values)


def _wampler(coefficients: Sequence[float], noise: float) -> Case:
    exact = [sum(Fraction(str(c)) * k**power for power, c in enumerate(coefficients)) for k in range(21)]
    y = tuple(float(value + Fraction(noise) * delta) for value, delta in zip(exact, WAMPLER, strict=True))
    return Case(y, _column(range(21)), 5)


def _alternating(first: float, second: float, third: float) -> Case:
    return Case((first, *(second, third) * 500), ((),) * 1001)


def _filip(degree: int) -> Case:
    values = _numbers(FILIP)
    return Case(values[::2], _column(values[1::2]), degree)


ONES, TENTHS = (1.0,) * 6, (1.0, 0.1, 0.01, 0.001, 0.0001, 0.00001)
LONGLEY_ROWS = tuple(_numbers(line) for line in LONGLEY.splitlines())
CASES = {
    "Norris": Case(_numbers(NORRIS_Y), _column(_numbers(NORRIS_X))),
    "Pontius": Case(_numbers(PONTIUS_Y), _column([150000.0 * k for k in range(1, 21)] * 2), 2),
    "NoInt1": Case(tuple(range(130, 141)), _column(range(60, 71)), intercept=False),
    "NoInt2": Case((3.0, 4.0, 4.0), _column((4.0, 5.0, 6.0)), intercept=False),
    "Longley": Case(tuple(row[0] for row in LONGLEY_ROWS), tuple(row[1:] for row in LONGLEY_ROWS)),
    "Wampler1": _wampler(ONES, 0.0),
    "Wampler2": _wampler(TENTHS, 0.0),
    "Wampler3": _wampler(ONES, 1.0),
    "Wampler4": _wampler(ONES, 100.0),
    "Wampler5": _wampler(ONES, 10000.0),
    **{f"Filip, degree {degree}": _filip(degree) for degree in range(3, 11)},
    "NumAcc1": Case((10000001.0, 10000003.0, 10000002.0), ((),) * 3),
    "NumAcc2": _alternating(1.2, 1.1, 1.3),
    "NumAcc3": _alternating(1000000.2, 1000000.1, 1000000.3),
    "NumAcc4": _alternating(10000000.2, 10000000.1, 10000000.3),
}
# Certified values, to show that these are NIST's data.
CERTIFIED = {
    "Norris": (-0.262323073774029, 0.232818234301152),
    "Pontius": (0.673565789473684e-03, 0.107938612033077e-03),
    "NoInt1": (2.07438016528926, 0.165289256198347e-01),
    "NoInt2": (0.727272727272727, 0.420827318078432e-01),
    "Longley": (-3482258.63459582, 890420.383607373),
    "Wampler3": (1.0, 2152.32624678170),
    "Filip, degree 10": (-1467.48961422980, 298.084530995537),
}


def least_squares(case: Case) -> tuple[list[float], list[float]]:
    """Estimates and standard errors (p) from the data as floats hold them, each correctly rounded."""
    x, y = case.design, [Fraction(value) for value in case.y]
    p = len(x[0])
    gram = [[sum((row[i] * row[j] for row in x), Fraction(0)) for j in range(p)] for i in range(p)]
    cross = [sum(row[i] * value for row, value in zip(x, y, strict=True)) for i in range(p)]
    inverse = _inverse(gram)
    beta = [sum(a * b for a, b in zip(line, cross, strict=True)) for line in inverse]
    residuals = [value - sum(a * b for a, b in zip(row, beta, strict=True)) for row, value in zip(x, y, strict=True)]
    squares = sum((residual * residual for residual in residuals), Fraction(0))
    dispersion = squares / (len(y) - p)
    return [float(b) for b in beta], [_root(dispersion * inverse[j][j]) for j in range(p)]


def _inverse(a: list[list[Fraction]]) -> list[list[Fraction]]:
    p = len(a)
    rows = [[*line, *(Fraction(i == j) for j in range(p))] for i, line in enumerate(a)]
    for k in range(p):
        pivot = rows[k][k]
        rows[k] = [value / pivot for value in rows[k]]
        for i in range(p):
            if i != k and rows[i][k]:
                factor = rows[i][k]
                rows[i] = [value - factor * top for value, top in zip(rows[i], rows[k], strict=True)]
    return [row[p:] for row in rows]


def _root(value: Fraction) -> float:
    with localcontext() as context:
        context.prec = 60
        return float((Decimal(value.numerator) / Decimal(value.denominator)).sqrt())
