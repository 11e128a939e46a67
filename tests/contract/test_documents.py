"""The contract of the port `Documents`, for the fake and for PostgreSQL."""

import asyncio
import dataclasses
import time
from types import SimpleNamespace
from typing import Any

import pytest

from service.core.documents import Document, StoredDocument
from service.core.errors import CollectionNotFound, DocumentsExist, ForeignDocuments
from service.core.filters import And, parse
from service.core.ids import CollectionId, DocumentId
from service.core.images import Image
from service.core.search import Candidate, Passage
from service.core.versions import VersionState
from service.store.postgres import documents as module
from service.store.postgres.filters import filter_matches
from tests.world import NOW, World, doc, encoded, later


def names(documents: Any) -> list[str]:
    return [document.id for document in documents]


async def test_what_was_put_is_read_back(world: World) -> None:
    metadata = {"year": 2020, "tags": ["x", None], "deep": {"a": [1.5, True]}, "ünï": "\U0001f600"}
    await world.put(doc("a", "text \U0001d49c", "title", **metadata))
    found = await world.get("a")
    assert (found.title, found.text, found.metadata) == ("title", "text \U0001d49c", metadata)
    assert (found.revision, found.content_revision) == (1, 1)
    assert (found.created_at, found.updated_at) == (NOW, NOW)


async def test_metadata_alone_raises_the_revision_and_makes_nothing_anew(world: World) -> None:
    await world.put(doc("a", year=1))
    await world.drain()
    (accepted,) = await world.put(doc("a", year=2), now=later(1))
    assert (accepted.status, accepted.revision) == ("updated", 2)
    found = await world.get("a")
    assert (found.revision, found.content_revision, found.metadata) == (2, 1, {"year": 2})
    assert (found.created_at, found.updated_at) == (NOW, later(1))
    assert await world.claim() == ()
    assert await world.stored_chunks() == {("a", 0): 1}


async def test_metadata_alone_leaves_a_waiting_job_its_work(world: World) -> None:
    await world.put(doc("a", year=1))
    (claimed,) = await world.claim()
    await world.put(doc("a", year=2))
    assert await world.store(encoded(claimed)) == {"a"}


@pytest.mark.parametrize("changed", [doc("a", "other"), doc("a", title="other")])
async def test_changed_content_keeps_its_old_vectors_until_new_ones_come(world: World, changed: Any) -> None:
    await world.put(doc("a"))
    await world.drain()
    await world.put(changed)
    assert await world.stored_chunks() == {("a", 0): 1}
    await world.drain()
    assert await world.stored_chunks() == {("a", 0): 2}


async def test_the_same_again_changes_nothing(world: World) -> None:
    await world.put(doc("a", x=1))
    await world.drain()
    position = await world.changes.position_of(world.collection.id, [DocumentId("a")])
    await world.put(doc("a", x=1.0), now=later(5))
    assert (await world.get("a")).updated_at == NOW
    assert await world.claim() == ()
    assert await world.changes.position_of(world.collection.id, [DocumentId("a")]) == position


async def test_a_title_is_no_prefix_of_a_text(world: World) -> None:
    """Moving a border between title and text is a change, though the characters are the same."""
    await world.put(doc("a", "bc", title="a"))
    (accepted,) = await world.put(doc("a", "c", title="ab"))
    assert accepted.status == "updated"
    assert (await world.get("a")).content_revision == 2


async def test_every_written_version_gets_a_job(world: World) -> None:
    second = await world.add_version(2, VersionState.BACKFILLING)
    await world.add_version(3, VersionState.RETIRED)
    await world.add_version(4, VersionState.FAILED)
    await world.put(doc("a"))
    every = [world.version, second, await world.add_version(5, VersionState.READY)]
    claimed = await world.queue.claim(every, 10, "w", NOW, later(60) - NOW)
    assert sorted(one.job.version for one in claimed) == [1, 2]


async def test_a_large_batch(world: World) -> None:
    batch = [doc(f"d{number:05d}", number=number) for number in range(2_500)]
    accepted = await world.put(*reversed(batch))
    assert {one.status for one in accepted} == {"created"}
    assert names(accepted) == names(reversed(batch))
    assert len(await world.claim(limit=5_000)) == 2_500


async def test_nothing_is_put_into_a_collection_that_is_gone(world: World) -> None:
    await world.collections.delete(world.collection.id)
    with pytest.raises(CollectionNotFound):
        await world.put(doc("a"))
    with pytest.raises(CollectionNotFound):
        await world.delete("a")


async def test_collections_keep_apart(world: World) -> None:
    await world.put(doc("a"))
    elsewhere = CollectionId(world.collection.id + 1000)
    assert await world.documents.get(elsewhere, [DocumentId("a")]) == {}
    assert await world.documents.page(elsewhere, None, 10, None) == ()


@pytest.mark.database
async def test_a_put_is_all_or_nothing(postgres: World) -> None:
    with pytest.raises(Exception, match="0x00"):
        await postgres.put(doc("a"), doc("b", "x\0y"), doc("c"))
    assert await postgres.documents.page(postgres.collection.id, None, 10, None) == ()
    assert await postgres.claim() == ()


@pytest.mark.database
async def test_overlapping_puts_in_opposite_orders_all_commit(postgres: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks are taken in the order of ids, whatever the order of the batch: no try is in vain."""
    monkeypatch.setattr(module, "retrying", lambda work: work())
    forwards = [f"d{number:03d}" for number in range(200)]
    batches = [[doc(name, f"round {turn}") for name in forwards[:: (-1) ** turn]] for turn in range(12)]
    await asyncio.gather(*(postgres.put(*batch) for batch in batches))
    found = await postgres.documents.get(postgres.collection.id, [DocumentId(name) for name in forwards])
    assert {document.revision for document in found.values()} == {12}
    assert len({document.text for document in found.values()}) == 1


@pytest.mark.database
async def test_puts_and_deletes_at_once_leave_no_orphans(postgres: World) -> None:
    async def churn(turn: int) -> None:
        chosen = [f"d{number}" for number in range(turn % 3, 30, 3)]
        if turn % 2:
            await postgres.put(*(doc(name, f"turn {turn}") for name in chosen))
        else:
            await postgres.delete(*chosen)

    async def work() -> None:
        for _ in range(10):
            claimed = await postgres.claim(limit=7)
            await postgres.store(*map(encoded, claimed))

    await asyncio.gather(*(churn(turn) for turn in range(40)), work(), work())
    await postgres.drain()
    alive = await postgres.documents.page(postgres.collection.id, None, 100, None)
    assert await postgres.stored_chunks() == {(one.id, 0): one.content_revision for one in alive}


@pytest.mark.database
async def test_a_collection_deleted_under_its_writers_leaves_nothing_behind(postgres: World) -> None:
    async def write(writer: int) -> None:
        for turn in range(300):
            try:
                await postgres.put(*(doc(f"d{writer}-{number}", f"turn {turn}") for number in range(20)))
                await postgres.delete(f"d{writer}-{turn % 20}")
            except CollectionNotFound:
                return
        raise AssertionError("the collection outlived all writes")

    async def remove() -> None:
        while not await postgres.documents.page(postgres.collection.id, None, 1, None):
            await asyncio.sleep(0)
        await postgres.collections.delete(postgres.collection.id)

    await asyncio.gather(*map(write, range(4)), remove())
    assert postgres.pool is not None
    async with postgres.pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT (SELECT count(*) FROM documents), (SELECT count(*) FROM changes), (SELECT count(*) FROM jobs)"
        )
        assert await cursor.fetchall() == [(0, 0, 0)]


async def test_deleting_takes_vectors_and_jobs_along(world: World) -> None:
    await world.put(doc("a"), doc("b"), doc("c"))
    await world.drain()
    await world.put(doc("c", "waits"))
    assert await world.delete("c", "missing", "a") == ("c", "a")
    assert names(await world.documents.page(world.collection.id, None, 10, None)) == ["b"]
    assert await world.stored_chunks() == {("b", 0): 1}
    assert await world.claim() == ()
    assert await world.delete("a") == ()


async def test_what_passes_no_more_is_not_deleted(world: World) -> None:
    old = parse({"state": "old", "tags": {"$contains": "x"}})
    await world.put(doc("a", state="old", tags=["x"]), doc("b", state="old", tags=["x"]))
    found = [one.id for one in await world.documents.page(world.collection.id, None, 10, old)]
    await world.put(doc("b", state="new", tags=["x"]))  # somebody saves it between the look and the deletion
    assert await world.documents.delete(world.collection.id, found, NOW, old) == ("a",)
    assert names(await world.documents.page(world.collection.id, None, 10, None)) == ["b"]


async def test_every_space_loses_the_vectors(world: World) -> None:
    second = await world.add_version(2, VersionState.READY)
    await world.put(doc("a"))
    await world.drain()
    (claimed,) = await world.queue.claim([second], 10, "w", NOW, later(60) - NOW)
    await world.vectors.write(second, [encoded(claimed)])
    await world.delete("a")
    assert await world.stored_chunks() == {}
    assert await world.stored_chunks(second) == {}


async def test_revisions_go_on_growing_when_an_id_comes_back(world: World) -> None:
    await world.put(doc("a", x=1))
    await world.put(doc("a", "second"))
    await world.delete("a", now=later(1))
    (accepted,) = await world.put(doc("a", x=1), now=later(2))
    assert (accepted.status, accepted.revision) == ("created", 4)
    found = await world.get("a")
    assert (found.content_revision, found.created_at, found.updated_at) == (4, later(2), later(2))
    (claimed,) = await world.claim(now=later(2))
    assert claimed.job.content_revision == 4


async def test_pages_go_through_all_in_byte_order(world: World) -> None:
    ids = ["a", "B", "é", "z", "\uffff", "\U00010000", "a/b", "a b", "10", "9"]
    await world.put(*map(doc, ids))
    seen: list[str] = []
    after = None
    while page := await world.documents.page(world.collection.id, after, 3, None):
        assert len(page) <= 3
        seen += names(page)
        after = page[-1].id
    assert seen == sorted(ids, key=str.encode)


async def test_ids_come_in_the_pages_of_their_documents(world: World) -> None:
    await world.put(*(doc(f"{letter}{number}", even=number % 2 == 0) for letter in "bäB" for number in range(3)))
    where, after, ids = parse({"even": True}), None, list[DocumentId]()
    while page := await world.documents.page_ids(world.collection.id, after, 2, where):
        ids += page
        after = page[-1]
    assert ids == [one.id for one in await world.documents.page(world.collection.id, None, 100, where)]
    assert len(ids) == 6


async def test_pages_under_a_filter(world: World) -> None:
    await world.put(*(doc(f"d{number}", number=number) for number in range(10)))
    even = parse({"number": {"$in": [0, 2, 4, 6, 8]}})
    first = await world.documents.page(world.collection.id, None, 3, even)
    assert names(first) == ["d0", "d2", "d4"]
    assert names(await world.documents.page(world.collection.id, first[-1].id, 3, even)) == ["d6", "d8"]


async def test_passing_names_what_passes_up_to_the_cap(world: World) -> None:
    await world.put(*(doc(f"d{number}", number=number) for number in range(10)))
    await world.delete("d9")
    few = await world.documents.match_filter(world.collection.id, parse({"number": {"$gte": 6}}), 3)
    assert few.ids is not None
    assert (sorted(few.ids), few.count, few.total) == (["d6", "d7", "d8"], 3, 9)
    many = await world.documents.match_filter(world.collection.id, parse({"number": {"$gte": 5}}), 3)
    assert (many.ids, many.count, many.total) == (None, 4, 9)
    none = await world.documents.match_filter(world.collection.id, parse({"number": 9}), 3)
    assert (none.ids, none.count) == ((), 0)


@pytest.mark.database
async def test_the_number_of_many_documents_is_remembered_for_a_while(
    postgres: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filter_matches, "COUNTED_DOCUMENTS", 2)
    everything = parse({})

    async def total() -> int:
        return (await postgres.documents.match_filter(postgres.collection.id, everything, 1)).total

    await postgres.put(doc("a"), doc("b"))
    assert await total() == 2
    await postgres.put(doc("c"))
    assert await total() == 3
    await postgres.put(doc("d"))
    assert await total() == 3
    later_on = time.monotonic() + filter_matches.TRUSTED_SECONDS
    monkeypatch.setattr("service.spaces.sample_cache.time", SimpleNamespace(monotonic=lambda: later_on))
    assert await total() == 4


async def test_passing_among(world: World) -> None:
    await world.put(doc("a", x=1), doc("b", x=2), doc("c", x=1))
    await world.delete("c")
    asked = [DocumentId(name) for name in ("a", "b", "c", "d")]
    assert await world.documents.filter_ids(world.collection.id, asked, parse({"x": 1})) == {"a"}


def candidate(name: str, revision: int = 1, start: int | None = None, end: int | None = None) -> Candidate:
    return Candidate(document_id=DocumentId(name), content_revision=revision, score=0.5, start=start, end=end)


async def test_passages_are_aligned_and_counted_in_code_points(world: World) -> None:
    await world.put(doc("a", "\U0001f600é\u0301abc", "A", x=1), doc("b", "0123456789", "B"))
    passages = await world.documents.passages(
        world.collection.id,
        [candidate("b", start=2, end=5), candidate("missing"), candidate("a", start=1, end=4), candidate("b")],
        None,
        4,
    )
    assert passages == (
        Passage(title="B", text="234", start=2, end=5, metadata={}, revision=1, partial=True),
        None,
        Passage(title="A", text="é\u0301a", start=1, end=4, metadata={"x": 1}, revision=1, partial=True),
        Passage(title="B", text="0123", start=0, end=4, metadata={}, revision=1, partial=True),
    )


async def test_passages_end_where_the_text_ends(world: World) -> None:
    await world.put(doc("a", "short"))
    passages = await world.documents.passages(
        world.collection.id, [candidate("a"), candidate("a", start=3, end=50), candidate("a", start=0, end=0)], None, 99
    )
    assert [(one.text, one.start, one.end) for one in passages if one] == [("short", 0, 5), ("rt", 3, 5), ("", 0, 0)]
    assert [one.partial for one in passages if one] == [False, True, True]


@pytest.mark.parametrize(("whole_bytes", "wholes"), [(0, []), (10, ["a"]), (20, ["a"]), (21, ["a", "c"])])
async def test_whole_texts_come_along_up_to_a_number_of_bytes(
    world: World, whole_bytes: int, wholes: list[str]
) -> None:
    """Of what has more text than the passage, in the order of the candidates, counted in bytes."""
    texts = {"a": "äöü0123", "b": "0123", "c": "0123456"}
    await world.put(*(doc(name, text) for name, text in texts.items()))
    wanted = [candidate(name) for name in ("a", "missing", "b", "c")]
    passages = await world.documents.passages(world.collection.id, wanted, None, 4, whole_bytes)
    assert [one.whole for one in passages if one] == [text if name in wholes else None for name, text in texts.items()]


async def test_texts_are_read_in_order_up_to_a_number_of_bytes(world: World) -> None:
    await world.put(doc("a", "12345"), doc("b", "äöü"), doc("c", "123"), doc("d", "old"), doc("gone"))
    await world.put(doc("d", "new"))
    await world.delete("gone")
    revisions = {DocumentId(name): 1 for name in ("d", "missing", "gone", "b", "a", "c")}

    async def read(limit: int) -> dict[DocumentId, str]:
        return dict(await world.documents.texts(world.collection.id, revisions, limit))

    assert await read(100) == {"b": "äöü", "a": "12345", "c": "123"}
    assert list(await read(11)) == ["b", "a"]
    assert list(await read(1)) == ["b"], "the first in any case"
    assert await world.documents.texts(world.collection.id, {}, 100) == {}


async def test_stale_candidates_have_no_passage(world: World) -> None:
    await world.put(doc("changed"), doc("gone"), doc("kept", x=1), doc("back"))
    await world.put(doc("changed", "new"), doc("kept", x=2))
    await world.delete("gone", "back")
    await world.put(doc("back"))
    wanted = [candidate(name) for name in ("changed", "gone", "kept", "back")]
    passages = await world.documents.passages(world.collection.id, wanted, None, 10)
    assert [passage is not None for passage in passages] == [False, False, True, False]
    assert passages[2] is not None
    assert (passages[2].metadata, passages[2].revision) == ({"x": 2}, 2)


async def test_passages_pass_the_filter_as_documents_are_now(world: World) -> None:
    await world.put(doc("a", x=1), doc("b", x=1))
    await world.put(doc("a", x=2))
    passages = await world.documents.passages(
        world.collection.id, [candidate("a"), candidate("b")], parse({"x": 1}), 10
    )
    assert [passage is not None for passage in passages] == [False, True]


async def test_of_nothing_comes_nothing(world: World) -> None:
    assert await world.put() == ()
    assert await world.documents.passages(world.collection.id, [], None, 10) == ()


@pytest.mark.parametrize("foreign", [doc("a", tenant="a"), doc("a", "new", tenant="b"), doc("a", tenant="b")], ids=str)
async def test_only_documents_within_a_filter_are_replaced(world: World, foreign: Document) -> None:
    """Also where it would change nothing, and then nothing of the same request is written."""
    await world.put(doc("a", tenant="a"), doc("mine", tenant="b"), doc("gone", tenant="a"))
    await world.delete("gone", now=later(1))
    before = await world.get("a")
    within, documents = parse({"tenant": "b"}), world.documents
    new = [doc("new", tenant="b"), foreign]
    with pytest.raises(ForeignDocuments) as refused:
        await documents.put(world.collection.id, new, later(2), within=within)
    assert list(refused.value.reasons) == ["a"]
    assert await world.get("a") == before
    allowed = [doc("mine", "other", tenant="b"), doc("gone", tenant="b"), doc("new", tenant="b")]
    accepted = await documents.put(world.collection.id, allowed, later(3), within=within)
    assert [one.status for one in accepted] == ["updated", "created", "created"]
    accepted = await documents.put(world.collection.id, allowed, later(4), within=within)
    assert [one.status for one in accepted] == ["unchanged"] * 3


@pytest.mark.parametrize("same", [True, False])
async def test_documents_that_exist_are_skipped(world: World, same: bool) -> None:
    await world.put(doc("a", "old"), doc("gone"))
    await world.documents.delete(world.collection.id, [DocumentId("gone")], NOW)
    await world.drain()
    given = [doc("new"), doc("a", "old" if same else "other"), doc("gone", "back")]
    accepted = await world.documents.put(world.collection.id, given, later(1), if_exists="skip")
    assert [(one.id, one.status) for one in accepted] == [("new", "created"), ("a", "unchanged"), ("gone", "created")]
    assert (await world.get("a")).text == "old"
    assert sorted(job.job.document_id for job in await world.claim(now=later(2))) == ["gone", "new"]


async def test_a_document_that_exists_fails_all(world: World) -> None:
    await world.put(doc("a"))
    with pytest.raises(DocumentsExist) as raised:
        await world.documents.put(world.collection.id, [doc("new"), doc("a", "other")], later(1), if_exists="fail")
    assert set(raised.value.reasons) == {"a"}
    assert names(await world.documents.page(world.collection.id, None, 9, None)) == ["a"]


async def test_a_key_is_not_told_of_documents_that_its_filter_does_not_admit(world: World) -> None:
    await world.put(doc("a", tenant="b"))
    for if_exists in ("skip", "fail"):
        with pytest.raises(ForeignDocuments):
            await world.documents.put(
                world.collection.id, [doc("a")], NOW, None, parse({"tenant": "a"}), if_exists=if_exists
            )


async def test_a_patch_changes_what_is_there(world: World) -> None:
    await world.put(doc("a", "text", year=1))

    def next_year(stored: StoredDocument) -> Document:
        return doc(stored.id, stored.text, year=stored.metadata["year"] + 1)

    async def patch(where: dict[str, Any] | None = None, name: str = "a") -> Any:
        within = None if where is None else parse(where)
        return await world.documents.patch(world.collection.id, DocumentId(name), next_year, later(1), within)

    patched = await asyncio.gather(*(patch() for _ in range(4)))
    assert sorted(one.revision for one in patched) == [2, 3, 4, 5]
    assert (await world.get("a")).metadata == {"year": 5}
    assert await patch({"year": 4}) is None
    assert (await patch({"year": 5})).revision == 6
    assert await patch(name="b") is None


async def test_documents_that_pass_are_counted(world: World) -> None:
    await world.put(*(doc(f"d{number}", year=number % 3) for number in range(10)))
    await world.documents.delete(world.collection.id, [DocumentId("d0")], NOW)
    assert await world.documents.count(world.collection.id, parse({"year": 0})) == 3
    assert await world.documents.count(world.collection.id, And(())) == 9


async def test_an_image_is_part_of_the_content_and_goes_with_it(world: World) -> None:
    image = Image(digest=b"1", type="image/png", content=b"file", preview=b"small")
    pictured, ids = dataclasses.replace(doc("a", year=1), image=image), [DocumentId("a"), DocumentId("b")]
    await world.put(doc("a", year=1), doc("b"))
    assert [one.revision for one in await world.put(pictured)] == [2]
    assert [one.status for one in await world.put(pictured)] == ["unchanged"]
    assert await world.documents.images(world.collection.id, ids) == {"a": image}
    assert await world.documents.images(world.collection.id, ids, parse({"year": 2})) == {}
    assert {one.document.id: one.image for one in await world.claim()} == {"a": b"small", "b": None}
    found = await world.get("a")
    assert (found.image, found.content_revision) == (b"1", 2)
    # It stays where only the digest is given, and goes with the next content, or the document.
    kept = dataclasses.replace(pictured, title="new", image=Image(digest=b"1"))
    await world.documents.patch(world.collection.id, DocumentId("a"), lambda _: kept, NOW)
    assert await world.documents.images(world.collection.id, ids) == {"a": image}
    await world.put(doc("a", year=1))
    assert await world.documents.images(world.collection.id, ids) == {}
    await world.put(pictured)
    await world.documents.delete(world.collection.id, ids, NOW)
    await world.put(doc("a"))
    assert (await world.documents.images(world.collection.id, ids), (await world.get("a")).image) == ({}, None)
