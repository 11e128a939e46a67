"""Another embedder for a live collection: register a version, wait until it is verified, promote it, go back.

Searches and writes go on all the while. Needs a running service that allows the model (`AZIMUTH_MODELS`); `AZIMUTH_URL`
names its address. Usage: reindex.py COLLECTION MODEL
"""

import os
import sys
import time

import httpx

collection, model = sys.argv[1:]
with httpx.Client(base_url=os.environ.get("AZIMUTH_URL", "http://127.0.0.1:8000"), timeout=90) as client:
    versions = f"/v1/collections/{collection}/versions"
    new = client.post(versions, json={"embedder": model, "note": "an example"}).raise_for_status().json()
    print(f"version {new['number']} is registered")
    while new["state"] not in ("ready", "failed"):
        time.sleep(0.5)
        new = client.get(f"{versions}/{new['number']}").raise_for_status().json()
    for check in new["checks"]:
        verdict = {True: "passed", False: "FAILED", None: "for information"}[check["passed"]]
        print(f"{check['name']:10} {verdict:16} {check['detail']}")

    promoted = client.post(f"{versions}/{new['number']}/promote", json={"note": "the evidence is good"})
    if promoted.status_code == 409:  # the evidence speaks against it; nothing has changed
        sys.exit(promoted.json()["detail"])
    print(f"version {promoted.raise_for_status().json()['number']} answers from now on")

    back = client.post(f"{versions}/rollback", json={"from": new["number"], "note": "only an example"})
    print(f"version {back.raise_for_status().json()['number']} answers again")
    client.delete(f"{versions}/{new['number']}").raise_for_status()
