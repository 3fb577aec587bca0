"""Errors carry their remedy as data, and only the faces know commands, options and buttons."""

import ast
import re
from pathlib import Path

import pytest

import difftumor
from difftumor import remedies
from difftumor.cli import main
from difftumor.remedies import KINDS, Advice, Remedy, advice_of, places, with_remedy
from difftumor.weights.cards import ModelError
from difftumor.worker.failures import explain_failure

ENGINE = Path(difftumor.__file__).parent
# The face of the command line: its commands, its program, and the words of the remedies.
FACE = ("commands/", "cli.py", "__main__.py", "remedies.py", "worker/main.py")
TERMINAL = re.compile(
    r"\bdifftumor (?:models|doctor|synthesize|anomaly|segment|learn|evaluate|replay|study|demo|phantom)\b"
    r"|(?<![\w-])--\w|\bpip\b|\bgit \w|DIFFTUMOR_|TMPDIR|HTTPS?_PROXY|SSL_CERT|HF_\w|\bpython3? -m|`"
)


def sentences(path):
    """Texts of a file in which a person could read, with X for what is filled in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    quiet = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            quiet |= {id(part) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            words = [str(v.value) if isinstance(v, ast.Constant) else "X" for v in node.values]
            text = "".join(words)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = "" if id(node) in quiet else node.value
        else:
            continue
        if " " in text:
            yield node.lineno, text


def test_no_sentence_of_the_engine_names_a_command_an_option_or_a_variable():
    found = [
        f"{path.relative_to(ENGINE)}:{line}: {text}"
        for path in sorted(ENGINE.rglob("*.py"))
        if not path.relative_to(ENGINE).as_posix().startswith(FACE)
        for line, text in sentences(path)
        if TERMINAL.search(text)
    ]
    assert not found, "\n".join(found)


def test_the_search_finds_what_it_looks_for():
    told = [text for _, text in sentences(ENGINE / "remedies.py") if TERMINAL.search(text)]
    assert len(told) > 15


def used_kinds():
    """Kinds of remedies that the engine gives, by the places where it makes them."""
    return {
        node.value
        for path in ENGINE.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Remedy"
        for argument in call.args[:1]
        for node in ast.walk(argument)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_kind_is_given_somewhere_and_every_given_kind_exists():
    assert used_kinds() == set(KINDS)


def filled(kind):
    return Remedy(kind, {name: 12.5 for name in places(remedies._WORDS[kind])})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_words_and_travels_as_json(kind):
    remedy = filled(kind)
    assert str(remedy)[0].isupper() or str(remedy).startswith("`")
    assert "{" not in str(remedy)
    assert Remedy.from_json(remedy.to_json()) == remedy


def test_a_remedy_of_another_version_is_none():
    assert Remedy.from_json(None) is None
    assert Remedy.from_json({}) is None
    assert Remedy.from_json({"kind": "turn_it_off_and_on"}) is None
    assert Remedy.from_json({"kind": "verify"}) is None  # without the model that it is about
    assert Remedy.from_json({"kind": "verify", "model": ["a list"]}) is None
    assert Remedy.from_json({"kind": ["verify"]}) is None
    text_for_a_number = {"kind": "download", "model": "a", "megabytes": "many", "licence": "b"}
    assert Remedy.from_json(text_for_a_number) is None
    with pytest.raises(ValueError, match="no remedy 'verify'"):
        Remedy("verify", {"file": "x"})


@pytest.mark.parametrize("made", [ValueError, FileExistsError, ModelError])
def test_an_error_carries_message_and_remedy_and_reads_as_both(made):
    error = with_remedy(made("a.nii.gz exists already."), Remedy("overwrite"))
    assert isinstance(error, made)
    assert str(error) == "a.nii.gz exists already. Choose another name, or add --overwrite."
    assert advice_of(error) == Advice("a.nii.gz exists already.", Remedy("overwrite"))


def test_an_error_without_a_remedy_is_its_message():
    assert advice_of(ValueError("no.")) == Advice("no.")
    assert str(with_remedy(ValueError("no."), None)) == "no."
    assert Advice.from_json(Advice("no.").to_json()) == Advice("no.")


def test_the_event_of_the_worker_tells_the_remedy_as_data_and_in_words():
    remedy = Remedy("verify", {"model": "mine"})
    event = explain_failure(with_remedy(ModelError("It has changed."), remedy), 3)
    assert (event.kind, event.message) == ("refused", "It has changed.")
    assert event.hint == "Run: difftumor models verify mine"
    assert event.remedy == {"kind": "verify", "model": "mine"}
    bare = explain_failure(ValueError("That cannot be done. Do something else."), 3)
    assert (bare.message, bare.hint, bare.remedy) == (
        "That cannot be done. Do something else.",
        "",
        None,
    )


def test_the_command_line_tells_message_and_command(capsys):
    assert main(["models", "verify", "difftumor-liver-early"]) == 1
    assert re.search(
        r"difftumor-liver-early is not installed\. Get it with: difftumor models download "
        r"difftumor-liver-early \(about \d+ MB, license ",
        capsys.readouterr().err,
    )
