"""What is shipped for Prometheus, before the real promtool."""

import pathlib

import yaml

from tests.helpers.prometheus import promtool

TELEMETRY = pathlib.Path(__file__).parents[2] / "envoy" / "telemetry"
CASES = pathlib.Path(__file__).parents[1] / "data" / "alerts.yaml"


def test_the_rules_and_the_scrape_configuration_are_valid() -> None:
    promtool("check", "config", str(TELEMETRY / "prometheus.yaml"))


def test_alerts_fire_in_trouble_and_not_without(tmp_path: pathlib.Path) -> None:
    cases = tmp_path / "alerts.yaml"
    cases.write_text(CASES.read_text().replace("RULES", str(TELEMETRY / "rules.yaml")))
    assert "SUCCESS" in promtool("test", "rules", str(cases))


def test_every_alert_is_explained() -> None:
    groups = yaml.safe_load((TELEMETRY / "rules.yaml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    page = (TELEMETRY.parents[1] / "docs" / "telemetry.md").read_text()
    assert {name for name in alerts if f"`{name}`" not in page} == set()
