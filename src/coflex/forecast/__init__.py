"""Forecasts: series in, quantiles out; every method proves itself in a rolling backtest first."""

from coflex.forecast.backtest import Accuracy, forecast
from coflex.forecast.methods import METHODS, predict

__all__ = ["METHODS", "Accuracy", "forecast", "predict"]
