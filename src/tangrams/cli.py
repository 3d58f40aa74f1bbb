"""The command ``tangrams``: study a network, redraw a report, choose what to label, list papers, measure claims.

Every mistake of the caller's ends as one line on standard error and exit code 2; ``--debug`` shows the traceback.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from tangrams.nn.tangent import TangentSum

app = typer.Typer(
    name="tangrams",
    help="Extract a network's tangent features once, then ask everything of them.",
    epilog="With --debug anywhere, an error shows its traceback.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_out = Console()


@app.command()
def study(
    target: Annotated[
        str | None,
        typer.Argument(help="package.module:function that builds the network; none: the built-in example."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights, .safetensors or a state dict saved by torch.")] = None,
    train: Annotated[Path | None, typer.Option(help="Training data, .npz with arrays x and y.")] = None,
    test: Annotated[Path | None, typer.Option(help="Test data, .npz with arrays x and y.")] = None,
    pool: Annotated[Path | None, typer.Option(help="Unlabelled data to choose from, .npz with array x.")] = None,
    initial_weights: Annotated[Path | None, typer.Option(help="The weights before training, if kept.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for report.html and study.json.")] = Path("study"),
    seed: Annotated[int, typer.Option(help="Fixes every draw.")] = 0,
) -> None:
    """Study a trained network: which labels look wrong, what is redundant, why it predicts what it predicts."""
    from tangrams.study import run_default, run_user

    if target is None:
        given = {
            "--weights": weights,
            "--train": train,
            "--test": test,
            "--pool": pool,
            "--initial-weights": initial_weights,
        }
        named = [name for name, value in given.items() if value is not None]
        if named:
            raise ValueError(f"{', '.join(named)} without a network: name it first, as package.module:function")
        run_default(out, seed=seed)
        return
    if train is None or test is None:
        raise ValueError("a network of yours needs --train FILE.npz and --test FILE.npz, each with arrays x and y")
    run_user(target, weights, train, test, out, pool=pool, initial_weights=initial_weights, seed=seed)


@app.command()
def report(
    study_json: Annotated[Path, typer.Argument(help="A study.json, or the folder that holds one.")],
    out: Annotated[Path | None, typer.Option(help="The page to write; beside the JSON by default.")] = None,
) -> None:
    """Redraw the report of a study from its JSON alone."""
    from tangrams.study.report import render

    study_json = study_json / "study.json" if study_json.is_dir() else study_json
    page = out or study_json.with_name("report.html")
    render(study_json, page)
    _out.print(f"Report: {page}", highlight=False)


@app.command()
def select(
    store: Annotated[Path, typer.Option(help="Features of the pool, as extract made them.")],
    batch: Annotated[int, typer.Option(help="How many samples to choose.")] = 64,
    labelled: Annotated[Path | None, typer.Option(help="Features of what is labelled, by the same map.")] = None,
    method: Annotated[str, typer.Option(help="lcmd, maxdist, kmeans++, maxdet, bait, maxdiag or random.")] = "lcmd",
    sketch: Annotated[int, typer.Option(help="Wider features are sketched to so many numbers.")] = 512,
    seed: Annotated[int, typer.Option(help="Fixes every draw.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write rank, index, id and score here, as CSV.")] = None,
) -> None:
    """Choose the samples of a pool to label next."""
    import csv

    from tangrams.learners import selection
    from tangrams.learners.selection.stored import select_stored

    methods = {
        "lcmd": selection.LargestClusterMaxDistance,
        "maxdist": selection.MaxDistance,
        "kmeans++": selection.KMeansPlusPlus,
        "maxdet": selection.MaxDeterminant,
        "bait": selection.BAIT,
        "maxdiag": selection.MaxDiagonal,
        "random": selection.RandomSelection,
    }
    if method not in methods:
        raise ValueError(f"no selection {method!r}: choose from {', '.join(methods)}")
    choice = select_stored(methods[method](batch, random_state=seed), store, labelled, sketch=sketch, seed=seed)
    rows = zip(range(1, batch + 1), choice.indices, choice.ids, choice.scores, strict=True)
    if out is None:
        print("\n".join(choice.ids))
    else:
        with out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("rank", "index", "id", "score"), *rows])
        _out.print(f"Wrote {out}", highlight=False)
    if choice.status is not None:
        print(f"tangrams: {choice.status}", file=sys.stderr)


@app.command()
def papers(
    room: Annotated[str | None, typer.Option(help="Only papers of this room.")] = None,
    status: Annotated[str | None, typer.Option(help="Only papers that are planned, or that work.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write docs/papers.md here instead of the table.")] = None,
    evidence: Annotated[Path, typer.Option(help="Folder of kept evidence.")] = Path("evidence"),
) -> None:
    """List the papers that the library is built from, and which work."""
    from tangrams.claims.catalogue import catalogue

    if markdown is not None:
        from tangrams.claims.pages import papers_page

        markdown.write_text(papers_page(evidence), encoding="utf-8")
        _out.print(f"Wrote {markdown}", highlight=False)
        return
    rows = catalogue()
    for name, value, known in (
        ("room", room, {row.room for row in rows}),
        ("status", status, {row.status for row in rows} | {"planned", "works"}),
    ):
        if value is not None and value not in known:
            raise ValueError(f"no papers with {name} {value!r}: choose from {', '.join(sorted(known))}")
    chosen = [row for row in rows if room in (None, row.room) and status in (None, row.status)]
    table = Table(box=None, pad_edge=False)
    for heading in ("no.", "slug", "room", "status", "title"):
        table.add_column(heading, overflow="ellipsis", no_wrap=heading != "title")
    for row in chosen:
        style = "green" if row.status == "works" else None
        table.add_row(f"{row.number:03d}", row.slug, row.room, row.status, row.title, style=style)
    _out.print(table)
    _out.print(f"{len(chosen)} papers, {sum(row.status == 'works' for row in chosen)} work.", highlight=False)


@app.command()
def claims(
    evidence: Annotated[Path, typer.Option(help="Folder of kept evidence.")] = Path("evidence"),
) -> None:
    """List the claims with what was last measured."""
    from tangrams.claims import claims as all_claims
    from tangrams.claims import kept

    records = kept(evidence)
    for slug, claim in all_claims().items():
        record = records.get(slug)
        measured = f"{record.preset}: {record.verdict}" if record else "not measured yet"
        _out.print(
            f"{claim.number:03d} {slug} · {measured} · presets {', '.join(claim.presets)}",
            style="bold",
            highlight=False,
        )
        sentence = Text(record.sentence if record else claim.statement)
        _out.print(Padding(sentence, (0, 0, 1, 4)), highlight=False)


@app.command()
def claim(
    slug: Annotated[str, typer.Argument(help="A paper's slug; `tangrams claims` lists them.")],
    preset: Annotated[str, typer.Option(help="quick, full or gpu.")] = "quick",
    evidence: Annotated[Path | None, typer.Option(help="Keep JSON and figure here; full goes to evidence/.")] = None,
) -> None:
    """Measure one paper's claim."""
    from tangrams.claims import keep, measure

    record, found = measure(slug, preset)
    _out.print(f"[{record.number:03d}] {record.statement}", markup=False, highlight=False)
    for name, value in record.numbers.items():
        _out.print(f"  {name}: {_rounded(value)}", markup=False)
    _out.print(f"{record.verdict}: {record.sentence} ({record.seconds:.0f} s)", markup=False, highlight=False)
    folder = evidence or (Path("evidence") if preset == "full" else None)
    if folder is not None and record.verdict != "skipped: data":
        _out.print(f"Kept: {keep(record, found, folder)}", highlight=False)


def _rounded(value: Any) -> Any:
    """The same numbers to four figures: what a reader of a terminal can take in."""
    if isinstance(value, dict):
        return {key: _rounded(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(member) for member in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


@app.command()
def compose(
    vectors: Annotated[list[Path], typer.Argument(help="Saved tangent vectors of one base point, .safetensors.")],
    out: Annotated[Path, typer.Option(help="The composition to write, .safetensors.")],
    weights: Annotated[str | None, typer.Option(help="One number per vector, such as 1,2,1; equal by default.")] = None,
    vector: Annotated[Path | None, typer.Option(help="Also write the sum, as a tangent vector, here.")] = None,
) -> None:
    """Compose tangent vectors into their weighted mean, each kept apart so that it can be forgotten."""
    from tangrams.nn.tangent import TangentSum, TangentVector

    try:
        amounts = [1.0] * len(vectors) if weights is None else [float(number) for number in weights.split(",")]
    except ValueError:
        raise ValueError(f"--weights takes one number per vector, such as 1,2,1, got {weights!r}") from None
    if len(amounts) != len(vectors):
        raise ValueError(f"{len(vectors)} tangent vectors but {len(amounts)} weights")
    total = TangentSum()
    for path, amount in zip(vectors, amounts, strict=True):
        total.add(path.stem, TangentVector.load(path), amount)
    _keep(total, out, vector)


@app.command()
def forget(
    composition: Annotated[Path, typer.Argument(help="A composition written by `tangrams compose`.")],
    components: Annotated[list[str], typer.Argument(help="Names of the components to forget.")],
    out: Annotated[Path | None, typer.Option(help="The composition to write; the same file by default.")] = None,
    vector: Annotated[Path | None, typer.Option(help="Also write the sum, as a tangent vector, here.")] = None,
) -> None:
    """Forget components of a composition: what is left is, bit for bit, what it would be without them."""
    from tangrams.nn.tangent import TangentSum

    total = TangentSum.load(composition)
    for name in components:
        total.remove(name)
    _keep(total, out or composition, vector)


def _keep(total: TangentSum, out: Path, vector: Path | None) -> None:
    sums = total.vector()  # first: nothing is written where there is no sum
    total.save(out)
    if vector is not None:
        sums.save(vector)
    parts = ", ".join(f"{name} {weight:.3g}" for name, weight in total.weights.items())
    _out.print(f"{out}: {parts}", markup=False, highlight=False)


def main() -> None:
    """Run the command; a mistake of the caller's is one line and exit code 2."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except Exception as error:  # every exception ends as one line: that is this function's purpose
        if debug:
            raise
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        if isinstance(error, OSError) and error.strerror and error.filename:
            text = f"{error.filename}: {error.strerror}"  # without the number
        line = " ".join(text.split()) or type(error).__name__
        print(f"tangrams: {line}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
