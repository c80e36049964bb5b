"""Backtests: history through the live code, judged at checkpoints beside baselines on the same features."""
