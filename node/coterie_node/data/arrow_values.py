"""Between Arrow and numpy without pandas: Arrow's own conversions import it, where it is installed, for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array
from coterie_node.data.arrow import pa, pc

# Any type of element: the caller knows which.
Values: TypeAlias = "pa.Array[Any]"
Mask = NDArray[np.bool_]


def text_values(words: Sequence[str], kind: pa.DataType) -> Values:
    """Words as an Arrow array of this kind of text."""
    raw = [word.encode() for word in words]
    offsets = np.cumsum([0, *map(len, raw)]).astype(np.int64 if pa.types.is_large_string(kind) else np.int32)
    return pa.Array.from_buffers(kind, len(raw), [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(raw))])


def read_mask(values: Values) -> Mask:
    """An Arrow array of booleans without nulls as a mask (m,)."""
    return np.array(np.from_dlpack(pc.cast(values, pa.uint8())), dtype=np.bool_)


def read_doubles(values: Values) -> Array:
    """An Arrow array of doubles as numbers (m,), NaN for null."""
    if not values.null_count:
        return cast(Array, np.from_dlpack(values))
    plain = pa.Array.from_buffers(values.type, len(values), [None, values.buffers()[1]], offset=values.offset)
    out = np.array(np.from_dlpack(plain), dtype=np.float64)
    out[read_mask(pc.is_null(values))] = np.nan
    return out


def set_null(values: Values, mask: Mask) -> Values:
    """The values, null where the mask (m,) says so."""
    bytes_ = pa.Array.from_buffers(pa.uint8(), len(mask), [None, pa.py_buffer(mask.astype(np.uint8).tobytes())])
    return cast(Values, pc.if_else(pc.cast(bytes_, pa.bool_()), pa.nulls(len(values), values.type), values))
