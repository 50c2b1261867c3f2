"""An outer step of two levels, logistic regression with one strength a feature, against peers and by hand.

100 outer steps, each of 100 inner steps of gradient descent and a hypergradient by 20 steps of CG, float32
(`_bilevel_problems`). The peer of the line is Betty with its CG replaced by a right one (as it is, it costs the same
and arrives elsewhere); by hand is the same computation as one compiled JAX program without a library, the floor. Betty
and hypertorch are left out where they are not installed (see README.md), and TorchOpt is the peer then. A run is what a
user waits for, `graph.run` to its end; the floor is the bare program.
"""

import argparse
import json

from _levels_peers import compared, missing

LIBRARIES = ["nestor", "by_hand", "betty_mended", "hypertorch", "torchopt"]


def main() -> None:
    """All in turns; the line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    seen = compared(LIBRARIES, "logistic", rounds=rounds)
    peer = next(name for name in LIBRARIES[2:] if missing(name) is None or name == LIBRARIES[-1])
    line = {
        "claim": "an outer step 50 times cheaper than Betty's, 30 times than hypertorch's, 1.3 times by hand at most",
        "ours": seen["nestor"]["cpu_ms"],
        "peer": seen[peer]["cpu_ms"],
        "peer_is": peer,
        "ratio": round(1 / seen[peer]["times_nestor"], 5),
        "unit": "CPU ms an outer step",
        "over_by_hand": round(1 / seen["by_hand"]["times_nestor"], 3),
        "times_ours": {name: seen[name].get("times_nestor") for name in LIBRARIES[2:]},
        "rounds": rounds,
        "all": seen,
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
