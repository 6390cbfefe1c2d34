"""Learning what healthy looks like: finished rollouts are remembered, their service's calibration renewed.

What has ended and is not remembered yet is asked of the database each time, so a rollout that ended while
nobody learnt is caught up with at the next start, or when the next one ends. One thread does this beside the
recorder: records never wait for it, one service is learnt at a time, and whatever goes wrong is logged and
tried again later; rollouts are judged without.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from domain.clock import Clock
from domain.errors import RecordError, StoreError, StoreUnavailable
from domain.records import Evaluation
from scorers.evidence.learn.extract import extract
from scorers.evidence.learn.run import from_bytes, to_bytes
from scorers.evidence.learn.runs import Finished, learn
from store.calibrations import Calibrations, Place, StoredCalibration, StoredRun
from store.queries import StoredRollout
from store.repository import Repository

MAX_RUNS = 200
"""Rollouts that one calibration is learnt from at most: the thresholds' promise was measured with as many."""
MAX_AGE_S = 180 * 86_400.0
"""Older rollouts were of another service, as far as anybody knows; weekly releases make twenty in this
time."""
PAGE = 1000
"""Evaluations, or rollouts, that are read at a time."""
LATE_S = 3600.0
"""Evaluations of a rollout that are not there so long after its end will not come any more."""
RETRY_S = 30.0
"""How long a database that is away is left alone."""
GRACE_S = 2.0
"""How long a stop waits for what is being learnt; the rest is caught up with at the next start."""

_log = logging.getLogger(__name__)


def never() -> bool:
    """Nobody asked to stop."""
    return False


def remember_finished(
    repository: Repository,
    calibrations: Calibrations,
    now: float,
    *,
    max_age_s: float = MAX_AGE_S,
    should_stop: Callable[[], bool] = never,
) -> None:
    """Remember every rollout that has ended and is not remembered yet.

    One that cannot be read teaches nothing and stops no other.
    """
    for rollout_id in calibrations.unremembered(since=now - max_age_s, limit=PAGE):
        if should_stop():
            return
        rollout = repository.get_rollout(rollout_id)
        run = None if rollout is None else _run_of(repository, rollout, now)
        if run is not None:
            calibrations.remember(run)


def refresh(
    calibrations: Calibrations,
    place: Place,
    now: float,
    *,
    max_runs: int = MAX_RUNS,
    max_age_s: float = MAX_AGE_S,
) -> StoredCalibration | None:
    """Learn from the newest rollouts of ``place`` and store a new version.

    ``None`` when they teach nothing, or nothing new.
    """
    since = now - max_age_s
    healthy = calibrations.runs(place, since=since, limit=max_runs, is_healthy=True)
    others = calibrations.runs(place, since=since, limit=max_runs, is_healthy=False)
    newest_first = sorted([*healthy, *others], key=lambda each: (each.at, each.rollout_id), reverse=True)
    found = learn(list(_finished(newest_first)), max_runs=max_runs)
    return None if found is None else calibrations.add(place, replace(found, learnt_at=now))


def _run_of(repository: Repository, rollout: StoredRollout, now: float) -> StoredRun | None:
    """What its evaluations say; ``None`` while some of them may still come."""
    ended = rollout.completed_at or now
    is_healthy, run = False, b""
    try:
        found = extract(_evaluations(repository, rollout.spec.rollout_id))
        if not found.phase.is_final and now - ended < LATE_S:
            return None
        is_healthy = found.is_healthy
        run = to_bytes(found.run) if found.run is not None and found.phase.is_final else b""
    except StoreError:
        raise
    except Exception:  # our own bug, or a record spoilt: the others must still be learnt from
        _log.exception("nothing can be learnt from rollout %s", rollout.spec.rollout_id)
    return StoredRun(
        rollout_id=rollout.spec.rollout_id,
        service=rollout.spec.service,
        environment=rollout.spec.environment,
        interval_s=rollout.spec.policy.interval_s,
        outcome=rollout.outcome or rollout.phase,
        is_healthy=is_healthy,
        at=ended,
        run=run,
    )


def _evaluations(repository: Repository, rollout_id: str) -> Iterator[Evaluation]:
    page = repository.evaluations_of(rollout_id, limit=PAGE)
    while page:
        yield from page
        page = repository.evaluations_of(rollout_id, page[-1].seq, limit=PAGE)


def _finished(stored: list[StoredRun]) -> Iterator[Finished]:
    for each in stored:
        try:
            run = from_bytes(each.run)
        except RecordError as exc:
            _log.warning("rollout %s is left out: %s", each.rollout_id, exc)
            continue
        yield Finished(rollout_id=each.rollout_id, is_healthy=each.is_healthy, run=run)


class Learner:
    """A thread that learns whenever a rollout has ended; a context manager. `wake` may be called anywhere."""

    def __init__(self, repository: Repository, calibrations: Calibrations, clock: Clock) -> None:
        self._repository = repository
        self._calibrations = calibrations
        self._clock = clock
        self._awake = threading.Event()
        self._stopped = threading.Event()
        # A daemon, so that a process that must end need not wait for a calibration.
        self._thread = threading.Thread(target=self._run, name="learner", daemon=True)

    def __enter__(self) -> Learner:
        self.wake()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.wake()
        self._thread.join(GRACE_S)

    def wake(self) -> None:
        """Something has ended. Returns at once."""
        self._awake.set()

    def _run(self) -> None:
        while self._awake.wait() and not self._stopped.is_set():
            self._awake.clear()
            if not self._learn_once():
                self._stopped.wait(RETRY_S)
                self._awake.set()

    def _learn_once(self) -> bool:
        """Catch up; ``False`` when it has to be tried again."""
        try:
            self._catch_up()
        except StoreUnavailable as exc:
            _log.warning("learning waits: %s", exc)
            return self._stopped.is_set()
        except Exception:  # whatever it is, records are stored and rollouts judged
            _log.exception("learning failed; the next rollout that ends is another try")
        return True

    def _catch_up(self) -> None:
        now, stopped = self._clock.now(), self._stopped.is_set
        remember_finished(self._repository, self._calibrations, now, should_stop=stopped)
        for place, rollouts in self._calibrations.unlearnt().items():
            if stopped():
                return
            self._refresh(place, now)
            self._calibrations.mark_learnt(rollouts)

    def _refresh(self, place: Place, now: float) -> None:
        try:
            learnt = refresh(self._calibrations, place, now)
        except StoreUnavailable:
            raise
        except Exception:  # rollouts are judged without what could not be learnt
            _log.exception("nothing was learnt about %s in %s", place.service, place.environment)
            return
        if learnt is not None:
            tier, runs = learnt.calibration.tier.value, learnt.calibration.runs
            what = f"calibration {learnt.version} of {place.service} in {place.environment}"
            _log.info("%s: tier %s from %d rollouts", what, tier, runs)
