"""What people and bots of the synthetic shop do, measured on the events, against what their personas declare."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtri

from producers.shop import Shop, ShopSettings, Truth, TruthInterval
from producers.shop.bots import AMOUNTS
from producers.shop.catalogue import ITEMS_EACH, PRICES, category_of
from producers.shop.events import ADD_TO_CART, BROWSE, CLICK, DUPLICATE, FAVOURITE, PURCHASE, REVIEW, SEARCH, SHARE
from producers.shop.personas import (
    BARGAIN,
    CARD_TESTER,
    CRAWLER,
    DRIFTING,
    GIFT,
    HONEST,
    LIVE,
    LOYAL,
    NAMES,
    NEWCOMER,
    PERSONAS,
    WINDOW,
)
from producers.shop.population import user_name
from producers.shop.scenario import WITHIN_MS, Scenario
from producers.shop.settings import DAY_MS

Events = NDArray[np.void]
PEOPLE = (LOYAL, BARGAIN, WINDOW, GIFT, NEWCOMER)


def events_of(shop: Shop) -> Events:
    events = np.concatenate(list(shop.slices()))
    return np.asarray(events[events["fate"] < DUPLICATE])


def simulate(**changes: Any) -> tuple[Shop, Events]:
    shop = Shop(ShopSettings(**{"users": 1_500, "days": 28, "seed": 11, **changes}))
    return shop, events_of(shop)


@pytest.fixture(scope="module")
def plain() -> tuple[Shop, Events]:
    """People who all are their personas' typical ones."""
    return simulate(heterogeneity=0, crawlers=0.02, card_testers=0.02, joining=0.2)


def days_as(shop: Shop, persona: int) -> float:
    return sum(i.end - i.start for i in shop.truth.intervals if i.persona == NAMES[persona]) / DAY_MS


def of(events: Events, persona: int, kind: int | None = None) -> Events:
    chosen = (events["persona"] == persona) & (events["refund"] == 0)
    return np.asarray(events[chosen & (events["kind"] == kind)] if kind is not None else events[chosen])


def sessions(events: Events) -> int:
    return len(np.unique(events["session"]))


@pytest.mark.parametrize("persona", PEOPLE)
def test_people_visit_as_often_as_declared(plain: tuple[Shop, Events], persona: int) -> None:
    shop, events = plain
    expected = PERSONAS[persona].sessions_per_day * days_as(shop, persona)
    assert sessions(of(events, persona)) == pytest.approx(expected, abs=4 * np.sqrt(expected) + 0.02 * expected)


@pytest.mark.parametrize("persona", range(DRIFTING + 2))
def test_people_do_on_pages_and_in_sessions_what_is_declared(plain: tuple[Shop, Events], persona: int) -> None:
    _, events = plain
    declared = PERSONAS[persona]
    pages, visits = len(of(events, persona, BROWSE)), sessions(of(events, persona, BROWSE))
    for kind, rate, trials in (
        (CLICK, declared.click, pages),
        (FAVOURITE, declared.favourite, pages),
        (SHARE, declared.recommend, pages),
        (SEARCH, declared.search, visits),
        (REVIEW, declared.review, visits),
    ):
        spread = 4.5 * np.sqrt(trials * rate * (1 - rate)) + 1
        assert len(of(events, persona, kind)) == pytest.approx(trials * rate, abs=spread)
    buying = sessions(of(events, persona, PURCHASE))
    assert buying == pytest.approx(visits * declared.buy, abs=4.5 * np.sqrt(visits * declared.buy) + 1)
    dwell = np.median(of(events, persona, BROWSE)["a"])
    assert dwell == pytest.approx(declared.dwell_s * 1000, rel=0.05)
    per_visit = np.bincount(np.unique(of(events, persona, BROWSE)["session"], return_inverse=True)[1])
    assert abs(np.median(per_visit) - declared.pages) <= 1


def test_personas_buy_at_their_prices(plain: tuple[Shop, Events]) -> None:
    _, events = plain

    def place(persona: int) -> float:
        """Where in a category's price range the bought items lie, 0 to 1."""
        items = of(events, persona, PURCHASE)["item"].astype(np.int64)
        return float(np.mean((items - category_of(items) * 200) / 200))

    assert place(BARGAIN) < 0.3 < 0.5 < place(GIFT) < place(LOYAL)
    assert place(LOYAL) > 0.7
    for persona in PEOPLE:
        lines = of(events, persona, PURCHASE)
        if len(lines) < 200:
            continue
        discounted = lines["c"] > 0
        assert discounted.mean() == pytest.approx(PERSONAS[persona].discount, abs=0.05)
        depth = lines["c"][discounted] / (lines["a"] + lines["c"])[discounted]
        assert depth.mean() == pytest.approx(PERSONAS[persona].discount_depth, abs=0.02)
        np.testing.assert_allclose(lines["a"] + lines["c"], PRICES[lines["item"]] * lines["b"], atol=0.011)


def test_nothing_is_bought_that_was_not_in_the_cart_before(plain: tuple[Shop, Events]) -> None:
    _, events = plain
    people = events[(events["persona"] < HONEST) & (events["refund"] == 0)]
    carts = {(event["session"], event["item"]): event["occurred"] for event in people[people["kind"] == ADD_TO_CART]}
    bought = people[people["kind"] == PURCHASE]
    assert len(bought) > 1_000
    for line in bought:
        assert carts[line["session"], line["item"]] < line["occurred"]


def test_refunds_give_back_an_order_line_of_the_same_person(plain: tuple[Shop, Events]) -> None:
    _, events = plain
    orders = {
        (e["user"], e["session"], e["item"], e["a"]): e["occurred"]
        for e in events[(events["kind"] == PURCHASE) & (events["refund"] == 0)]
    }
    refunds = events[events["refund"] == 1]
    assert len(refunds) > 100
    for refund in refunds:
        bought = orders[refund["user"], refund["session"], refund["item"], -refund["a"]]
        if refund["persona"] < HONEST:
            assert DAY_MS <= refund["occurred"] - bought <= 10 * DAY_MS
        else:
            assert 0 < refund["occurred"] - bought <= 300_000


def test_people_who_drift_away_come_less_and_less() -> None:
    shop, events = simulate(heterogeneity=0, moves=0, joining=0, activity=3)
    day = (of(events, DRIFTING, BROWSE)["occurred"] - shop.settings.start_ms) // DAY_MS
    weeks = np.bincount(day // 7, minlength=4)
    for before, after in pairwise(weeks.tolist()[:4]):
        # exp(-7/7) from week to week
        assert after / before == pytest.approx(np.exp(-1), rel=0.2)


def test_days_and_weeks_have_their_rhythm(plain: tuple[Shop, Events]) -> None:
    _, events = plain
    for persona in PEOPLE:
        started = {e["session"]: e["occurred"] for e in of(events, persona, BROWSE)[::-1]}
        hours = np.bincount([int(t // 3_600_000 % 24) for t in started.values()], minlength=24)
        declared = np.array(PERSONAS[persona].hours) / sum(PERSONAS[persona].hours)
        np.testing.assert_allclose(hours / hours.sum(), declared, atol=0.03)
    gifts = [e["occurred"] // DAY_MS for e in of(events, GIFT, PURCHASE)]
    weekend = np.mean([(day + 3) % 7 >= 5 for day in gifts])
    assert weekend > 0.38


def test_crawlers_read_fast_and_evenly_and_nothing_else(plain: tuple[Shop, Events]) -> None:
    shop, events = plain
    crawled = events[events["persona"] == CRAWLER]
    assert set(crawled["kind"].tolist()) == {BROWSE}
    declared = PERSONAS[CRAWLER]
    per_day = len(crawled) / days_as(shop, CRAWLER)
    assert per_day == pytest.approx(declared.sessions_per_day * declared.pages, rel=0.1)
    assert np.median(crawled["a"]) == pytest.approx(400, rel=0.05)
    one = crawled[crawled["session"] == crawled["session"][0]]
    gaps = np.diff(np.sort(one["occurred"]))
    assert gaps.std() < 0.35 * gaps.mean()
    hours = np.bincount((crawled["occurred"] // 3_600_000 % 24).astype(int), minlength=24)
    assert hours.min() > 0.4 * hours.mean()
    human = sum(len(of(events, persona, BROWSE)) for persona in PEOPLE) / sum(days_as(shop, p) for p in PEOPLE)
    assert per_day > 50 * human


def test_card_testers_buy_tiny_amounts_in_bursts(plain: tuple[Shop, Events]) -> None:
    _, events = plain
    lines = of(events, CARD_TESTER, PURCHASE)
    refunds = events[(events["persona"] == CARD_TESTER) & (events["refund"] == 1)]
    assert AMOUNTS[0] <= lines["a"].min() <= lines["a"].max() <= AMOUNTS[1]
    assert len(refunds) / len(lines) == pytest.approx(0.4, abs=0.05)
    gaps = []
    for user in np.unique(lines["user"]):
        gaps.extend(np.diff(np.sort(lines["occurred"][lines["user"] == user])).tolist())
    assert np.median(gaps) < 15_000


@pytest.mark.parametrize("scenario", ["static", "drift", "birth_death"])
def test_the_truth_agrees_with_the_events(scenario: str) -> None:
    shop, events = simulate(scenario=scenario, users=600, days=20, crawlers=0.02, card_testers=0.02)
    by_user = _grouped(shop.truth)
    ordered = events[(events["refund"] == 0)][np.argsort(events["occurred"][events["refund"] == 0], kind="stable")]
    for event in ordered[np.unique(ordered["session"], return_index=True)[1]]:
        # The session began up to a second before its first event; a card tester's burst up to 13 minutes.
        since = int(event["occurred"]) - (780_000 if event["persona"] == CARD_TESTER else 1_000)
        here = [i for i in by_user[user_name(event["user"])] if i.start <= event["occurred"] and since < i.end]
        assert NAMES[event["persona"]] in {interval.persona for interval in here}


@pytest.mark.parametrize("scenario", ["static", "birth_death"])
def test_intervals_of_people_are_whole_and_those_of_bots_have_gaps(scenario: str) -> None:
    shop, _ = simulate(users=800, scenario=scenario, days=60, moves=3)
    joined = 0
    for user, intervals in _grouped(shop.truth).items():
        assert all(interval.start < interval.end for interval in intervals), user
        for before, after in pairwise(intervals):
            assert before.is_bot == after.is_bot
            if before.is_bot:
                assert before.end < after.start
            else:
                assert before.end == after.start
                assert before.persona != after.persona
        if not intervals[0].is_bot:
            assert intervals[-1].end == shop.settings.end_ms
            joined += intervals[0].start > shop.settings.start_ms
            assert intervals[0].start == shop.settings.start_ms or intervals[0].persona == "newcomer"
    assert joined > 80


def _grouped(truth: Truth) -> dict[str, list[TruthInterval]]:
    found: dict[str, list[TruthInterval]] = {}
    for interval in truth.intervals:
        found.setdefault(interval.user, []).append(interval)
    return found


def test_truth_answers_who_is_who_and_who_moved() -> None:
    truth = Truth(
        [
            TruthInterval("b", 0, 10, "crawler", True),
            TruthInterval("a", 5, 10, "loyal", False),
            TruthInterval("a", 0, 5, "newcomer", False),
            TruthInterval("b", 20, 30, "crawler", True),
        ]
    )
    assert truth.at(4) == {"a": "newcomer", "b": "crawler"}
    assert truth.at(5) == {"a": "loyal", "b": "crawler"}
    assert truth.at(10) == {}
    assert [tuple(move) for move in truth.moves()] == [("a", 5, "newcomer", "loyal")]
    assert truth.bots() == {"b"}


def test_nobody_moves_where_nobody_may() -> None:
    shop, _ = simulate(moves=0, users=300)
    assert shop.truth.moves() == []
    more, _ = simulate(moves=4, users=300)
    usual, _ = simulate(users=300)
    assert len(more.truth.moves()) > 2 * len(usual.truth.moves()) > 50


def test_how_long_people_stay_is_drawn_anew_each_time() -> None:
    shop = Shop(ShopSettings(users=2_000, days=400, moves=2, joining=0))
    stays = [
        [interval.end - interval.start for interval in intervals[:2]]
        for intervals in _grouped(shop.truth).values()
        if len(intervals) > 2 and not intervals[0].is_bot
    ]
    assert len(stays) > 1_000
    assert abs(np.corrcoef(np.log(np.array(stays).T))[0, 1]) < 0.1


def test_people_have_favourites(plain: tuple[Shop, Events]) -> None:
    _, events = plain
    pages = of(events, LOYAL, BROWSE)
    seen = np.zeros((pages["user"].max() + 1, 16))
    np.add.at(seen, (pages["user"], category_of(pages["item"])), 1)
    seen = seen[seen.sum(axis=1) >= 40]
    assert np.median(seen.max(axis=1) / seen.sum(axis=1)) == pytest.approx(PERSONAS[LOYAL].focus * 0.85, abs=0.08)
    assert len(set(seen.argmax(axis=1).tolist())) == 16


def test_one_persona_is_born_and_another_dies() -> None:
    shop, events = simulate(scenario="birth_death", users=1_000, days=30)
    start = shop.settings.start_ms
    born, dies = start + 12 * DAY_MS, start + 18 * DAY_MS
    truth = shop.truth
    live = [i for i in truth.intervals if i.persona == NAMES[LIVE]]
    gift = [i for i in truth.intervals if i.persona == NAMES[GIFT]]
    assert min(i.start for i in live) >= born
    assert sum(persona == NAMES[LIVE] for persona in truth.at(born + WITHIN_MS).values()) > 100
    assert max(i.start for i in gift) < dies
    assert sum(persona == NAMES[GIFT] for persona in truth.at(dies - 1).values()) > 60
    assert max(i.end for i in gift) <= dies + WITHIN_MS
    assert len(of(events, LIVE)) > 5_000
    for name in ("static", "drift"):
        assert not any(i.persona == NAMES[LIVE] for i in simulate(scenario=name, users=300)[0].truth.intervals)


def test_personas_drift_as_their_scenario_says_and_only_there() -> None:
    settings: dict[str, Any] = {"users": 4_000, "days": 24, "moves": 0, "joining": 0, "heterogeneity": 0}
    fixed, still = simulate(**settings)
    shop, moving = simulate(**settings, scenario="drift")
    since = shop.settings.start_ms + 20 * DAY_MS
    drift = Scenario(shop.settings)
    swings = []
    for persona in (LOYAL, BARGAIN, WINDOW):
        when = np.full(1, since + 2 * DAY_MS)
        who = np.full(1, persona)
        visits, dwell, taste, buy = (
            float(change(who, when)[0]) for change in (drift.visits, drift.dwell, drift.taste, drift.buy)
        )
        before, after = (of(found[found["occurred"] >= since], persona) for found in (still, moving))
        assert sessions(after) / sessions(before) == pytest.approx(visits, rel=0.06)
        pages = [found[found["kind"] == BROWSE] for found in (before, after)]
        assert np.median(pages[1]["a"]) / np.median(pages[0]["a"]) == pytest.approx(dwell, rel=0.06)
        place = [ndtri((found["item"] % ITEMS_EACH + 0.5) / ITEMS_EACH).mean() for found in pages]
        assert place[1] - place[0] == pytest.approx(taste, abs=0.08)
        if persona != WINDOW:  # who hardly ever buys
            share = [sessions(found[found["kind"] == PURCHASE]) / sessions(found) for found in (before, after)]
            assert np.diff(np.log(np.array(share) / (1 - np.array(share))))[0] == pytest.approx(buy, abs=0.2)
        swings += [abs(np.log(visits)), abs(np.log(dwell)), abs(taste), abs(buy)]
        assert Scenario(fixed.settings).visits(who, when)[0] == Scenario(fixed.settings).dwell(who, when)[0] == 1
        assert Scenario(fixed.settings).taste(who, when)[0] == Scenario(fixed.settings).buy(who, when)[0] == 0
    assert min(np.max(np.reshape(swings, (3, 4)), axis=0)) > 0.2


def test_people_of_one_persona_differ_and_overlap_with_others() -> None:
    _, events = simulate(users=1_000)
    means = {}
    for persona in (LOYAL, BARGAIN, WINDOW):
        pages = of(events, persona, BROWSE)
        count = np.bincount(pages["user"])
        enough = count >= 30
        means[persona] = np.log(np.bincount(pages["user"], pages["a"])[enough] / count[enough])
        assert means[persona].std() > 0.15
    assert means[BARGAIN].max() > means[LOYAL].min()
    assert means[LOYAL].max() > means[WINDOW].min()
