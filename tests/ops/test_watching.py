"""The dashboard, the alerts and the page for the SRE speak of metrics that exist, in PromQL that parses."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream.runtime.health import Health
from stream.runtime.health_server import MetricsSettings
from stream.runtime.metric_list import SPECS
from stream.transport.settings import KafkaSettings
from tests.ops.promql import complaints, grouped_by, names

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboards/resegment.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
RULES = [rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
PAGE = (ROOT / "docs/operations.md").read_text()


def anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("panel", "target"), QUERIES, ids=[f"{t}-{q['refId']}" for t, q in QUERIES])
def test_a_panel_asks_for_what_exists(panel: str, target: dict[str, Any]) -> None:
    assert list(complaints(target["expr"])) == []
    shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    assert shown <= grouped_by(target["expr"]) | {"instance"}


def test_the_dashboard_is_whole() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert DASHBOARD["uid"] == "resegment"
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["name"], variable["type"]) == ("datasource", "datasource")
    for panel in PANELS:
        assert panel["description"], panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} lies over {taken[cell]}"
            taken[cell] = panel["title"]


def test_the_dashboard_shows_every_metric() -> None:
    queries = " ".join(target["expr"] for _, target in QUERIES)
    shown = set(names(queries))
    missing = [spec.name for spec in SPECS if not shown & set(spec.samples)]
    assert missing == ["resegment_build_info"]


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_is_complete(rule: dict[str, Any]) -> None:
    assert list(complaints(rule["expr"])) == []
    assert names(rule["expr"])
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert {"summary", "description", "runbook"} <= set(rule["annotations"])
    used = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    assert used <= grouped_by(rule["expr"])
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert (ROOT / file).is_file()
    assert anchor in anchors(PAGE)


def test_the_page_explains_every_metric_and_no_other() -> None:
    told = set(re.findall(r"`(resegment_\w+)`", PAGE))
    assert {spec.name for spec in SPECS} <= told
    known = {sample for spec in SPECS for sample in (spec.name, *spec.samples)}
    assert told <= known


def test_the_page_names_every_alert() -> None:
    headings = set(re.findall(r"^### (Resegment\w+)$", PAGE, re.MULTILINE))
    assert headings == {rule["alert"] for rule in RULES}


def test_stuck_means_the_same_to_liveness_the_alert_the_dashboard_and_the_transport() -> None:
    seconds = MetricsSettings().stuck_after / 1000
    (rule,) = (rule for rule in RULES if rule["alert"] == "ResegmentLoopStuck")
    assert rule["expr"].endswith(f"> {seconds:g}")
    (panel,) = (panel for panel in PANELS if panel["title"] == "Loop heartbeat")
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"] == seconds
    assert inspect.signature(Health).parameters["stuck_after"].default == seconds
    # A call that the transport itself gives up must not get the process killed before that.
    kafka = KafkaSettings()
    slowest = max(kafka.commit_timeout, kafka.stall_timeout, kafka.request_timeout, kafka.connect_timeout)
    assert slowest / 1000 < seconds


@pytest.mark.parametrize("wrong", [
    "resegment_nothing_total", 'sum by (partition) (rate(resegment_events_total[1m]))', "sum(resegment_events_total)",
    'rate(resegment_events_total{outcome="lost"}[1m])', 'resegment_users{segment="x"}',
])  # fmt: skip
def test_the_check_finds_what_is_wrong(wrong: str) -> None:
    assert list(complaints(wrong))


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    return found


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_reads_the_configuration(promtool: str) -> None:
    run(promtool, "check", "config", PROMETHEUS / "prometheus.yml")


def test_alerts_fire_when_they_should(promtool: str) -> None:
    run(promtool, "test", "rules", Path(__file__).with_name("alerts_test.yml"))


def test_every_alert_is_tested_for_firing_and_for_silence() -> None:
    cases = [
        case
        for group in yaml.safe_load(Path(__file__).with_name("alerts_test.yml").read_text())["tests"]
        for case in group["alert_rule_test"]
    ]
    expected = {rule["alert"] for rule in RULES}
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == expected
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == expected


def test_queries_of_the_dashboard_parse(promtool: str, tmp_path: Path) -> None:
    def expressions() -> Iterator[str]:
        yield from (target["expr"] for _, target in QUERIES)
        yield from (a["expr"] for a in DASHBOARD["annotations"]["list"] if "expr" in a)

    rules = [
        {"record": f"query:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, expression in enumerate(expressions())
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    run(promtool, "check", "rules", "--lint=none", file)
