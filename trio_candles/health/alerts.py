"""What changed between two looks, posted to a webhook: once a change, in order, until it has arrived."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import attrs
import trio

from trio_candles.health.judge import Health, Problem, Subject
from trio_candles.health.report import ProblemDocument, problem_document
from trio_candles.network.webhook import Undelivered

__all__ = ["ALERTS_QUEUED", "Alert", "AlertDocument", "Problems", "alert_documents", "deliver"]

ALERTS_QUEUED = 1_000
"""Documents that wait for a webhook which does not answer: days of an ordinary bad time. Later ones are
reported on stderr as lost; every document has the whole state, so that the next one that arrives makes up for it."""
REFUSALS = 5
"""Times that one document is offered to a webhook which refuses it (4xx), so that it does not hold up all others."""
SLOWEST_SECONDS = 60.0
CONTENT_CHARACTERS = 2_000
"""Of a message at Discord, which refuses longer ones (Discord's documentation, "Execute Webhook"). These three take a
document for its ``text`` or ``content`` and disregard the rest of it."""


@attrs.frozen(kw_only=True)
class AlertDocument:
    """What a webhook gets. Times are Unix ms on the service's clock."""

    event: str
    """``unhealthy`` | ``recovered``"""
    at_ms: int
    data_dir: str
    healthy: bool
    """Whether nothing is unwell any more."""
    text: str
    """The event and its problems in a sentence, for people; what Slack and Mattermost show."""
    content: str
    """The same, as much of it as Discord takes; what Discord shows."""
    problems: tuple[ProblemDocument, ...]
    """The problems that appeared or went."""
    still_unhealthy: tuple[ProblemDocument, ...]
    """All problems that there are after the event."""


@attrs.frozen
class Alert:
    """Problems that appeared in one look, or that went in it."""

    event: str
    """``unhealthy`` | ``recovered``"""
    problems: tuple[Problem, ...]


@attrs.define
class Problems:
    """Remembers what is not well, so that each change is reported once."""

    _open: dict[Subject, Problem] = attrs.field(factory=dict)

    def note(self, health: Health) -> list[Alert]:
        """The changes since the last look; before the first look, all was well.

        A subject that stays unwell is no change, not even when the reason is another. While the journal cannot be read,
        no subject recovers whose state is only known from the journal.
        """
        found = {problem.subject: problem for problem in health.problems}
        blind = health.reading.trouble is not None
        appeared, gone = [], []
        for subject, problem in found.items():
            if subject not in self._open:
                since = health.reading.now if problem.since is None else problem.since
                appeared.append(attrs.evolve(problem, since=since))
        for subject, problem in self._open.items():
            if subject not in found and not (blind and subject.kind != "collector"):
                gone.append(problem)
        for problem in gone:
            del self._open[problem.subject]
        self._open.update({problem.subject: problem for problem in appeared})
        alerts = [Alert("recovered", tuple(gone))] if gone else []
        return alerts + ([Alert("unhealthy", tuple(appeared))] if appeared else [])

    @property
    def open(self) -> Sequence[Problem]:
        """What is not well, since when."""
        return tuple(self._open.values())


def alert_documents(
    alerts: Sequence[Alert], still_open: Sequence[Problem], now: int, data_dir: Path
) -> Iterator[AlertDocument]:
    """One document for each of *alerts*; each lists the problems that there are after all of them. *now* in Unix ms."""
    for alert in alerts:
        # What was wrong with a subject that recovered is in ``problems``; in the sentence it would sound like now.
        full = alert.event == "unhealthy"
        named = "; ".join(f"{one.subject}: {one.detail}" if full else str(one.subject) for one in alert.problems[:10])
        more = f"; and {len(alert.problems) - 10} more" if len(alert.problems) > 10 else ""
        text = f"trio_candles {alert.event}: {named}{more}"
        yield AlertDocument(
            event=alert.event,
            at_ms=now,
            data_dir=str(data_dir),
            healthy=not still_open,
            text=text,
            content=text if len(text) <= CONTENT_CHARACTERS else f"{text[: CONTENT_CHARACTERS - 1]}…",
            problems=tuple(problem_document(problem) for problem in alert.problems),
            still_unhealthy=tuple(problem_document(problem) for problem in still_open),
        )


async def deliver(
    documents: trio.MemoryReceiveChannel[AlertDocument],
    post: Callable[[AlertDocument], Awaitable[None]],
    complain: Callable[[str], None],
) -> None:
    """Post each of *documents* until it has arrived, oldest first, waiting 1, 2, 4 … 60 s in between.

    Ends with the channel. *complain* is called once for a document that does not arrive, and once when it has arrived
    after all or is given up.
    """
    async for document in documents:
        delay, tries = 1.0, 0
        while True:
            try:
                await post(document)
            except Undelivered as error:
                tries += 1
                if error.refused and tries >= REFUSALS:
                    complain(f"the webhook refuses an alert ({error}); it is given up: {document.text}")
                    break
                if tries == 1:
                    complain(f"the webhook does not take an alert ({error}); it is tried again")
                await trio.sleep(delay)
                delay = min(2 * delay, SLOWEST_SECONDS)
            else:
                if tries:
                    complain("the webhook takes alerts again")
                break
