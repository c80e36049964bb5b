"""The compose file and the image fit each other, the configuration, the command line and the broker of the tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream import kernels

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("resegment")}
STAGES = ("processor", "modeller", "campaigns")
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE_GO = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2"
"""The library that `docker compose` itself reads its files with."""


def instructions(name: str) -> list[str]:
    """The arguments of each instruction of that name, continuation lines joined."""
    joined = re.sub(r"\\\n", " ", DOCKERFILE)
    return [match[1].strip() for match in re.finditer(rf"^{name} (.+)$", joined, re.MULTILINE)]


def copied() -> list[str]:
    """What the image is made of, out of the build context."""
    return [part for line in instructions("COPY") if "--from" not in line for part in line.split()[:-1]]


def test_the_services_are_those_of_the_design() -> None:
    assert set(SERVICES) == {"kafka", "topics", *STAGES, "producer", "prometheus", "grafana"}
    assert set(COMPOSE["volumes"]) == {
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", ())
        if not volume.startswith(".")
    }


def test_stages_wait_for_the_broker_and_the_topics() -> None:
    for name in (*STAGES, "producer"):
        conditions = {service: how["condition"] for service, how in SERVICES[name]["depends_on"].items()}
        assert conditions == {"kafka": "service_healthy", "topics": "service_completed_successfully"}
    for service in SERVICES.values():
        for wanted, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "test" in SERVICES[wanted]["healthcheck"]


def test_what_has_no_health_server_is_not_asked_for_its_health() -> None:
    for name, service in OURS.items():
        disabled = service.get("healthcheck", {}).get("disable", False)
        assert disabled == (name not in STAGES)
    for name in set(SERVICES) - set(OURS):
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_one_service_builds_and_nobody_pulls_our_image() -> None:
    # Two services that build one tag at once collide; and a registry may hold somebody else's image of that name.
    assert [name for name, service in SERVICES.items() if "build" in service] == ["topics"]
    assert {name: service["pull_policy"] for name, service in OURS.items()} == {
        name: "build" if name == "topics" else "never" for name in OURS
    }
    assert len({service["image"] for service in OURS.values()}) == 1


def test_containers_have_few_rights_and_time_to_stop() -> None:
    for service in OURS.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"]
        assert "no-new-privileges:true" in service["security_opt"]
    for name in STAGES:
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > 10
        assert "container_name" not in SERVICES[name], "that would forbid --scale"


def test_ports_open_on_this_machine_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_environment_is_a_valid_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    from stream.config import load

    for name in [name for name in os.environ if name.startswith("RESEGMENT_")]:
        monkeypatch.delenv(name)
    for service in OURS.values():
        environment = service["environment"]
        assert all(name.startswith("RESEGMENT_") for name in environment)
        for name, text in environment.items():
            monkeypatch.setenv(name, re.sub(r"\$\{\w+:-(.*)\}", r"\1", text))
        config = load()
        assert config.transport.kind == "kafka"
        assert config.transport.kafka.bootstrap_servers == "kafka:9092"
        assert (config.metrics.host, config.metrics.port) == ("0.0.0.0", 9464)


@pytest.mark.parametrize("name", sorted(OURS))
def test_the_commands_are_ones_that_the_command_line_knows(name: str) -> None:
    from stream.cli import parser

    arguments = parser().parse_args(OURS[name]["command"])
    if name in STAGES:
        assert tuple(arguments.roles) == (name,)


def test_the_broker_is_the_one_that_the_tests_run() -> None:
    (version,) = re.findall(r"<kafka.version>(.+?)</kafka.version>", (ROOT / "tests/kafka/pom.xml").read_text())
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{version}"


def test_the_brokers_listeners_fit_together() -> None:
    environment = SERVICES["kafka"]["environment"]
    listeners = dict(part.split("://") for part in environment["KAFKA_LISTENERS"].split(","))
    advertised = dict(part.split("://") for part in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))
    protocols = dict(part.split(":") for part in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    assert set(protocols) == set(listeners) == {*advertised, environment["KAFKA_CONTROLLER_LISTENER_NAMES"]}
    for name, address in advertised.items():
        assert listeners[name] == ":" + address.split(":")[1]
    inside = advertised[environment["KAFKA_INTER_BROKER_LISTENER_NAME"]]
    assert OURS["processor"]["environment"]["RESEGMENT_TRANSPORT__KAFKA__BOOTSTRAP_SERVERS"] == inside
    (port,) = SERVICES["kafka"]["ports"]
    assert port.split(":")[1:] == advertised["HOST"].split(":")[1:] * 2
    quorum = environment["KAFKA_CONTROLLER_QUORUM_VOTERS"]
    assert quorum == f"{environment['KAFKA_NODE_ID']}@localhost{listeners['CONTROLLER']}"
    assert SERVICES["kafka"]["healthcheck"]["test"][-1].split(":")[1] == listeners["PLAINTEXT"][1:]


def test_prometheus_scrapes_every_stage() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (discovery,) = job["dns_sd_configs"]
    assert sorted(discovery["names"]) == sorted(STAGES)
    for name in STAGES:
        assert SERVICES[name]["environment"]["RESEGMENT_METRICS__PORT"] == str(discovery["port"])
        assert SERVICES[name]["expose"] == [str(discovery["port"])]
    assert all((ROOT / "deploy/prometheus" / file).is_file() for file in config["rule_files"])
    assert "--config.file=/etc/prometheus/prometheus.yml" in SERVICES["prometheus"]["command"]


def test_grafana_finds_prometheus_and_its_dashboard() -> None:
    provisioning = ROOT / "deploy/grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    scrape = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape
    (provider,) = yaml.safe_load((provisioning / "dashboards/resegment.yml").read_text())["providers"]
    mounts = dict(volume.split(":")[:2][::-1] for volume in SERVICES["grafana"]["volumes"])
    folder = ROOT / mounts[provider["options"]["path"]]
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home.parent == Path(provider["options"]["path"])
    assert (folder / home.name).is_file()
    assert (ROOT / mounts["/etc/grafana/provisioning"]).is_dir()


def test_the_image_holds_what_it_needs_and_runs_as_nobody() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(set(copied())) == sorted(allowed)
    assert all((ROOT / name).exists() for name in copied())
    assert "--require-hashes" in DOCKERFILE
    assert "--only-binary :all:" in DOCKERFILE
    final = DOCKERFILE.split("\nFROM ")[-1]
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)
    assert "apt-get" not in final
    assert instructions("STOPSIGNAL") == ["SIGTERM"]


def test_the_image_has_the_kernels_and_no_compiler() -> None:
    build, final = DOCKERFILE.split("\nFROM ")[1:]
    assert "gcc" in build and "assert kernels.on()" in build
    assert "gcc" not in final
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {"**/*.so", "stream/kernels/*.c"} <= set(ignored)


def test_the_image_runs_what_the_package_installs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (entry,) = instructions("ENTRYPOINT")
    assert yaml.safe_load(entry) == [next(iter(project["scripts"]))]
    (check,) = instructions("HEALTHCHECK")
    command = yaml.safe_load(check.split("CMD ")[1])
    assert command[:2] == ["python", "-m"]
    assert find_spec(command[2]) is not None
    (python,) = {argument.split("=")[1] for argument in instructions("ARG")}
    oldest = tuple(map(int, project["requires-python"].removeprefix(">=").split(".")))
    assert tuple(map(int, python.split("."))) >= oldest


@pytest.mark.slow
def test_what_is_copied_installs_and_runs_alone(tmp_path: Path) -> None:
    """The Dockerfile's own steps, without an engine: only the copied files, installed elsewhere, started from there."""
    context, site = tmp_path / "context", tmp_path / "site"
    context.mkdir()
    for name in copied():
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, context / name, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.c"))
        else:
            shutil.copy(source, context)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    install = [*pip, "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site), str(context)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    script = (
        "import importlib, pkgutil, sys, stream, schemas, producers\n"
        f"assert all(p.__file__.startswith({str(site)!r}) for p in (stream, schemas, producers)), stream.__file__\n"
        "for package in (stream, schemas, producers):\n"
        "    for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(found.name)\n"
        "        print(found.name)\n"
    )
    environment = {name: text for name, text in os.environ.items() if not name.startswith("RESEGMENT_")}
    environment["PYTHONPATH"] = str(site)
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    modules = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in ("stream", "schemas", "producers")
        for pattern in (("*.py", "*.pyx") if kernels.built() else ("*.py",))
        for file in (ROOT / package).rglob(pattern)
    }
    assert set(ran.stdout.split()) == modules - {"stream", "schemas", "producers"}


@pytest.mark.slow
def test_compose_itself_reads_the_file() -> None:
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        command = ["docker", "compose", "--file", "docker-compose.yml", "config", "--format", "json"]
        environment = dict(os.environ)
    elif go := shutil.which("go"):
        command = [go, "run", COMPOSE_GO, "-format", "json", "docker-compose.yml"]
        cache = ROOT / ".cache/go"
        environment = {**os.environ, "GOPATH": str(cache), "GOCACHE": str(cache / "build"), "GOFLAGS": "-modcacherw"}
    else:
        pytest.skip("neither `docker compose` nor Go is here to read the compose file with")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    if "dial tcp" in done.stderr or "no such host" in done.stderr:
        pytest.skip("compose-go cannot be fetched: no network")
    assert done.returncode == 0, done.stderr
    read = yaml.safe_load(done.stdout)
    assert set(read["services"]) == set(SERVICES)
