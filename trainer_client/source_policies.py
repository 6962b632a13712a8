"""A policy for each data set of a mixture, as one: clips of one shape, made otherwise by where a sample is from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from framefeed.errors import BadRequest
from framefeed.request import ClipRequest
from trainer_client.clip_policy import ClipPolicy
from trainer_client.samples import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePolicies(ClipPolicy):
    """A ClipPolicy for samples of source 0, and `others` for those of the sources 1, 2… of a Mixture.

    Raises BadRequest for policies whose clips have another shape, or several views.
    """

    others: tuple[ClipPolicy, ...]

    def __post_init__(self) -> None:
        ClipPolicy.__post_init__(self)
        for source, policy in enumerate((self, *self.others)):
            if policy.views != 1:
                raise BadRequest(f"policy of source {source} has {policy.views} views, wanted 1 in a mixture")
        for source, policy in enumerate(self.others, start=1):
            if policy.shape != self.shape:
                raise BadRequest(
                    f"policy of source {source} makes clips {policy.shape}, that of source 0 {self.shape}; wanted the "
                    "same: a batch is one array"
                )

    @classmethod
    def of(cls, *policies: ClipPolicy) -> SourcePolicies:
        """Of the policies in the order of the mixture's data sets."""
        first, *others = policies
        own = {name: getattr(first, name) for name in ClipPolicy.__dataclass_fields__}
        return cls(**own, others=tuple(others))

    def request(self, sample: Sample, seed: int) -> ClipRequest:
        """The request for one sample, by its source's policy. Raises BadRequest for a source without one."""
        if not 0 <= sample.source <= len(self.others):
            raise BadRequest(f"policy: a sample is of source {sample.source}, wanted 0 to {len(self.others)}")
        return self.others[sample.source - 1].request(sample, seed) if sample.source else self._own(sample, seed)

    @property
    def digest(self) -> str:
        """A hash of all that the policies say, in their order."""
        own = ClipPolicy.digest.__get__(self)
        whole = "".join([own, *(policy.digest for policy in self.others)])
        return f"v1-{hashlib.blake2b(whole.encode(), digest_size=8).hexdigest()}"

    def _own(self, sample: Sample, seed: int) -> ClipRequest:
        return ClipPolicy.request(self, sample, seed)
