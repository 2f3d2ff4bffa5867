"""Names of the array types that model, evaluation and publication share."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
"""Factors, vectors or scores, (rows, columns)."""

Mask = NDArray[np.bool_]
"""One truth value per row, pair, user or item."""

Positions = NDArray[np.integer[Any]]
"""Positions of users or items in their `IdMap`, or of rows in an array."""

Index = NDArray[np.int32]
"""The position in an `IdMap` for each pair."""

Values = NDArray[np.float64]
"""The value of each pair."""

Times = NDArray[np.int64]
"""The time of each pair, in microseconds since 1970 UTC."""

Lengths = NDArray[np.float64]
"""The Euclidean norm of each row of factors."""
