"""The command line: one thin function a command. What is slow to import is imported inside."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lightpaff import ranks
from lightpaff.errors import UserError
from lightpaff.files import describe_disk_error
from lightpaff.runtimes import Format, Quantisation, Runtime
from lightpaff.training.interruption import StoppedError, swallowed_stops_come_again

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

RecipeArgument = Annotated[Path, typer.Argument(help="A recipe in YAML; see the folder recipes/.", show_default=False)]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Change a key: --set student.layers=4; local paths start at the recipe. May come several times."
    ),
]
OutputOption = Annotated[Path | None, typer.Option("--output", help="The run's directory; default runs/NAME.")]
StudiedOption = Annotated[
    Path | None, typer.Option("--recipe", help="Study this recipe instead of the one that is named.")
]
TaskOption = Annotated[str | None, typer.Option(help="Which the study is about, where the recipe has several.")]

_UsageError: Any = typer.BadParameter.__base__
"""What a wrong command line raises: Click's, or that of typer's own copy of Click, as the version has it."""
_STOPPED = 130
_OF_SEVERAL_RANKS = ("run", "distil")


@app.command()
def run(recipe: RecipeArgument, set_: SetOption = None, output: OutputOption = None) -> None:
    """Do everything that the recipe says; what is done is reused, what was interrupted goes on."""
    from lightpaff.pipeline.run import run as run_recipe
    from lightpaff.progress import results_console
    from lightpaff.recipe import Recipe
    from lightpaff.report.console import print_summary

    result = run_recipe(Recipe.load(recipe, set_), output, command=_this_command())
    if result is not None:
        print_summary(result.report, results_console(), result.page)


@app.command()
def plan(
    recipe: Annotated[Path, typer.Argument(help="A recipe or a study, in YAML.", show_default=False)],
    studied: StudiedOption = None,
    task: TaskOption = None,
    set_: SetOption = None,
    output: OutputOption = None,
) -> None:
    """Show the steps, which are done, what they cost and how long they may take; trains nothing."""
    import yaml

    from lightpaff.pipeline.plan import print_plan
    from lightpaff.pipeline.run import plan_run
    from lightpaff.progress import results_console
    from lightpaff.recipe import Recipe
    from lightpaff.report.formats import rough_duration
    from lightpaff.study.definition import is_study, load_study
    from lightpaff.study.run import plan_study

    if is_study(recipe):
        asked = load_study(recipe, set_, studied, task)
        whole = plan_study(asked, output)
        for arm, planned, context in whole.arms:
            results_console().print(f"\n{arm}, the first of its seeds:", style="bold")
            print_plan(planned, context, results_console())
        results_console().print(
            f"\nAll arms and seeds, what they share counted once: about {rough_duration(whole.seconds)} of work left"
            + (", and the evaluations with noise" if asked.noise else "")
        )
        return
    if studied or task:
        raise UserError(f"{recipe}: is a recipe; --recipe and --task are for studies")
    loaded = Recipe.load(recipe, set_)
    print(yaml.safe_dump(loaded.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
    planned, context = plan_run(loaded, output)
    print_plan(planned, context, results_console())


@app.command()
def study(
    study: Annotated[
        Path,
        typer.Argument(help="A study in YAML, see the folder studies/; with --preset, a recipe.", show_default=False),
    ],
    preset: Annotated[
        Literal["quick"] | None,
        typer.Option(help="Will it pay for me? Three arms of a recipe (two without pre-training) in about an hour."),
    ] = None,
    recipe: StudiedOption = None,
    task: TaskOption = None,
    set_: SetOption = None,
    output: Annotated[Path | None, typer.Option("--output", help="Default: runs/studies/NAME-RECIPE-TASK.")] = None,
) -> None:
    """Compare arms of a recipe at equal budgets; several processes may work on one study together."""
    from lightpaff.progress import results_console
    from lightpaff.study.definition import load_study
    from lightpaff.study.preset import quick_study
    from lightpaff.study.run import run_study
    from lightpaff.study.tables import answer

    if preset == "quick":
        if recipe is not None:
            raise UserError(f"--recipe {recipe}: --preset quick studies the recipe {study}; give one of them")
        loaded, output = quick_study(study, set_ or [], output, task)
    else:
        loaded = load_study(study, set_, recipe, task)
    result = run_study(loaded, output, _this_command())
    console = results_console()
    for sentence in answer(result.data):
        console.print(sentence.text)
    console.print(f"Done: {result.page}")


TeacherOption = Annotated[
    str | None, typer.Option(help="A directory, a Hub id (fetched and looked at), or what teacher.source takes.")
]
PartOption = Annotated[Path | None, typer.Option(help="Where neither is given, a tenth of the data each.")]
UnlabelledOption = Annotated[list[Path] | None, typer.Option(help="More text of the same columns, without labels.")]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column", help="ROLE=NAME, where the guess is wrong: text, text_pair, label, source, target, group."
    ),
]
LatencyOption = Annotated[
    str | None, typer.Option(help="Find a student that answers one input in this time, such as 10ms; see shapes.")
]
SizeOption = Annotated[
    str | None, typer.Option(help="The same of its size on disk: 5x smaller than the teacher in float32, or 30MB.")
]


@app.command()
def new(
    data: Annotated[Path, typer.Argument(help="CSV, TSV, JSON lines, Parquet, CoNLL, SQuAD's JSON or text.")],
    teacher: TeacherOption = None,
    validation: PartOption = None,
    test: PartOption = None,
    unlabelled: UnlabelledOption = None,
    column: ColumnOption = None,
    max_latency: LatencyOption = None,
    size: SizeOption = None,
    output: Annotated[Path, typer.Option("--output", help="The recipe.")] = Path("recipe.yaml"),
) -> None:
    """Look at a data file, and write a commented recipe that runs as it is."""
    from lightpaff.progress import results_console
    from lightpaff.start.guessing import named_columns
    from lightpaff.start.new import StudentBudget, new_recipe
    from lightpaff.start.parts import Files

    files, budget = Files(data, validation, test, unlabelled or []), StudentBudget(max_latency, size)
    _, made = new_recipe(files, teacher, output, named_columns(column), budget)
    for line in made.decisions:
        results_console().print(f"- {line}", soft_wrap=True)
    results_console().print(f"Written: {output}\nNext: lightpaff plan {output}, then lightpaff run {output}")


@app.command()
def distil(
    train: Annotated[Path, typer.Option(help="The data; see lightpaff new.")],
    teacher: TeacherOption = None,
    validation: PartOption = None,
    test: PartOption = None,
    unlabelled: UnlabelledOption = None,
    column: ColumnOption = None,
    max_latency: LatencyOption = None,
    size: SizeOption = None,
    set_: SetOption = None,
    output: Annotated[Path, typer.Option("--output", help="The run's directory; the recipe is beside it.")] = Path(
        "runs/distilled"
    ),
) -> None:
    """Look at a data file, write the recipe, and run it: lightpaff new and lightpaff run in one."""
    from lightpaff.progress import results_console
    from lightpaff.report.console import print_summary
    from lightpaff.start.distil import distil as distil_files
    from lightpaff.start.guessing import named_columns

    result = distil_files(
        train,
        teacher=teacher,
        validation=validation,
        test=test,
        unlabelled=list(unlabelled or []),
        columns=named_columns(column),
        max_latency=max_latency,
        size=size,
        output=output,
        overrides=set_,
        command=_this_command(),
    )
    if result is not None:
        print_summary(result.data, results_console(), result.report)


@app.command()
def push(
    directory: Annotated[Path, typer.Argument(help="An export, or the student of a run.")],
    repository: Annotated[str, typer.Argument(help="OWNER/NAME on the Hub.")],
    licence: Annotated[str | None, typer.Option(help="Such as apache-2.0; left out, the teacher's, if known.")] = None,
    private: Annotated[bool, typer.Option("--private", help="For a repository that is made.")] = False,
) -> None:
    """Upload an export or a student to the Hub, with its card and results."""
    from lightpaff.pipeline.publishing import push as push_directory

    typer.echo(push_directory(directory, repository, licence, private=private))


@app.command()
def pull(
    repository: Annotated[str, typer.Argument(help="OWNER/NAME on the Hub.")],
    output: Annotated[Path, typer.Option("--output", help="An empty or new directory.")],
    revision: Annotated[str | None, typer.Option(help="A branch, tag or commit; left out, the newest.")] = None,
) -> None:
    """Download an export or a student from the Hub."""
    from lightpaff.pipeline.publishing import pull as pull_repository

    typer.echo(pull_repository(repository, output, revision))


@app.command()
def serve(
    export: Annotated[Path, typer.Argument(help="The directory of an export, such as runs/demo/exports/onnx-int8.")],
    host: Annotated[str, typer.Option(help="Where to listen; this machine alone unless told otherwise.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Of a batch; 0 is all cores.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Texts that are answered together, at the most.")] = 32,
    wait_ms: Annotated[float, typer.Option(min=0, help="How long a batch that is not full waits for more.")] = 2.0,
    queue: Annotated[int, typer.Option(min=1, help="Texts that may wait; what comes beyond gets 503.")] = 512,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for an answer.")] = 30.0,
    shadow: Annotated[Path | None, typer.Option(help="A run, whose teacher is asked for a share too.")] = None,
    shadow_share: Annotated[float, typer.Option(min=0, max=1)] = 0.05,
    key_file: Annotated[Path | None, typer.Option(help="Holds the API key; else LIGHTPAFF_API_KEY; else none.")] = None,
) -> None:
    """Serve an export over HTTP, in batches, with limits; a page to try it is at /."""
    from lightpaff.serving.serve import read_key
    from lightpaff.serving.serve import serve as serve_export
    from lightpaff.serving.settings import ServeSettings

    settings = ServeSettings(
        export=str(export),
        threads=threads,
        most_together=batch,
        wait_ms=wait_ms,
        queue=queue,
        timeout_s=timeout,
        shadow=str(shadow or ""),
        shadow_share=shadow_share,
        api_key=read_key(key_file),
    )
    serve_export(settings, host, port, workers)


@app.command()
def doctor() -> None:
    """Say what this machine has, and what that means for speed."""
    from rich.table import Table

    from lightpaff.progress import results_console
    from lightpaff.start.doctor import examine

    table = Table("", "", "what follows", box=None)
    for finding in examine():
        table.add_row(finding.name, finding.value, finding.meaning)
    results_console().print(table)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Where the runs are; with --all, all below it.")] = Path("runs"),
    all_: Annotated[bool, typer.Option("--all", help="One page over all runs and studies.")] = False,
) -> None:
    """Write a run's page anew from its numbers; with --all, one page over all runs and studies in a folder."""
    from lightpaff.report.gallery import write_gallery
    from lightpaff.report.page import write_report_again

    typer.echo(write_gallery(folder) if all_ else write_report_again(folder))


@app.command()
def targets(
    recipe: RecipeArgument,
    set_: SetOption = None,
    output: OutputOption = None,
    shard: Annotated[
        str | None, typer.Option("--shard", help="2/4: the second of four parts, for four machines.")
    ] = None,
    ray: Annotated[
        int | None, typer.Option("--ray", min=1, help="Capture in so many workers of a Ray cluster.")
    ] = None,
) -> None:
    """Capture the teachers' soft targets that the recipe's students will read; what is there is not asked for again."""
    from lightpaff.pipeline.targets_run import capture_targets, print_captured
    from lightpaff.progress import results_console
    from lightpaff.recipe import Recipe

    found = capture_targets(Recipe.load(recipe, set_), None if output is None else str(output), shard, ray)
    print_captured(found, results_console())


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The directory of a finished run.", show_default=False)],
    to: Annotated[Format, typer.Option("--to", help="For which runtime.", show_default=False)],
    quantise: Annotated[Quantisation, typer.Option("--quantise", help="Of the weights.")] = "none",
    task: Annotated[str | None, typer.Option("--task", help="Whose student, where the run has several tasks.")] = None,
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", min=0, help="Per cent of the student's score that it may lose."),
    ] = 1.0,
    output: Annotated[Path | None, typer.Option("--output", help="Default: exports/ in the run's directory.")] = None,
) -> None:
    """Write a run's student for another runtime, and check that it still says the same."""
    from lightpaff.pipeline.export_run import export_student, make_export_request, print_export
    from lightpaff.progress import results_console

    request = make_export_request(to, quantise, tolerance)
    exported = export_student(run, request, task=task, output=output)
    print_export(exported, results_console())


@app.command()
def benchmark(
    paths: Annotated[
        list[str], typer.Argument(help="Runs, models or exports; NAME=DIRECTORY names one.", show_default=False)
    ],
    baseline: Annotated[str | None, typer.Option(help="Ratios are against this one; default: the first.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Batch sizes; default 1 and 32.")] = None,
    length: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Tokens of an input; default 32 and 128, and 512 where no run's own are measured."),
    ] = None,
    own: Annotated[
        bool | None,
        typer.Option("--own/--no-own", help="The first run's own inputs too; default: yes, unless --length is given."),
    ] = None,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to write.")] = 32,
    beams: Annotated[int, typer.Option(min=1, help="Of an encoder-decoder.")] = 4,
    threads: Annotated[
        list[int] | None,
        typer.Option(min=0, help="For each model; 0 is all cores. May come several times; default 1 and 0."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="For each batch size and length.")] = 20.0,
    price: Annotated[float, typer.Option(min=0, help="Of a core and hour.")] = 0.04,
    task: Annotated[str | None, typer.Option(help="Of runs with several tasks.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="JSON lines on standard output instead of a table.")] = False,
) -> None:
    """Measure teacher, student and exports in turn, each in its own runtime: time, memory, size and cost."""
    from lightpaff.deployment.measuring import PROCESSES, MeasureSettings, to_json_lines
    from lightpaff.pipeline.benchmark_run import print_benchmark, run_benchmark
    from lightpaff.progress import results_console

    settings = MeasureSettings(
        batch_sizes=tuple(batch or (1, 32)),
        new_tokens=new_tokens,
        beams=beams,
        seconds=seconds,
        processes=PROCESSES,
        baseline=baseline,
        price_per_core_hour=price,
    )
    measured = run_benchmark(paths, settings, threads=threads or (1, 0), task=task, lengths=length, own=own)
    if json_:
        print(to_json_lines(measured.measurements), end="")
    else:
        print_benchmark(measured, results_console())


@app.command()
def shapes(
    teacher: Annotated[
        str, typer.Argument(help="A model's directory, Hub id or wheel:..., or a recipe.", show_default=False)
    ],
    max_latency: Annotated[str, typer.Option(help="Of one input: 10ms, 0.5s.", show_default=False)],
    size: Annotated[str, typer.Option(help="On disk: 5x (smaller than the teacher in float32), 30MB.")] = "1x",
    runtime: Annotated[
        Runtime | None, typer.Option(help="Default: ONNX Runtime; for encoder-decoders CTranslate2.")
    ] = None,
    quantise: Annotated[Quantisation | None, typer.Option(help="Default: int8 where the runtime has it.")] = None,
    length: Annotated[int, typer.Option(min=1, help="Tokens of the input.")] = 128,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to write.")] = 32,
    beams: Annotated[int, typer.Option(min=1, help="Of an encoder-decoder.")] = 4,
    threads: Annotated[int, typer.Option(min=0, help="0 is all cores.")] = 0,
    write: Annotated[Path | None, typer.Option(help="A recipe whose student gets the shape.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where the plot goes; default: shapes/.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="JSON lines on standard output instead of a table.")] = False,
) -> None:
    """Find the student with the largest layers in a latency and a size, before training: random weights are as fast."""
    from lightpaff.deployment.shape_table import to_json_lines
    from lightpaff.pipeline.shapes_run import ShapesRequest, find_shapes, print_shapes, print_written
    from lightpaff.progress import console, results_console

    request = ShapesRequest(
        teacher=teacher,
        max_latency=max_latency,
        size=size,
        runtime=runtime,
        quantise=quantise,
        length=length,
        new_tokens=new_tokens,
        beams=beams,
        threads=threads,
        write=write,
        output=output,
    )
    result = find_shapes(request)
    if json_:
        print(to_json_lines(result.search), end="")
        print_written(result, console)
    else:
        print_shapes(result, results_console())


@app.command()
def schema() -> None:
    """Print the recipe's JSON schema, for editors."""
    from lightpaff.recipe import Recipe

    print(json.dumps(Recipe.model_json_schema(), indent=2))


def _print_version_and_leave(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        print(version("lightpaff"))
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version_and_leave, is_eager=True, help="Print the version and leave."
        ),
    ] = False,
) -> None:
    """Distil a language model twice, in pre-training and in fine-tuning, and prove the small one with numbers."""
    if ranks.count() > 1 and context.invoked_subcommand not in _OF_SEVERAL_RANKS:
        raise UserError(
            f"{context.invoked_subcommand}: {ranks.count()} ranks were launched, and only "
            f"{' and '.join(_OF_SEVERAL_RANKS)} work in several; start it without the launcher"
        )


def main() -> None:
    """Run the command line; bad input ends in one line and exit code 2, a stop in 130."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        with swallowed_stops_come_again():
            code = app(sys.argv[1:] or ["--help"], prog_name="lightpaff", standalone_mode=False)
        # Typer turns Ctrl-C into this code, and says nothing.
        if code == _STOPPED:
            _fail(f"Stopped. Go on with: {_this_command()}", _STOPPED)
        ranks.leave(code)
    except _UsageError as error:
        _fail(f"{error.format_message().rstrip('.')}; see lightpaff --help", 2)
    except UserError as error:
        _fail(str(error), 2)
    except OSError as error:
        if not (line := describe_disk_error(error)):
            raise
        _fail(line, 2)
    except StoppedError as error:
        _fail(f"{error}. Go on with: {_this_command()}", _STOPPED)


def _fail(message: str, code: int) -> None:
    print(f"lightpaff: {' '.join(message.splitlines())}", file=sys.stderr)
    ranks.leave(code)


def _this_command() -> str:
    import shlex

    return shlex.join(["lightpaff", *sys.argv[1:]])


if __name__ == "__main__":
    main()
