"""Judges of what clients saw: each path as a register of versions, with the real order of what did not overlap.

A write B that began after a write A was certainly visible (acknowledged, or read by somebody) has read A, so it supersedes A: from
the moment when B is certainly visible nobody may read A any more. A write A that is acknowledged stays until a write supersedes it that may
have read it: one that had not read its context before A began. Concurrent writes both stay, so reads may return either.
"""

from protocol.paths import join, name_of, parent_of
from sims.history import ABSENT, FAILED, OK, Listing, Seen, Write
from sims.oracles.base import Oracle


class OnlyWhatWasPut(Oracle):
    """I7: every content that is read is, byte for byte, what somebody put under that path."""

    async def finish(self) -> None:
        """Look at every read."""
        for read in self.history.reads:
            if read.digest and read.digest != ABSENT:
                self._check(read.path, read.digest, f"read {read.number} of client {read.client}")
        for path, digests in self.history.finals.items():
            for digest in digests:
                self._check(path, digest, "the last look")

    def _check(self, path: str, digest: str, who: str) -> None:
        writes = self.history.of(path)
        if not any(write.digest == digest or (write.digest is None and digest in self.history.contents) for write in writes):
            raise self.violated("I7", f"{path}: {who} saw content {digest} that nobody put there")


class FailedStaysInvisible(Oracle):
    """I28: what was reported as failed never becomes visible."""

    async def finish(self) -> None:
        """Look for the content of failed writes."""
        seen = {(read.path, read.digest) for read in self.history.reads}
        seen |= {(path, digest) for path, digests in self.history.finals.items() for digest in digests}
        for write in self.history.writes:
            if write.outcome != FAILED or not write.digest or write.is_removal or (write.path, write.digest) not in seen:
                continue
            others = [other for other in self.history.of(write.path) if other is not write and other.may_be_effective]
            if not any(other.digest in (write.digest, None) for other in others):
                raise self.violated("I28", f"{write.path}: write {write.number} was reported as failed, and its content was read")


class ReadsAreFresh(Oracle):
    """I3, I4 and I6: a read never returns what a write, a write that somebody has read, or a removal had superseded before it began."""

    async def finish(self) -> None:
        """Look at every read, the last ones included."""
        now = self.world.loop.time()
        for read in self.history.reads:
            self._check(read, f"read {read.number} of client {read.client}")
        for path, digests in self.history.finals.items():
            for digest in digests or (ABSENT,):
                self._check(Seen(-1, -1, path, digest, now, now), "the last look")

    def _check(self, read: Seen, who: str) -> None:
        writes = [write for write in self.history.of(read.path) if write.may_be_effective]
        if read.digest == ABSENT:
            self._check_absence(read, writes, who)
            return
        candidates = [
            write for write in writes
            if not write.is_removal and write.began <= read.ended and (not read.digest or write.digest in (read.digest, None))
        ]  # fmt: skip
        if not candidates:
            if not read.digest and not any(write.began <= read.ended for write in writes if not write.is_removal):
                raise self.violated("I7", f"{read.path}: {who} found something where nothing was ever put")
            return  # OnlyWhatWasPut has an eye on it
        superseders = [superseder(write, writes, read.began) for write in candidates]
        if all(each is not None for each in superseders):
            by = superseders[-1]
            assert by is not None
            invariant = "I6" if by.is_removal else "I3" if by.outcome == OK else "I4"
            raise self.violated(
                invariant,
                f"{read.path}: {who} ({read.began:.3f} to {read.ended:.3f} s) returned write {candidates[-1].number}, which write "
                f"{by.number} had superseded ({by.began:.3f} s, visible since {by.seen:.3f} s)",
            )

    def _check_absence(self, read: Seen, writes: list[Write], who: str) -> None:
        for write in writes:
            if write.is_removal or write.seen > read.began:
                continue
            if not any(other.is_removal and other.ended >= write.began and other.began <= read.ended for other in writes):
                raise self.violated(
                    "I3",
                    f"{read.path}: {who} ({read.began:.3f} to {read.ended:.3f} s) found nothing, and write {write.number} was visible "
                    f"since {write.seen:.3f} s and nobody removed it",
                )


def superseder(write: Write, writes: list[Write], before: float) -> Write | None:
    """Return a write that had certainly superseded `write` at the moment `before`."""
    for other in writes:
        if other is not write and other.began >= write.seen and other.seen <= before:
            return other
    return None


class NothingIsLost(Oracle):
    """I1 and I5: an acknowledged write is there at the end, or superseded by a write that may have read it."""

    async def finish(self) -> None:
        """Look for every acknowledged write."""
        for write in self.history.writes:
            if write.outcome != OK or write.is_removal or write.digest is None:
                continue
            finals = self.history.finals.get(write.path, ())
            if write.digest in finals:
                continue
            others = [other for other in self.history.of(write.path) if other is not write and other.may_be_effective]
            if any(other.read_by >= write.began for other in others):
                continue
            invariant = "I5" if any(other.ended >= write.began for other in others) else "I1"
            raise self.violated(
                invariant,
                f"{write.path}: write {write.number}, acknowledged at {write.ended:.3f} s, is gone, and nobody who may have read it wrote",
            )


class AppliedOnce(Oracle):
    """I5: a write is one version, however often it was repeated."""

    async def finish(self) -> None:
        """Look for contents that are there twice."""
        for path, digests in self.history.finals.items():
            for digest in dict.fromkeys(digests):
                writes = [write for write in self.history.of(path) if write.digest in (digest, None) and write.may_be_effective]
                if digests.count(digest) > len(writes):
                    raise self.violated("I5", f"{path}: content {digest} is there {digests.count(digest)} times and was put once")


class ListingIsComplete(Oracle):
    """I8: a listing has what was there all the time, not what was never there, each name once, in order."""

    async def finish(self) -> None:
        """Look at every listing."""
        for listing in self.history.listings:
            who = f"listing {listing.number} of client {listing.client} of {listing.folder}"
            names = listing.names
            if list(names) != sorted(set(names), key=str.encode):
                raise self.violated("I8", f"{who} is not in order, or has a name twice: {', '.join(names)}")
            for path in self.history.paths():
                if parent_of(path) == listing.folder:
                    self._check(listing, path, name_of(path) in names, who)
            known = {name_of(path) for path in self.history.paths() if parent_of(path) == listing.folder}
            folders = {path for written in self.history.paths() for path in _above(written)}
            made = {f"{operation.path}/" for operation in self.plan.operations if operation.kind == "mkdir"}
            folders |= {folder for path in made for folder in _above(path)}
            for name in names:
                if name not in known and join(listing.folder, name) not in folders:
                    raise self.violated("I8", f"{who} has {name}, which nobody ever put")
            for write in self.history.writes:
                self._check_folders(listing, write, who)

    def _check_folders(self, listing: Listing, write: Write, who: str) -> None:
        """The folders of what is visible are there: who puts looks once more, before he ends, whether they are, and so does who removes."""
        if write.is_removal or write.seen > listing.began:
            return
        for folder in _above(write.path)[:-1]:
            is_missing = parent_of(folder) == listing.folder and name_of(folder) not in listing.names
            removals = [each for each in self.history.folder_removals if each.path == folder]
            if is_missing and not any(
                each.began <= listing.ended and max(each.ended, write.ended) >= listing.began for each in removals
            ):
                raise self.violated("I8", f"{who} lacks {folder}, in which {write.path} is visible since {write.seen:.3f} s")

    def _check(self, listing: Listing, path: str, is_listed: bool, who: str) -> None:
        writes = [write for write in self.history.of(path) if write.may_be_effective]
        puts = [write for write in writes if not write.is_removal]
        removals = [write for write in writes if write.is_removal]
        if not is_listed:
            for write in puts:
                if write.seen <= listing.began and not any(
                    removal.ended >= write.began and removal.began <= listing.ended for removal in removals
                ):
                    raise self.violated("I8", f"{who} lacks {path}, visible since {write.seen:.3f} s, and nobody removed it")
            return
        if all(write.began > listing.ended or superseder(write, removals, listing.began) is not None for write in puts):
            raise self.violated("I8", f"{who} has {path}, which was removed before, or put only afterwards")


def _above(path: str) -> list[str]:
    folders = []
    while path != "/":
        path = parent_of(path)
        folders.append(path)
    return folders
