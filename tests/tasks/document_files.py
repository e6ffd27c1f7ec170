"""Small documents of every kind, written to a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

MARKDOWN = """# Staff handbook

## Meal allowance, Lisbon

Staff in Lisbon receive 31 euros a day for meals. Claims go to **Rui Matos** by the fifth working day, and
receipts are kept for 6 years in the archive of the office.

## Meal allowance, Cork

Staff in Cork receive 27 euros a day for meals. Claims go to [Nora Daly](mailto:nora) by the fifth working day,
and receipts are kept for 4 years in the archive of the office.

## Gates

| Gate | Closes at | Key holder |
|---|---|---|
| North gate | 21:15 | Ida Lund |
| South gate | 18:40 | Per Holm |

- The north gate has a camera.
- The south gate rings after 90 seconds
"""

TEXT = """VISITORS

Visitors sign in at the desk and wear a badge of the colour green. A visit that lasts longer than 3 hours needs
the signature of the host, e.g. Dr. Anna Berg, before the visitor leaves the building.

2.1 Parking

Visitors park on level 2 for at most 5 hours. The barrier opens with code KH-204, and a lost ticket costs
EUR 45 at the desk.
"""

HTML = """<!doctype html><html><head><title>Heating</title><script>var x = 1;</script></head><body>
<nav>Home | About</nav><h1>Heating</h1><p>The boiler is serviced every <b>14 months</b> by Thermo Nord.</p>
<table><tr><th>Room</th><th>Degrees</th></tr><tr><td>Archive</td><td>17</td></tr></table>
<div>Loose words about radiators in the hall.<p>Valves are bled in October.</p>and after it.</div>
<!-- a comment --><footer>Imprint</footer></body></html>
"""


def write_pdf(path: Path, pages: Sequence[Sequence[tuple[int, str]]]) -> Path:
    """A PDF of lines of (letter size, text) in Helvetica, from the top of each page."""
    placed = []
    for lines in pages:
        y, page = 780, []
        for size, text in lines:
            page.append(("F1", float(size), 60, y, text))
            y -= int(size * 1.5)
        placed.append(page)
    return write_placed_pdf(path, placed)


def write_placed_pdf(
    path: Path,
    pages: Sequence[Sequence[tuple[str, float, int, int, str]]],
    catalog: str = "",
    page: str = "",
    more: Sequence[str] = (),
) -> Path:
    """A PDF of (font, letter size, x, y, text); F1 is Helvetica, F2 bold.

    catalog, page: entries of theirs; more: further objects, of a single page counted from 7.
    """
    fonts = [f"<< /Type /Font /Subtype /Type1 /BaseFont /{name} >>" for name in ("Helvetica", "Helvetica-Bold")]
    objects = ["", f"<< /Type /Catalog /Pages 2 0 R {catalog} >>", "", *fonts]
    kids = []
    for placed in pages:
        drawn = []
        for font, size, x, y, text in placed:
            escaped = text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
            drawn.append(f"BT /{font} {size:g} Tf {x} {y} Td ({escaped}) Tj ET")
        stream = "\n".join(drawn)
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        contents = len(objects) - 1
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] "
            f"/Resources << /Font << /F1 3 0 R /F2 4 0 R >> >> /Contents {contents} 0 R {page} >>"
        )
        kids.append(f"{len(objects) - 1} 0 R")
    objects[2] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    objects += more
    body, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects[1:], start=1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    start = len(body)
    body += f"xref\n0 {len(objects)}\n0000000000 65535 f \n"
    body += "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    body += f"trailer << /Size {len(objects)} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n"
    path.write_bytes(body.encode("latin-1"))
    return path


PDF_PAGES = [
    [
        (8, "Kestrel rules, page 1"),
        (18, "Tools"),
        (11, "Drills are returned by 16:30 on the same day. A drill that is lost costs"),
        (11, "85 euros, and the store man Olaf Brandt writes it down. Blades are changed af-"),
        (11, "ter 40 hours of use; the new blade"),
    ],
    [
        (8, "Kestrel rules, page 2"),
        (11, "comes from shelf 12 of the store room."),
        (18, "Ladders"),
        (11, "Ladders are checked every 9 months. A ladder over 4 metres needs two people."),
    ],
    [(8, "Kestrel rules, page 3"), (11, "Broken ladders carry a red tag and go to Mia Korn within 2 days.")],
]


def write_docx(path: Path) -> Path:
    import docx

    document = docx.Document()
    document.add_heading("Travel", level=1)
    document.add_paragraph("Trips of more than 250 kilometres go by train. Tickets are booked by Lea Sommer.")
    table = document.add_table(rows=2, cols=2)
    for n, text in enumerate(("City", "Hotel limit", "Bremen", "95 euros")):
        table.rows[n // 2].cells[n % 2].text = text
    document.add_heading("Rental cars", level=2)
    document.add_paragraph("Rental cars are returned with a full tank within 24 hours of the trip's end.")
    document.save(str(path))
    return path


def write_all(folder: Path) -> Path:
    """One file of each kind that is read, in two folders."""
    (folder / "more").mkdir(parents=True)
    (folder / "handbook.md").write_text(MARKDOWN, encoding="utf-8")
    (folder / "more" / "visitors.txt").write_text(TEXT, encoding="utf-8")
    (folder / "more" / "heating.html").write_text(HTML, encoding="utf-8")
    write_pdf(folder / "store.pdf", PDF_PAGES)
    write_docx(folder / "travel.docx")
    rows = (
        '{"id": "W1", "title": "Waste", "text": "Glass is collected every 3 weeks on Tuesdays by Rolf Stein."}\n'
    )
    (folder / "rules.jsonl").write_text(rows, encoding="utf-8")
    (folder / "limits.csv").write_text(
        'id,title,text\nL1,Noise,"The noise limit in the yard is 70 decibels, after 20:00 it is 55."\n',
        encoding="utf-8",
    )
    return folder
