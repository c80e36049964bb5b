"""Real Apache Kafka brokers for tests: KRaft, on loopback, with kill, stop and restart.

    with Cluster(directory) as cluster:              # one broker; brokers=3 for three
        cluster.bootstrap                            # "127.0.0.1:21234"
        cluster.brokers[0].kill()                    # SIGKILL; .pause() and .unpause() are SIGSTOP and SIGCONT
        cluster.brokers[0].start(); cluster.wait()   # the same data, the same port

Which cluster to break: with SIGKILL, three brokers, or one with `separate_controller`. A broker that is its own
controller comes back believing for a moment that it leads what it led, and starts to complete transactions; then its
partitions have no leader until it is admitted again, and Kafka (4.3.1) takes a partition without a leader for deleted
and drops its commit markers. What the client was told is committed is then lost, by no fault of the client.

Invariant: no broker outlives the process that made its cluster. A reaper process, told every pid, kills what is left
when its standard input closes, which the kernel does however this process ends.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from tests.kafka.jars import classpath, java

_START_TIMEOUT_S = 60.0
_HOST = "127.0.0.1"

_REAPER = """
import os, signal, sys
alive = set()
for line in sys.stdin:
    (alive.add if line[0] == "+" else alive.discard)(int(line[1:]))
for pid in alive:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


class Broker:
    """One node of a cluster in the given roles; `config` overrides the properties of the test defaults."""

    def __init__(self, node_id: int, roles: str, directory: Path, heap: str, config: Mapping[str, str]) -> None:
        self.node_id = node_id
        self.roles = roles
        self.port = free_port()
        self.controller_port = free_port()
        self.directory = directory
        self.log = directory / "broker.log"
        self._heap = heap
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Host and port for clients."""
        return f"{_HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running broker."""
        assert self._process is not None, f"broker {self.node_id} is not running"
        return self._process.pid

    def is_running(self) -> bool:
        """Whether its process lives, be it stopped by a signal."""
        return self._process is not None and self._process.poll() is None

    def format(self, cluster_id: str, voters: str, brokers: int) -> None:
        """Write its properties and an empty storage."""
        self.directory.mkdir(parents=True, exist_ok=True)
        lines = "\n".join(f"{key}={value}" for key, value in self._properties(voters, brokers).items())
        self._properties_file.write_text(lines + "\n")
        command = [*self._java("-Xmx128m"), "kafka.tools.StorageTool", "format", "--cluster-id", cluster_id]
        command += ["--config", str(self._properties_file), "--ignore-formatted"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise RuntimeError(f"broker {self.node_id}: formatting failed: {run.stdout}{run.stderr}")

    def start(self) -> None:
        """Start on the data that is there; returns before it is ready (see `Cluster.wait`)."""
        assert not self.is_running(), f"broker {self.node_id} runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java(f"-Xmx{self._heap}"), "kafka.Kafka", str(self._properties_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A group of its own: Ctrl-C in the terminal is for pytest, which stops the brokers in order.
                start_new_session=True,
            )
        _reaper.add(self._process.pid)

    def stop(self, timeout: float = 30.0) -> None:
        """Shut down cleanly, and by force after `timeout` seconds."""
        self._end(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL, 10.0)

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def unpause(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def tail(self, lines: int = 20) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def _end(self, number: int, timeout: float) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10.0)
        _reaper.remove(self._process.pid)
        self._process = None

    @property
    def _properties_file(self) -> Path:
        return self.directory / "server.properties"

    def _java(self, *options: str) -> list[str]:
        # Short runs: the first compiler tier starts fastest. Only warnings are logged.
        flags = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", *options]
        flags += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true"]
        return [java(), *flags, "-cp", classpath()]

    def _properties(self, voters: str, brokers: int) -> dict[str, str]:
        replicas, isr = str(min(brokers, 3)), str(min(brokers, 2))
        listeners = {
            "broker": f"PLAINTEXT://{self.address}",
            "controller": f"CONTROLLER://{_HOST}:{self.controller_port}",
        }
        advertised = {"advertised.listeners": listeners["broker"]} if "broker" in self.roles else {}
        return {
            "node.id": str(self.node_id),
            "process.roles": self.roles,
            "listeners": ",".join(listeners[role] for role in self.roles.split(",")),
            **advertised,
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.quorum.voters": voters,
            "log.dirs": str(self.directory / "data"),
            "auto.create.topics.enable": "false",
            "default.replication.factor": replicas,
            "min.insync.replicas": isr,
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": isr,
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": isr,
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            # Zombies: abandoned transactions are aborted within a second of their time-out, not within ten.
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
            "num.network.threads": "2",
            "num.io.threads": "4",
            # A killed broker may register anew only when its old session has ended.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "log.cleaner.dedupe.buffer.size": "4194304",
            "log.cleaner.backoff.ms": "1000",
            **self._config,
        }


class Cluster:
    """One broker or several, formatted and started by `start`, or by entering the context; gone when it is left."""

    def __init__(
        self,
        directory: Path,
        brokers: int = 1,
        heap: str = "384m",
        config: Mapping[str, str] | None = None,
        separate_controller: bool = False,
    ) -> None:
        self.directory = directory
        roles = "broker" if separate_controller else "broker,controller"
        self.brokers = [
            Broker(number, roles, directory / f"broker-{number}", heap, config or {})
            for number in range(1, brokers + 1)
        ]
        self.controllers = list(self.brokers)
        if separate_controller:
            self.controllers = [Broker(100, "controller", directory / "controller", "128m", {})]

    @property
    def bootstrap(self) -> str:
        """The bootstrap servers."""
        return ",".join(broker.address for broker in self.brokers)

    def start(self) -> Cluster:
        """Format, start, and wait until every broker serves."""
        voters = ",".join(f"{each.node_id}@{_HOST}:{each.controller_port}" for each in self.controllers)
        for node in self._nodes():
            node.format("resegment-tests-000000", voters, len(self.brokers))
        try:
            for node in self._nodes():
                node.start()
            self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def wait(self, timeout: float = _START_TIMEOUT_S) -> None:
        """Until all running brokers know each other. Raises RuntimeError with their logs where that takes too long."""
        running = [broker for broker in self.brokers if broker.is_running()]
        expected = {broker.node_id for broker in running}
        for broker in running:
            try:
                wait_for(broker.address, expected, timeout, broker.is_running)
            except TimeoutError as error:
                raise RuntimeError(f"broker {broker.node_id} does not serve:\n{broker.tail()}") from error

    def stop(self) -> None:
        """Kill all brokers and delete their data."""
        for node in self._nodes():
            node.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _nodes(self) -> list[Broker]:
        return self.brokers + [node for node in self.controllers if node not in self.brokers]

    def __enter__(self) -> Cluster:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def free_port() -> int:
    """A port below the ephemeral range, where no client's outgoing connection can sit: a client that retries a dead
    broker's port would else connect to itself and keep the broker from coming back."""
    for port in random.sample(range(20_000, 32_000), 200):
        with socket.socket() as probe:
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 20000 and 32000")


def wait_for(
    address: str, expected: set[int], timeout: float = _START_TIMEOUT_S, alive: Callable[[], bool] = lambda: True
) -> None:
    """Until the broker at `address` answers and sees the brokers of the ids `expected`. Raises TimeoutError."""
    deadline = time.monotonic() + timeout
    while not _serves(address, expected):
        if time.monotonic() > deadline or not alive():
            raise TimeoutError(address)
        time.sleep(0.1)


def _serves(address: str, expected: set[int]) -> bool:
    host, port = address.split(":")
    with socket.socket() as probe:
        if probe.connect_ex((host, int(port))) != 0:
            return False
    try:
        admin = KafkaAdminClient(bootstrap_servers=address, request_timeout_ms=5_000, bootstrap_timeout_ms=5_000)
    except KafkaError:
        return False
    try:
        return expected <= {each["broker_id"] for each in admin.describe_cluster()["brokers"]}
    except KafkaError:
        return False
    finally:
        admin.close()


class _Reaper:
    """The process that kills the brokers should this one die."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def add(self, pid: int) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _REAPER], stdin=subprocess.PIPE, text=True, start_new_session=True
            )
            atexit.register(self._close)
        self._tell(f"+{pid}\n")

    def remove(self, pid: int) -> None:
        self._tell(f"-{pid}\n")

    def _tell(self, line: str) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait(10.0)


_reaper = _Reaper()
