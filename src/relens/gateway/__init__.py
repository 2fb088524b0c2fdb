"""The gate: every use of relens as one method, for every door.

A door translates and decides nothing; what a use means, and what is refused, is decided here. Keys, scopes and quotas
have their place here too.
"""

from relens.gateway.keeping import Waiting
from relens.gateway.uses import Gateway

__all__ = ["Gateway", "Waiting"]
