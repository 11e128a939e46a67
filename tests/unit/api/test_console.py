"""The console's files fit together, load nothing from elsewhere, and never make HTML out of what the service says."""

import re
from pathlib import Path
from typing import get_args

import pytest

from service import api
from service.core.versions import Action

FOLDER = Path(api.__file__).parent / "console"
PAGE = (FOLDER / "index.html").read_text(encoding="utf-8")
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.js")}


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_a_script_imports_what_is_there(name: str) -> None:
    for names, module in re.findall(r'^import (.*?) from "\./(.*?)";$', SCRIPTS[name], re.MULTILINE):
        assert module in SCRIPTS, f"{name} imports {module}"
        for wanted in re.findall(r"\w+", names.partition("{")[2]):
            assert re.search(rf"^export (async )?(function|const|class) {wanted}\b", SCRIPTS[module], re.MULTILINE), (
                wanted
            )


def test_every_view_has_its_script_and_its_link() -> None:
    views = dict(re.findall(r'^  (\w+): \(\) => import\("\./([\w.]+)"\),$', SCRIPTS["console.js"], re.MULTILINE))
    assert len(views) == SCRIPTS["console.js"].count("import(")
    assert set(re.findall(r'data-view="(\w+)"', PAGE)) == set(views)
    for module in views.values():
        for name in ("open", "choose", "goBack"):
            assert re.search(rf"^export (function {name}\b|const {{.*\b{name}\b)", SCRIPTS[module], re.MULTILINE), (
                module
            )


def test_the_audit_trail_has_words_for_every_action() -> None:
    words = SCRIPTS["evidence.js"].partition("const words = {")[2].partition("}[action]")[0]
    assert set(re.findall(r"^\s+(\w+): ", words, re.MULTILINE)) == set(get_args(Action))


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_a_script_reaches_for_elements_that_are_there(name: str) -> None:
    made = set(re.findall(r'\bid: "([\w-]+)"', SCRIPTS[name]))
    for wanted in re.findall(r'\$\("([\w-]+)"\)', SCRIPTS[name]):
        assert f'id="{wanted}"' in PAGE or wanted in made, wanted


def test_the_fields_of_a_registration_are_in_the_form() -> None:
    parts = SCRIPTS["registration.js"].partition("const PARTS = {")[2].partition("};")[0]
    wanted = {name for names in re.findall(r"\[(.*?)\]", parts) for name in re.findall(r'"(\w+)"', names)}
    assert wanted >= {"model", "dimensions", "storage", "max_tokens"}
    form = PAGE.partition('id="registration"')[2].partition("</form>")[0]
    assert wanted | {"note"} == set(re.findall(r' name="(\w+)"', form))


@pytest.mark.parametrize("name", [*sorted(SCRIPTS), "console.css", "index.html"])
def test_nothing_from_elsewhere_and_no_html_made_of_data(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    for never in ("http://", "https://", "insertAdjacentHTML", "document.write", "eval(", 'setAttribute("style"'):
        assert never not in text
    # Decoding character references is the one use of it: in a textarea, which runs nothing.
    assert "innerHTML" not in text.replace("(decoder.innerHTML = part)", "")
