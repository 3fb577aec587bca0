"""`difftumor study summarize`: the statistics of a study, with plots and a page. `study power`: before it is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from difftumor.commands.console import Reporter, say
from difftumor.commands.study_packages import need_packages
from difftumor.options import UsageError
from difftumor.reader_study.answers import read_answers


@dataclass(kw_only=True)
class Summarize:
    """Statistics of merged answers: sensitivity, specificity, accuracy, AUC, agreement, times; tables, plots, a page.

    Run `difftumor study merge` first.
    """

    answers: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="STUDY")]]
    """Folder of the study, or its answers.json."""
    out: Annotated[Path, tyro.conf.arg(metavar="REPORT")]
    """Folder for index.html, figures.json, figures.csv, table1.csv, answers.csv and plots."""
    draws: int = 2000
    """Draws of the bootstrap over readers and cases."""
    seed: int = 0
    """Of the bootstrap: the same seed gives the same intervals."""
    quiet: bool = False
    """Print results and errors only."""
    overwrite: bool = False
    """Replace an earlier report."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        need_packages()
        if self.draws < 100:
            raise UsageError("--draws must be at least 100; 2000 are usual")
        answers = read_answers(self.answers)
        # Late, because they take seconds to import.
        from difftumor.measuring.evaluation import aligned
        from difftumor.reader_study.statistics.report import PAGE, sentences, write_report
        from difftumor.reader_study.statistics.study_figures import study_figures
        from difftumor.reader_study.statistics.tables import figures_table

        with Reporter(self.quiet) as reporter:
            reporter("computing", 0, 2)
            figures = study_figures(answers, draws=self.draws, seed=self.seed)
            reporter("drawing", 1, 2)
            self.out.mkdir(parents=True, exist_ok=True)
            write_report(answers, figures, self.out, overwrite=self.overwrite)
        if figures.groups:
            rows = figures_table(figures)
            say(aligned([row + [""] * (len(rows[0]) - len(row)) for row in rows]))
        for sentence in sentences(figures):
            say(sentence)
        say(f"Open {(self.out / PAGE).resolve()} in a browser; tables and plots lie beside it.")
        return 0


@dataclass(kw_only=True)
class Power:
    """How many cases a study needs, for an interval of a wished width and to tell readers from guessing."""

    expected: float = 0.75
    """Share of right answers that is hoped for, or feared."""
    width: float = 0.2
    """Of the whole 95 % interval: 0.2 is plus and minus ten points."""
    power: float = 0.8
    """Wished chance of telling it from 50 % (exact test, 5 %)."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        need_packages()
        from difftumor.reader_study.statistics.power import cases_for_power, cases_for_width

        try:
            wide = cases_for_width(self.expected, self.width)
            told = None if self.expected == 0.5 else cases_for_power(self.expected, self.power)
        except ValueError as error:
            raise UsageError(str(error)) from None
        share = f"{100 * self.expected:g} %"
        say(
            f"{wide} cases: Wilson's interval of {share} is at most {100 * self.width:g} points wide"
        )
        say(
            "  (of the real cases for sensitivity, of the synthetic ones for specificity, of both for accuracy)"
        )
        if told is not None:
            say(
                f"{told} cases: {share} right is told from 50 % with a chance of {100 * self.power:g} %"
            )
        return 0
