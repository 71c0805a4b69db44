"""Time of `import merveil`, and of what a user touches first, in fresh processes.

Prints the median and the range over the runs, in seconds, beside an empty process, and one JSON line.
Aim: 0.5 s for `import merveil` with the aggregator, the start of the process included.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

CASES = {
    "empty process": "pass",
    "import merveil": "import merveil",
    "merveil.SecureAggregator": "import merveil; merveil.SecureAggregator",
    "merveil --help": "import merveil.cli; merveil.cli.build_parser(None)",
    "import numpy, for comparison": "import numpy",
}


def seconds(code: str) -> float:
    """Wall time of a fresh Python that runs `code`; raises CalledProcessError if it fails."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7, help="fresh processes for each case (default 7)")
    runs = parser.parse_args().runs
    found = {}
    for name, code in CASES.items():
        seconds(code)  # one run to fill the disk cache
        times = [seconds(code) for _ in range(runs)]
        found[name] = statistics.median(times)
        print(f"{name:30s} {found[name]:.3f} s  [{min(times):.3f}, {max(times):.3f}]")
    print(json.dumps({"median_seconds": found, "runs": runs}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
