"""Reading backups against their digests: every manifest, and every byte that one of them names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relens.backup.copying import Report
from relens.backup.folder import Backup, BackupFolder
from relens.errors import RelensError


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a backup can be restored, and if not, what is wrong with it."""

    name: str
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(folder: BackupFolder, names: Sequence[str], report: Report) -> list[Verdict]:
    """Read every byte of these backups, bytes that they share once. A verdict on each."""
    opened: list[Backup | Verdict] = []
    for name in names:
        try:
            opened.append(folder.open(name))
        except RelensError as error:
            opened.append(Verdict(name, (str(error),)))
    wanted: dict[str, int] = {}
    for backup in opened:
        if isinstance(backup, Backup):
            wanted |= backup.contents()
    wrong = _damaged(folder, wanted, report)
    return [one if isinstance(one, Verdict) else _judge(one, wrong) for one in opened]


def _damaged(folder: BackupFolder, wanted: dict[str, int], report: Report) -> dict[str, str]:
    """What is wrong, by digest."""
    wrong: dict[str, str] = {}
    done, total = 0, sum(wanted.values())
    for digest, size in sorted(wanted.items()):
        try:
            folder.blobs.verify(digest)
        except RelensError as error:
            wrong[digest] = error.message
        done += size
        report(done, total)
    return wrong


def _judge(backup: Backup, wrong: dict[str, str]) -> Verdict:
    uses = {blob.digest: path for path, blob in backup.files.items()} | {backup.catalog.digest: "the catalog"}
    found = [digest for digest in backup.contents() if digest in wrong]
    return Verdict(backup.name, tuple(f"{uses.get(digest, 'a blob')}: {wrong[digest]}" for digest in found))
