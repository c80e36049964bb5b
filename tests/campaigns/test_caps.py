from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream.campaigns.caps import Caps, Gate
from stream.campaigns.rules import Campaigns
from stream.campaigns.table import StateTable
from stream.campaigns.worker import CampaignWorker
from tests.campaigns.support import NOW, Log, campaign, change, changes_batch

gaps = st.lists(
    st.tuples(st.integers(0, 120), st.sampled_from(["u1", "u2"]), st.sampled_from(["go", "restart"])),
    min_size=1,
    max_size=80,
)


@given(gaps, st.integers(1, 3), st.integers(1, 200))
def test_no_window_holds_more_than_the_cap_and_none_is_held_back_without_reason(
    steps: list[tuple[int, str, str]], at_most: int, per: int
) -> None:
    """Oracle: every action of the user so far, counted anew each time."""
    capped = Campaigns([campaign(cap={"at_most": at_most, "per": per})])
    worker, log = CampaignWorker(capped), Log()
    log.restore(worker)
    fired: dict[str, list[int]] = {"u1": [], "u2": []}
    now = NOW
    for sequence, (gap, user, then) in enumerate(steps, start=1):
        now += gap
        output = log.keep(worker.process(changes_batch([change(user, sequence, at=now)]), now))
        assert output is not None
        expected = sum(time > now - per for time in fired[user]) < at_most
        assert len(output.records) == expected
        if expected:
            fired[user].append(now)
        if then == "restart":
            worker = CampaignWorker(capped)
            log.restore(worker)


def test_flapping_people_are_mailed_once() -> None:
    worker = CampaignWorker(Campaigns([campaign(cap={"per": "1d"})]))
    worker.restore(0, ())
    hour = 3_600_000
    flaps = [change("u1", number + 1, entered="AB"[number % 2], at=NOW + number * hour) for number in range(30)]
    output = worker.process(changes_batch(flaps), None)
    assert [record.timestamp for record in output.records] == [NOW, NOW + 24 * hour]
    assert worker.stats.held["welcome", "cap"] == 28


def test_a_clock_that_is_set_back_mails_nobody_twice() -> None:
    worker = CampaignWorker(Campaigns([campaign(cap={"per": "1d"})]))
    worker.restore(0, ())
    assert worker.process(changes_batch([change(sequence=1)]), NOW).records
    assert not worker.process(changes_batch([change(sequence=2)]), NOW - 10_000_000).records


def test_caps_that_have_run_out_are_forgotten() -> None:
    worker = CampaignWorker(Campaigns([campaign(cap={"per": "1m"})]))
    worker.restore(0, ())
    users = [change(f"u{number}", at=NOW + number) for number in range(500)]
    worker.process(changes_batch(users), None)
    table = worker._tables[0]
    assert len(table) == 500
    for step in range(200):
        worker.process(changes_batch([change("none", at=NOW + 120_000 + step, entered=None)]), None)
    assert len(table) == 0


def test_another_gate_fits_the_same_seam() -> None:
    class Consent(Gate):
        name = "consent"

        def admits(self, table: StateTable, campaign: object, change: object, now: int) -> bool:
            return change.user_id != "no"  # type: ignore[attr-defined,no-any-return]

    worker = CampaignWorker(Campaigns([campaign(cap={"per": "1d"})]), [Caps(), Consent()])
    worker.restore(0, ())
    output = worker.process(changes_batch([change("no"), change("yes")]), None)
    assert [record.key for record in output.records] == [b"yes"]
    assert worker.stats.held == {("welcome", "consent"): 1}
    assert [key.split("\x1f")[-1] for key in worker._tables[0].rows] == ["yes"]  # what was held back counts for no cap
