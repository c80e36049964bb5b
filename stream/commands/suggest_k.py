"""`resegment suggest-k`: how many segments the people fall into. It proposes, and changes nothing."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from producers.source import SourceError
from schemas import topics
from stream.assembly import Deployment
from stream.backtest.subject import FORMATS, open_subject
from stream.commands.common import (
    CommandError,
    configuration,
    input_partitions,
    opened,
    place_options,
    positive,
    print_json,
)
from stream.commands.segments import newest_model
from stream.config import Config, load
from stream.features.layout import EVENTS
from stream.replay import Replay
from stream.report import plain_console
from stream.runtime.changelog import Changelog
from stream.runtime.signals import stop_on_signals
from stream.segments.modeller import Modeller
from stream.segments.population import Population
from stream.segments.processor import Processor
from stream.segments.prototypes import Model
from stream.segments.scaling import Scaler
from stream.segments.suggest import Suggestion, suggest
from stream.transport.base import Transport

FloatArray = NDArray[np.float64]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "suggest-k",
        help="how many segments the people fall into",
        description="Compare numbers of segments on the people whom the modeller observed last, on the scale of the "
        "newest model. Proposes, and changes nothing: set modeller.learner.segments yourself.",
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="a data set, instead of a running deployment's topics")
    parser.add_argument("--format", choices=sorted(FORMATS), help="what the file is")
    parser.add_argument("--from", dest="first", type=positive, default=2, metavar="K", help="default: 2")
    parser.add_argument("--to", dest="last", type=positive, default=12, metavar="K", help="default: 12")
    parser.add_argument("--json", action="store_true", help="print JSON")
    place_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out; exit code 0, or 130 where it was interrupted."""
    if not 2 <= arguments.first <= arguments.last <= 50:
        raise CommandError(
            f"--from {arguments.first} --to {arguments.last}: say from at least 2 up to at most 50, smaller first"
        )
    if (arguments.file is None) != (arguments.format is None):
        raise CommandError("a FILE needs --format, and --format a FILE")
    if arguments.file is not None and (arguments.data_dir is not None or arguments.bootstrap is not None):
        raise CommandError("say either a FILE or where the topics are, not both")
    found = _of_topics(arguments) if arguments.file is None else _of_file(arguments)
    if found is None:
        Console(stderr=True).print("interrupted")
        return 130
    seed, z, origin = found
    try:
        suggestion = suggest(z, range(arguments.first, arguments.last + 1), seed)
    except ValueError as error:
        raise CommandError(str(error)) from None
    if arguments.json:
        print_json({"origin": origin, **asdict(suggestion)})
    else:
        _print(suggestion, origin)
    return 0


def _of_topics(arguments: argparse.Namespace) -> tuple[int, FloatArray, str]:
    """The modeller's panel; where there is none yet, the users themselves."""
    config = configuration(arguments)
    with opened(config) as transport:
        modeller = Modeller([feature for feature in config.features if feature.learn], config.modeller)
        if transport.partitions(topics.MODELLER_STATE):
            modeller.restore(0, Changelog(transport, Modeller.name, topics.MODELLER_STATE).restore(0, {}))
        if len(modeller.panel):
            return config.modeller.learner.seed, _scaled(modeller), "the modeller's panel"
        x = _users(transport, config)
        model = newest_model(transport)
    return config.modeller.learner.seed, _scale(x, config, model), "all users"


def _of_file(arguments: argparse.Namespace) -> tuple[int, FloatArray, str] | None:
    """The panel at the end of a replay."""
    try:
        source = open_subject(arguments.format, arguments.file).source
        with tempfile.TemporaryDirectory(prefix="resegment-suggest-k-") as temporary, stop_on_signals() as stop:
            place = {"transport.kind": "embedded", "transport.data_dir": Path(temporary) / "data"}
            config = load(arguments.config, place)
            with Replay(config, source) as replay:
                if not replay.run(lambda _: not stop.is_set()):
                    return None
                z = _scaled(_modeller(replay.deployment))
    except SourceError as error:
        raise CommandError(str(error)) from None
    return config.modeller.learner.seed, z, f"the modeller's panel at the end of {arguments.file}"


def _modeller(deployment: Deployment) -> Modeller:
    stage = deployment.stages[Modeller.name]
    assert isinstance(stage, Modeller)
    return stage


def _scaled(modeller: Modeller) -> FloatArray:
    """The panel on the published scale, or, before there is one, on its own."""
    panel, model = modeller.panel, modeller.model
    names = tuple(feature.name for feature in modeller.features)
    if model is not None and model.features == names:
        return model.scale(panel.features)
    if not len(panel):
        raise CommandError("nobody has been observed yet: it takes some hundred users with a few events each")
    scaler = Scaler.fit(panel.features, modeller.features, panel.weight)
    return scaler.transform(panel.features)


def _users(transport: Transport, config: Config) -> FloatArray:
    """(m, F) the learned features of every user with enough events, as the processors saw them last."""
    layout = config.layout()
    learned = [name for name, feature in zip(layout.names, layout.features, strict=True) if feature.learn]
    columns = np.array([layout.names.index(name) for name in learned], np.intp)
    found = [np.zeros((0, len(columns)))]
    for partition in range(input_partitions(transport, config)):
        population = Population(partition, layout)
        population.restore(Changelog(transport, Processor.name, topics.USER_STATE).restore(partition, {}))
        enough = population.table.column(EVENTS)[: len(population)] >= config.decision.newcomer_events
        rows = np.flatnonzero(enough)
        rows = rows[~population.held(rows)]
        if len(rows):
            found.append(population.table.features(rows, population.now())[:, columns])
    return np.concatenate(found)


def _scale(x: FloatArray, config: Config, model: Model | None) -> FloatArray:
    if not len(x):
        raise CommandError("nobody has been seen yet: it takes some hundred users with a few events each")
    learned = [feature for feature in config.features if feature.learn]
    if model is not None and model.features == tuple(feature.name for feature in learned):
        return model.scale(x)
    return Scaler.fit(x, learned).transform(x)


def _print(suggestion: Suggestion, origin: str) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("segments", "silhouette", "gap", "stability", "support"):
        table.add_column(heading, justify="right")
    for score in suggestion.scores:
        cells = [
            str(score.k),
            f"{score.silhouette:.3f}",
            f"{score.gap:.3f} ±{score.gap_error:.3f}",
            f"{score.stability:.3f}",
            f"{score.support:.0%}",
        ]
        table.add_row(*cells, style="bold" if score.k == suggestion.k else "")
    console = plain_console()
    console.print(f"{suggestion.rows:,} people: {origin}", highlight=False)
    console.print(table)
    console.print(f"Suggested: {suggestion.reason}.", highlight=False)
    console.print(
        f"Certainty: {suggestion.certainty}. Nothing was changed; to apply it, set "
        rf"segments = {suggestion.k} under \[modeller.learner].",
        highlight=False,
    )
