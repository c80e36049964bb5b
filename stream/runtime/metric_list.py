"""The list of all Prometheus metrics: names, kinds, labels, help texts, and the vocabularies of the labels.

Invariant: nothing else is exposed under `resegment_`. Names carry base units (seconds, bytes); label values are
bounded (stages, topics, partitions, segments, campaigns, closed vocabularies) and never personal.
docs/operations.md explains each one; tests/ops holds the dashboard, the alerts and that page to this list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from schemas.dead_letter import Reason
from schemas.events import EVENT_TYPES
from schemas.types import CAUSES
from stream.runtime.observing import Failure

Outcome = Literal["accepted", "duplicate", "dead_lettered"]
Labels = tuple[str, ...]

UNKNOWN = "unknown"
_FINE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LATENCY = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0)
_SLOW = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0)


@dataclass(frozen=True, slots=True, eq=False)
class Spec:
    """One metric. `values` holds the closed vocabularies of its labels: a counter whose labels all have one
    starts at zero, so that its first increase is a rate and not a series out of nowhere."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: Labels = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()
    owner: Literal["processor", "modeller", "campaigns", "runtime"] = "runtime"
    values: Mapping[str, Labels] = field(default_factory=dict)

    @property
    def samples(self) -> Labels:
        """The names that Prometheus stores, as queries write them."""
        suffixes = ("_bucket", "_sum", "_count") if self.kind == "histogram" else ("",)
        return tuple(self.name + suffix for suffix in suffixes)


EVENTS = Spec(
    "resegment_events_total",
    "counter",
    "Events read, by type and by what became of them; an event whose type cannot be read is of type unknown.",
    ("type", "outcome"),
    owner="processor",
    values={"type": (*EVENT_TYPES, UNKNOWN), "outcome": get_args(Outcome)},
)
DEAD_LETTERS = Spec(
    "resegment_dead_letters_total",
    "counter",
    "Events that could not be used, by reason.",
    ("reason",),
    owner="processor",
    values={"reason": get_args(Reason)},
)
CHANGES = Spec(
    "resegment_segment_changes_total",
    "counter",
    "Segment changes published, by cause.",
    ("cause",),
    owner="processor",
    values={"cause": CAUSES},
)
CHANGE_LATENCY = Spec(
    "resegment_change_latency_seconds",
    "histogram",
    "From the arrival of the event that caused a segment change to the commit of that change.",
    unit="seconds",
    buckets=_LATENCY,
    owner="processor",
)
ANOMALIES = Spec(
    "resegment_anomalies_total",
    "counter",
    "Users put into quarantine (entered) and let out of it (released).",
    ("kind",),
    owner="processor",
    values={"kind": ("entered", "released")},
)
USERS = Spec("resegment_users", "gauge", "Users in the tables of this process.", owner="processor")
QUARANTINED = Spec("resegment_quarantined_users", "gauge", "Users in quarantine now.", owner="processor")
SEGMENT_USERS = Spec(
    "resegment_segment_users",
    "gauge",
    "Users in each segment now, by its lasting id and its present name.",
    ("segment", "name"),
    owner="processor",
)
SWEEP_SECONDS = Spec(
    "resegment_sweep_seconds",
    "histogram",
    "Time of one slice of a sweep, which scores users at the present time without an event.",
    unit="seconds",
    buckets=_SLOW,
    owner="processor",
)
SWEPT_USERS = Spec("resegment_swept_users_total", "counter", "Users scored by sweeps.", owner="processor")

OBSERVATIONS = Spec(
    "resegment_model_observations_total", "counter", "User feature vectors learned from.", owner="modeller"
)
PUBLISHES = Spec(
    "resegment_model_publishes_total",
    "counter",
    "Model versions published, by what asked for them.",
    ("reason",),
    owner="modeller",
)
CANDIDATES = Spec(
    "resegment_model_candidates_total",
    "counter",
    "Candidate versions tried in the shadow, by the ruling: held, or what let them be published.",
    ("ruling",),
    owner="modeller",
)
CANDIDATE_MOVES = Spec(
    "resegment_model_candidate_moves_ratio",
    "gauge",
    "Share of all people whom the last candidate would move, or has moved, by segment.",
    ("source", "target"),
    owner="modeller",
)
BUDGET_LEFT = Spec(
    "resegment_model_budget_left_ratio",
    "gauge",
    "Share of all people whom new versions may still move, after the last candidate.",
    ("stage",),
    owner="modeller",
)
MODEL_VERSION = Spec(
    "resegment_model_version",
    "gauge",
    "Version of the model that the stage scores with, or has published last.",
    ("stage",),
    owner="modeller",
)
MODEL_CREATED = Spec(
    "resegment_model_created_timestamp_seconds",
    "gauge",
    "Event time of the last observation that went into that model: time() minus this is its age.",
    ("stage",),
    unit="seconds",
    owner="modeller",
)
MODEL_SEGMENTS = Spec(
    "resegment_model_segments", "gauge", "Segments of the last published model.", ("stage",), owner="modeller"
)
MODEL_INERTIA = Spec(
    "resegment_model_inertia",
    "gauge",
    "Mean squared scaled distance of the panel to the nearest prototype, at the last publish.",
    ("stage",),
    owner="modeller",
)
MODEL_SILHOUETTE = Spec(
    "resegment_model_silhouette",
    "gauge",
    "Silhouette of the panel under the last published model, -1 to 1.",
    ("stage",),
    owner="modeller",
)

ACTIONS = Spec(
    "resegment_campaign_actions_total",
    "counter",
    "Actions that campaigns decided on.",
    ("campaign",),
    owner="campaigns",
)
HELD = Spec(
    "resegment_campaign_held_total",
    "counter",
    "Actions that a gate (a cap, say) held back.",
    ("campaign", "gate"),
    owner="campaigns",
)
DELIVERIES = Spec(
    "resegment_deliveries_total",
    "counter",
    "Actions whose delivery ended: delivered, failed for good, or cancelled.",
    ("campaign", "status"),
    owner="campaigns",
)
PENDING = Spec(
    "resegment_deliveries_pending", "gauge", "Actions in the outbox, not delivered yet.", ("stage",), owner="campaigns"
)
ATTEMPTS = Spec(
    "resegment_webhook_attempts_total",
    "counter",
    "Webhook requests by result: 2xx, 3xx, 4xx, 5xx, timeout or connection.",
    ("campaign", "result"),
    owner="campaigns",
)
ATTEMPT_SECONDS = Spec(
    "resegment_webhook_attempt_seconds",
    "histogram",
    "Time of one webhook request.",
    unit="seconds",
    buckets=_SLOW,
    owner="campaigns",
)

RECORDS = Spec("resegment_records_total", "counter", "Records given to the stage.", ("stage",))
UNREADABLE = Spec(
    "resegment_unreadable_records_total",
    "counter",
    "Records of our own topics that a stage could not read and skipped; events go to the dead letters instead.",
    ("stage",),
)
BATCH_SECONDS = Spec(
    "resegment_batch_seconds", "histogram", "Time of one call of the stage on a batch.", ("stage",), "seconds", _FINE
)
COMMIT_SECONDS = Spec(
    "resegment_commit_seconds",
    "histogram",
    "Time of one atomic commit of outputs, state and offsets; its count is the number of commits.",
    ("stage",),
    "seconds",
    _FINE,
)
EVENT_LATENCY = Spec(
    "resegment_event_latency_seconds",
    "histogram",
    "From the arrival of a record to the commit of what it caused.",
    ("stage",),
    "seconds",
    _LATENCY,
)
FAILURES = Spec(
    "resegment_failures_total",
    "counter",
    "Sessions that ended in a failure and started over: fenced (a commit refused or in doubt), unavailable (the broker "
    "or the disk does not answer), error (anything else).",
    ("stage", "kind"),
    values={"kind": get_args(Failure)},
)
LAG = Spec(
    "resegment_consumer_lag_records",
    "gauge",
    "Records behind the end of each assigned partition.",
    ("stage", "topic", "partition"),
)
ASSIGNED = Spec("resegment_assigned_partitions", "gauge", "Input partitions that this process owns.", ("stage",))
REBALANCES = Spec("resegment_rebalances_total", "counter", "Changes of the assignment.", ("stage",))
RESTORE_SECONDS = Spec(
    "resegment_restore_seconds",
    "histogram",
    "Time to restore the state of one partition.",
    ("stage",),
    "seconds",
    _SLOW,
)
STATE_BYTES = Spec("resegment_state_bytes", "gauge", "Memory that the stage's state takes.", ("stage",), "bytes")
STATE_WRITTEN = Spec(
    "resegment_state_written_bytes_total", "counter", "Bytes of state written to the changelog.", ("stage",), "bytes"
)
HEARTBEAT = Spec(
    "resegment_loop_heartbeat_age_seconds",
    "gauge",
    "Time since the stage's loop last came round; liveness fails when it is too long.",
    ("stage",),
    "seconds",
)
READY = Spec("resegment_stage_ready", "gauge", "1 when the stage is restored, connected and polling.", ("stage",))
BUILD = Spec(
    "resegment_build_info",
    "gauge",
    "Always 1; the labels are the version, and whether events are read with the compiled kernels.",
    ("version", "kernels"),
)

SPECS: tuple[Spec, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Spec))
"""Every metric, in the order of exposition."""
