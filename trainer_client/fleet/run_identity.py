"""The identity of a run: which data set and which decoder make its bytes, and which servers therefore fit it.

Pure: it knows what servers say of themselves, no connections, states or clock. A resumed run brings its identity along;
a new one takes that of most servers, not of the first to answer, and keeps it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from framefeed.show_value import show_value
from framefeed.wire import ServerReply


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a server is not used in a run; `reason` is a word to count by: dataset, decoder, room, version or
    twice (another address of a server that is used already).
    """

    reason: str
    why: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.why}"


class RunIdentity:
    """`fingerprint` and `dataset` are what the run's servers decode with and from; "" while nobody has said it."""

    def __init__(
        self, *, fingerprint: str = "", dataset: str = "", clip_bytes: int = 0, allow_mixed_decoders: bool = False
    ) -> None:
        """What a resumed run began with; clips are of `clip_bytes` (0: any)."""
        self.fingerprint = fingerprint
        self.dataset = dataset
        self.decided = bool(dataset and (fingerprint or allow_mixed_decoders))
        self._clip_bytes = clip_bytes
        self._mixed = allow_mixed_decoders

    def misfit(self, who: ServerReply) -> Misfit | None:
        """Why a server that said this does not fit what is known of the run; None if it does."""
        if self.dataset and who.dataset and who.dataset != self.dataset:
            return Misfit(
                "dataset",
                f"it serves data set {show_value(who.dataset)}, this run reads {show_value(self.dataset)}: "
                "the same video could have other bytes; "
                "give it the run's manifest and chunks, or take it out",
            )
        if self.fingerprint and who.fingerprint and who.fingerprint != self.fingerprint and not self._mixed:
            return Misfit(
                "decoder",
                f"it decodes with {show_value(who.fingerprint)}, this run with {show_value(self.fingerprint)}: "
                "the same request could give other bytes; run one version everywhere, or set allow_mixed_decoders",
            )
        if who.max_clip_bytes and who.max_clip_bytes < self._clip_bytes:
            return Misfit(
                "room",
                f"it has room for clips of {who.max_clip_bytes} bytes, this run's have {self._clip_bytes}; give it a "
                "larger buffer pool",
            )
        return None

    def elect(self, ready: Sequence[ServerReply], *, members: int, time_is_up: bool) -> bool:
        """Take the identity of most of those that said theirs; returns whether it is decided now.

        It is as soon as the `members` that have not spoken could not change it, or when they had their time. Where two
        have as many the smaller names win, so that all ranks that see the same servers choose alike.
        """
        votes = Counter((who.dataset, "" if self._mixed else who.fingerprint) for who in ready if not self.misfit(who))
        if self.decided or not votes:
            return self.decided
        (dataset, fingerprint), count = min(votes.items(), key=lambda vote: (-vote[1], vote[0]))
        if 2 * count > members or len(ready) >= members or time_is_up:
            self.decided = True
            self.dataset = self.dataset or dataset
            self.fingerprint = self.fingerprint or fingerprint
        return self.decided

    def learn(self, who: ServerReply) -> None:
        """One of the run's servers says what nobody had said before."""
        self.dataset = self.dataset or who.dataset
        self.fingerprint = self.fingerprint or who.fingerprint
