"""Do the documents say what the code does? Settings, metrics, reasons, links, examples."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel
from typer.main import get_command

from cachesvc import config
from cachesvc.cli.main import app
from cachesvc.config import Settings
from cachesvc.config.kinds import KindSettings
from cachesvc_proto.v1 import cache_pb2 as pb
from tests import promises
from tests.support.daemons import Daemon

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/*/README.md"),
        ROOT / "client/README.md",
    ],
    key=lambda path: path.relative_to(ROOT).as_posix(),
)
by_name = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=[path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
)

# Each of these pages has its Korean page beside it.
TRANSLATED = ("README.md", "docs/migrating-from-v2.md")

# The most words that a page may have (`wc -w`), and its lines are short. A page that has been
# brought into shape is added here; the budgets together limit the size of all pages.
PAGES_IN_SHAPE = {
    "README.md": 1450,
    "README.ko.md": 1180,
    "docs/README.md": 310,
    "docs/around-the-client.md": 700,
    "docs/backend.md": 850,
    "docs/client.md": 1350,
    "docs/http.md": 1015,
    "docs/migrating-from-v2.md": 1050,
    "docs/migrating-from-v2.ko.md": 940,
    "docs/releasing.md": 540,
    "docs/operating.md": 1320,
    "docs/deploying.md": 1470,
    "docs/configuration.md": 1665,
    "docs/runbook.md": 1890,
    "docs/errors.md": 1540,
    "docs/metrics.md": 895,
    "docs/cli.md": 1540,
    "docs/security.md": 1175,
    "docs/status-page.md": 260,
    "docs/architecture.md": 1775,
    "docs/local-delivery.md": 1580,
    "docs/on-disk-format.md": 1590,
    "docs/performance.md": 1010,
    "docs/performance-misses.md": 1140,
    "docs/promises.md": 1530,
    "docs/testing.md": 1760,
    "docs/adr/0001-l1-as-tmpfs-files.md": 165,
    "docs/adr/0002-the-row-is-the-entry.md": 185,
    "docs/adr/0003-own-allow-list-for-pickles.md": 175,
    "docs/adr/0004-two-watermarks.md": 135,
    "docs/adr/0005-generation-numbers.md": 140,
    "docs/adr/0006-inline-answers-off-protobuf.md": 125,
    "docs/adr/0007-link-count-as-validity-token.md": 190,
    "docs/adr/0008-the-order-of-a-put.md": 155,
    "docs/adr/0009-spare-files.md": 215,
    "docs/adr/0010-who-knows-of-a-later-catalog.md": 255,
}
WORDS_OF_ALL_PAGES = 33_000
LINE_CHARACTERS = 120

_SECTION = re.MULTILINE | re.DOTALL
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_FENCED = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_CODE_OR_TARGET = re.compile(r"`[^`]*`|\]\([^)]*\)")
_LINK_ONLY = re.compile(r"(?:- )?!?\[[^\]]*\]\([^)\s]*\)[.,:]?")
_FILE = re.compile(
    r"(?<![\w/.])(?:cachesvc|client|tests|docs|deploy|proto|core|tiers|origin|codec|engine|edge)/[\w/.]+\.\w+"
)
_REASON = re.compile(r"[A-Z]+(?:_[A-Z]+)+|INTERNAL|DEADLINE|DRAINING|ABORTED|ERASED|OVERLOADED")
_REASON_IN_CODE = re.compile(
    r'reason(?:: str)? ?= ?"([A-Z_]*[A-Z])"|^[A-Z_]+ = "([A-Z_]*[A-Z])"$', re.MULTILINE
)


def read(name: str) -> str:
    return (ROOT / name).read_text()


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings from the environment of the tests."""
    for name in list(os.environ):
        if name.startswith(config.ENV_PREFIX):
            monkeypatch.delenv(name)


# ---- settings


def settings_of(model: type[BaseModel], *path: str) -> Iterator[str]:
    """Yield the dotted name of every setting, as the file spells it."""
    for name, field in model.model_fields.items():
        here = (*path, field.alias or name)
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from settings_of(kind, *here)
        elif name == "kinds":
            yield from settings_of(KindSettings, "kinds", "NAME")
        else:
            yield ".".join(here)


def test_every_setting_and_no_other_is_in_the_reference_with_its_default() -> None:
    documented = re.findall(
        r"^- `([a-zNAME_0-9.]+)`( \(.+?\))?: ", read("docs/configuration.md"), re.MULTILINE
    )
    assert sorted(name for name, _ in documented) == sorted(settings_of(Settings))
    required = {"kinds.NAME.subject", "kinds.NAME.namespaces", "kinds.NAME.fields"}
    assert {name for name, default in documented if not default} == required


def test_the_variable_of_a_setting_is_spelled_as_the_reference_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setting, variable = re.findall(
        r"variable of `([a-z0-9_.]+)` is `([A-Z0-9_]+)`", read("docs/configuration.md")
    )[0]
    assert variable == config.ENV_PREFIX + setting.replace(".", "__").upper()
    monkeypatch.setenv("CACHESVC_ORIGIN__BUCKET", "my-bucket")
    monkeypatch.setenv(variable, "2097152")
    section, name = setting.split(".")
    assert getattr(getattr(config.load(None), section), name) == 2_097_152


@pytest.mark.usefixtures("no_settings")
def test_the_example_file_has_the_defaults() -> None:
    example = config.load(ROOT / "deploy/cachesvc.toml.example")
    defaults = Settings(origin={"bucket": "my-bucket"})
    assert example.build_kinds().all == defaults.build_kinds().all
    assert example.model_dump(exclude={"kinds"}) == defaults.model_dump(exclude={"kinds"})


@pytest.mark.usefixtures("no_settings")
def test_the_example_of_an_added_kind_loads(tmp_path: Path) -> None:
    (toml,) = blocks("docs/configuration.md", "toml")
    file = tmp_path / "cachesvc.toml"
    file.write_text(toml)
    kind = config.load(file).build_kinds().by_name["depth"]
    assert kind.field_names == ("depth_img", "depth_tensor")
    assert [namespace.name for namespace in kind.namespaces] == ["depth_front", "depth_back"]
    assert (kind.version, kind.private, kind.max_entries) == ("depth-2", True, 20)


# ---- metrics, reasons, commands


def test_every_metric_and_no_other_is_in_the_catalogue(daemon: Daemon) -> None:
    exposed = set()
    for family in text_string_to_metric_families(daemon.http("/metrics")[1]):
        if not family.name.endswith("_created"):
            exposed.add(family.name + ("_total" if family.type == "counter" else ""))
    assert set(re.findall(r"cachesvc_[a-z_]+", read("docs/metrics.md"))) == exposed


def test_every_label_value_is_in_the_catalogue(daemon: Daemon) -> None:
    text = read("docs/metrics.md")
    service = pb.DESCRIPTOR.services_by_name["CacheService"]
    for family in text_string_to_metric_families(daemon.http("/metrics")[1]):
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label == "rpc":
                    assert value in service.methods_by_name, (family.name, value)
                elif label not in ("namespace", "le", "version"):
                    assert f"`{value}`" in text, (family.name, label, value)


def test_every_reason_and_no_other_is_documented() -> None:
    text = read("docs/errors.md")
    documented = {word for code in _CODE.findall(text) for word in _REASON.findall(code)}
    assert documented >= reasons_in("cachesvc")
    assert documented <= reasons_in("cachesvc") | reasons_in("client/cachesvc_client")


def reasons_in(folder: str) -> set[str]:
    files = (ROOT / folder).rglob("*.py")
    found = [_REASON_IN_CODE.findall(file.read_text()) for file in files]
    # Other constants have that form too, but NAME = "NAME" occurs for reasons only.
    return {first or second for matches in found for first, second in matches}


def test_every_command_is_in_the_readme() -> None:
    names = [command.name for command in app.registered_commands]
    names += [group.name for group in app.registered_groups]
    (section,) = re.findall(r"^### Command line\n(.*?)^## ", read("README.md"), _SECTION)
    rows = "".join(re.findall(r"^\|.*$", section, re.MULTILINE))
    assert sorted(name for name in names if name) == sorted(_CODE.findall(rows))


def test_every_command_with_its_options_and_no_other_is_in_the_reference() -> None:
    """Each section names the options of its command, except those that all commands have."""
    text = read("docs/cli.md")
    general, *sections = re.split(r"^#+ (?=`)", text, flags=re.MULTILINE)
    documented = {section[1 : section.index("`", 1)]: section for section in sections}
    commands = dict(commands_of(get_command(app)))
    assert sorted(documented) == sorted(commands)
    for name, options in commands.items():
        named = set(re.findall(r"--[a-z-]+", documented[name] + general))
        assert set(options) <= named, (name, set(options) - named)
    every = {option for options in commands.values() for option in options} | OF_THE_PROGRAM
    assert set(re.findall(r"(?<=`)--[a-z-]+", text)) <= every


OF_THE_PROGRAM = {"--version", "--install-completion", "--show-completion", "--help"}


def commands_of(command: Any, name: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the long options of each command that does something."""
    for below, found in getattr(command, "commands", {}).items():
        yield from commands_of(found, f"{name} {below}".strip())
    if not hasattr(command, "commands"):
        options = [option for parameter in command.params for option in parameter.opts]
        yield name, [option for option in options if option.startswith("--")]


def test_every_route_is_in_the_table_with_its_action() -> None:
    sources = "".join(file.read_text() for file in (ROOT / "cachesvc/edge/http").glob("*.py"))
    served = re.findall(r'Route\(\s*"([A-Z]+)", "([^"]+)", Action\.([A-Z]+),', sources)
    table = re.findall(
        r"^\| `([A-Z]+) (/[^`]*)` \| ([a-z]+) \|", read("docs/http.md"), re.MULTILINE
    )
    assert sorted(table) == sorted((m, path, action.lower()) for m, path, action in served)


# ---- translations


@pytest.mark.parametrize("english", TRANSLATED)
def test_a_translation_has_the_same_sections_commands_and_links(english: str) -> None:
    korean = skeleton(in_korean(english))
    for part, expected in skeleton(english).items():
        assert korean[part] == expected, part


@pytest.mark.parametrize("english", TRANSLATED)
def test_a_korean_page_leads_to_korean_pages(english: str) -> None:
    """Except the link to its own English page, and where no Korean page exists."""
    pages = {(ROOT / page).resolve() for page in TRANSLATED if page != english}
    page = ROOT / in_korean(english)
    assert pages.isdisjoint((page.parent / target).resolve() for target in targets_of(page))


def in_korean(english: str) -> str:
    return english.removesuffix(".md") + ".ko.md"


def skeleton(document: str) -> dict[str, Any]:
    """Return the parts that a translation does not change, by kind."""
    text = read(document)
    prose = _FENCED.sub("", text)
    return {
        "sections": re.findall(r"^#+(?= )", prose, re.MULTILINE),
        "blocks": [(kind, without_comments(kind, body)) for _, kind, body in _FENCED.findall(text)],
        "links": sorted(links_of(document, prose)),
        "code": sorted(_CODE.findall(prose)),
        "table rows": len(re.findall(r"^ *\|", prose, re.MULTILINE)),
        "points": re.findall(r"^ *(?:-|\d+\.)(?= )", prose, re.MULTILINE),
        # Digits in a name (L2, V2) are not figures: each language repeats names as it needs to.
        "figures": sorted(
            re.findall(r"(?<![A-Za-z\d])\d+(?:[.,]\d+)*", re.sub(_CODE_OR_TARGET, "", prose))
        ),
    }


def links_of(document: str, prose: str) -> Iterator[tuple[str, int]]:
    """Yield each link as its English page, and the position of its heading there.

    The link from a page to its own translation is left out.
    """
    for target, anchor in _LINK.findall(prose):
        page = ROOT / document
        found = (page.parent / target).resolve() if target else page
        heading = anchors(found).index(anchor) if anchor else -1
        name = target.replace(".ko.md", ".md")
        if name != page.name.replace(".ko.md", ".md"):
            yield name, heading


def without_comments(kind: str, body: str) -> str:
    if kind == "sh":
        return re.sub(r" +#.*", "", body)
    if kind != "python":
        return body
    tree = ast.parse(body)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
            del node.body[0]
    return ast.unparse(tree)


# ---- the size of pages


@pytest.mark.parametrize("page", PAGES_IN_SHAPE)
def test_a_page_has_no_more_words_than_its_budget(page: str) -> None:
    assert len(read(page).split()) <= PAGES_IN_SHAPE[page]


def test_the_pages_budgets_are_together_within_the_budget_of_all() -> None:
    """README.md and docs/. README.ko.md repeats README.md, and is not counted."""
    assert sum(PAGES_IN_SHAPE.values()) - PAGES_IN_SHAPE["README.ko.md"] <= WORDS_OF_ALL_PAGES


@pytest.mark.parametrize("page", PAGES_IN_SHAPE)
def test_the_lines_of_a_page_are_short(page: str) -> None:
    """Except tables, code blocks, and lines that are a link only."""
    lines = _FENCED.sub("", read(page)).splitlines()
    long = [line for line in lines if len(line) > LINE_CHARACTERS and not may_be_long(line)]
    assert long == []


def may_be_long(line: str) -> bool:
    return line.lstrip().startswith("|") or _LINK_ONLY.fullmatch(line.strip()) is not None


# ---- the index, the README


def test_the_index_leads_to_every_page() -> None:
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages <= set(targets_of(ROOT / "docs/README.md"))


def test_the_picture_of_the_structure_has_every_package_and_no_other() -> None:
    packages = {f"cachesvc/{file.parent.name}" for file in ROOT.glob("cachesvc/*/__init__.py")}
    packages |= {file.parent.name for file in ROOT.glob("client/*/__init__.py")}
    drawn = re.findall(r"cachesvc[/_][a-z]+\b(?!\.py)", read("docs/images/structure.svg"))
    assert set(drawn) == packages


def test_the_performance_pages_figures_are_those_of_the_run() -> None:
    measured = medians("bench/results/hits.txt")
    stated = medians("docs/performance.md")
    assert stated
    for row, figures in stated.items():
        assert figures == measured[row], row


def test_the_readmes_figures_are_those_of_the_performance_page() -> None:
    """To two digits: the medians of a person and of a try-on, by the row's name."""
    measured = medians("docs/performance.md")
    rows = re.findall(
        r"^\| `([a-z0-9-]+)` \| [^|]+ \| ([\d.]+) \| ([\d.]+) \|$", read("README.md"), re.MULTILINE
    )
    assert rows
    for row, *stated in rows:
        person, _, _, tryon = measured[row]
        rounded = [f"{float(f'{float(value):.2g}'):g}" for value in (person, tryon)]
        assert [f"{float(value):g}" for value in stated] == rounded, row


def medians(document: str) -> dict[str, list[str]]:
    """Return the medians of a person, a garment, a text and a try-on, by the row's name."""
    rows = re.findall(
        r"^\| `([a-z0-9+-]+)` \| [^|]+ \|((?: [^|]+ \|){4})$", read(document), re.MULTILINE
    )
    return {
        row: [cell.split(" / ")[0].strip() for cell in cells.split("|")[:4]] for row, cells in rows
    }


def test_the_promises_lists_are_what_the_tests_say() -> None:
    page = read("docs/promises.md")
    assert page == promises.with_lists(page), "run python -m tests.promises"
    numbers = [int(number) for number in re.findall(r"^## (\d+)\. ", page, re.MULTILINE)]
    assert sorted(promises.tests_by_promise()) == numbers


# ---- links and code


@by_name
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    for target, anchor in _LINK.findall(document.read_text()):
        found = (document.parent / target).resolve() if target else document
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), f"{target}#{anchor}"


def targets_of(document: Path) -> list[str]:
    """Return where the relative links of a page lead, without their anchors."""
    return [target for target, _ in _LINK.findall(document.read_text()) if target]


def anchors(document: Path) -> list[str]:
    """Return the anchors as GitHub makes them from headings."""
    headings = _HEADING.findall(_FENCED.sub("", document.read_text()))
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return [heading.replace(" ", "-") for heading in plain]


@by_name
def test_every_file_that_is_named_is_there(document: Path) -> None:
    for code in _CODE.findall(document.read_text()):
        for name in _FILE.findall(code):
            assert (ROOT / name).exists() or (ROOT / "cachesvc" / name).exists(), name


@by_name
def test_every_make_target_that_is_named_is_there(document: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", read("Makefile"), re.MULTILINE))
    text = document.read_text()
    lines = [line for _, _, body in _FENCED.findall(text) for line in body.splitlines()]
    for line in [*lines, *_CODE.findall(_FENCED.sub("", text))]:
        unquoted = re.sub(r"\"[^\"]*\"|'[^']*'", "", line)
        for command in re.findall(r"(?:^|&& )make ([^#&]*)", unquoted):
            for word in command.split():
                assert not re.fullmatch(r"[a-z-]+", word) or word in targets, line


@by_name
def test_every_python_example_is_python(document: Path) -> None:
    for block in blocks(document.relative_to(ROOT).as_posix(), "python"):
        compile(block, document.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def blocks(document: str, language: str) -> list[str]:
    return [body for _, kind, body in _FENCED.findall(read(document)) if kind == language]
