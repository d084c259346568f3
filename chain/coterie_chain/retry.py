"""The one back-off: which faults may pass by themselves, and how long to wait before the next try."""

from __future__ import annotations

from dataclasses import dataclass, field

from coterie_chain.errors import ChainError


@dataclass(frozen=True)
class RetryPolicy:
    """Pauses in seconds that grow by `factor` from `first` to `longest`; `limit` seconds of faults in all.

    `also` names kinds of faults that are retried besides those that pass by themselves, such as a full disk.
    """

    limit: float = 120.0
    first: float = 0.1
    longest: float = 5.0
    factor: float = 2.0
    also: tuple[type[ChainError], ...] = ()

    def is_transient(self, error: ChainError) -> bool:
        """Whether this fault may pass."""
        return error.retry or isinstance(error, self.also)


@dataclass
class Backoff:
    """The pauses of one wait, one after the other."""

    policy: RetryPolicy
    _pause: float = field(default=-1.0, init=False)

    def next_pause(self) -> float:
        """Seconds to wait now; the next pause is longer."""
        policy = self.policy
        self._pause = min(policy.factor * self._pause, policy.longest) if self._pause >= 0 else policy.first
        return self._pause

    def reset(self) -> None:
        """Begin with the first pause again, because something went well."""
        self._pause = -1.0
