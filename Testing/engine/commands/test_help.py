"""`difftumor --help` answers at once: it imports nothing heavy, and names every command as the command does."""

import subprocess
import sys
from pathlib import Path

import pytest

import difftumor
from difftumor.cli import SUBCOMMANDS, main

ENGINE = Path(difftumor.__file__).parents[1]
HEAVY = ("torch", "monai", "matplotlib", "scipy", "nibabel", "SimpleITK", "numpy", "tyro", "rich")


@pytest.mark.parametrize("words", [["--help"], ["--version"], [], ["nonsense"]])
def test_nothing_heavy_is_imported_before_a_command_is_named(words):
    program = (
        "import sys; from difftumor.cli import main\n"
        f"code = main({words!r})\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ENGINE, capture_output=True, text=True, check=True
    )
    code = 0 if words and words[0].startswith("--") else 2
    assert done.stdout.splitlines()[-1] == f"[] {code}"


def test_help_names_every_command_and_no_other(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    modules = {path.stem for path in (ENGINE / "difftumor" / "commands").glob("*.py")}
    assert set(SUBCOMMANDS) <= modules
    for name, command in SUBCOMMANDS.items():
        assert command.help in said
        assert callable(command.load().run), name


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_of_a_command(name, capsys):
    assert main([name, "--help"]) == 0
    assert f"usage: difftumor {name}" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"difftumor {difftumor.__version__}\n"


def test_a_slip_of_the_pen_is_understood(capsys):
    assert main(["segmnt", "ct.nii.gz"]) == 2
    assert "did you mean segment?" in capsys.readouterr().err
