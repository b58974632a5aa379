"""Chaos with a ledger: `python -m tests.chaos --seed 7 --minutes 5`, or `make chaos SEED=7 MINUTES=5`.

The last line is one JSON object. The exit code is 1 when the promise was broken, 2 when the broker itself lost what it
had acknowledged. A run is repeated by its seed; two runs of one seed differ only in what the machine's speed makes of
the same plan.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import orjson

from tests.chaos.conductor import BrokerLostItError
from tests.chaos.plan import DRAWS, FLOWS, Setup, setup
from tests.chaos.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=7, help="draws the setup and all disturbances (default: 7)")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long to disturb (default: 5)")
    parser.add_argument("--protocol", choices=["classic", "consumer"], help="group protocol, in place of the drawn one")
    parser.add_argument("--flows", choices=sorted(FLOWS), help="set of streams, in place of the drawn one")
    parser.add_argument(
        "--brokers", type=int, default=1, help="nodes of the cluster, one of which is disturbed at a time"
    )
    parser.add_argument("--only", nargs="+", choices=sorted(DRAWS), default=(), metavar="KIND", help="disturb so alone")
    parser.add_argument("--folder", type=Path, help="keep the workers' settings and logs there, whatever happens")
    given = parser.parse_args()
    drawn = setup(given.seed)
    chosen = Setup(given.protocol or drawn.protocol, FLOWS[given.flows] if given.flows else drawn.flows, given.brokers)
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    folder = given.folder or Path(tempfile.mkdtemp(prefix="trackly-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        result = run(given.seed, chosen, secs=given.minutes * 60, only=given.only, folder=folder, tell=tell)
    except BrokerLostItError as error:
        print(f"VOID: {error}; logs are in {folder}")
        return 2
    for problem in result.problems:
        print(f"PROBLEM: {problem}")
    if result.problems:  # what nobody can make happen again is told by the logs alone
        print(f"the workers' settings and logs are in {folder}")
    elif given.folder is None:
        shutil.rmtree(folder)
    print(orjson.dumps(result.summary()).decode())
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
