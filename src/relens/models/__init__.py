"""Models: immutable versions with a card and a manifest, where they come from, and what the catalog knows of them.

A version is a folder that never changes and is verified whenever it is started. Running a model is not done here.
"""

from relens.models.artifacts import FIDELITY, GOLDEN, GOLDEN_OUTPUTS, Artifact, Shelf, read_labels
from relens.models.card import Card, Part, read_card
from relens.models.registry import Registered

__all__ = [
    "FIDELITY",
    "GOLDEN",
    "GOLDEN_OUTPUTS",
    "Artifact",
    "Card",
    "Part",
    "Registered",
    "Shelf",
    "read_card",
    "read_labels",
]
