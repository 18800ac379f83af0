"""The page of a server in a real browser."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.servers import serving

pytestmark = [pytest.mark.needs("fastapi", "uvicorn", "prometheus_client")]


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = "<img src=x onerror=\"document.title='stolen'\"><script>document.title='stolen'</script> warm"


@pytest.mark.needs("playwright")
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.parametrize("width", [1280, 400])
def test_both_answer_what_is_typed(width: int, served_export: Path, finished_run: Any, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    with serving(served_export, shadow=str(finished_run.output)) as port, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_function("document.activeElement.id === 'text'")
        page.keyboard.type(HOSTILE)
        assert page.input_value("#text") == HOSTILE
        page.keyboard.press("Enter")
        for who in ("student", "teacher"):
            page.wait_for_selector(f"#{who} .row.best")
            assert page.inner_text(f"#{who} .time").endswith(" ms")
            assert len(page.query_selector_all(f"#{who} .row")) == 2
        assert page.inner_text("#agreement").startswith("Same answer in ")
        assert page.title() == "lightpaff: teacher and student"
        assert page.query_selector("main img") is None
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert all(url.startswith(f"http://127.0.0.1:{port}/") for url in asked)
        page.screenshot(path=str(tmp_path / f"page-{width}.png"))
        browser.close()
