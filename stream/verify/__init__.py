"""Checks what a deployment has published against the invariants that it promises (docs/reliability.md)."""

from stream.verify.deployment import verify
from stream.verify.report import Finding, Report

__all__ = ["Finding", "Report", "verify"]
