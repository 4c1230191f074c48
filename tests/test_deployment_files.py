"""The files of docs/ for Kubernetes, systemd, Prometheus and Grafana are true.

They parse, the tools they are for accept them, their times fit each other and
the defaults of the code, and every metric they name is served.
"""

import asyncio
import configparser
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import kernel_tree
import test_docs
from mtaio import _doctor
from mtaio._findings import Question
from mtaio._process_end import LATEST_SECONDS
from mtaio.app import Application
from mtaio.config import Settings
from mtaio.health import HealthMonitor
from mtaio.monitoring import ProbeServer, ResourceMonitor, Watchdog
from mtaio.resources import ConcurrencyLimiter, RateLimiter

DOCS = Path(__file__).parents[1] / "docs"
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def documents(name):
    return list(YAML(typ="safe").load_all((DOCS / name).read_text("utf-8")))


def run(*words, cwd=None):
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def needed(tool):
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    return tool


def default(function, parameter):
    return inspect.signature(function).parameters[parameter].default


def guide_fail_after():
    """How long /livez is patient with a blocked loop, in the guide's service."""
    guide = (DOCS / "deployment.md").read_text("utf-8")
    return float(re.search(r"fail_after=([\d.]+)", guide)[1])


@pytest.fixture(scope="module")
def deployment():
    return documents("kubernetes/app.yaml")[0]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(deployment):
    (container,) = deployment["containers"]
    return container


@pytest.fixture(scope="module")
def settings(container):
    """What the service reads in that container: every variable is accepted."""
    return Settings.from_env({each["name"]: each["value"] for each in container["env"]})


def seconds_to_fail(probe):
    return probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]


def test_the_pod_is_given_the_time_its_stop_takes(deployment, container, settings):
    assert "lifecycle" not in container  # a preStop would count into it
    patience = deployment["terminationGracePeriodSeconds"]
    assert patience > settings.grace_period + LATEST_SECONDS
    assert settings.grace_period > settings.drain_delay + settings.default_timeout


def test_balancers_notice_a_failed_readiness_within_the_drain_delay(
    container, settings
):
    assert seconds_to_fail(container["readinessProbe"]) <= settings.drain_delay


def test_checks_are_damped_once_by_the_process_or_by_the_probe(container):
    assert default(HealthMonitor.check, "failures") > 1
    assert container["readinessProbe"]["failureThreshold"] == 1


def test_a_component_may_take_its_time_to_start(container):
    start_timeout = default(Application.add, "start_timeout")

    assert seconds_to_fail(container["startupProbe"]) >= 2 * start_timeout


def test_a_blocked_loop_is_stopped_by_the_watchdogs_deadline_not_by_slow_probes(
    container,
):
    assert container["livenessProbe"]["failureThreshold"] > 1
    assert seconds_to_fail(container["livenessProbe"]) < guide_fail_after()


def test_the_probes_are_where_the_kubelet_asks(container, settings):
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    assert settings.probe_host == "0.0.0.0"
    assert ports["probes"] == settings.probe_port
    for probe, path in [
        ("startupProbe", "/startupz"),
        ("readinessProbe", "/readyz"),
        ("livenessProbe", "/livez"),
    ]:
        assert container[probe]["httpGet"] == {"path": path, "port": "probes"}
        assert ProbeServer().answer("GET", path)[0] in (200, 503)


def test_the_logs_and_their_backups_have_room(deployment, settings):
    (log,) = [each for each in deployment["volumes"] if each["name"] == "log"]
    number, unit = re.fullmatch(r"(\d+)(\w\w)", log["emptyDir"]["sizeLimit"]).groups()

    needs = settings.log_max_bytes * (settings.log_backup_count + 1)
    assert int(number) * UNITS[unit] > needs
    assert settings.log_file.startswith("/var/log/app/")


def test_the_network_lets_prometheus_alone_reach_the_probes(deployment):
    _, policy = documents("kubernetes/app.yaml")
    labels = documents("kubernetes/app.yaml")[0]["spec"]["template"]["metadata"]

    assert policy["spec"]["podSelector"]["matchLabels"] == labels["labels"]
    (rule,) = policy["spec"]["ingress"]
    assert rule["ports"] == [{"port": "probes"}]
    assert rule["from"]


class Unit(configparser.RawConfigParser):
    """A unit file: names keep their case, `Environment` may come often."""

    optionxform = staticmethod(str)


@pytest.fixture(scope="module")
def service():
    text = (DOCS / "systemd" / "app.service").read_text("utf-8")
    unit = Unit(strict=False)
    unit.read_string(text)
    environ = dict(re.findall(r"(?m)^Environment=(\w+)=(.*)$", text))
    return unit, Settings.from_env(environ)


def test_systemd_gives_the_time_a_start_and_a_stop_take(service):
    unit, settings = service
    start_timeout = default(Application.add, "start_timeout")

    patience = unit.getfloat("Service", "TimeoutStopSec")
    assert patience > settings.grace_period + LATEST_SECONDS
    assert settings.grace_period > settings.drain_delay + settings.default_timeout
    assert unit.getfloat("Service", "TimeoutStartSec") > 2 * start_timeout


def test_systemds_watchdog_is_as_patient_as_ours(service):
    unit, _ = service

    assert unit["Service"]["Type"] == "notify"
    assert unit["Service"]["ExecReload"].startswith("/bin/kill -HUP")
    assert unit.getfloat("Service", "WatchdogSec") == guide_fail_after()


def test_systemd_keeps_what_a_killed_process_left_in_shared_memory(service):
    unit, _ = service

    assert "User" in unit["Service"]
    assert not {"DynamicUser", "RemoveIPC"} & set(unit["Service"])


def test_systemd_finds_no_fault_with_the_unit(tmp_path):
    tool = needed("systemd-analyze")
    unit = (DOCS / "systemd" / "app.service").read_text("utf-8")
    copy = tmp_path / "app.service"
    # It looks for the program, which this machine has elsewhere.
    copy.write_text(unit.replace("/opt/app/venv/bin/python", sys.executable))

    done = subprocess.run(
        [tool, "verify", "--man=no", copy], capture_output=True, text=True, timeout=60
    )

    assert "app.service" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


def test_prometheus_takes_the_rules_and_they_do_what_they_say():
    tool = needed("promtool")

    run(tool, "check", "rules", "alerts.yml", cwd=DOCS / "prometheus")
    run(tool, "test", "rules", "alerts_test.yml", cwd=DOCS / "prometheus")


def test_the_service_that_is_well_has_every_metric_a_rule_asks_for():
    (told,) = documents("prometheus/alerts_test.yml")
    (well, *_) = told["tests"]
    fed = {re.match(r"\w+", each["series"])[0] for each in well["input_series"]}
    asked = {
        name for rule in RULES for name in re.findall(r"\bmtaio_\w+", rule["expr"])
    }

    assert asked <= fed


def test_prometheus_takes_the_scrape_configuration(tmp_path):
    tool = needed("promtool")
    (config,) = documents("prometheus/prometheus.yml")
    known = subprocess.run(
        [tool, "check", "config", "prometheus.yml"],
        cwd=DOCS / "prometheus",
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "kubernetes_sd_configs not found" in known.stderr:
        # Debian builds it without that discovery; the rest can be checked.
        jobs = config["scrape_configs"]
        config["scrape_configs"] = [j for j in jobs if "static_configs" in j]
        shutil.copy(DOCS / "prometheus" / "alerts.yml", tmp_path)
        with (tmp_path / "prometheus.yml").open("w") as file:
            YAML().dump(config, file)
        run(tool, "check", "config", "prometheus.yml", cwd=tmp_path)
    else:
        assert known.returncode == 0, known.stderr


def test_the_scraped_port_is_the_one_that_is_served(service, container):
    (config,) = documents("prometheus/prometheus.yml")
    static, pods = config["scrape_configs"]
    _, settings = service

    assert static["static_configs"] == [
        {"targets": [f"{settings.probe_host}:{settings.probe_port}"]}
    ]
    kept = [rule for rule in pods["relabel_configs"] if rule.get("action") == "keep"]
    assert [rule["regex"] for rule in kept] == [container["ports"][0]["name"]]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The names on the page of a whole service, in a control group with a quota."""
    if sys.platform != "linux":
        pytest.skip("other systems tell less: no control groups, no pressure")
    tree = kernel_tree.Tree(
        tmp_path_factory.mktemp("host"),
        kernel_tree.host(),
        kernel_tree.in_v2("/app"),
        kernel_tree.group_v2("app", cpu_max="100000 100000\n"),
    )

    throttle(tree, 0)

    async def main():
        mine = await page(ResourceMonitor(), "mtaio_cpu_usage_percent", lambda _: None)
        throttled = await page(
            ResourceMonitor(root=tree.root),
            "mtaio_cpu_throttled_percent",
            lambda turn: throttle(tree, turn),
        )
        return mine | throttled

    return asyncio.run(main())


def throttle(tree, turn):
    stat = f"usage_usec {turn}\nuser_usec 1\nsystem_usec 1\nnr_periods {10 * turn}\n"
    stat += f"nr_throttled {turn}\nthrottled_usec {turn}\n"
    events = "oom_kill 0\n"
    tree.write(kernel_tree.group_v2("app", cpu_stat=stat, memory_events=events))


async def page(monitor, awaited, turn):
    probes, watchdog = ProbeServer(), Watchdog()
    probes.add_watchdog(watchdog)
    health = HealthMonitor(monitor, probes=probes)
    health.check("log", interval=None)(lambda: True)
    app = Application(
        rate_limiter=RateLimiter(10),
        concurrency_limiter=ConcurrencyLimiter(5),
        health=health,
    )
    found, turns = set(), 0
    async with probes, watchdog, health, app:
        app.error_handler.report(OSError())
        while not {"mtaio_app_errors_total", awaited} <= found:
            turn(turns := turns + 1)
            await asyncio.sleep(0.05)
            found = names(probes.answer("GET", "/metrics")[2].decode())
    return found


def names(text):
    return set(re.findall(r"(?m)^(mtaio_\w+)[{ ]", text))


RULES = [
    rule
    for group in documents("prometheus/alerts.yml")[0]["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((DOCS / "grafana" / "dashboard.json").read_text("utf-8"))
QUERIES = {
    panel["title"]: [target["expr"] for target in panel["targets"]]
    for panel in DASHBOARD["panels"]
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_what_is_served_and_names_its_runbook(served, rule):
    asked = set(re.findall(r"\bmtaio_\w+", rule["expr"]))
    runbooks = test_docs.anchors(DOCS / "troubleshooting.md")

    assert asked <= served
    assert asked or "up{" in rule["expr"]
    assert rule["annotations"]["runbook"] in runbooks
    assert rule["labels"]["severity"] in ("page", "ticket")


@pytest.mark.parametrize("title", QUERIES)
def test_a_panel_asks_for_what_is_served(served, title):
    for query in QUERIES[title]:
        asked = set(re.findall(r"\bmtaio_\w+", query))

        assert asked
        assert asked <= served


def test_every_query_of_the_dashboard_is_promql(tmp_path):
    tool = needed("promtool")
    rules = [
        {"record": f"panel:{number}", "expr": re.sub(r"\$__rate_interval", "5m", query)}
        for number, query in enumerate(q for each in QUERIES.values() for q in each)
    ]
    # JSON is YAML.
    text = json.dumps({"groups": [{"name": "panels", "rules": rules}]})
    (tmp_path / "panels.yml").write_text(text)

    run(tool, "check", "rules", "panels.yml", cwd=tmp_path)


def test_no_two_panels_of_the_dashboard_overlap():
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


CHECKLISTS = {
    "deployment.md": "## Checklist",
    "deployment.ja.md": "## デプロイチェックリスト",
}


def checklist(name):
    """The items of a guide's checklist, in order, each on one line."""
    text = (DOCS / name).read_text("utf-8")
    section = text.partition(CHECKLISTS[name])[2].partition("\n## ")[0]
    items = re.findall(r"✓ (.*?)(?=\n *- |\n\n|\Z)", section, re.DOTALL)
    return [re.sub(r"\s+", " ", item) for item in items]


@pytest.fixture(scope="module")
def doctor_items(tmp_path_factory):
    """What the doctor looks at, by question."""
    if os.name != "posix":
        pytest.skip("there are no users and modes of POSIX to look at")
    folder = tmp_path_factory.mktemp("doctor")
    (folder / "settings.env").touch()
    environ = {"MTAIO_SETTINGS_FILE": str(folder / "settings.env")}
    findings = asyncio.run(
        _doctor.examine(Settings.from_env(environ), environ, Application())
    )
    items = {question: set() for question in Question}
    for finding in findings:
        items[finding.question].add(finding.item)
    return items


@pytest.mark.parametrize("name", CHECKLISTS)
def test_each_item_of_the_checklist_leads_to_what_implements_it(name, doctor_items):
    items = checklist(name)

    assert len(items) == len(Question) == 15
    for item, question in zip(items, Question, strict=True):
        # Where links lead is tested with all others in test_docs.
        assert re.search(r"\]\([^)]+\)", item), item
        named = re.search(r"doctor(?: items? |の )(.*?)(?:[.;。]|$)", item)
        if named:
            assert set(re.findall(r"`([^`]+)`", named[1])) <= doctor_items[question]


def test_the_checklist_asks_what_the_doctor_asks():
    asked = [re.match(r"[^?]+\?", item)[0] for item in checklist("deployment.md")]

    assert asked == [question.text for question in Question]
