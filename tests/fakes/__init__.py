"""The ports in memory, for tests that need no database.

Small enough to be obviously right, and held to the same contract suites as the adapters of PostgreSQL. Methods await
nothing, so each is a transaction of its own.
"""

from tests.fakes.api_keys import FakeApiKeys as FakeApiKeys
from tests.fakes.backfills import FakeBackfills as FakeBackfills
from tests.fakes.collections import FakeAudit as FakeAudit
from tests.fakes.collections import FakeCollections as FakeCollections
from tests.fakes.collections import FakeProcesses as FakeProcesses
from tests.fakes.collections import FakeTestSets as FakeTestSets
from tests.fakes.documents import FakeChanges as FakeChanges
from tests.fakes.documents import FakeDocuments as FakeDocuments
from tests.fakes.indexes import FakeIndexes as FakeIndexes
from tests.fakes.lexicon import FakeLexicon as FakeLexicon
from tests.fakes.queue import FakeQueue as FakeQueue
from tests.fakes.recall import FakeRecalls as FakeRecalls
from tests.fakes.store import FakeStore as FakeStore
from tests.fakes.store import StoredChunk as StoredChunk
from tests.fakes.store import Waiting as Waiting
from tests.fakes.vectors import FakeVectors as FakeVectors
from tests.fakes.versions import FakeVersions as FakeVersions


class FakeAdapters:
    """All of the adapters over one store."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.api_keys = FakeApiKeys()
        self.collections = self.store.collections
        self.versions = self.store.versions
        self.documents = FakeDocuments(self.store)
        self.queue = FakeQueue(self.store)
        self.vectors = FakeVectors(self.store)
        self.changes = FakeChanges(self.store)
        self.backfills = FakeBackfills(self.store)
        self.lexicon = FakeLexicon(self.store)
        self.audit = FakeAudit(self.collections)
        self.test_sets = FakeTestSets(self.collections)
        self.processes = FakeProcesses()
        self.recalls = FakeRecalls(self.collections)
        self.indexes = FakeIndexes(self.versions)
