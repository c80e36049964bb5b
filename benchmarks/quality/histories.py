"""Real histories, where they are present: segments against k-means refitted and RFM, by what people did next."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

from producers.readers import open_source
from stream.backtest.backtest import Backtest, Result
from stream.backtest.history import scan
from stream.backtest.plan import make_plan
from stream.config import load

FILES: Final = {"online_retail": "online_retail.csv.gz", "cdnow": "cdnow.txt.gz", "taobao": "taobao.csv.gz"}
"""By format; in the folder that RESEGMENT_DATA names."""


def folder() -> Path | None:
    """Where they are, if anybody said so."""
    named = os.environ.get("RESEGMENT_DATA")
    return Path(named) if named else None


def run(format: str, path: Path) -> Result:
    """A backtest as `resegment backtest` makes it."""
    source = open_source(format, path)
    with tempfile.TemporaryDirectory(prefix="resegment-quality-") as directory:
        config = load(
            None,
            {
                "transport.kind": "embedded",
                "transport.data_dir": Path(directory) / "data",
                "transport.embedded.synchronous": "normal",
            },
        )
        history = scan(source, config.ingest)
        return Backtest(config, source, history, make_plan(history.start, history.end)).run()
