"""Texts, Markdown, mails, and the formats of word processors as documents with title and headings."""

import codecs
import re
from collections.abc import Callable, Iterator, Mapping
from email import message_from_binary_file, policy
from email.message import EmailMessage
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from service.core.errors import raised_as
from service.ingest.files.found import FoundFile, Unreadable

MAX_TEXT = 500_000
"""Characters of one document; longer texts become several, cut between paragraphs where there are any."""
MAX_HEADINGS, MAX_HEADING = 100, 200
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
_MARKS |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_SAMPLE_BYTES = 65_536
_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$")
_SLIDE = re.compile(r"^<!-- Slide number: (\d+) -->$", re.MULTILINE)
Documents = Iterator[dict[str, Any]]


def encoding_of(path: Path) -> str:
    """Unreadable where the bytes are no text in any encoding that could be recognized."""
    with path.open("rb") as file:
        start = file.read(_SAMPLE_BYTES)
        if marked := next((encoding for mark, encoding in _MARKS.items() if start.startswith(mark)), None):
            return marked
        if b"\0" in start:
            raise Unreadable("is not text, whatever its name says")
        decoder, part = codecs.getincrementaldecoder("utf-8")(), start
        try:
            while part:
                decoder.decode(part)
                part = file.read(2**20)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            from charset_normalizer import from_bytes

            best = from_bytes(start).best()
            if best is None:
                raise Unreadable("is not text in any encoding that could be recognized") from None
            return best.encoding
    return "utf-8"


def decoded(path: Path) -> str:
    with raised_as(Unreadable, "is not text in the encoding that it begins with", UnicodeDecodeError):
        text = path.read_text(encoding_of(path))
    if "\0" in text:
        raise Unreadable("is not text, whatever its name says")
    return text


def in_parts(found: FoundFile, title: str, text: str, metadata: Mapping[str, Any], at: str = "") -> Documents:
    """One document, or several where the text is long. `at`: which part of the file this is, such as `page=3`."""
    start, number = 0, 1
    while text[start:].strip():
        end = start + MAX_TEXT
        if end < len(text):
            ends = [text.rfind(sign, start + MAX_TEXT // 2, end) + len(sign) for sign in ("\n\n", "\n", " ")]
            end = next((one for one in ends if one > start + MAX_TEXT // 2), end)
        marks = [at] if at else []
        marks += [f"part={number}"] if number > 1 or end < len(text) else []
        name = "#".join([found.name, "&".join(marks)]) if marks else found.name
        yield {
            "id": name,
            "title": title or PurePosixPath(found.name).name,
            "text": text[start:end].strip(),
            "metadata": dict(metadata),
        }
        start, number = end, number + 1


def read_text(found: FoundFile, metadata: Mapping[str, Any]) -> Documents:
    return in_parts(found, "", decoded(found.path), metadata)


def _markdown(found: FoundFile, text: str, title: str, metadata: Mapping[str, Any]) -> Documents:
    """Its title is the given one, that of its front matter, or its first heading."""
    front = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if front:
        named = re.search(r"^title:[ \t]*[\"']?(.+?)[\"']?[ \t]*$", front[1], re.MULTILINE)
        title, text = title or (named[1] if named else ""), text[front.end() :]
    headings, fenced = [], False
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith(("```", "~~~"))
        if not fenced and (heading := _HEADING.match(line)):
            headings.append(heading[2][:MAX_HEADING])
    told = {"headings": headings[:MAX_HEADINGS]} if headings else {}
    return in_parts(found, title or (headings[0] if headings else ""), text, {**metadata, **told})


def _convert(name: str, data: Any, suffix: str) -> Any:
    import markitdown.converters
    from markitdown import StreamInfo

    converter = getattr(markitdown.converters, f"{name}Converter")()
    return converter.convert(data, StreamInfo(extension=suffix, charset="utf-8"))


def _office(converter: str) -> Callable[[FoundFile, Mapping[str, Any]], Documents]:
    def read(found: FoundFile, metadata: Mapping[str, Any]) -> Documents:
        with found.path.open("rb") as file:
            result = _convert(converter, file, PurePosixPath(found.name).suffix.lower())
        title = (
            PurePosixPath(found.name).name if converter == "Xlsx" else (result.title or "").strip()
        )  # its headings name sheets
        return _markdown(found, result.markdown, title, metadata)

    return read


def _read_html(found: FoundFile, metadata: Mapping[str, Any]) -> Documents:
    result = _convert("Html", BytesIO(decoded(found.path).encode()), ".html")
    return _markdown(found, result.markdown, (result.title or "").strip(), metadata)


def _read_slides(found: FoundFile, metadata: Mapping[str, Any]) -> Documents:
    with found.path.open("rb") as file:
        _, *slides = _SLIDE.split(_convert("Pptx", file, ".pptx").markdown)
    for number, text in zip(slides[::2], slides[1::2], strict=True):
        for document in _markdown(found, text, "", {**metadata, "page": int(number), "pages": len(slides) // 2}):
            yield {**document, "id": document["id"].replace(found.name, f"{found.name}#page={number}", 1)}


def _read_pdf(found: FoundFile, metadata: Mapping[str, Any]) -> Documents:
    """One document a page, so that a hit tells its page."""
    from pypdfium2 import PdfDocument

    with PdfDocument(found.path) as pdf:
        title, any_text = pdf.get_metadata_dict().get("Title", "").strip(), False
        for number in range(len(pdf)):
            page = pdf[number]
            text = page.get_textpage().get_text_bounded().replace("\r\n", "\n").replace("\0", "")
            page.close()
            any_text = any_text or bool(text.strip())
            told = {**metadata, "page": number + 1, "pages": len(pdf)}
            yield from in_parts(found, title, text, told, f"page={number + 1}")
    if not any_text:
        raise Unreadable("has no text: its pages may be images, and those are not read")


def _read_mail(found: FoundFile, metadata: Mapping[str, Any]) -> Documents:
    with found.path.open("rb") as file:
        mail = message_from_binary_file(file, policy=policy.default)
    assert isinstance(mail, EmailMessage)
    if not mail.keys():
        raise Unreadable("is no e-mail: it has no header")
    body = mail.get_body(("plain", "html"))
    text = "" if body is None else str(body.get_content())
    if body is not None and body.get_content_subtype() == "html":
        text = _convert("Html", BytesIO(text.encode()), ".html").markdown
    headers = {name: str(mail[name]) for name in ("from", "to", "date") if mail[name]}
    files = [one.get_filename() for one in mail.iter_attachments() if one.get_filename()]
    told = {**headers, **({"attachments": files} if files else {})}
    return in_parts(found, str(mail["subject"] or ""), text or str(mail["subject"] or ""), {**metadata, **told})


READERS: dict[str, Callable[[FoundFile, Mapping[str, Any]], Documents]] = {
    **dict.fromkeys((".md", ".markdown"), lambda found, told: _markdown(found, decoded(found.path), "", told)),
    **dict.fromkeys((".html", ".htm", ".xhtml"), _read_html),
    ".docx": _office("Docx"),
    ".xlsx": _office("Xlsx"),
    ".epub": _office("Epub"),
    ".pptx": _read_slides,
    ".pdf": _read_pdf,
    ".eml": _read_mail,
}
