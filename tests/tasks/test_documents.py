"""Every kind of file is read into headed passages, and what cannot be read is named and not lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from document_files import PDF_PAGES, write_all, write_docx, write_pdf
from hypothesis import given
from hypothesis import strategies as st

from tasks.base import TaskError
from tasks.documents.folder import Folder, read_folder
from tasks.documents.form import Document, Section, Unreadable, clean
from tasks.documents.row_files import read_rows
from tasks.documents.text_files import MAX_LINE_BYTES

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return read_folder(write_all(tmp_path_factory.mktemp("read") / "documents"))


def sections_of(folder: Folder, file: str) -> dict[str, Section]:
    (document,) = [d for d in folder.documents if d.file == file]
    return {section.title: section for section in document.sections}


def texts(section: Section) -> list[str]:
    return [passage.text for passage in section.passages]


def one(path: Path, name: str, body: str | bytes) -> Document:
    """The only document of a folder with one file. Raises Unreadable with what was said where it is skipped."""
    path.mkdir(exist_ok=True)
    (path / name).write_bytes(body if isinstance(body, bytes) else body.encode())
    folder = read_folder(path)
    assert len(folder.files) == 1
    if folder.skipped:
        raise Unreadable(str(folder.skipped[0]))
    (document,) = folder.documents
    return document


def passages(document: Document) -> list[tuple[str, str, int]]:
    return [(s.title, p.text, p.place) for s in document.sections for p in s.passages]


# ----------------------------------------------------------------------------------- what is read


def test_every_kind_is_read(folder: Folder) -> None:
    assert len(folder.files) == len(folder.documents) == 7
    assert not folder.skipped and not folder.not_entered
    assert not [problem for document in folder.documents for problem in document.problems]


def test_markdown(folder: Folder) -> None:
    sections = sections_of(folder, "handbook.md")
    assert list(sections) == ["Meal allowance, Lisbon", "Meal allowance, Cork", "Gates"]
    (lisbon,) = sections["Meal allowance, Lisbon"].passages
    assert lisbon.text.startswith("Staff in Lisbon receive 31 euros a day for meals. Claims go to Rui Matos by")
    assert lisbon.place == 5
    assert "mailto" not in " ".join(texts(sections["Meal allowance, Cork"]))
    assert [(p.text, p.place) for p in sections["Gates"].passages] == [
        ("Gate: North gate, Closes at: 21:15, Key holder: Ida Lund.", 17),
        ("Gate: South gate, Closes at: 18:40, Key holder: Per Holm.", 18),
        ("The north gate has a camera.", 20),
        ("The south gate rings after 90 seconds.", 21),
    ]


def test_text(folder: Folder) -> None:
    sections = sections_of(folder, "more/visitors.txt")
    assert list(sections) == ["VISITORS", "2.1 Parking"]
    assert sections["2.1 Parking"].passages[0].place == 8


def test_html(folder: Folder) -> None:
    assert texts(sections_of(folder, "more/heating.html")["Heating"]) == [
        "The boiler is serviced every 14 months by Thermo Nord.",
        "Room, Degrees – Archive: 17.",
        "Loose words about radiators in the hall.",
        "Valves are bled in October.",
        "and after it.",
    ]


def test_pdf_joins_lines_words_and_pages_and_drops_running_heads(folder: Folder) -> None:
    sections = sections_of(folder, "store.pdf")
    assert list(sections) == ["Tools", "Ladders"]
    whole = " ".join(texts(sections["Tools"]))
    assert "Blades are changed after 40 hours of use; the new blade comes from shelf 12" in whole
    assert not any("Kestrel rules" in text for section in sections.values() for text in texts(section))
    assert [p.place for p in sections["Ladders"].passages] == [2, 3]
    assert {section.unit for section in sections.values()} == {"page"}


def test_docx(folder: Folder) -> None:
    sections = sections_of(folder, "travel.docx")
    assert list(sections) == ["Travel", "Rental cars"]
    assert texts(sections["Travel"])[-1] == "City, Hotel limit – Bremen: 95 euros."


def test_rows(folder: Folder) -> None:
    assert sections_of(folder, "rules.jsonl")["Waste"].row_id == "W1"
    (noise,) = sections_of(folder, "limits.csv")["Noise"].passages
    assert noise.text == "The noise limit in the yard is 70 decibels, after 20:00 it is 55."
    assert noise.place == 2


def test_a_single_file_is_a_folder_of_one(tmp_path: Path) -> None:
    write_all(tmp_path / "all")
    alone = read_folder(tmp_path / "all" / "handbook.md")
    assert alone.files == ("handbook.md",)
    assert len(alone.sections) == 3


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="nowhere: no such file or folder"):
        read_folder(tmp_path / "nowhere")


def test_headings_without_text_and_a_sole_top_heading(tmp_path: Path) -> None:
    body = "# One\n\n## Empty\n\n## Two\n\nText of two.\n\n### Three\n\nText of three.\n"
    document = one(tmp_path / "a", "a.md", body)
    assert passages(document) == [("Two", "Text of two.", 7), ("Two, Three", "Text of three.", 11)]
    assert passages(one(tmp_path / "b", "no_heading-here.md", "Just text.")) == [
        ("no heading here", "Just text.", 1)
    ]


def test_front_matter_is_noted_and_not_read(tmp_path: Path) -> None:
    document = one(tmp_path / "a", "a.md", "---\ntitle: X\n---\n# H\n\nText here.\n")
    assert passages(document) == [("H", "Text here.", 6)]
    assert [str(problem) for problem in document.problems] == [
        "a.md:1: its head of 3 lines (front matter) is not read as text"
    ]


def test_other_encodings(tmp_path: Path) -> None:
    assert passages(one(tmp_path / "a", "a.txt", "Füße.\n".encode("utf-16")))[0][1] == "Füße."
    assert passages(one(tmp_path / "b", "b.txt", "\ufeffFüße.\n"))[0][1] == "Füße."
    page = '<meta charset="windows-1252"><p>Füße.</p>'.encode("cp1252")
    assert passages(one(tmp_path / "c", "c.html", page))[0][1] == "Füße."
    western = one(tmp_path / "e", "e.txt", "Die Brücke öffnet, sagt Frau Schäfer, um 6 Uhr.\n".encode("cp1252"))
    assert passages(western)[0][1] == "Die Brücke öffnet, sagt Frau Schäfer, um 6 Uhr."
    assert "was read in the encoding cp1252" in str(western.problems[0])
    assert passages(one(tmp_path / "d", "d.txt", "One line.\rOther line."))[0][1] == "One line. Other line."


@given(text=st.text())
def test_clean_text_is_one_line_and_stays_clean(text: str) -> None:
    once = clean(text)
    assert once == clean(once) == once.strip()
    assert not any(c in once for c in "\n\r\t\0\u200b\u00ad\ufeff")


def test_semicolon_csv_and_quoted_line_breaks(tmp_path: Path) -> None:
    body = 'id;text\nA;"first; with a\nbreak"\nB;second\n'
    assert passages(one(tmp_path / "a", "a.csv", body)) == [("", "first; with a break.", 2), ("", "second.", 4)]


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "\ufeffsep=;;;", '"sep=;",,'])
def test_a_line_that_names_the_separator(tmp_path: Path, first: str) -> None:
    document = one(tmp_path / "a", "a.csv", f"{first}\nid;text\nA;one, two\n")
    assert passages(document) == [("", "one, two.", 3)]


# --------------------------------------------------------------------------------------- bad input


WRONG: list[tuple[str, bytes, str]] = [
    ("a.md", b"", "a.md: is empty"),
    ("a.txt", b"  \n \n", "a.txt: holds no text"),
    ("a.txt", b"good line\n\xff\xfbnot text\n", "a.txt:2: is not UTF-8 (byte 0xff)"),
    ("a.md", "gr\u00fcn\n".encode("latin-1"), "a.md:1: is not UTF-8 (byte 0xfc)"),
    ("a.txt", b"MZ\x90\0\0\0", "a.txt:1: holds a NUL byte"),
    ("a.txt", b"\xff\xfea", "a.txt: is not whole UTF-16"),
    ("a.html", b'<meta charset="nonsense"><p>x</p>', "a.html: is not in the charset 'nonsense'"),
    ("a.pdf", b"no pdf at all", "a.pdf: is no PDF that can be read"),
    ("a.pdf", b"%PDF-1.4\n1 0 obj", "a.pdf: is no PDF that can be read"),
    ("a.docx", b"no docx at all", "a.docx: is no DOCX that can be read"),
    ("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1....", "a.docx: is password-protected or an old .doc"),
    ("a.doc", b"x", "a.doc: is of the kind '.doc', which is not read; save it as .docx"),
    ("a.xyz", b"x", "a.xyz: is of the kind '.xyz', which is not read; known are: .csv"),
    ("README", b"x", "README: has no ending that names its kind"),
    (".hidden.md", b"x", ".hidden.md: is a hidden file"),
    ("a.csv", b"name,price\nx,1\n", "a.csv:1: has the columns 'name', 'price' and none called 'text'"),
    ("a.csv", b"text,text\nx,1\n", "a.csv:1: names a column twice"),
    ("a.jsonl", b"{broken\n", "a.jsonl:1: broken JSON"),
    ("a.jsonl", b"\n\n[1]\n", "a.jsonl:3: holds list"),
    ("a.jsonl", b'{"id": "x"}\n', "a.jsonl:1: has no 'text'"),
    ("a.jsonl", b'{"text": ""}\n{\n', "a.jsonl:1: has no 'text'; write it or remove the row (2 such places"),
    ("a.jsonl", b'{"text": "' + b"x" * MAX_LINE_BYTES + b'"}\n', "a.jsonl:1: a line of 1.0 MB was left out"),
    ("a.md", "\ufffd\n".encode(), "a.md:1: holds the mark of a failed decoding"),
]


@pytest.mark.parametrize(("name", "body", "said"), WRONG, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(WRONG)])
def test_what_cannot_be_read_is_named_and_the_rest_is_read(
    tmp_path: Path, name: str, body: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(body)
    (tmp_path / "good.md").write_text("Good text.", encoding="utf-8")
    folder = read_folder(tmp_path)
    assert [document.file for document in folder.documents] == ["good.md"]
    assert len(folder.files) == len(folder.documents) + len(folder.skipped) == 2
    assert str(folder.skipped[0]).startswith(said)
    assert "\n" not in str(folder.skipped[0])


def test_a_binary_file_is_named_as_one_even_where_its_first_line_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xe9\nmore\n\0")
    (problem,) = read_folder(tmp_path).skipped
    assert (problem.place, "binary" in problem.said) == (3, True)


def test_a_password(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"locked\.pdf: is password-protected; save a copy without"):
        one(tmp_path, "locked.pdf", (DATA / "locked.pdf").read_bytes())


def test_a_page_without_text_is_named(tmp_path: Path) -> None:
    write_pdf(tmp_path / "scan.pdf", [PDF_PAGES[0], []])
    (document,) = read_folder(tmp_path).documents
    assert [str(p) for p in document.problems] == [
        "scan.pdf, page 2: holds no text (a picture or a scan?); run text recognition (OCR) over the file"
    ]
    write_pdf(tmp_path / "scan.pdf", [[]])
    (skipped,) = read_folder(tmp_path).skipped
    assert str(skipped).startswith("scan.pdf, page 1: holds no text")


def test_a_row_that_is_wrong_is_left_out_alone(tmp_path: Path) -> None:
    rows = [
        '{"id": "A", "text": "First."}',
        "{",
        '{"id": "A", "text": "Again."}',
        '{"text": "Last.", "author": "x"}',
    ]
    document = one(tmp_path, "a.jsonl", "\n".join(rows))
    assert [text for _, text, _ in passages(document)] == ["First.", "Last."]
    assert [str(p).split(";")[0] for p in document.problems] == [
        "a.jsonl:2: broken JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))",
        "a.jsonl:3: repeats the id 'A' of line 1 and was left out",
        "a.jsonl:4: the fields 'author' are not read",
    ]


def test_csv_rows_with_too_many_cells(tmp_path: Path) -> None:
    document = one(tmp_path, "a.csv", 'id,text\nA,one\nB,two,three\nC,"un"quoted\nD,four\n')
    assert [text for _, text, _ in passages(document)] == ["one.", "four."]
    said = [str(problem) for problem in document.problems]
    assert said[0].startswith("a.csv:3: has 3 cells and the first line names 2")
    assert said[1].startswith("a.csv:4: broken row")


@pytest.mark.slow
def test_a_200_mb_line_is_named_and_never_held(tmp_path: Path) -> None:
    import tracemalloc

    with (tmp_path / "huge.jsonl").open("wb") as handle:
        handle.write(b'{"text": "Before."}\n')
        for _ in range(200):
            handle.write(b"x" * 1_000_000)
        handle.write(b'\n{"text": "After."}\n')
    tracemalloc.start()
    (document,) = read_folder(tmp_path).documents
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [text for _, text, _ in passages(document)] == ["Before.", "After."]
    assert [str(p) for p in document.problems] == [
        "huge.jsonl:2: a line of 200.0 MB was left out; break it into lines below 1 MB"
    ]
    assert peak < 20e6


def test_links_are_followed_to_files_only(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "a.md").write_text("Text of a.", encoding="utf-8")
    (real / "loop").symlink_to(real, target_is_directory=True)
    (real / "self.md").symlink_to("self.md")
    (real / "gone.md").symlink_to("nowhere.md")
    (real / "b.md").symlink_to("a.md")
    (real / ".git").mkdir()
    folder = read_folder(real)
    assert [d.file for d in folder.documents] == ["a.md", "b.md"]
    assert [str(p).partition(";")[0] for p in folder.not_entered] == [
        ".git: is a hidden folder and is not entered",
        "loop: is a link to a folder and is not followed",
    ]
    said = [str(p) for p in folder.skipped]
    assert said[0].startswith("gone.md: cannot be opened (No such file")
    assert said[1].startswith("self.md: cannot be opened (Too many levels")


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    (skipped,) = read_folder(tmp_path).skipped
    assert str(skipped) == "pipe.md: is no plain file; remove it (skipped)"


def test_deep_nesting_ends(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<div>" * 20_000 + "deep" + "</div>" * 20_000, encoding="utf-8")
    (tmp_path / "a.md").write_text("> " * 5_000 + "deep", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text("[" * 100_000 + "\n", encoding="utf-8")
    folder = read_folder(tmp_path)
    assert len(folder.documents) + len(folder.skipped) == 3


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_docx(tmp_path / "a.docx")
    monkeypatch.setattr("tasks.documents.docx_files.MAX_TEXT_BYTES", 1000)
    (skipped,) = read_folder(tmp_path).skipped
    assert "unpacks to more than" in str(skipped)


@given(
    body=st.binary(max_size=400),
    suffix=st.sampled_from([".md", ".txt", ".html", ".docx", ".pdf", ".jsonl", ".csv"]),
)
def test_any_bytes_are_read_or_named(tmp_path_factory: pytest.TempPathFactory, body: bytes, suffix: str) -> None:
    path = tmp_path_factory.mktemp("any")
    (path / f"a{suffix}").write_bytes(body)
    folder = read_folder(path)
    assert len(folder.documents) + len(folder.skipped) == 1


def test_rows_and_refusals_add_up(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "a"}\n\n{"x": 1}\n{\n{"question": ["no"]}\n' + "y" * (MAX_LINE_BYTES + 9) + "\n")
    found = read_rows(path, "q.jsonl", ("question",), ("question",))
    assert len(found.rows) == 1
    assert found.num_refused == 4
