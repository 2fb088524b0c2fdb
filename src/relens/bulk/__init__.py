"""Plans: imports (listing to packs to segments to a view), and the upkeep of galleries.

Every picture of a listing is accounted for, a pack counts once however often it ran, and a killed plan that is asked
for again ends as if it had never been killed. The recipe's code is the one that answers online.
"""

from relens.bulk.cancelling import cancel, give_up
from relens.bulk.days import Dropper, Rebuilder
from relens.bulk.folding import Folder
from relens.bulk.importing import KIND, PACK_STAGE, SEAL_STAGE, ImportRequest, plan_import
from relens.bulk.listings import escape_path, unescape_path
from relens.bulk.packs import Importer
from relens.bulk.purging import Purger
from relens.bulk.reading import Reader
from relens.bulk.sealing import Sealer
from relens.bulk.sources import find_source
from relens.bulk.upkeep import COMPACT, DROP, FOLD, KINDS, PURGE, REBUILD, is_due, plan_upkeep, spaces_of
from relens.bulk.windows import Windower, plan_window, rows_without_index

__all__ = [
    "COMPACT",
    "DROP",
    "FOLD",
    "KIND",
    "KINDS",
    "PACK_STAGE",
    "PURGE",
    "REBUILD",
    "SEAL_STAGE",
    "Dropper",
    "Folder",
    "ImportRequest",
    "Importer",
    "Purger",
    "Reader",
    "Rebuilder",
    "Sealer",
    "Windower",
    "cancel",
    "escape_path",
    "find_source",
    "give_up",
    "is_due",
    "plan_import",
    "plan_upkeep",
    "plan_window",
    "rows_without_index",
    "spaces_of",
    "unescape_path",
]
