"""Every error Sentra raises on purpose. The type says whether trying again can help.

::

    SentraError
    ├── ConfigError            settings or the machine are wrong; a person must change something
    ├── PolicyError            a policy breaks a rule; names the line, the value and the rule
    ├── RecordError            bytes on a topic that cannot be read; goes to the dead-letter topic
    ├── IllegalTransition      the decision machine was asked for something its table does not hold
    ├── SourceError            telemetry could not be had
    │   ├── SourceUnavailable      try again: time-out, refused, 5xx
    │   └── SourceRejected         do not: bad query, HTML instead of metrics, not authorised
    ├── ActuationError         traffic could not be moved; carries an ``Outcome``
    │   ├── InvalidSplit           the request itself is wrong; nothing was sent
    │   ├── Unsupported            the platform has no such ability
    │   ├── TargetNotFound         nothing there to act on
    │   ├── Denied                 permissions
    │   ├── Conflict               lost a compare-and-set; observe and try again
    │   ├── Fenced                 a newer controller owns the target; stop
    │   ├── Throttled              too many calls; ``retry_after`` says when
    │   ├── Transient              worth another try
    │   ├── Drift                  somebody else changed what we had set
    │   └── VerifyFailed           written, but not seen in force in time
    └── StoreError             the database
        └── StoreUnavailable       try again

An exception means that *we* are broken or were asked for the impossible. It is never turned into a verdict.
"""

from __future__ import annotations

from enum import Enum


class SentraError(Exception):
    """Root of the tree. ``str()`` is one sentence a person can act on."""


class ConfigError(SentraError):
    """Settings or the machine are wrong; a person must change something."""


class PolicyError(SentraError):
    """A policy breaks a rule.

    ``line`` is 1-based, or ``None`` when the policy did not come from text.
    """

    def __init__(self, message: str, *, line: int | None = None) -> None:
        self.line = line
        self.rule = message
        super().__init__(message if line is None else f"line {line}: {message}")


class RecordError(SentraError):
    """Bytes on a topic that cannot be read: wrong form, unknown schema version, impossible values."""


class IllegalTransition(SentraError):
    """The decision machine holds no row for this state and event."""


class SourceError(SentraError):
    """Telemetry could not be had."""


class SourceUnavailable(SourceError):
    """The source did not answer as it should; another try may work."""


class SourceRejected(SourceError):
    """The source answered, and the answer says that the same request will never work."""


class Outcome(Enum):
    """What is known about a write that did not end well."""

    NOT_APPLIED = "not_applied"
    UNKNOWN = "unknown"
    APPLIED = "applied"


class ActuationError(SentraError):
    """Traffic could not be moved.

    ``outcome`` says what is known of the write, ``retryable`` whether the same call may work later, and
    ``retry_after`` (seconds) what the platform asked for, if it did.
    """

    outcome = Outcome.NOT_APPLIED
    retryable = False

    def __init__(
        self,
        message: str,
        *,
        outcome: Outcome | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        if outcome is not None:
            self.outcome = outcome
        if retryable is not None:
            self.retryable = retryable
        self.retry_after = retry_after


class InvalidSplit(ActuationError):
    """The request itself is wrong; nothing was sent."""


class Unsupported(ActuationError):
    """The platform has no such ability."""


class TargetNotFound(ActuationError):
    """There is nothing to act on."""


class Denied(ActuationError):
    """The platform refuses our identity."""


class Conflict(ActuationError):
    """A compare-and-set was lost; observe and try again."""

    retryable = True


class Fenced(ActuationError):
    """A controller with a newer epoch owns the target; this one must stop."""


class Throttled(ActuationError):
    """Too many calls."""

    retryable = True


class Transient(ActuationError):
    """Worth another try; ``outcome`` tells whether to observe first."""

    retryable = True


class Drift(ActuationError):
    """Somebody else changed what we had set."""


class VerifyFailed(ActuationError):
    """Written, but not seen in force before the deadline."""

    outcome = Outcome.UNKNOWN
    retryable = True


class StoreError(SentraError):
    """The database refused or lost something."""


class StoreUnavailable(StoreError):
    """The database cannot be reached now."""
