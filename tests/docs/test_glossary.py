"""The glossary has each word once, in the order of the alphabet, and one meaning for it everywhere on its page."""

from tests.docs.blocks import PAGES


def meanings(heading: str) -> list[tuple[str, str]]:
    """The rows of the table below a heading of concepts."""
    section = PAGES["docs/concepts.md"].read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ", 1) for line in section.splitlines() if line.startswith("| ")]
    return [(word, meaning) for word, meaning in rows if word not in ("word", "---")]


def test_each_word_stands_once_and_in_order():
    words = [word for word, _ in meanings("Glossary")]
    assert words == sorted(set(words))


def test_the_words_at_the_beginning_are_in_the_glossary():
    first = {word.partition(",")[0] for word, _ in meanings("Words")}
    assert first <= {word for word, _ in meanings("Glossary")}
