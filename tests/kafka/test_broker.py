"""The brokers that tests start: several at once, killed and restarted on their data, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid

import pytest

from schemas.topics import TopicSpec
from stream.transport.base import OutRecord, TopicPartition
from stream.transport.kafka import KafkaTransport
from stream.transport.settings import KafkaSettings
from tests.kafka.broker import Cluster
from tests.kafka.jars import CACHE

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

OWNER = """
import sys, time
from pathlib import Path
from tests.kafka.broker import Cluster
cluster = Cluster(Path(sys.argv[1])).start()
print(cluster.brokers[0].pid, flush=True)
time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_no_broker_outlives_its_owner(kafka_jars: str) -> None:
    directory = CACHE / f"orphan-{uuid.uuid4().hex[:8]}"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(directory)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert is_alive(pid)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    deadline = time.monotonic() + 10
    while is_alive(pid):
        assert time.monotonic() < deadline, "the broker is still there"
        time.sleep(0.05)
    subprocess.run(["rm", "-rf", str(directory)], check=True)


def test_of_three_brokers_one_may_be_lost_and_come_back(kafka_jars: str) -> None:
    with Cluster(CACHE / f"three-{uuid.uuid4().hex[:8]}", brokers=3, heap="256m") as cluster:
        transport = KafkaTransport(KafkaSettings(bootstrap_servers=cluster.bootstrap))
        transport.create_topics([TopicSpec("t", 3)], 3)
        everywhere = [OutRecord("t", None, b"1", partition) for partition in range(3)]
        transport.produce(everywhere)
        lost = cluster.brokers[0]
        pid = lost.pid
        lost.kill()
        assert not lost.is_running()
        assert not is_alive(pid) or os.name != "posix"
        transport.produce(everywhere)
        lost.start()
        cluster.wait()
        transport.produce(everywhere)
        for partition in range(3):
            assert [r.value for r in transport.read(TopicPartition("t", partition), 0)] == [b"1"] * 3
        transport.close()
