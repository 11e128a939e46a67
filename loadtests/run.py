"""All benchmarks, one after the other: `make bench`. Some forty minutes on two cores; `--quick`: eight.

Each has a process of its own and can be run alone (`python -m loadtests.search_100k --help`).
"""

import argparse
import subprocess
import sys

WHOLE: dict[str, list[str]] = {
    "encode": [],
    "exact_threshold": [],
    "search_100k": [],
    "filters": [],
    "plan_costs": [],
    "recall": ["--pairs", "10"],
    "batch": [],
    "ingest": [],
    "storages": [],
    "live_latency": [],
    "promotion": [],
    "backfill": ["--documents", "20000"],
}
QUICK: dict[str, list[str]] = {
    "encode": ["--count", "60"],
    "exact_threshold": ["--sizes", "1000", "5000", "--queries", "50"],
    "search_100k": ["--documents", "10000", "--rounds", "1"],
    "filters": ["--documents", "12000", "--queries", "4", "--rounds", "1"],
    "plan_costs": ["--documents", "12000", "--queries", "3"],
    "recall": ["--documents", "10000", "--queries", "100", "--looks", "100", "--passing", "80", "--pairs", "1"],
    "batch": ["--documents", "1000", "--size", "16"],
    "ingest": ["--documents", "100", "--rounds", "1"],
    "storages": ["--documents", "1000"],
    "live_latency": ["--documents", "200", "--writes", "5", "--rounds", "1"],
    "promotion": ["--documents", "1000", "--in-flight", "50", "--calm", "3"],
    "backfill": ["--documents", "1000"],
}
LONGEST_SECONDS = 1_800


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--quick", action="store_true", help="small sizes: whether it runs, not how fast")
    chosen = arguments.parse_args()
    failed = []
    for name, options in (QUICK if chosen.quick else WHOLE).items():
        print(f"\n{'=' * 20} {name} {'=' * 20}", flush=True)
        try:
            subprocess.run([sys.executable, "-m", f"loadtests.{name}", *options], check=True, timeout=LONGEST_SECONDS)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(error)
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
