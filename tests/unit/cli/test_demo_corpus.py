import pytest

from service.cli import demo_corpus
from service.core.ids import DocumentId
from service.ingest.validation import DocumentLimits


@pytest.mark.slow
def test_the_corpus_has_what_the_readme_searches_for() -> None:
    documents = {document.id: document for document in demo_corpus.documents()}
    assert len(documents) > 3000
    assert {"asyncio.wait_for", "list.sort", "sorted", "shutil.rmtree", "os.path.join"} <= documents.keys()
    rmtree = documents[DocumentId("shutil.rmtree")]
    assert rmtree.metadata["module"] == "shutil"
    assert rmtree.metadata["kind"] == "function"
    assert rmtree.text.startswith("rmtree(path")
    assert max(len(document.text) for document in documents.values()) <= DocumentLimits().text_length


@pytest.mark.slow
def test_it_is_the_same_each_time() -> None:
    assert list(demo_corpus.documents()) == list(demo_corpus.documents())
