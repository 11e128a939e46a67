"""Real files of many kinds, made while the tests run."""

import zipfile
from email.message import EmailMessage
from io import BytesIO
from pathlib import Path

_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"


def zipped(members: dict[str, str | bytes]) -> bytes:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def pdf(*pages: str, title: str = "") -> bytes:
    """One line of text a page, in the syntax of PDF 1.4 (32000-1, 7.5)."""
    kids = " ".join(f"{4 + 2 * at} 0 R" for at in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for at, text in enumerate(pages):
        drawn = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else ""
        font = "/Resources << /Font << /F1 3 0 R >> >>"
        objects += [
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] {font} /Contents {5 + 2 * at} 0 R >>",
            f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream",
        ]
    objects.append(f"<< /Title ({title}) >>")
    body, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, start=1):
        places.append(len(body))
        body += f"{number} 0 obj\n{one}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"<< /Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    return body + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n{end}".encode()


def docx(heading: str, text: str) -> bytes:
    style = '<w:pPr><w:pStyle w:val="Heading1"/></w:pPr>'
    paragraphs = f"<w:p>{style}<w:r><w:t>{heading}</w:t></w:r></w:p><w:p><w:r><w:t>{text}</w:t></w:r></w:p>"
    named = '<w:style w:type="paragraph" w:styleId="Heading1"><w:name w:val="heading 1"/></w:style>'
    kinds = '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    styled = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/styles"
    return zipped(
        {
            "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">{kinds}'
            f'<Override PartName="/word/document.xml" ContentType="{main}"/></Types>',
            "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
            f'<Relationship Id="r1" Type="{_OFFICE}" Target="word/document.xml"/></Relationships>',
            "word/_rels/document.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
            f'<Relationship Id="r1" Type="{styled}" Target="styles.xml"/></Relationships>',
            "word/styles.xml": f'<w:styles xmlns:w="{_WORD}">{named}</w:styles>',
            "word/document.xml": f'<w:document xmlns:w="{_WORD}"><w:body>{paragraphs}</w:body></w:document>',
        }
    )


def epub(title: str, text: str) -> bytes:
    container = '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>'
    spine = '<manifest><item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest>'
    spine += '<spine><itemref idref="a"/></spine>'
    return zipped(
        {
            "META-INF/container.xml": f'{container}<rootfile full-path="c.opf"/></rootfiles></container>',
            "c.opf": '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
            f"<metadata><dc:title>{title}</dc:title></metadata>{spine}</package>",
            "a.xhtml": f"<html><body><h1>{title}</h1><p>{text}</p></body></html>",
        }
    )


def mail(subject: str, text: str) -> bytes:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = subject, "ann@example.org", "bob@example.org"
    message.set_content(text)
    message.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="map.png")
    return message.as_bytes()


def slides(*texts: str) -> bytes:
    from pptx import Presentation

    show, written = Presentation(), BytesIO()
    for text in texts:
        slide = show.slides.add_slide(show.slide_layouts[5])
        slide.shapes.title.text = text
    show.save(written)
    return written.getvalue()


def sheet(*rows: tuple[object, ...]) -> bytes:
    from openpyxl import Workbook

    book, written = Workbook(), BytesIO()
    for row in rows:
        book.active.append(row)
    book.save(written)
    return written.getvalue()


def parquet(**columns: list[object]) -> bytes:
    import pyarrow
    from pyarrow.parquet import write_table

    written = BytesIO()
    write_table(pyarrow.table(columns), written)
    return written.getvalue()


def folder_of_all_kinds(root: Path) -> dict[str, str]:
    """A file of each kind below `root`; for each, words that it alone has."""
    contents: dict[str, tuple[str | bytes, str]] = {
        "guide/glaciers.md": (
            "# Glaciers\n\nIce that flows.\n\n## Moraine\n\nDebris at its edge.\n",
            "debris at its edge",
        ),
        "guide/volcano.html": ("<title>Volcanoes</title><body><h1>Lava</h1><p>Molten rock erupts.</p>", "molten rock"),
        "report.pdf": (pdf("The harbour is deep", "The lighthouse is tall", title="Harbours"), "lighthouse"),
        "letter.docx": (docx("Orchards", "Apples ripen in autumn."), "apples ripen"),
        "talk.pptx": (slides("Beekeeping basics", "Honey is harvested in July"), "honey is harvested"),
        "prices.xlsx": (sheet(("item", "euros"), ("saxophone", 900)), "saxophone"),
        "novel.epub": (epub("The Windmill", "A miller grinds rye."), "miller grinds"),
        "post.eml": (mail("Parking permit", "Your permit expires soon."), "permit expires"),
        "notes.txt": ("Otters crack mussels with stones.\n", "otters crack mussels"),
        "code/tides.py": ('"""Predict tides."""\n\ndef spring_tide(moon):\n    return moon.phase\n', "spring_tide"),
        "cities.csv": ("name,people,note\nLyon,520000,silk weavers\nGent,260000,linen looms\n", "linen looms"),
        "birds.json": ('[{"id": "kite", "text": "Kites soar without a wingbeat."}]', "without a wingbeat"),
        "rows.jsonl": ('{"question": "Where do eels spawn?", "answer": "In the Sargasso Sea"}\n', "sargasso"),
        "table.parquet": (parquet(text=["Quartz scratches glass"], hardness=[7]), "quartz scratches"),
        "packed.zip": (zipped({"inner/peat.txt": "Peat keeps butter for centuries."}), "peat keeps butter"),
    }
    for name, (content, _) in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return {name: words for name, (_, words) in contents.items()}
