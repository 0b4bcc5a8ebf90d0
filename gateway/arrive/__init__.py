"""The doors for what comes in; `reception.py` is the one funnel behind them."""
