"""Backups: all that a home needs to give the same answers again, as of one moment, taken while it serves.

A backup is a manifest in a folder that many backups share; bytes are kept there once, by digest. What is in a manifest
is whole: it is written last. A restored home has the same ids, sequences and answers; secrets of its settings are left
out.
"""

from relens.backup.checking import verify
from relens.backup.copying import Report
from relens.backup.folder import Backup, BackupFolder
from relens.backup.making import back_up
from relens.backup.restoring import begin_restore, restore, restore_catalog

__all__ = ["Backup", "BackupFolder", "Report", "back_up", "begin_restore", "restore", "restore_catalog", "verify"]
