"""The HTTP API from Python: write documents, search, read how each hit came by its score, and meet an error.

Needs a running service (`azimuth up`); `AZIMUTH_URL` names another address than http://127.0.0.1:8000.
"""

import os

import httpx

DOCUMENTS = [
    {"id": "heron", "title": "Grey heron", "text": "A tall bird that waits for fish in shallow water."},
    {"id": "otter", "title": "Otter", "text": "It swims after fish in rivers and plays on the bank."},
    {"id": "badger", "title": "Badger", "text": "It digs its sett in woods and comes out at night."},
]

with httpx.Client(base_url=os.environ.get("AZIMUTH_URL", "http://127.0.0.1:8000"), timeout=90) as client:
    collection = "/v1/collections/example-httpx"
    client.put(collection, json={"language": "en"}).raise_for_status()
    client.post(f"{collection}/documents?wait=true", json={"documents": DOCUMENTS}).raise_for_status()

    answer = client.post(f"{collection}/search", json={"query": "who waits for fish", "k": 2, "explain": True}).json()
    print(f"embedder version {answer['embedder_version']}, dense leg: {answer['plan']['dense']}")
    for hit in answer["hits"]:
        legs = {leg: hit["explain"][leg] for leg in ("dense", "lexical")}
        shares = ", ".join(f"{leg} {said['share']:.2f}" if said else f"{leg} -" for leg, said in legs.items())
        print(f"{hit['score']:.2f}  {hit['id']}  ({shares})")

    # One shape for every error; a program looks at `type`.
    refused = client.post(f"{collection}/search", json={"query": "fish", "k": 0})
    problem = refused.json()
    print(f"{refused.status_code} {problem['type']}: {problem['detail']}")

    client.delete(collection, params={"confirm": "example-httpx"}).raise_for_status()
