"""The TypeScript client: types are generated from the running service, compiled strictly, and run under Node.js."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY, ROOT

MODULES = Path(os.environ.get("AZIMUTH_NODE_MODULES", ROOT / "node_modules"))
PACKAGE = ROOT / "clients" / "typescript"
EXAMPLE = re.compile(r"```ts\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def built(url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client, a program that uses it, and the example of the page, compiled."""
    if shutil.which("node") is None or not (MODULES / "typescript").is_dir():
        pytest.skip("needs node and npm")
    folder = tmp_path_factory.mktemp("typescript")
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("node_modules", "dist"), dirs_exist_ok=True)
    (folder / "node_modules").symlink_to(MODULES, target_is_directory=True)
    shutil.copy(ROOT / "tests" / "clients" / "azimuth.ts", folder / "src")
    (example,) = EXAMPLE.findall((ROOT / "docs" / "clients.md").read_text(encoding="utf-8"))
    assert len(example.splitlines()) <= 10
    example = example.replace("http://localhost:8000", url).replace("YOUR-KEY", KEY)
    (folder / "src" / "example.ts").write_text(example.replace('"azimuth-client"', '"./index.js"'))
    for program in (folder / "generate.mjs", MODULES / "typescript" / "bin" / "tsc"):
        run(folder, program, AZIMUTH_URL=url)
    return folder


def run(folder: Path, program: Path, **environment: str) -> str:
    command = ["node", str(program)]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_client(built: Path, url: str) -> None:
    found: dict[str, Any] = json.loads(run(built, built / "dist" / "azimuth.js", AZIMUTH_URL=url, AZIMUTH_KEY=KEY))
    assert (found["language"], found["seen"], found["created"]) == ("de", [500, 1_000, 1_200], 1)
    assert {**found["imported"], "errors": len(found["imported"]["errors"])} == {
        "sent": 1_200,
        "created": 1_199,
        "updated": 0,
        "unchanged": 0,
        "errors": 1,
    }
    assert found["imported"]["errors"][0]["line"] == 8
    assert (found["listed"], found["deleted"]["deleted"], found["left"]) == (249, 1_198, 2)
    assert (found["hit"], found["batch"], found["similar"]) == ("x", ["x", ["d/3"]], 2)
    assert (found["found"], found["patched"]) == (["d/3", "x"], {"n": -3})
    assert (found["suggested"], found["marked"]) == (["a dog"], ["dog", ["x"]])
    assert (found["keys"], found["renewed"]) == ([True, False], True)
    missing, invalid, stranger = found["failed"]
    assert (missing["status"], missing["kind"]) == (404, "collection-not-found")
    assert (invalid["status"], invalid["fields"]) == (422, ["k"])
    assert stranger["status"] == 401
    assert "typescript" not in found["names"]


def test_the_example(built: Path) -> None:
    run(built, built / "dist" / "example.js")
