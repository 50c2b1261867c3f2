"""An outer step of data reweighting, one inner step each, against Betty and by hand.

1000 outer steps of Meta-Weight-Net on noisy digits (`_bilevel_problems`), float32: by DARTS' difference, as in Betty's
example, and by exact differentiation of the step. By hand is the same computation as one compiled JAX program without
a library: `by_hand` shares forward passes between the two losses, `plainly` takes a gradient wherever the formula has
one, which is all that a library given two losses can do. The figures of the line are those
of DARTS with a net 64-128-10 and batches of 100, where arithmetic decides; with 64-32-10 and batches of 50 it is
Betty's cost of a call. Everyone has one thread; `+threads` is JAX with a pool of them, `+lean` trades some speed for
half the memory of compilation. A run is what a user waits for, `graph.run` to its end; the floor is the bare program.
"""

import argparse
import json

from _levels_peers import compared, missing

STEPS = {"outer_steps": 1000}
LIBRARIES = ["nestor", "by_hand", "plainly", "betty", "hypertorch", "torchopt"]
OTHERWISE = ["nestor+threads", "by_hand+threads", "nestor+lean"]  # see `_levels_peers.SETTINGS`


def main() -> None:
    """All in turns; the line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    darts = compared(LIBRARIES[:-1] + OTHERWISE, "reweighting", rounds=rounds, hypergradient="darts", **STEPS)
    exact = compared(LIBRARIES, "reweighting", rounds=rounds, hypergradient="unroll", **STEPS)
    small = compared(
        LIBRARIES[:4], "reweighting", rounds=rounds, hypergradient="darts", hidden=32, batch=50, **STEPS
    )
    peer = "betty" if missing("betty") is None else "by_hand"
    line = {
        "claim": "an outer step of reweighting at least 8 times cheaper than Betty's, 1.3 times by hand at most",
        "ours": darts["nestor"]["cpu_ms"],
        "peer": darts[peer]["cpu_ms"],
        "peer_is": peer,
        "ratio": round(1 / darts[peer]["times_nestor"], 4),
        "unit": "CPU ms an outer step",
        "over_by_hand": {
            "darts": round(1 / darts["by_hand"]["times_nestor"], 3),
            "unroll": round(1 / exact["by_hand"]["times_nestor"], 3),
        },
        "over_plainly": {
            "darts": round(1 / darts["plainly"]["times_nestor"], 3),
            "unroll": round(1 / exact["plainly"]["times_nestor"], 3),
        },
        "times_ours": {
            "darts, 64-32-10, batches of 50": {"betty": small["betty"].get("times_nestor")},
            "darts": {name: darts[name].get("times_nestor") for name in LIBRARIES[3:-1]},
            "unroll": {name: exact[name].get("times_nestor") for name in LIBRARIES[3:]},
        },
        "whole_process_mb": {name: found.get("whole_mb") for name, found in darts.items()},
        "rounds": rounds,
        "darts": darts,
        "darts, 64-32-10, batches of 50": small,
        "unroll": exact,
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
