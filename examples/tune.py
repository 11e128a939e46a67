"""Quality from judgments: upload a test set, measure the collection as it stands, and tune its ranking.

The ranking that answers the judged queries best is chosen by cross-validation (docs/tuning.md) and kept only where it
is better beyond the noise. Usage: tune.py COLLECTION FOLDER, with queries.jsonl and qrels/test.tsv in BEIR layout.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx

collection, folder = sys.argv[1], Path(sys.argv[2])
address = os.environ.get("AZIMUTH_URL", "http://127.0.0.1:8000")

queries = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
with (folder / "qrels" / "test.tsv").open() as file:
    qrels = [row | {"score": int(row["score"])} for row in csv.DictReader(file, delimiter="\t")]

with httpx.Client(base_url=f"{address}/v1/collections/{collection}", timeout=900) as client:
    stored = client.post("/judgments", json={"queries": queries, "qrels": qrels}).raise_for_status().json()
    print(f"{stored['queries']} queries with {stored['judgments']} judgments")
    measured = client.post("/evaluate", json={"modes": ["dense", "lexical", "hybrid"]}).raise_for_status().json()
    for mode, figures in measured["modes"].items():
        print(f"{mode:8} nDCG@10 {figures['ndcg_at_10']:.3f}  recall@100 {figures['recall_at_100']:.3f}")

# Tuning is a command; --dry-run would only say what it found.
tune = [sys.executable, "-m", "service", "tune", "-c", collection, "--url", address]
print(subprocess.run(tune, capture_output=True, text=True, check=True).stdout)
