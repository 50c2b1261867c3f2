"""The command line: what can be typed, and what a wrong word is answered."""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from nestor.cli import _dashboard, _search_words
from nestor.errors import BadArgument, NestorError

WRONG_USE = 2

ABOUT = """\
Nestor: nested optimization on JAX. An optimization is a function, from everything its objective reads
to its solution; so it can be compiled, batched, nested in another one, and differentiated.

The library is used from Python (import nestor); this command shows what it can do."""

EXAMPLES = """\
examples:
  nestor demo                          tune 640 strengths by hypergradients, write a table and a picture
  nestor demo --steps 5 --no-picture   a shorter look
  nestor demo schedule                 learn the step sizes of a training run, by running it backwards
  nestor demo reweight                 learn which labels of a training set to trust
  nestor demo search                   tune a net in one study that searches and descends
  nestor demo --seed 3 --out runs/3    another split, into a folder of its own
  nestor tune train.py:objective --storage study.db --trials 100 --workers 2
                                       search for the best parameters of a function of yours
  nestor study best --storage study.db what came of it
  nestor dashboard study.db            a live page over the studies of a file
  python -m nestor demo                the same, where the command is not on the path"""

DEMO = """\
Tune a multinomial logistic regression on scikit-learn's digits with one L2 strength for each of its 640
weights, by implicit hypergradients of the validation loss, and compare it on test images with the best
single strength of a grid. Writes demo.json and demo.png. Takes 20 seconds on two free cores.
Needs: pip install 'nestor[demo]'"""

SCHEDULE = """\
Learn the 100 step sizes of a training run (a small net on scikit-learn's digits) by hypergradients through the
whole run, which is made backwards bit for bit, and compare them on test images with the best constant rate of a
sweep with the same budget. Writes schedule.json and schedule.png. Takes 20 seconds on two free cores.
Needs: pip install 'nestor[demo]'"""

SCHEDULE_EXAMPLES = """\
examples:
  nestor demo schedule --steps 10      a shorter look
  nestor demo schedule --seed 3        another split of the images and other seeds

Ctrl-C ends it early: what there is goes to schedule.json, and the exit status is 130."""

REWEIGHT = """\
Train a net on scikit-learn's digits, of which 1000 have a label that is wrong in 40 % of the cases and 100 one that
is right: a second level of optimization learns the weights of the noisy images from the clean ones. Compared on
test images with the same net without weights. Writes reweight.json and reweight.png. Takes 10 seconds on two free
cores. Needs: pip install 'nestor[demo]'"""

REWEIGHT_EXAMPLES = """\
examples:
  nestor demo reweight --wrong 60      more wrong labels
  nestor demo reweight --clean-size 30 fewer labels that are known to be right

Ctrl-C ends it early: what there is goes to reweight.json, and the exit status is 130."""

SEARCH = """\
Tune every setting of a small net on scikit-learn's digits in one study: optimizer and width by search, and 141 real
settings (rates, L2 strengths, sizes of the first weights) along exact hypergradients inside each trial. Compared with
the same search without gradients, at equal numbers of training runs. Writes search.json and search.png. Takes 40
seconds on two free cores. Needs: pip install 'nestor[demo]'"""

SEARCH_EXAMPLES = """\
examples:
  nestor demo search --steps 80        fewer training runs for each study
  nestor demo search --seed 3          another split of the images and other seeds

Ctrl-C ends it early: what there is goes to search.json, and the exit status is 130."""

DEMO_EXAMPLES = """\
examples:
  nestor demo --seed 3                 another split of the images
  nestor demo --train-size 300         fewer images to train on, more to tune and test with
  nestor demo --quiet --out runs/a     only the table; results in runs/a

Ctrl-C ends it early: what there is goes to demo.json, and the exit status is 130."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are two lines: what is wrong, and what to do."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USE, f"{self.prog}: {message}\nDo this: see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The `nestor` command.

    Args:
        arguments: the words after `nestor`; None takes those of this process.

    Returns:
        The exit status: 0, 1 for a failure, 2 for wrong use, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = _parsers()
    try:
        _refuse_unknown_words(words, parser, commands)
        options, left = parser.parse_known_args(words)
        if left:
            speaker = commands.get(getattr(options, "job", None) or options.command, parser)
            speaker.error(f"there is no place for {left[0]!r}; what it takes are options")
        if options.command is None:
            parser.print_help()
            return 0
        return options.run(options)
    except BadArgument as error:
        print(error, file=sys.stderr)
        return WRONG_USE
    except NestorError as error:
        print(f"nestor: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("nestor: interrupted", file=sys.stderr)
        return 130


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    form: dict[str, Any] = {
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "allow_abbrev": False,
        "add_help": False,
    }
    usage = "nestor [--help] [--version] command [options]"
    parser = _Parser(prog="nestor", usage=usage, description=ABOUT, epilog=EXAMPLES, **form)
    _add_help(parser)
    version = f"nestor {importlib.metadata.version('nestor')}"
    parser.add_argument("--version", action="version", version=version, help="print the version")
    rooms = parser.add_subparsers(dest="command", title="commands", metavar="")
    demo = rooms.add_parser(
        "demo",
        prog="nestor demo",
        help="tune 640 L2 strengths by hypergradients: a table and a picture",
        description=DEMO,
        epilog=DEMO_EXAMPLES,
        **form,
    )
    _add_options(demo, steps=30)
    demo.set_defaults(run=_demo)
    jobs = demo.add_subparsers(dest="job", title="other demos", metavar="")
    schedule = jobs.add_parser(
        "schedule",
        prog="nestor demo schedule",
        help="learn the step sizes of a training run by exact reversal",
        description=SCHEDULE,
        epilog=SCHEDULE_EXAMPLES,
        **form,
    )
    _add_options(schedule, steps=100)
    schedule.set_defaults(run=_schedule)
    reweight = jobs.add_parser(
        "reweight",
        prog="nestor demo reweight",
        help="learn which labels of a training set to trust",
        description=REWEIGHT,
        epilog=REWEIGHT_EXAMPLES,
        **form,
    )
    _add_reweight_options(reweight)
    reweight.set_defaults(run=_reweight)
    searching = jobs.add_parser(
        "search",
        prog="nestor demo search",
        help="tune a net in one study that searches and descends",
        description=SEARCH,
        epilog=SEARCH_EXAMPLES,
        **form,
    )
    _add_options(searching, steps=160, train_size=200, what="training runs of each study")
    searching.set_defaults(run=_search)
    commands = {"demo": demo, "schedule": schedule, "reweight": reweight, "search": searching}
    commands |= _search_words.add(rooms, form)
    commands["dashboard"] = _dashboard.add(rooms, form)
    return parser, commands


def _add_help(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-h", "--help", action="help", help="print this help")


def _add_options(
    parser: _Parser, steps: int, train_size: int = 599, what: str = "hypergradient steps at most"
) -> None:
    """The options of the demos that tune on validation images."""
    _add_help(parser)
    parser.add_argument(
        "--steps",
        type=_whole(1, 1000),
        default=steps,
        metavar="N",
        help=f"{what} ({steps})",
    )
    parser.add_argument(
        "--seed",
        type=_whole(0, 2**32 - 8),
        default=0,
        metavar="N",
        help="shuffles the images before the split (0)",
    )
    parser.add_argument(
        "--train-size",
        type=_whole(100, 1597),
        default=train_size,
        metavar="N",
        help=f"training images ({train_size}); the rest of 1797 is halved into validation and test",
    )
    _add_results(parser)


def _add_reweight_options(parser: _Parser) -> None:
    _add_help(parser)
    numbers = (
        ("--steps", 1, 100_000, 1000, "steps of both levels (1000)"),
        ("--seed", 0, 2**32 - 8, 0, "shuffles the images, and draws the wrong labels and the start (0)"),
        ("--train-size", 100, 1297, 1000, "noisy images (1000)"),
        (
            "--clean-size",
            10,
            400,
            100,
            "images with labels that are right (100); the rest of 1797 is for tests",
        ),
        ("--wrong", 0, 80, 40, "percent of the noisy images whose label is wrong (40)"),
    )
    for name, low, high, default, words in numbers:
        parser.add_argument(name, type=_whole(low, high), default=default, metavar="N", help=words)
    _add_results(parser)


def _add_results(parser: _Parser) -> None:
    """Where the results go, and what is shown."""
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the results (runs/demo-<date>-<time>)"
    )
    parser.add_argument("--no-picture", dest="picture", action="store_false", help="draw no picture")
    parser.add_argument("--quiet", action="store_true", help="print the table and the folder, nothing else")


def _schedule(options: argparse.Namespace) -> int:
    from nestor.cli import _schedule_demo as demo

    return demo.run(options)


def _reweight(options: argparse.Namespace) -> int:
    from nestor.cli import _reweight_demo as demo

    return demo.run(options)


def _search(options: argparse.Namespace) -> int:
    from nestor.cli import _search_demo as demo

    return demo.run(options)


def _demo(options: argparse.Namespace) -> int:
    from nestor.cli import _demo as demo  # brings JAX programs; --help should not wait for them

    return demo.run(options)


def _whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number in a range, as a type of argparse."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return value

    return convert


def _refuse_unknown_words(words: list[str], parser: _Parser, commands: dict[str, _Parser]) -> None:
    """Name the first word that means nothing, and the nearest one that does."""
    speaker, takes_value = parser, False
    for word in words:
        expected, takes_value = takes_value, False
        if word == "--":
            return
        if word.startswith("--"):
            known = [text for action in speaker._actions for text in action.option_strings]
            option = word.partition("=")[0]
            if option not in known:
                speaker.error(f"there is no option {option!r}{_nearest(option, known)}")
            takes_value = "=" not in word and any(
                word in action.option_strings and action.nargs is None for action in speaker._actions
            )
        elif not word.startswith("-") and not expected:
            below = [name for action in speaker._actions for name in _commands_of(action)]
            if not below and any(not action.option_strings for action in speaker._actions):
                continue  # it names a thing, not a command
            if word not in below:
                speaker.error(f"there is no command {word!r}{_nearest(word, below)}")
            speaker = commands[word]


def _commands_of(action: argparse.Action) -> list[str]:
    """The commands that a parser's action leads to; none for an option."""
    return list(action.choices) if isinstance(action, argparse._SubParsersAction) else []


def _nearest(word: str, known: list[str]) -> str:
    if not known:
        return "; what it takes are options"
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f" (there are: {', '.join(known)})"
