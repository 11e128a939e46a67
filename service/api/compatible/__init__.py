"""The surfaces of other APIs: each module translates one vendor's requests and answers, and nothing more."""
