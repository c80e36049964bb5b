"""What a campaign is, and which campaigns a segment change fires.

Invariant: whether a change fires a campaign follows from the two alone (no clock, no state); caps and whatever else may
hold an action back are gates of the worker, after this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AnyHttpUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from schemas.change import SegmentChange, SegmentRef
from schemas.types import Cause
from stream.durations import Duration

STRICT = ConfigDict(frozen=True, extra="forbid")

Trigger = Literal["enter", "exit", "transition"]

NO_SEGMENT = "none"
ANY_SEGMENT = "*"
NOT = "not "
RULE_PREFIX = "rule:"
ID_PREFIXES = ("seg-", RULE_PREFIX)
"""Of the ids of learned segments and of rule segments; no name begins so."""
MAX_PARAMETER_BYTES = 16_384
"""The specification asks for webhooks below 20 KB; what is bigger belongs behind a link."""

DAY_MS = 86_400_000


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Selector = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""A segment's id, or its name in any case, with * and ? as wildcards in both ("seg-*": any learned segment, "rule:*":
any rule segment). "*" is any segment, "none" is no segment, and "not x" takes x out."""

Selectors = Annotated[tuple[Selector, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
"""One selector or a list of them: one that matches is enough (any segment where all begin with "not "), and none of
those with "not " may match."""


class Transition(BaseModel):
    """From one segment to another; both sides must match."""

    model_config = STRICT

    from_: Selectors = Field(alias="from")
    to: Selectors


class When(BaseModel):
    """The trigger: exactly one of the three."""

    model_config = STRICT

    enter: Selectors | None = None
    exit: Selectors | None = None
    transition: Transition | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in ("enter", "exit", "transition") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"write exactly one of enter, exit, transition; found {' and '.join(given) or 'none'}")
        return self

    @property
    def trigger(self) -> Trigger:
        """Which of the three it is."""
        return "enter" if self.enter else "exit" if self.exit else "transition"

    def matches(self, left: SegmentRef | None, entered: SegmentRef | None) -> bool:
        """Whether leaving `left` for `entered` is what this waits for.

        A rule segment is entered from nothing and left for nothing: that says nothing about learned segments, so `none`
        never means the empty side of such a change.
        """
        ruled = any(one is not None and one.id.startswith(RULE_PREFIX) for one in (left, entered))

        def means(selectors: tuple[str, ...], segment: SegmentRef | None) -> bool:
            return not (ruled and segment is None) and selects(selectors, segment)

        if self.enter is not None:
            return means(self.enter, entered)
        if self.exit is not None:
            return means(self.exit, left)
        assert self.transition is not None
        return means(self.transition.from_, left) and means(self.transition.to, entered)


class Cap(BaseModel):
    """At most so many actions of this campaign for one user within any stretch of `per`."""

    model_config = STRICT

    at_most: int = Field(default=1, ge=1, le=1_000)
    per: Duration = Field(gt=0)


class LogSink(BaseModel):
    """Append one JSON line an action to a file; a relative path stands below the data directory."""

    model_config = STRICT

    path: str = Field(min_length=1, max_length=4_096)

    @property
    def target(self) -> str:
        """The file."""
        return self.path

    @field_validator("path")
    @classmethod
    def _names_a_file(cls, path: str) -> str:
        if path.endswith("/") or "\0" in path:
            raise ValueError(f"{path!r} is no name of a file")
        return path


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWN_HEADERS = frozenset({"content-type", "content-length", "host", "transfer-encoding", "connection", "user-agent"})
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"})


class WebhookSink(BaseModel):
    """POST the action as JSON, signed as Standard Webhooks says.

    `secret_env` names the environment variable that holds the secret; `headers` may use variables as ${NAME}.
    """

    model_config = STRICT

    url: str
    secret_env: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    timeout: Duration = Field(default=10_000, ge=100, le=30_000)
    max_attempts: int = Field(default=15, ge=1, le=100, description="15 span about two days with the default backoff")

    @property
    def target(self) -> str:
        """The URL."""
        return self.url

    @field_validator("url")
    @classmethod
    def _usable(cls, url: str) -> str:
        try:
            parsed = TypeAdapter(AnyHttpUrl).validate_python(url)
        except ValidationError as error:
            raise ValueError(f"{url!r} is no http or https URL ({error.errors()[0]['msg']})") from None
        if parsed.username or parsed.password:
            raise ValueError("a URL holds no password; use a header with ${NAME} of an environment variable")
        if parsed.fragment is not None:
            raise ValueError("a URL to post to has no '#' part")
        return url

    @field_validator("secret_env")
    @classmethod
    def _names_a_variable(cls, name: str | None) -> str | None:
        if name is not None and (name.startswith("whsec_") or not _ENV_NAME.fullmatch(name)):
            raise ValueError("write the name of an environment variable, never the secret itself")
        return name

    @field_validator("headers")
    @classmethod
    def _sendable(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            low = name.lower()
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a header")
            if low in _OWN_HEADERS or low.startswith("webhook-"):
                raise ValueError(f"{name} is set by the sender itself")
            if not value.isprintable():
                raise ValueError(f"the value of {name} has a control character")
            if low in _SECRET_HEADERS and "${" not in value:
                raise ValueError(f"{name} is a secret: keep it in an environment variable and write ${{NAME}} here")
        return headers


class Action(BaseModel):
    """Where an action goes: exactly one sink."""

    model_config = STRICT

    log: LogSink | None = None
    webhook: WebhookSink | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.log is None) == (self.webhook is None):
            raise ValueError("write exactly one of log, webhook")
        return self

    @property
    def name(self) -> Literal["log", "webhook"]:
        """Of the sink."""
        return "log" if self.log is not None else "webhook"

    @property
    def sink(self) -> LogSink | WebhookSink:
        """The one that is given."""
        sink = self.log or self.webhook
        assert sink is not None
        return sink


def _no_cap(value: object) -> object:
    return None if value == "none" or value is False else value


class Campaign(BaseModel):
    """One campaign, as a marketer writes it. docs/campaigns.md explains every key."""

    model_config = STRICT

    name: str = Field(min_length=1, max_length=64)
    enabled: bool = True
    when: When
    causes: Annotated[tuple[Cause, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = ("entered", "behaviour")
    min_confidence: float = Field(default=0.0, ge=0, le=1)
    cap: Annotated[Cap | None, BeforeValidator(_no_cap)] = Cap(at_most=1, per=DAY_MS)
    action: Action
    parameters: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not name.isprintable() or name != name.strip():
            raise ValueError("a name is printable and has no space at its ends")
        return name

    @field_validator("parameters")
    @classmethod
    def _sendable(cls, parameters: dict[str, JsonValue]) -> dict[str, JsonValue]:
        try:
            size = len(json.dumps(parameters, allow_nan=False, ensure_ascii=False).encode())
        except ValueError as error:
            raise ValueError(f"no JSON can be made of it: {error}") from None
        if size > MAX_PARAMETER_BYTES:
            raise ValueError(f"{size} bytes, at most {MAX_PARAMETER_BYTES} are sent along")
        return parameters

    def fires_on(self, change: SegmentChange) -> bool:
        """Whether this change is one that the campaign waits for."""
        return (
            self.enabled
            and change.cause in self.causes
            and change.confidence >= self.min_confidence
            and self.when.matches(change.from_, change.to)
        )


def selects(selectors: tuple[str, ...], segment: SegmentRef | None) -> bool:
    """Whether `selectors` mean this segment (None: no segment)."""
    out = [selector.removeprefix(NOT) for selector in selectors if selector.startswith(NOT)]
    wanted = [selector for selector in selectors if not selector.startswith(NOT)] or [ANY_SEGMENT]
    return any(_selects(one, segment) for one in wanted) and not any(_selects(one, segment) for one in out)


def _selects(selector: str, segment: SegmentRef | None) -> bool:
    if segment is None:
        return selector == NO_SEGMENT
    if selector in (ANY_SEGMENT, segment.id):
        return True
    text = segment.id if selector.startswith(ID_PREFIXES) else segment.name
    return text is not None and _pattern(selector).fullmatch(text.casefold()) is not None


@lru_cache(maxsize=4_096)
def _pattern(selector: str) -> re.Pattern[str]:
    # Not fnmatch: there a bracket in a segment's name would be a set of letters.
    wild = re.escape(selector.casefold()).replace(r"\*", ".*").replace(r"\?", ".")
    return re.compile(wild, re.DOTALL)


class Campaigns:
    """The campaigns of one file, in its order.

    `match` answers from a table of the segment pairs seen so far: changes are many, pairs are few.
    """

    _MAX_PAIRS = 65_536

    def __init__(self, campaigns: Iterable[Campaign] = (), source: str = "") -> None:
        self.source = source
        self._by_name = {campaign.name: campaign for campaign in campaigns}
        self._by_pair: dict[tuple[Any, ...], tuple[Campaign, ...]] = {}

    def __iter__(self) -> Iterator[Campaign]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> Campaign | None:
        """The campaign of that name, also where it is switched off."""
        return self._by_name.get(name)

    def match(self, change: SegmentChange) -> list[Campaign]:
        """Every campaign that this change fires, in the file's order."""
        left, entered = change.from_, change.to
        pair = (left and (left.id, left.name), entered and (entered.id, entered.name), change.cause)
        found = self._by_pair.get(pair)
        if found is None:
            if len(self._by_pair) >= self._MAX_PAIRS:
                self._by_pair.clear()
            certain = change.model_copy(update={"confidence": 1.0})
            found = self._by_pair[pair] = tuple(c for c in self if c.fires_on(certain))
        return [campaign for campaign in found if change.confidence >= campaign.min_confidence]
