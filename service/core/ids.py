"""Identifiers, and the types of vectors."""

from typing import Literal, NewType

import numpy as np
import numpy.typing as npt

CollectionId = NewType("CollectionId", int)
CollectionName = NewType("CollectionName", str)
DocumentId = NewType("DocumentId", str)
VersionNumber = NewType("VersionNumber", int)
Fingerprint = NewType("Fingerprint", str)

Vectors = npt.NDArray[np.float32]
"""Shape [n, dimensions], each row of length 1."""

Vector = npt.NDArray[np.float32]
"""Shape [dimensions], length 1."""

Role = Literal["query", "document"]
