"""What a design costs before it is built: an analytical model, and a learned correction beside it."""

from tilewright.design.cost.correction import Correction
from tilewright.design.cost.model import estimate, features
from tilewright.design.cost.term import Estimate, Term

__all__ = ["Correction", "Estimate", "Term", "estimate", "features"]
