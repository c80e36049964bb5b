"""A way back where a stage's state is lost (docs/reliability.md, 'A lost changelog')."""

from stream.rebuild.stages import STAGES, Rebuilt, adopt_offsets, rebuild

__all__ = ["STAGES", "Rebuilt", "adopt_offsets", "rebuild"]
