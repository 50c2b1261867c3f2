"""What the benchmarks of the wing `search` share."""

import json
import sys


def optuna_or_exit():
    """Optuna without its chatter; a word on how to get it where it is missing."""
    try:
        import optuna
    except ImportError:
        sys.exit("This benchmark compares with Optuna.\nDo this: pip install 'optuna>=5,<6'")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def as_line(claim, ours, peer, **more):
    """Print the one line of a benchmark."""
    line = {
        "claim": claim,
        "ours": round(ours, 9),
        "peer": round(peer, 9),
        "ratio": round(ours / peer, 5),
        **more,
    }
    print(json.dumps(line), flush=True)
