"""Language: prose for people uses the terms of the vocabulary and none of the phrases that read as translated."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = Path("plugins/riverdelta")

#: What is held to the list, as paths from the root.
DONE = [PACKAGE, *map(Path, ("monitoring", "service", "docs", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
#: A phrase, as a regular expression in which a space is any white space, and what to write instead.
PHRASES = {
    # Negation and quantity.
    r"(?<!there\s)(is|are|was|were|be) no (?!longer|more|less|fewer)\w+": "is not a, is not a valid",
    r"(?<!there\s)(is|are|make|makes|hold|holds) (?-i:none)(?! of)": "is not valid",
    r"at the (most|least)": "at most, at least",
    r"so (many|much|large a|long a)": "N, this many, this share",
    r"as many of each": "the same number of each",
    r"once every so": "every N",
    r"whole(s|ness)?": "intact, complete, full, integer",
    r"(?<!there\s)(is|are|was|be|as) (not )?one(?=[.,;:)]|$)": "is valid, say what it is",
    # One term for one concept.
    r"what is (joined|said|asked|told|private|judged|tried|watched)": "the joined stream, the report, the challenger",
    r"what (came|comes|becomes|became) of": "the outcome of",
    r"(is|was|are|were)? ?told": "reported",
    r"(saw|sightings?)": "observed, showings",
    r"stir(s|red)?": "mark dirty",
    r"widen(s|ed)?": "inflate",
    r"obey(s|ed)?": "apply, execute",
    r"mend(s|ed)?": "fix",
    r"(own|last|recent|latest) word": "decision, latest value",
    r"guard(s|ed)?": "check, protect",
    r"judg(e|es|ed|ing)": "evaluate, measure, decide",
    r"carr(y|ies|ied) out": "apply, execute",
    r"known of": "know about, hold",
    # People where there are none.
    r"(nobody|somebody|whoever)": "no process, no one, any caller that",
    r"who(ever)? (asks|asked|watches|waits)": "the caller",
    r"one's own": "its own",
    r"takes? part": "is used, is included",
    r"has? business": "say who may",
    # Calques.
    r"anew": "again, from scratch, start over",
    r"by now": "already, so far",
    r"(lies|lie|lay)": "is, are",
    r"let(s|ting)? (in|go)": "admit, close, release",
    r"kept of": "kept from",
    r"(go|goes|going|went) on": "continue, restore",
    r"tak(e|es|en|ing) over": "restore, copy, exceed",
    r"gone (again|meanwhile)": "already deleted",
    r"comes? to (it|that)": "reaches",
    r"(is|are|was|were) of (an?|the|this|that|another|other|it|its|type|opset|version|unknown)": "belongs to, has",
    r"it (is|was) of": "belongs to",
    r"the present (?!value)\w+": "the current",
    r"as \w+( one| \w+)? (has|had|have) it": "as in",
    r"what of (it|them|this)": "say which",
    r"(is|are) alike": "equal, similar",
    r"nor (on )?any": "or any",
    r"for (good|ever)": "permanently, forever",
    r"by custom": "usually",
    r"raises? where": "raises ... if",
    r"(?-i:None) where": "None if",
    r"\A(?-i:Note) (an?|the|how|what|which|at|whether)": "Record",
    r"pass(es|ed)? over": "skip",
    r"passed for": "accepted as",
    r"what is usual": "the normal range, the reference",
    r"any more": "no longer",
    r"kept back": "not admitted, held",
    r"on the way": "in flight",
    r"grow(s)? stale": "become stale",
    r"fault of": "client error, server error",
    r"surely": "with confidence",
    r"\w+ of before": "an older",
    r"how (it|the \w+) does": "health",
    r"says? of (it|itself|learning|the)": "reports about",
    r"and their kin": "and related measures",
    r"learn on": "continue to learn",
    r"makes? of (it|them)": "returns for",
    r"that was (it|them)": "say what it was",
}
#: Files that own a word, with the one meaning that it has.
OWNERS = {
    r"judg(e|es|ed|ing)": {PACKAGE / "storage/journal", PACKAGE / "storage/log"},  # what becomes of feedback
    r"guard(s|ed)?": {PACKAGE / "bento/guard.py"},  # who may call what
}
_COMPILED = {p: re.compile(rf"(?<![\w-])(?:{p.replace(' ', chr(92) + 's+')})(?!\w)", re.IGNORECASE) for p in PHRASES}


class Prose(NamedTuple):
    """A text that people read, and the line it begins on."""

    line: int
    text: str


def _blank(pattern: str, text: str, flags: int = 0) -> str:
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=flags)


def _without_code(text: str) -> str:
    """Replace code by blanks: fences, doctests with their output, and what is in backticks."""
    text = _blank(r"^```.*?^```", text, re.M | re.S)
    text = _blank(r"^[ \t]*>>> .*?(?=^[ \t]*$|\Z)", text, re.M | re.S)
    return _blank(r"``?[^`]+``?|https?://\S+", text)


def _python(source: str) -> Iterator[Prose]:
    tree = ast.parse(source)
    inside = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node) if part is not node
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield Prose(node.lineno, "".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value and id(node) not in inside:
            yield Prose(node.lineno, node.value)
    block: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if block and token.start[0] != block[-1].start[0] + 1:
            yield Prose(block[0].start[0], "\n".join(comment.string.lstrip("#: ") for comment in block))
            block = []
        block.append(token)
    if block:
        yield Prose(block[0].start[0], "\n".join(comment.string.lstrip("#: ") for comment in block))


def prose(path: Path) -> Iterator[Prose]:
    """Yield what people read of a file: docstrings, comments, messages, Markdown, and the text of pages and alerts."""
    if path.suffix not in (".py", ".html", ".md", ".yml", ".yaml", ".toml"):
        return
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from _python(source)
    elif path.suffix == ".html":
        yield Prose(1, _blank(r"<(script|style).*?</\1>|<[^>]*>", source, re.S))
    else:
        yield Prose(1, source)


def violations(path: Path, name: Path) -> list[str]:
    """Return a line for each phrase of the list in a file: where it is, and what to write."""
    found = []
    for line, text in prose(path):
        text = _without_code(text)
        for pattern, write in PHRASES.items():
            if any(owner == name or owner in name.parents for owner in OWNERS.get(pattern, ())):
                continue
            for match in _COMPILED[pattern].finditer(text):
                at = line + text.count("\n", 0, match.start())
                found.append(f"{name}:{at}: {' '.join(match[0].split())!r}; write: {write}")
    return found


def _files() -> list[Path]:
    files = [f for done in DONE for f in ([ROOT / done] if (ROOT / done).is_file() else sorted((ROOT / done).rglob("*")))]
    return [f.relative_to(ROOT) for f in files if f.is_file()]


@pytest.mark.parametrize("done", [str(done) for done in DONE])
def test_prose_has_no_phrase_of_the_list(done: str) -> None:
    mine = [name for name in _files() if Path(done) == name or Path(done) in name.parents]
    assert mine, f"{done} has no file: take it off DONE"
    found = [line for name in mine for line in violations(ROOT / name, name)]
    assert not found, "\n" + "\n".join(found)


def test_what_the_list_proposes_is_not_on_it() -> None:
    for write in PHRASES.values():
        assert not [p for p in PHRASES for word in write.split(", ") if _COMPILED[p].search(word)], write


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.py", '"""Fine.\n\nRows of at\nthe most 8."""\n', "a.py:3: 'at the most'; write: at most, at least"),
        ("a.py", 'x = 1\nraise ValueError(f"{x} is no scorer")\n', "a.py:2: 'is no scorer'; write: is not a, is not a valid"),
        ("a.py", "x = 1  # starts anew\n", "a.py:1: 'anew'; write: again, from scratch, start over"),
        ("a.md", "# A\n\nThe file lies here.\n", "a.md:3: 'lies'; write: is, are"),
        ("a.html", "<p\nclass='whole'>\nThe whole page</p>", "a.html:3: 'whole'; write: intact, complete, full, integer"),
    ],
)
def test_a_phrase_is_named_with_its_line_and_what_to_write(tmp_path: Path, name: str, text: str, expected: str) -> None:
    (tmp_path / name).write_text(text)
    assert violations(tmp_path / name, Path(name)) == [expected]


@pytest.mark.parametrize(
    "text", ['"""See `whole`.\n\n>>> whole = 1\n>>> whole\n1\n"""\n', "whole = 1\n", 'x = "there is no release 7"\n']
)
def test_code_and_plain_english_pass(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.py").write_text(text)
    assert violations(tmp_path / "a.py", Path("a.py")) == []
