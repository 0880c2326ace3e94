"""The page of `edgesdk profile` in a real browser: nothing fails to load, every picture and table is there and fits."""

from __future__ import annotations

import json
import shutil

import pytest

from edgesdk.cli import main
from edgesdk.targets.connections import LocalConnection
from edgesdk.targets.deploy import deploy, read_bundle

pytestmark = pytest.mark.slow
QUICK = ["--runs", "2", "--decode-tokens", "4", "--prompt-tokens", "8", "--threads", "1"]
WIDTHS = {"desktop": (1280, 900), "phone": (390, 800)}
PICTURES = """pictures => pictures.map(one => {
    const box = one.getBoundingClientRect()
    return {alt: one.alt, drawn: one.complete && one.naturalWidth > 0, left: box.left, right: box.right,
            height: box.height, text: one.closest('figure').innerText}
})"""
TABLES = """tables => tables.map(one => ({
    caption: one.caption.innerText, head: [...one.tHead.rows[0].cells].map(cell => cell.innerText),
    rows: [...one.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.innerText)),
    overlaps: [...one.rows].some(row => [...row.cells].some((cell, n, cells) =>
        cell.scrollWidth > cell.clientWidth + 1 ||
        n > 0 && cell.getBoundingClientRect().left < cells[n - 1].getBoundingClientRect().right - 1))
}))"""


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright (pip install playwright)")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, headless=True)
        yield browser
        browser.close()


@pytest.fixture
def measured(bundle, tmp_path, capsys):
    """Two devices that were measured and one that was not: (page, what --json printed)."""
    names = ("near", "far", "absent")
    tables = [f'[{name}]\nkind = "local"\naddress = "{name}"\nroot = "{tmp_path / name}"\n' for name in names]
    (tmp_path / "devices.toml").write_text("".join(tables))
    for name in names[:2]:
        deploy(read_bundle(bundle), LocalConnection(root=str(tmp_path / name)))
    devices = [part for name in names for part in ("--device", name)]
    page = tmp_path / "speed.html"
    assert main(["profile", str(bundle), *devices, *QUICK, "--ops", "--html", str(page), "--json"]) == 0
    return page, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_in_a_browser(browser, measured, width):
    path, report = measured
    page = browser.new_page(viewport=dict(zip(("width", "height"), WIDTHS[width], strict=True)))
    troubles: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("requestfailed", lambda request: troubles.append(f"failed: {request.url[:80]}"))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri(), wait_until="load")
    assert troubles == []
    assert [url for url in asked if not url.startswith("data:image/png;base64,")] == [path.as_uri()]
    assert page.title() == "edgesdk profile"
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width][0]

    pictures = page.eval_on_selector_all("img", PICTURES)
    assert len(pictures) == 2
    for picture in pictures:
        assert picture["drawn"], picture["alt"]
        assert picture["left"] >= 0
        assert picture["right"] - picture["left"] > 700  # small screens scroll it: its words stay legible
        assert picture["height"] > 100
        assert picture["text"]

    tables = page.eval_on_selector_all("table", TABLES)
    assert [table["caption"] for table in tables] == ["The device", "Measurements", "Operations"] * 2
    # levels, operations of a prompt and of decoding (where nothing is stored apart), the rest in both
    assert [len(table["rows"]) for table in tables[2::3]] == [3 * (11 + 10 + 2)] * 2
    for device, table in zip(report["devices"], tables[1::3], strict=True):
        assert len(table["rows"]) == len(device["results"]) == 3
        for cells, row in zip(table["rows"], device["results"], strict=True):
            assert len(cells) == len(table["head"])
            assert f"{row['decode_tokens_per_s']['p50']:.1f}" in cells
    assert not any(table["overlaps"] for table in tables)
    headings = page.eval_on_selector_all("h2", "all => all.map(one => one.innerText)")
    assert headings[-1] == "Devices that could not be measured"
    assert "absent: nothing is deployed" in page.inner_text("main")
    page.close()
