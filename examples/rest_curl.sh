#!/usr/bin/env bash
# The HTTP API from a shell: make a collection, write documents, search, filter, delete.
# Needs a running service (`azimuth up`) and curl.
set -euo pipefail
url="${AZIMUTH_URL:-http://127.0.0.1:8000}/v1/collections/example-curl"
json=(-H 'Content-Type: application/json')
[ -z "${AZIMUTH_API_KEY:-}" ] || json+=(-H "Authorization: Bearer $AZIMUTH_API_KEY")

curl -fsS "${json[@]}" -X PUT "$url" -d '{"language": "en"}' >/dev/null

# `wait=true`: answer when both legs find the documents
curl -fsS "${json[@]}" "$url/documents?wait=true" -d '{"documents": [
  {"id": "heron",  "title": "Grey heron",  "text": "A tall bird that waits for fish in shallow water.", "metadata": {"legs": 2}},
  {"id": "otter",  "title": "Otter",       "text": "It swims after fish in rivers and plays on the bank.", "metadata": {"legs": 4}},
  {"id": "badger", "title": "Badger",      "text": "It digs its sett in woods and comes out at night.", "metadata": {"legs": 4}}]}'
echo

echo "A search in both legs:"
curl -fsS "${json[@]}" "$url/search" -d '{"query": "who waits for fish", "k": 2, "include": ["metadata"]}'
echo

echo "The same under a filter:"
curl -fsS "${json[@]}" "$url/search" -d '{"query": "who waits for fish", "filter": {"legs": {"$gt": 2}}, "k": 1, "include": []}'
echo

curl -fsS "${json[@]}" -X DELETE "$url?confirm=example-curl"
