"""Campaigns that have much to do: some capped, some not."""

from __future__ import annotations

from stream.campaigns.file import parse_campaigns

CAMPAIGNS = parse_campaigns(
    b"""
campaigns:
  - name: welcome
    when: {enter: newcomer}
    cap: {at_most: 1, per: 365d}
    action: {log: {path: campaigns/welcome.jsonl}}
  - name: back
    when: {enter: active}
    causes: [entered, behaviour, model, inactivity]
    cap: {at_most: 2, per: 7d}
    action: {log: {path: campaigns/back.jsonl}}
  - name: miss-you
    when: {exit: active}
    causes: [inactivity]
    cap: none
    action: {log: {path: campaigns/miss-you.jsonl}}
""",
    "faults",
)
