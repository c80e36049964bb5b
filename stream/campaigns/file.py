"""The campaign file: YAML in, validated campaigns out, or one clear line for each thing that is wrong.

Invariant: a file is used whole or not at all; every complaint names the file, the line, the campaign and the key.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from stream.campaigns.rules import Campaign, Campaigns


class CampaignError(ValueError):
    """The campaigns cannot be used. `problems` holds one line each; the message is all of them."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class CampaignFile(BaseModel):
    """The whole file: a list of campaigns under one key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    campaigns: list[Campaign] = Field(default_factory=list)


def load_campaigns(path: Path | str) -> Campaigns:
    """Read and validate a campaign file. Raises CampaignError."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CampaignError([f"{path}: the campaign file cannot be read: {error.strerror or error}"]) from None
    return parse_campaigns(data, str(path))


def parse_campaigns(data: bytes, source: str) -> Campaigns:
    """The same for the content of a file; `source` is what the messages call it."""
    root, value = _load_yaml(data, source)
    try:
        file = CampaignFile.model_validate(value)
    except ValidationError as error:
        found = sorted(error.errors(include_url=False), key=lambda e: _line_number(root, e["loc"]))
        raise CampaignError([_line(e, root, value, source) for e in found]) from None
    if clashes := list(_clashes(file.campaigns, root, source)):
        raise CampaignError(clashes)
    return Campaigns(file.campaigns, source)


def _load_yaml(data: bytes, source: str) -> tuple[yaml.Node | None, object]:
    """The node tree, which knows its lines, and the plain value made from it by the safe loader."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CampaignError([f"{source}:{line}: not UTF-8 text"]) from None
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                raise CampaignError([f"{source}: the file is empty; write 'campaigns:' and a list below it"])
            _check_keys(root, source)
            return root, loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise CampaignError([f"{place}: not valid YAML: {error.problem or error.context}"]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise CampaignError([f"{source}:{line}: not valid YAML: a character that no text has"]) from None
    except (RecursionError, ValueError) as error:
        if isinstance(error, CampaignError):
            raise
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise CampaignError([f"{source}: not valid YAML: {reason}"]) from None


def _check_keys(root: yaml.Node, source: str) -> None:
    """Keys are texts and stand once. Of two equal ones a YAML loader takes the last without a word; `on` means true."""
    seen: set[int] = set()
    problems: list[tuple[int, str]] = []
    queue = [root]
    while queue:
        node = queue.pop()
        if id(node) in seen:  # an alias, perhaps of itself
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            queue.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            first: dict[str, int] = {}
            for key, child in node.value:
                queue.append(child)
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode):
                    problems.append((line, "a list, or keys and values, cannot be a key"))
                elif key.tag == "tag:yaml.org,2002:str":
                    if key.value in first:
                        before = first[key.value]
                        problems.append((line, f"key '{key.value}' stands here again, it stood on line {before}"))
                    first.setdefault(key.value, line)
                elif key.tag != "tag:yaml.org,2002:merge":
                    problems.append((line, f"key '{key.value}' is no text to YAML; write it in quotes"))
    if problems:
        raise CampaignError([f"{source}:{line}: {problem}" for line, problem in sorted(problems)])


def _clashes(campaigns: Sequence[Campaign], root: yaml.Node | None, source: str) -> Iterator[str]:
    first: dict[str, int] = {}
    for index, campaign in enumerate(campaigns):
        line = _line_number(root, ("campaigns", index, "name"))
        known = first.setdefault(campaign.name.casefold(), line)
        if known != line:
            yield f"{source}:{line}: campaign '{campaign.name}': name: already taken by the campaign on line {known}"


def _line(error: ErrorDetails, root: yaml.Node | None, value: object, source: str) -> str:
    loc = error["loc"]
    place = f"{source}:{_line_number(root, loc)}"
    parts, path = [place], loc
    if len(loc) >= 2 and loc[0] == "campaigns" and isinstance(loc[1], int):
        parts.append(f"campaign {_campaign_label(value, loc[1])}")
        path = loc[2:]
    if path:
        parts.append(_path(path))
    return ": ".join([*parts, _message(error)])


def _campaign_label(value: object, index: int) -> str:
    try:
        name = value["campaigns"][index]["name"]  # type: ignore[index]
    except (KeyError, TypeError, IndexError):
        name = None
    return f"'{name}'" if isinstance(name, str) else f"number {index + 1}"


def _path(loc: Sequence[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def _message(error: ErrorDetails) -> str:
    kind, loc = error["type"], error["loc"]
    if kind == "extra_forbidden":
        known = _known_keys(loc[:-1])
        near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
        return f"unknown key; did you mean '{near[0]}'?" if near else f"unknown key; known are {', '.join(known)}"
    if kind == "missing":
        return "this key is required"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        known = _known_keys(loc)
        return f"write keys and values here ({', '.join(known)})" if known else "write keys and values here"
    if kind == "list_type":
        return "write a list here, each entry begins with '- '"
    if kind in ("string_type", "invalid-json-value"):
        return f"write text here, in quotes; YAML reads what stands here as {_yaml_type(error['input'])}"
    if kind == "tuple_type":
        return f"write a text or a list of texts here; YAML reads what stands here as {_yaml_type(error['input'])}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if kind == "literal_error":
        expected = [word.strip("'") for word in error["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        near = difflib.get_close_matches(str(error["input"]), expected, n=1, cutoff=0.5)
        return f"{message}; did you mean '{near[0]}'?" if near else message
    return message


def _yaml_type(value: object) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", type(None): "nothing", list: "a list"}
    return names.get(type(value), "keys and values" if isinstance(value, dict) else f"a {type(value).__name__}")


def _known_keys(loc: Sequence[int | str]) -> list[str]:
    """The keys that the model at this place of the file has."""
    model: type[BaseModel] = CampaignFile
    for part in loc:
        if isinstance(part, int):
            continue
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        inner = None if field is None else _model_in(field.annotation)
        if inner is None:
            return []
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, typing.get_args(annotation))), None)


def _line_number(root: yaml.Node | None, loc: Sequence[int | str]) -> int:
    """Of the place that a pydantic location means, or of the nearest one above it that stands in the file."""
    node, line = root, root.start_mark.line if root else 0
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            # From the end: what a merge key (<<) brought in stands before the mapping's own keys.
            pair = next((p for p in reversed(node.value) if getattr(p[0], "value", None) == part), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
    return line + 1
