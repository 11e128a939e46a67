"""Files of all kinds become documents; what is hostile is bounded, told, and costs its neighbours nothing."""

import bz2
import gzip
import io
import json
import lzma
import math
import os
import tarfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import Misconfigured
from service.ingest.files import found, prose, read
from service.ingest.files.found import FoundFile
from service.ingest.files.read import FileReader
from tests import files

BAD = {
    "binary.txt": (b"\x7fELF\x00\x01\x02", "is not text"),
    "empty.txt": (b"", "is empty"),
    "blank.txt": (b" \n\n", "has no text"),
    "photo.png": (b"\x89PNG", "has no text (image/png)"),
    "broken.pdf": (b"%PDF-1.7 not really", "cannot be read as .pdf"),
    "scan.pdf": (files.pdf("", ""), "may be images"),
    "broken.docx": (b"PK nothing", "cannot be read as .docx"),
    "broken.zip": (b"PK\x03\x04 nothing", "is damaged"),
    "broken.txt.gz": (b"\x1f\x8b nothing", "is damaged"),
    "broken.json": (b'{"a": ', "cannot be read as .json"),
    "broken.jsonl": (b'{"a": 1}\nno\n', "line 2 is not JSON"),
    "wrong.eml": (b"\n", "no e-mail"),
    "climbs.zip": (files.zipped({"../../etc/passwd": "x"}), "leads out of the archive"),
    "absolute.zip": (files.zipped({"/etc/passwd": "x"}), "leads out of the archive"),
    "nested.zip": (files.zipped({"inner.zip": files.zipped({"a.txt": "x"})}), "archive within an archive"),
    "nested.gz.gz": (gzip.compress(gzip.compress(b"x")), "archive within an archive"),
    "half.txt": (b"\xff\xfeo", "in the encoding that it begins with"),
}


def documents(source: Path | str, name: str = "here") -> tuple[list[dict[str, Any]], FileReader]:
    with FileReader() as reader:
        return [json.loads(line) for line in reader.documents(str(source), name)], reader


@pytest.mark.slow
def test_each_kind_is_read(tmp_path: Path) -> None:
    kinds = files.folder_of_all_kinds(tmp_path)
    got, reader = documents(tmp_path)
    assert (reader.problems, reader.skipped) == ({}, {})
    for name, words in kinds.items():
        mine = [one for one in got if one["metadata"]["ingested"]["file"].startswith(name)]
        assert any(words in one["text"].lower() for one in mine), name
        assert all(one["metadata"]["ingested"]["source"] == "here" and one["metadata"]["modified"] for one in mine)
    by_id = {one["id"]: one for one in got}
    page = by_id["report.pdf#page=2"]
    assert (page["title"], page["metadata"]["page"], page["metadata"]["pages"]) == ("Harbours", 2, 2)
    assert by_id["guide/glaciers.md"]["metadata"]["headings"] == ["Glaciers", "Moraine"]
    assert by_id["letter.docx"]["title"] == "Orchards"
    assert by_id["cities.csv#row=2"]["metadata"]["people"] == 260_000
    assert by_id["kite"]["metadata"]["path"] == "birds.json"
    assert documents(tmp_path)[0] == got


def test_bad_files_are_told_and_the_others_are_read(tmp_path: Path) -> None:
    for name, (content, _) in BAD.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "good.txt").write_text("a good one")
    got, reader = documents(tmp_path)
    assert [one["id"] for one in got] == ["good.txt"]
    reasons = {name.partition("/")[0]: why for name, why in (reader.problems | reader.skipped).items()}
    for name, (_, reason) in BAD.items():
        assert reason in reasons[name if name in reasons else name.removesuffix(".gz")], name


def test_rows_become_json_whatever_their_types(tmp_path: Path) -> None:
    moment = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    columns: dict[str, list[object]] = {"a.b": [1.5, math.nan], "at": [moment, None], "price": [Decimal("9.50"), None]}
    (tmp_path / "a.parquet").write_bytes(files.parquet(**columns))
    first, second = (one["metadata"] for one in documents(tmp_path / "a.parquet")[0])
    assert (first["a_b"], first["at"], first["price"]) == (1.5, moment.isoformat(), 9.5)
    assert not {"a_b", "at", "price"} & second.keys()


def test_bombs_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = bytes(3 * 2**20)
    monkeypatch.setattr(found, "FREE_BYTES", 2**20)
    for name, content in (
        ("bomb.zip", files.zipped({"a.txt": "fine", "zeros.txt": zeros, "later.txt": "x"})),
        ("bomb.txt.gz", gzip.compress(zeros)),
        ("bomb.txt.xz", lzma.compress(zeros)),
        ("bomb.txt.bz2", bz2.compress(zeros)),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        unpacked = tmp_path / f"{name}.unpacked"
        unpacked.mkdir()
        try:
            members = found.unpack(FoundFile(name=name, path=path), unpacked)
        except found.Unreadable as error:
            problems = [str(error)]
        else:
            problems = [one.problem for one in members if one.problem]
        assert problems
        assert "unpacks to more than" in problems[0]
        assert sum(one.stat().st_size for one in unpacked.iterdir()) <= 2 * 2**20


def test_tar_archives_and_their_links(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("./deep/one.txt")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    got, reader = documents(tmp_path / "a.tar.gz")
    assert [one["text"] for one in got] == ["hello"]
    assert got[0]["id"].endswith("deep/one.txt")
    assert "is a link or a device" in reader.problems.values()


def test_links_lead_nowhere_else(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    (root / "plain.txt").write_text("plain")
    (root / "out.txt").symlink_to(outside / "secret.txt")
    (root / "out").symlink_to(outside)
    (root / "round").symlink_to(root)
    (root / ".hidden").mkdir()
    (root / ".hidden" / "a.txt").write_text("hidden")
    got, reader = documents(root)
    assert [one["id"] for one in got] == ["plain.txt"]
    assert set(reader.problems) == {"out.txt", "out"}


def test_encodings_are_recognized(tmp_path: Path) -> None:
    text = "Die Straße führt über die alte Brücke, und dahinter öffnet sich das grüne Tal."
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"):
        (tmp_path / f"{encoding}.txt").write_bytes(text.encode(encoding))
    assert [one["text"] for one in documents(tmp_path)[0]] == [text] * 5


def test_a_parser_that_hangs_or_eats_memory_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "BASE_SECONDS", 0.0)
    monkeypatch.setattr(read, "BYTES_PER_SECOND", 2**40)
    (tmp_path / "a.txt").write_text("a")
    got, reader = documents(tmp_path)
    assert not got
    assert "more time or memory" in reader.problems["a.txt"]


def test_sources_are_files_folders_globs_and_addresses(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.md").write_text("# A")
    (tmp_path / "b.txt").write_text("b")
    assert [one["id"] for one in documents(tmp_path / "b.txt")[0]] == ["b.txt"]
    assert [one["id"] for one in documents(f"{tmp_path}/**/*.md")[0]] == ["sub/a.md"]
    assert [one["id"] for one in documents(f"file://{tmp_path}")[0]] == ["b.txt", "sub/a.md"]
    for nowhere in (tmp_path / "nowhere", "memory://nowhere", "http://127.0.0.1:1/x", "gopher://x"):
        with pytest.raises(Misconfigured):
            documents(nowhere)


@given(st.text("ab \n", max_size=200))
def test_long_texts_are_cut_and_lose_nothing(text: str) -> None:
    at_once = prose.MAX_TEXT
    prose.MAX_TEXT = 20
    try:
        parts = list(prose.in_parts(FoundFile(name="a", path=Path("a")), "", text, {}))
    finally:
        prose.MAX_TEXT = at_once
    assert "".join("".join(one["text"] for one in parts).split()) == "".join(text.split())
    assert all(len(one["text"]) <= 20 for one in parts)
    assert len({one["id"] for one in parts}) == len(parts)


def test_without_the_extra_it_is_named_and_the_rest_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("markitdown", "pypdfium2", "pyarrow"):
        (tmp_path / "without" / library).mkdir(parents=True)
        (tmp_path / "without" / library / "__init__.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'without'}{os.pathsep}{os.getcwd()}")
    kinds = files.folder_of_all_kinds(tmp_path / "root")
    _, reader = documents(tmp_path / "root")
    needs = (".html", ".pdf", ".docx", ".pptx", ".xlsx", ".epub", ".parquet")
    assert set(reader.problems) == {name for name in kinds if name.endswith(needs)}
    assert all("pip install 'azimuth-search[files]'" in reason for reason in reader.problems.values())
