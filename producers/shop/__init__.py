"""The synthetic shop: people with known personas, bots, and the faults of real pipelines."""

from producers.shop.settings import ScenarioName, ShopSettings
from producers.shop.simulation import Shop, ShopSummary
from producers.shop.truth import Move, Truth, TruthInterval

__all__ = ["Move", "ScenarioName", "Shop", "ShopSettings", "ShopSummary", "Truth", "TruthInterval"]
