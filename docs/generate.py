"""Pages of the site that are written from the code: commands, streams and published tables. MkDocs calls `on_files`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from arabesque.cli.main import commands
from arabesque.extractors.network import NetworkCard
from arabesque.extractors.table import EXTRACTORS, extractor_kind
from arabesque.manifests.recipes import Recipe, list_recipes, load_recipe
from arabesque.manifests.weights import load_weights_manifest
from arabesque.models.published_tables import Row, list_tables, load_table

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

COMMANDS: Any = typer.main.get_command(commands)
"""All commands with their options"""
CHECKED = {
    "video_swin_b": "The authors' code and torchvision's network give identical numbers on seeded weights; ours differ "
    "by 1e-7 of the largest number. Bound in the tests: 1e-4.",
    "i3d_rgb": "Published code on seeded weights, both values of BatchNorm's epsilon, 16 and 32 frames: 4e-7 of the "
    "largest number. Bound: 1e-4. With the Kinetics weights in float16 it recognizes the actions in real clips.",
    "i3d_flow": "As `i3d_rgb`. TV-L1 flow: 0.0005 to 0.009 px (mean) from OpenCV's on three pairs of real frames.",
    "resnet_frame": "torchvision's network; 4e-7 from its own layers.",
    "resnet_crop": "As `resnet_frame`; the detector is ultralytics' with `yolov8n`, 5e-8 from its own layers. "
    "YOLOv3: 1e-5 from OpenCV's reader of Darknet files on seeded weights; others: transformers' own pipeline.",
    "ast": "Published code and transformers on seeded weights: bound 1e-4 of the largest number. Filterbank: 6e-5 from "
    "Kaldi's.",
    "c3d": "The layers of the port, on seeded weights. The real file was not available.",
    "s3d": "The layers of the published code, on seeded weights: 1e-5. The real file was not available. On random "
    "weights float16 differs from float32 by 5e-3 of the largest number, more than the 4e-3 of other networks.",
    "r2plus1d_34": "The layers of the published code, on seeded weights: 1e-5. The real files were not available.",
    "vggish": "The layers of the port, on seeded weights. The real file was not available.",
    "panns_cnn14": "The layers of the published code, on seeded weights. The real file was not available.",
    "optical_flow": "TV-L1 as for `i3d_flow`; DIS and Farneback are OpenCV's own; RAFT: 1e-5 px from torchvision's.",
    "signatures": "Bit-exact in every run; tested on pictures with known motion, cuts and skin.",
    "loudness": "Bit-exact in every run; tested on notes, noise and silence.",
    "people": "The detector of `resnet_crop`.",
    "transnet": "The published network with its own weights: no difference on random frames. Bound: 1e-4.",
    "motion": "Bit-exact in every run; tested on clips with known motion.",
    "pose": "ViTPose: transformers' own code on seeded weights; BlazePose: its own file. Features: drawn people.",
    "key_points": "As `pose`.",
    "rhythm": "Bit-exact in every run; tested on clips with known beats.",
}
"""Extractor → how its numbers were compared with an original (the golden error)."""
TRAINED = {
    ("PAMFN, RGB branch", "fisv"),
    ("GDLT", "fisv"),
    ("MS-LSTM", "fisv"),
    ("Average pooling + linear SVR", "fisv"),
    ("Ensemble", "fisv"),
}
"""Rows and data sets with trainings whose results are on the page Results on Fis-V."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the pages of `docs/`."""
    from mkdocs.structure.files import File

    pages = {"commands.md": commands_page(), "stream-cards.md": stream_cards(), "tables.md": tables_page()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def stream_cards() -> str:
    """Return one card for each extractor of the table."""
    recipes = [load_recipe(name) for name in list_recipes()]
    lines = [
        "# Stream cards",
        "",
        "Generated from the code. Bounds and differences are shares of the largest number of a row.",
    ]
    for name in EXTRACTORS:
        lines += ["", f"## {name}", "", "| | |", "|---|---|"]
        lines += [f"| {title} | {text} |" for title, text in _card(name, recipes).items() if text]
    return "\n".join([*lines, ""])


def _card(name: str, recipes: list[Recipe]) -> dict[str, str]:
    kind: Any = extractor_kind(name)
    facts: dict[str, str] = {}
    if isinstance(kind, NetworkCard):
        inputs = {
            "image": "single frames; a row is the mean over the frames of a segment",
            "clip": f"clip of {kind.clip_lengths}",
            "audio": "audio",
        }
        facts |= {"input": inputs[kind.input], "dim": str(kind.dim), "source": _escaped(kind.source)}
        facts["license of the network"] = kind.license
    else:
        facts["description"] = _escaped(" ".join((kind.__doc__ or "").split("\n\n")[0].split()).replace("``", "`"))
    specs = [(recipe.name, spec) for recipe in recipes for spec in recipe.streams.values() if spec.extractor == name]
    used = {weight for _, spec in specs for weight in spec.weights.values()}
    facts["checkpoints"] = "<br>".join(
        f"`{key}`: {entry.license}, {entry.trained_on}" + ("" if entry.urls else " (added by hand)")
        for key, entry in load_weights_manifest().weights.items()
        if key in used or (entry.layout in getattr(kind, "layouts", ()) and "flow" not in key)
    )
    facts["settings"] = ", ".join(f"`{field}`" for field in kind.Settings.model_fields)
    facts["recipes"] = ", ".join(dict.fromkeys(recipe for recipe, _ in specs))
    return facts | {"version": str(kind.version), "compared with": CHECKED.get(name, "")}


def tables_page() -> str:
    """Return every row of both papers' tables with its status."""
    lines = [
        "# Status of every table",
        "",
        "*Trained* rows have results on [Results on Fis-V](results.md). *Ready* rows are implemented and tested on",
        "small data, and need the listed streams; [Reproduce the papers](reproduce.md) shows how. *Quoted* rows only",
        "print their numbers, for the stated reason. Numbers are the printed ones; a dash means that there is none.",
    ]
    for name in list_tables():
        table = load_table(name)
        lines += [
            "",
            f"## {name}: {_escaped(table.title)}",
            "",
            "| row | status | streams | " + " | ".join(table.columns) + " |",
        ]
        lines += ["|---" * (3 + len(table.columns)) + "|"]
        datasets = {column.dataset for column in table.columns.values()}
        for row in table.rows:
            numbers = [
                f"{row.printed[column]:.3f}".lstrip("0") if column in row.printed else "–" for column in table.columns
            ]
            lines.append("| " + " | ".join([_escaped(row.name), *_status(row, datasets), *numbers]) + " |")
    return "\n".join([*lines, ""])


def _status(row: Row, datasets: set[str]) -> tuple[str, str]:
    if row.method is None:
        return f"quoted: {_escaped(row.not_implemented)}", ""
    streams = ", ".join(row.streams or row.method.streams)
    trained = any((row.name, dataset) in TRAINED for dataset in datasets) and streams == "vst"
    return ("trained on Fis-V" if trained else "ready"), streams


def commands_page() -> str:
    """Return the reference of all commands as Markdown, from the same definitions as ``--help``."""
    lines = [
        "# Commands",
        "",
        "`arabesque COMMAND --help` prints the same. Exit statuses of all commands: 0 success, 1 the command itself",
        "failed, 2 wrong usage, 3 finished with failures, 130 and 143 interrupted.",
    ]
    for name, command in COMMANDS.commands.items():
        if hasattr(command, "commands"):
            lines += ["", f"## {name}", "", command.help or ""]
            for part, member in command.commands.items():
                lines += _command(f"{name} {part}", member, "###")
        else:
            lines += _command(name, command, "##")
    lines += ["", "## Messages", "", "Every command has these options.", ""]
    lines += _table([each for each in COMMANDS.commands["status"].params if _is_message_option(each)])
    return "\n".join([*lines, ""])


def _command(name: str, command: Any, heading: str) -> list[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not _is_message_option(each)]
    usage = " ".join(_usage(each) for each in arguments)
    required = "".join(f" {each.opts[0]} {each.name.upper()}" for each in options if each.required)
    lines = ["", f"{heading} {name}", "", "```text", f"arabesque {name} {usage}{required} [OPTIONS]".replace("  ", " ")]
    lines += ["```", "", _escaped(command.help or "")]
    for parameters in (arguments, options):
        if parameters:
            lines += ["", *_table(parameters)]
    return lines


def _is_message_option(parameter: Any) -> bool:
    return getattr(parameter, "rich_help_panel", None) == "Messages"


def _usage(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper() + ("…" if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _table(parameters: list[Any]) -> list[str]:
    lines = ["| | |", "|---|---|"]
    for parameter in parameters:
        if parameter.hidden:
            continue
        if parameter.param_type_name == "argument":
            names = f"`{_usage(parameter)}`"
        else:
            value = "" if parameter.is_flag or parameter.count else f" {(parameter.metavar or 'VALUE').upper()}"
            names = ", ".join(f"`{option}{value}`" for option in parameter.opts)
        _, text = parameter.get_help_record(typer.Context(COMMANDS))
        lines.append(f"| {names} | {_escaped(text)} |")
    return lines


def _escaped(text: str) -> str:
    """Keep Markdown from reading what a help text says as a table or as HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[").replace("\n\n", " ").replace("\n", " ")
