"""The calls of one feed: what it says to servers, in order, until its caller sends it. It decides nothing."""

from __future__ import annotations

from framefeed.wire import CancelCall, DecodeCall, DescribeCall
from trainer_client.fleet.attempts import Attempt, Attempts
from trainer_client.fleet.dispatch_limits import DispatchLimits
from trainer_client.fleet.messages import Send


class Calls:
    """Messages that are to be sent; their numbers are the attempts'."""

    def __init__(self, attempts: Attempts, limits: DispatchLimits) -> None:
        self._attempts, self._limits = attempts, limits
        self._sends: list[Send] = []

    def decode(self, attempt: Attempt, *, dataset: str) -> None:
        """Ask for a clip of the run's data set."""
        wanted, limits = attempt.wanted, self._limits
        call = DecodeCall(
            attempt=attempt.number,
            deadline_s=limits.told_deadline_s,
            request=wanted.request,
            alone=wanted.alone,
            run=limits.run,
            work_class=limits.work_class,
            dataset=dataset,
        )
        self._sends.append(Send(url=attempt.url, call=call))

    def describe(self, url: str) -> None:
        """Ask a server who it is."""
        self._sends.append(Send(url=url, call=DescribeCall(attempt=self._attempts.number())))

    def cancel(self, attempt: Attempt) -> None:
        """Tell a server that a clip is not wanted of it any more."""
        self._sends.append(Send(url=attempt.url, call=CancelCall(attempt=attempt.number)))

    @property
    def any(self) -> bool:
        """Whether there is something to send."""
        return bool(self._sends)

    def take(self) -> list[Send]:
        """All that is to be sent."""
        sends, self._sends = self._sends, []
        return sends
