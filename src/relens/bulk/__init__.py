"""Plans of imports: listing to packs to segments to a view.

Every picture of a listing is accounted for, a pack counts once however often it ran, and a killed import that is typed
again ends as if it had never been killed. The recipe's code is the one that answers online.
"""

from relens.bulk.cancelling import cancel, give_up
from relens.bulk.importing import KIND, PACK_STAGE, SEAL_STAGE, ImportRequest, plan_import
from relens.bulk.listings import escape_path, unescape_path
from relens.bulk.packs import Importer
from relens.bulk.reading import Reader
from relens.bulk.sealing import Sealer
from relens.bulk.sources import find_source

__all__ = [
    "KIND",
    "PACK_STAGE",
    "SEAL_STAGE",
    "ImportRequest",
    "Importer",
    "Reader",
    "Sealer",
    "cancel",
    "escape_path",
    "find_source",
    "give_up",
    "plan_import",
    "unescape_path",
]
