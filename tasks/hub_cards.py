"""What is known of each public data set: where it lies, under which terms, and what is left out of it.

The revisions were read on public pages, not looked up on the Hub: none of them is `verified` yet.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """One public data set as this project uses it."""

    name: str  # the task is called hub/<name>
    repo: str  # data set on the Hugging Face Hub
    revision: str  # commit that is read; a branch where no full commit is known
    files: dict[str, str]  # part -> pattern of its files in the repository; Parquet or JSON only
    columns: dict[str, tuple[str, ...]]  # part -> columns that must be there
    licence: str  # as the data set's page states it
    citation: str
    size: str  # as stated by its authors or its page
    asked: str  # what becomes a clause, a question and a key
    left_out: tuple[str, ...]  # what is dropped on purpose, and why
    verified: bool = False  # whether the revision was looked up on the Hub
    keys_by_rule: bool = False  # the set's own answers are too long to be keys
    seen: str = ""  # short hash of the state that the page showed, where `revision` is a branch

    @property
    def source(self) -> str:
        state = f" (seen at {self.seen})" if self.seen else ""
        checked = "" if self.verified else ", not verified"
        return f"https://huggingface.co/datasets/{self.repo} at {self.revision}{state}{checked}. {self.citation}"


_RAGBENCH_COLUMNS = (
    "id",
    "question",
    "documents",
    "response",
    "documents_sentences",
    "all_relevant_sentence_keys",
)
_BY_RULE = (
    "The reference answers are long; the key is a short value (a number, code, menu path, quotation or name) that "
    "the reference answer and its evidence share and the question does not hold. Rows without one are dropped."
)


def _ragbench(name: str, size: str, original: str) -> Card:
    return Card(
        name=name,
        repo="rungalileo/ragbench",
        revision="97808f3e5fd16ede40bbff6c2949af8139b2eb7b",
        files={"rows": f"{name}/*.parquet"},
        columns={"rows": _RAGBENCH_COLUMNS},
        licence="CC-BY-4.0",
        citation=f"Friel, Belyi, Sanyal 2024, RAGBench, arXiv:2407.11005; {original}",
        size=size,
        asked=f"A clause is the part of a document with the sentences marked relevant. {_BY_RULE}",
        left_out=(
            "Second responses to one question: they ask the same thing again.",
            "Documents that nobody asks about: every clause here has a question.",
        ),
        keys_by_rule=True,
    )


CARDS: dict[str, Card] = {
    card.name: card
    for card in (
        Card(
            name="obliqa",
            repo="RegNLP/ObliQA",
            revision="main",
            seen="53d87b5",
            files={"rows": "**/ObliQA_*.json"},
            columns={"rows": ("QuestionID", "Question", "Passages")},
            licence="Apache-2.0 (the page); the regulations themselves are ADGM's",
            citation="Gokhan et al. 2024, RegNLP in Action, arXiv:2409.05677",
            size="27,869 questions on 40 regulatory documents",
            asked=(
                "A clause is a passage under its rule number. The set has no short answers, so each question also "
                "asks which rule says so, and the key is that number."
            ),
            left_out=("Questions that rest on several passages: a clause must answer alone.",),
        ),
        _ragbench("emanual", "1,318 rows", "Nandy et al. 2021, EManuals, arXiv:2109.05897"),
        _ragbench("techqa", "1,808 rows", "Castelli et al. 2020, TechQA, ACL 2020"),
        _ragbench("covidqa", "1,765 rows", "Moeller et al. 2020, COVID-QA, NLP-COVID 2020"),
        Card(
            name="multidoc2dial",
            repo="IBM/multidoc2dial",
            revision="refs/convert/parquet",
            seen="1108a96 of main",
            files={
                "dialogue": "dialogue_domain/*/*.parquet",
                "document": "document_domain/*/*.parquet",
            },
            columns={"dialogue": ("dial_id", "turns"), "document": ("doc_id", "title", "spans")},
            licence="Apache-2.0",
            citation="Feng et al. 2021, MultiDoc2Dial, EMNLP 2021, arXiv:2109.12595",
            size="about 4,800 dialogues on 488 documents of four public services",
            asked=(
                "A clause is a part of a document's section, a question the first thing a user says, its evidence "
                f"the spans of the agent's next turn. {_BY_RULE}"
            ),
            left_out=(
                "Later turns of a dialogue: they lean on the turns before.",
                "The main branch holds a loading script only; the Hub's own Parquet copy is read instead.",
            ),
            keys_by_rule=True,
        ),
        Card(
            name="longmemeval",
            repo="xiaowu0162/longmemeval-cleaned",
            revision="98d7416c24c778c2fee6e6f3006e7a073259d48f",
            files={"rows": "longmemeval_oracle.json"},
            columns={
                "rows": (
                    "question_id",
                    "question",
                    "answer",
                    "haystack_dates",
                    "haystack_session_ids",
                    "haystack_sessions",
                )
            },
            licence="MIT",
            citation="Wu et al. 2024, LongMemEval, ICLR 2025, arXiv:2410.10813",
            size="500 questions",
            asked=(
                "A clause is the newest turn marked as evidence that holds the answer, under the number of its "
                "chat, since every chat is another person's; the question names the chat. Questions whose id ends "
                "in _abs have no answer."
            ),
            left_out=(
                "Answers that no single turn spells out: sums, orders of events, preferences.",
                "Sessions without evidence (the oracle file has none).",
            ),
        ),
        Card(
            name="knowedit",
            repo="zjunlp/KnowEdit",
            revision="6d218881e60c7c8be836bd2befd598eb3b318be4",
            files={"rows": "benchmark/wiki_*/*_*.json"},
            columns={"rows": ("subject", "prompt", "target_new")},
            licence="MIT",
            citation="Zhang et al. 2024, A Comprehensive Study of Knowledge Editing, arXiv:2401.01286",
            size="wiki_recent 570 + 1,266 and wiki_counterfact 1,455 + 885 edits",
            asked=(
                "A clause states one edit, the prompt with its new target; it is asked for under another name of "
                "its subject, or reworded, where the set has that. The old value, where given, is a rival."
            ),
            left_out=(
                "ZsRE, WikiBio, ConvSent and Sanitation: no statement of the new fact, or no short value.",
                "Reasoning prompts: they need facts that no clause gives.",
            ),
        ),
        Card(
            name="squad_v2",
            repo="rajpurkar/squad_v2",
            revision="3ffb306f725f7d2ce8394bc1873b24868140c412",
            files={"rows": "squad_v2/validation-*.parquet"},
            columns={"rows": ("id", "title", "context", "question", "answers")},
            licence="CC-BY-SA-4.0",
            citation="Rajpurkar, Jia, Liang 2018, Know What You Don't Know, arXiv:1806.03822",
            size="11,873 validation questions, 5,945 of them unanswerable",
            asked="A clause is the part of a paragraph that holds the answer; the key is the first answer given.",
            left_out=(
                "The train split: models have seen it, and the validation split is enough.",
                "Unanswerable questions whose words some clause seems to cover.",
            ),
        ),
    )
}
