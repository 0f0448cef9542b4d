"""The dashboard in a real browser, over the real API and ClickHouse."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from octane_analytics.api.auth.tokens import digest_of
from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.events.decode import decode
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.sandbox.generator import generate
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.api_fixtures import event, insert
from tests.support.browser import Browser, browser, require_chromium
from tests.support.control_server import supervisor
from tests.support.ports import free_port
from tests.tools.bench.dashboard.page_loads import observed
from tests.tools.bench.dashboard.viewers import crowd

ABSENT = "\N{EN DASH}"
HOSTILE = '<img src=x onerror="document.title=1">'
VIEWS = {
    "overview": "/dashboard",
    "content": "/dashboard?view=content",
    "one content": "/dashboard?view=content&id=c-00001&app=openstream",
    "growing content": "/dashboard?view=content&by=growing",
    "search": "/dashboard?view=search",
    "one query": "/dashboard?view=search&id=cats",
    "session": "/dashboard?view=session&range=24h&id=hostile-session",
    "quality": "/dashboard?view=quality",
}
PAGES = VIEWS | {"status": "/status"}
TOKENS = {
    "all": 'scopes = ["report", "metrics"]',
    "bound": 'scopes = ["report"]\nparameters = { app_id = "octane-live" }',
    "metrics": 'scopes = ["metrics"]',
}


@pytest.fixture(scope="module")
def ledger(clickhouse_engine: EmbeddedClickHouse) -> Iterator[ClickHouseSettings]:
    """Yield the settings of a table with generated and hostile events of the last days."""
    require_chromium()
    address = ClickHouseSettings(host=clickhouse_engine.host, port=clickhouse_engine.tcp_port)
    settings = dataclasses.replace(address, database=f"test_{uuid.uuid4().hex[:12]}")
    now = datetime.now(UTC) - timedelta(seconds=5)
    rows = [decode(line) for line in generate(8_000, seed=3, until=now, span=timedelta(days=3))]
    second = int(now.timestamp()) - 60
    marks = {
        "session_id": "hostile-session",
        "content_id": HOSTILE,
        "device": HOSTILE,
        "client_version": HOSTILE,
        "network_type": HOSTILE,
    }
    for name, count, properties in (
        ("video_start", 10, {"startup_ms": 10}),
        ("video_heartbeat", 10, {"watch_time": 86_000}),
        ("video_error", 40, {"code": HOSTILE, "fatal": True}),
        ("search", 60, {"query": HOSTILE, "results_count": 0}),
    ):
        rows += [event(second, name, HOSTILE, app=HOSTILE, **marks, **properties)] * count
    with ClickHouse(address, client_name="tests") as connection:
        connection.execute(f"CREATE DATABASE {settings.database}")
        connection.execute(schema.create_table(schema.TableName(settings.database, settings.table)))
        insert(settings, rows)
        yield settings
        connection.execute(f"DROP DATABASE {settings.database}")


@contextmanager
def api(ledger: ClickHouseSettings, log: Path, **variables: str) -> Iterator[str]:
    """Run the API and yield its address."""
    port = free_port()
    environment = os.environ | variables
    environment |= {"API_PORT": str(port), "API_HOST": "127.0.0.1", "API_WORKERS": "1"}
    environment |= {"CLICKHOUSE_HOST": ledger.host, "CLICKHOUSE_PORT": str(ledger.port)}
    environment |= {"METRICS_PORT": str(free_port()), "PROMETHEUS_MULTIPROC_DIR": ""}
    environment |= {"CLICKHOUSE_DATABASE": ledger.database}
    # On a busy machine an answer 503 or 504 would be an error in the browser's console.
    environment |= {"API_QUEUE_TIMEOUT": "60", "API_QUERY_TIMEOUT": "60"}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "octane_analytics", "api"],
            env=environment,
            stdout=output,
            stderr=output,
        )
        base = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    if httpx.get(f"{base}/healthz").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield base
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@pytest.fixture(scope="module")
def service(ledger: ClickHouseSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with api(ledger, tmp_path_factory.mktemp("api") / "log") as base:
        yield base


@pytest.fixture(scope="module")
def guarded(
    ledger: ClickHouseSettings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """Yield the address of an API with tokens, and their file."""
    directory = tmp_path_factory.mktemp("guarded")
    file = directory / "tokens.toml"
    file.write_text(token_file())
    file.chmod(0o600)
    with api(ledger, directory / "log", API_TOKENS_FILE=str(file)) as base:
        yield base, file


def token_file(*revoked: str) -> str:
    return "".join(
        f'[tokens.{name}]\nhash = "sha256:{digest_of(name).hex()}"\n{rest}\n'
        for name, rest in TOKENS.items()
        if name not in revoked
    )


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def page(window: Browser, service: str) -> Iterator[Browser]:
    """Yield the window at its defaults; afterwards its console is empty and no other host was asked."""
    window.base = service
    window.size(1320, 1000)
    window.prefer()
    window.console()
    window.hosts()
    yield window
    assert window.console() == []
    assert window.hosts() <= {window.base}


@pytest.mark.parametrize("view", VIEWS)
def test_view_shows_numbers_and_hostile_names(page: Browser, view: str) -> None:
    page.open(VIEWS[view])
    assert ABSENT not in [each.text for each in page.all("main .card .value")]
    assert HOSTILE in page.script("return document.body.textContent") or view.startswith("one ")
    assert page.all("main img, main script") == []
    assert "octane-analytics" in page.driver.title


def test_root_leads_to_the_dashboard(page: Browser) -> None:
    page.open("/")
    assert page.driver.current_url == f"{page.base}/dashboard"


def test_app_is_chosen_linked_and_left_by_back(page: Browser) -> None:
    page.open("/dashboard")
    page.wait(lambda: page.all("select[aria-label='App'] option[value='kidsplay']"))
    all_viewers = page.card("Viewers")
    page.choose("App", "kidsplay")
    assert page.driver.current_url == f"{page.base}/dashboard?app=kidsplay"
    assert page.text("h1") == "kidsplay"
    viewers = page.card("Viewers")
    assert viewers != all_viewers
    page.open("/dashboard?app=kidsplay")
    assert page.card("Viewers") == viewers
    page.choose("Range", "24h")
    assert "range=24h" in page.driver.current_url
    page.driver.back()
    page.wait(lambda: page.driver.current_url == f"{page.base}/dashboard?app=kidsplay")
    page.wait_settled()
    assert page.card("Viewers") == viewers


def test_card_chooses_the_chart_by_keyboard(page: Browser) -> None:
    page.open("/dashboard")
    card = next(each for each in page.all(".card") if "Stalled time" in each.text)
    card.send_keys(Keys.ENTER)
    page.wait(lambda: page.all("[aria-label='Over time'] h2")[0].text == "Stalled time")
    assert card.get_attribute("aria-pressed") == "true"
    assert page.driver.current_url.endswith("?metric=stalled")
    chart = "[aria-label='Over time'] [role='img'][aria-label^='Stalled time: '] canvas"
    page.wait(lambda: page.all(chart))


def test_click_filters_all_and_chip_removes_it(page: Browser) -> None:
    page.open("/dashboard?app=openstream")
    all_viewers = page.card("Viewers")
    devices = page.panel("Devices").find_elements(By.CSS_SELECTOR, "button.bar")
    tv = next(each for each in devices if each.text == "tv")
    tv.send_keys(Keys.ENTER)
    page.wait(lambda: "filter=device%3Aeq%3Atv" in page.driver.current_url)
    page.wait_settled()
    assert page.text(".chip").startswith("device = tv")
    filtered = page.card("Viewers")
    assert filtered != all_viewers
    answer = httpx.get(
        f"{page.base}/report/playback_over_time",
        params={
            "app_id": "openstream",
            "from": "-7d",
            "bucket_seconds": 0,
            "filter": "device:eq:tv",
        },
    )
    assert filtered.replace(",", "") == str(answer.json()["rows"][0]["viewers"])
    page.wait(lambda: "Code" in page.text("[aria-label='Errors']"))
    page.one(".chip button").click()
    page.wait(lambda: not page.all(".chip"))
    page.wait_settled()
    assert page.card("Viewers") == all_viewers


def test_hostile_value_is_filtered_and_opened(page: Browser) -> None:
    page.open("/dashboard?range=24h")
    link = page.panel("Top content").find_element(By.CSS_SELECTOR, "a.bar")
    assert link.text == HOSTILE
    link.click()
    page.wait(lambda: page.text("h1") == HOSTILE)
    page.wait_settled()
    assert page.card("Views") == "10"
    page.driver.back()
    page.wait(lambda: page.text("h1") == "All apps")
    page.wait_settled()
    page.panel("Player versions").find_element(By.CSS_SELECTOR, "button.bar").click()
    page.wait(lambda: page.all(".chip"))
    page.wait_settled()
    assert page.text(".chip").startswith(f"client_version = {HOSTILE}")
    assert page.card("Views") == "10"


def test_session_is_found_by_its_id(page: Browser) -> None:
    page.open("/dashboard?view=session&range=24h")
    assert "session_id, view_id or user_id" in page.text("main")
    page.one("#session-id").send_keys("hostile-session", Keys.ENTER)
    page.wait(lambda: page.all(".timeline tbody tr"))
    assert page.driver.current_url.endswith("&id=hostile-session")
    assert "video_error" in page.text(".timeline")
    assert HOSTILE in page.text(".timeline")
    page.open("/dashboard?view=session&id=unknown")
    page.wait(lambda: "No session of such a user either" in page.text("main"))


def test_error_leads_to_sessions_and_user_to_his(page: Browser) -> None:
    page.open("/dashboard?range=24h")
    page.panel("Errors").find_element(By.CSS_SELECTOR, "a.bar").click()
    page.wait(lambda: page.text("h1") == f"Sessions · {HOSTILE}")
    page.wait_settled()
    found = page.panel("Sessions with playback errors").find_elements(By.CSS_SELECTOR, "a.bar")
    assert [each.text for each in found] == ["hostile-session"]
    found[0].click()
    page.wait(lambda: page.all(".timeline tbody tr"))
    field = page.one("#session-id")
    field.clear()
    field.send_keys(HOSTILE, Keys.ENTER)  # also the user of these events
    page.wait(lambda: page.panel("Sessions of the user").is_displayed())
    page.wait_settled()
    assert "hostile-session" in page.panel("Sessions of the user").text


def test_content_is_ordered_by_growth(page: Browser, ledger: ClickHouseSettings) -> None:
    second = int(time.time()) - 60
    day = 86_400
    watched = {"rising": (8, 2), "newcomer": (3, 0), "fallen": (1, 9)}
    insert(
        ledger,
        [
            event(second - ago, "video_heartbeat", app="growth", content_id=name, watch_time=60)
            for name, counts in watched.items()
            for ago, count in zip((0, day), counts, strict=True)
            for _ in range(count)
        ],
    )
    page.open("/dashboard?view=content&range=24h&app=growth")
    assert [row[0] for row in table(page, "Content")] == ["rising", "newcomer", "fallen"]
    page.choose("Order", "growing")
    page.wait(lambda: "by=growing" in page.driver.current_url)
    assert [row[:4] for row in table(page, "Content")] == [
        ["rising", "+6 min 0 s", "▲ +300%", "8 min 0 s"],
        ["newcomer", "+3 min 0 s", "new", "3 min 0 s"],
    ]
    page.choose("Order", "falling")
    ((name, lost, change),) = [row[:3] for row in table(page, "Content")]
    assert (name, lost, change) == ("fallen", "\N{MINUS SIGN}8 min 0 s", "▼ -89%")


def test_search_leads_to_what_was_played(page: Browser, ledger: ClickHouseSettings) -> None:
    second = int(time.time()) - 60
    mine = {"app": "searched", "session_id": "s-query", "query": HOSTILE}
    insert(
        ledger,
        [
            event(second, "search", **mine, results_count=3),
            event(second + 1, "search_click", **mine, content_id="clicked-one"),
            event(second, "search", app="searched", query="other", results_count=0),
        ],
    )
    page.open("/dashboard?range=24h&app=searched")
    page.panel("Searches").find_element(By.CSS_SELECTOR, "a.bar").click()
    wait_for_page(page, f"Query · {HOSTILE}")
    assert [page.card("Searches"), page.card("Clicks per search")] == ["1", "100.0%"]
    assert table(page, "Played after it") == [["clicked-one", "1", "1"]]
    assert [row[0] for row in table(page, "Sessions with this search")] == ["s-query"]
    card = next(each for each in page.all(".card") if "Clicks per search" in each.text)
    card.click()
    page.wait(lambda: "metric=clicked" in page.driver.current_url)
    page.wait_settled()
    assert page.all(".chip") == [], "the query is not a filter of other pages"
    page.panel("Played after it").find_element(By.CSS_SELECTOR, "a.bar").click()
    wait_for_page(page, "clicked-one")


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("startup", ["good: up to 2 s", "above 2 s !", "above 4 s !!"]),
        ("stalled", ["good: up to 1.00%", "above 1.00% !", "above 2.00% !!"]),
    ],
)
def test_heat_has_the_thresholds_of_the_scorecard(
    page: Browser, metric: str, words: list[str]
) -> None:
    page.open(f"/dashboard?view=quality&range=7d&metric={metric}")
    legend = [each.text.replace("\N{NO-BREAK SPACE}", " ") for each in page.all(".levels li")]
    assert legend == words
    for cell in page.all(".heat td span[class^='level-']"):
        text = cell.get_attribute("textContent") or ""
        level = {"level-0": 0, "level-2": 1, "level-4": 2}[cell.get_attribute("class") or ""]
        assert text.partition(",")[0].count("!") == level
        assert words[level].rstrip(" !") in text


def test_panels_lead_to_pages_with_more(page: Browser) -> None:
    page.open("/dashboard?range=24h")
    for title, heading in (
        ("Top content", "Content · all apps"),
        ("Searches", "Search · all apps"),
        ("Devices", "Quality · all apps"),
    ):
        page.panel(title).find_element(By.CSS_SELECTOR, "a.more").click()
        wait_for_page(page, heading)
        page.driver.back()
        wait_for_page(page, "All apps")


def test_load_asks_each_number_once(page: Browser) -> None:
    page.open("/dashboard?range=24h")
    page.wait(lambda: page.all(".live-dot:not(.off)"))
    asked = page.script(
        "return performance.getEntriesByType('resource').map((each) => each.name)"
        ".filter((name) => name.includes('/report/'))"
    )
    assert len(asked) == len(set(asked))
    compared = [name for name in asked if "compare=previous_period" in name]
    assert len(compared) == 2  # total and course in one answer, of playback and of searches


def test_new_events_appear_at_a_refresh(page: Browser, ledger: ClickHouseSettings) -> None:
    session = f"s-{uuid.uuid4().hex}"
    second = int(time.time()) - 5
    insert(ledger, [event(second, "video_start", session_id=session)])
    page.open(f"/dashboard?view=session&id={session}")
    assert len(page.all(".timeline tbody tr")) == 1
    insert(ledger, [event(second + 1, "video_end", session_id=session)])
    page.script("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait(lambda: "video_end" in page.text(".timeline"))


def test_watching_now_follows_the_live_report(page: Browser, ledger: ClickHouseSettings) -> None:
    page.open("/dashboard?app=live-test")
    page.wait(lambda: page.all(".live-dot:not(.off)"))
    assert page.card("Watching now") == "0"
    second = int(time.time()) - 150
    insert(
        ledger,
        [
            event(second + late, "video_heartbeat", user, app="live-test", watch_time=90)
            for user in ("ada", "grace", "joan")
            for late in (0, 90)
        ],
    )
    page.wait(lambda: page.card("Watching now") == "3", 40)


def test_comparison_is_shown_and_switched_off(page: Browser) -> None:
    page.open("/dashboard?range=24h&app=openstream")
    changes = [each.text for each in page.all(".card .change")]
    assert any(change.startswith(("▲", "▼", "→")) for change in changes)
    answer = httpx.get(
        f"{page.base}/report/playback_over_time",
        params={"app_id": "openstream", "from": "-48h", "to": "-24h", "bucket_seconds": 0},
    ).json()
    card = next(each for each in page.all(".card") if "Views" in each.text)
    assert card.find_element(By.CSS_SELECTOR, ".change").get_attribute("title") == (
        f"Views in the period before: {answer['rows'][0]['views']:,}"
    )
    page.one(".check input").click()
    page.wait(lambda: "compare=none" in page.driver.current_url)
    page.wait_settled()
    assert [each.text for each in page.all(".card .change")] == [""] * len(changes)


def test_numbers_lead_to_report_csv_and_curl(page: Browser) -> None:
    page.open("/dashboard?app=openstream")
    panel = page.panel("Top content")
    panel.find_element(By.CSS_SELECTOR, ".menu summary").click()
    command = panel.find_element(By.CSS_SELECTOR, "pre").text
    assert command.startswith(f"curl '{page.base}/report/top_content?app_id=openstream&")
    answer = httpx.get(command.split("'")[1]).json()
    first = panel.find_element(By.CSS_SELECTOR, "tbody .bar").text
    assert answer["rows"][0]["content_id"] == first
    csv = next(b for b in panel.find_elements(By.TAG_NAME, "button") if b.text == "CSV")
    csv.click()
    page.wait(lambda: panel.find_element(By.CSS_SELECTOR, "[role='status']").text == "saved")
    page.one("body").send_keys(Keys.ESCAPE)
    page.wait(lambda: not page.all("details.menu[open]"))
    page.one(".card .menu summary").click()
    page.wait(lambda: "/report/concurrent_viewers?" in page.text(".card .menu pre"))
    page.one("[aria-label='Over time'] .menu summary").click()
    page.wait(lambda: "/report/playback_over_time?" in page.text("[aria-label='Over time'] pre"))
    command = page.text("[aria-label='Over time'] .menu pre")
    answer = httpx.get(command.split("'")[1]).json()
    assert page.card("Viewers") == f"{answer['totals']['viewers']:,}"
    chart = page.panel("Over time")
    next(b for b in chart.find_elements(By.TAG_NAME, "button") if b.text == "CSV").click()
    page.wait(lambda: chart.find_element(By.CSS_SELECTOR, "[role='status']").text == "saved")


def test_empty_range_says_what_to_do(page: Browser) -> None:
    page.open("/dashboard?range=custom&from=2020-01-01&to=2020-01-02")
    assert "Choose another range" in page.text("main")
    assert "Nothing was watched in this range." in page.text("main")


def test_refresh_keeps_elements_and_shows_staleness(page: Browser) -> None:
    page.open("/dashboard")
    canvas = page.wait(
        lambda: page.one("[aria-label='Over time']").find_elements(By.TAG_NAME, "canvas")
    )[0]
    page.driver.execute_cdp_cmd("Network.enable", {})
    refresh = "document.dispatchEvent(new Event('visibilitychange'))"
    before = page.text(".updated")
    page.wait(lambda: page.script(refresh) or page.text(".updated") != before)
    page.wait_settled()
    assert canvas == page.one("[aria-label='Over time'] canvas")
    viewers = page.card("Viewers")
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/report*"]})
    try:
        page.script(refresh)
        page.wait(lambda: "Not updated since" in page.text("#notice"))
        assert page.card("Viewers") == viewers
    finally:
        page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    page.script(refresh)
    page.wait(lambda: not page.one("#notice").is_displayed())
    assert all("ERR_BLOCKED" in message for message in page.console())


def test_unreachable_service_is_asked_again(page: Browser) -> None:
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/caller"]})
    try:
        page.driver.get(f"{page.base}/dashboard?range=24h")
        page.wait(lambda: "the page tries again by itself" in page.text("main"))
    finally:
        page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    page.wait(lambda: page.all(".card"))
    page.wait_settled()
    assert all("ERR_BLOCKED" in message for message in page.console())


@pytest.mark.parametrize("view", PAGES)
def test_page_is_accessible_and_fits_a_phone(page: Browser, view: str) -> None:
    page.prefer(prefers_color_scheme="light", prefers_reduced_motion="reduce")
    page.open(PAGES[view])
    assert page.accessibility_faults() == []
    page.prefer(prefers_color_scheme="dark", prefers_reduced_motion="reduce")
    assert page.accessibility_faults("color-contrast") == []
    page.size(360, 740)
    assert page.script("return document.documentElement.scrollWidth") <= 360


def test_status_shows_metrics_and_absent_sources(page: Browser, service: str) -> None:
    page.open("/status")
    assert "no supervisor on this machine answers" in page.text("main")
    assert "octane-analytics worker" in page.text("[aria-label='Lag by partition']")
    assert "/status/data" in httpx.get(f"{service}/metrics").text
    page.driver.refresh()
    page.wait_settled()
    assert "/status" in page.text("[aria-label='API requests']")


def test_status_names_reasons_and_the_manual(
    page: Browser, ledger: ClickHouseSettings, tmp_path: Path
) -> None:
    reason = {"text": f"{HOSTILE}: 1 (limit 0)", "page": "alerts", "section": "AnalyticsDown"}
    state = {
        "is_healthy": False,
        "state": "running",
        "problems": [reason],
        "slots": [],
        "lag": 0,
        "events_per_second": 0,
    }
    path = tmp_path / "worker.sock"
    with (
        supervisor(path, json.dumps(state)),
        api(ledger, tmp_path / "log", CONTROL_SOCKET=str(path)) as base,
    ):
        page.base = base
        page.open("/status")
        said = page.text("[aria-label='Not healthy'] li")
        assert said == (
            f"{HOSTILE}: 1 (limit 0); see AnalyticsDown in octane-analytics manual alerts"
        )
        assert "not healthy, running" in page.text("h1 + .tag")
        assert page.accessibility_faults() == []
        page.one("[aria-label='Not healthy'] a").click()
        page.wait(lambda: "### AnalyticsDown" in page.text())


def test_docs_page_draws_a_series(page: Browser) -> None:
    page.driver.get(f"{page.base}/docs#playback_over_time")
    page.wait(lambda: page.all("form button[type='submit']"))[0].click()
    page.wait(lambda: page.all("#result canvas"))
    assert chart_label(page).startswith("viewers: 25 points")
    page.script(
        "const select = document.querySelector('.chart-column'); select.value = 'watch_time';"
        "select.dispatchEvent(new Event('change'))"
    )
    assert chart_label(page).startswith("watch_time: 25 points")
    allow_clipboard(page)
    copy, csv = page.all("#result .run button")
    copy.click()
    page.wait(lambda: page.text("#result [role='status']") == "copied")
    link = page.script("return navigator.clipboard.readText()")
    assert link == f"{page.base}/report/playback_over_time?bucket_seconds=3600"
    assert len(httpx.get(link).json()["rows"]) == 25
    csv.click()
    page.wait(lambda: page.text("#result [role='status']") == "saved")
    assert page.accessibility_faults() == []
    page.driver.get(f"{page.base}/docs#top_content")
    page.wait(lambda: "top_content" in page.text("h2"))
    page.wait(lambda: page.all("form button[type='submit']"))[0].click()
    page.wait(lambda: page.all("#result table"))
    assert page.all("#result canvas") == []


def chart_label(page: Browser) -> str:
    return page.one("#result [role='img']").get_attribute("aria-label") or ""


def allow_clipboard(page: Browser) -> None:
    permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    page.driver.execute_cdp_cmd(
        "Browser.grantPermissions", {"origin": page.base, "permissions": permissions}
    )


def test_first_paint_is_small(page: Browser) -> None:
    page.open("/dashboard")
    loaded = page.script(
        "return performance.getEntriesByType('resource').concat("
        "performance.getEntriesByType('navigation')).filter(e => !e.name.includes('/report'))"
        ".reduce((sum, e) => sum + e.decodedBodySize, 0)"
    )
    assert loaded <= 150_000


def test_bench_repeats_requests_of_a_refresh(page: Browser) -> None:
    with observed(page) as measured:
        loaded = measured.load("/dashboard?range=24h")
        interval, requests = measured.refresh()
    assert loaded.complete_ms > loaded.paint_ms > 0
    live = [each for each in loaded.requests if each.is_live]
    assert [each.path.partition("?")[0] for each in live] == ["/live/concurrent_viewers"]
    (batch,) = requests
    assert (batch.method, batch.path) == ("POST", "/reports")
    asked = [each for each in loaded.requests if each.path.startswith("/report/")]
    once = [each for each in asked if "concurrent_viewers" in each.path or "by=app_id" in each.path]
    assert len(json.loads(batch.body)["reports"]) == len(asked) - len(once)
    assert interval == 30
    found = crowd(
        page.base,
        requests,
        live,
        viewers=2,
        interval_seconds=0.5,
        seconds=1.0,
        cpu_seconds=lambda: (time.process_time(),),
    )
    assert (found.loads.requests, found.loads.failed) == (2 * len(requests), 0)
    assert found.cpu_shares[0] > 0


def test_sign_in_binds_app_and_revocation_signs_out(
    window: Browser, guarded: tuple[str, Path]
) -> None:
    window.base, file = guarded
    window.open("/dashboard")
    sign_in(window, "nonsense")
    window.wait(lambda: "unknown token" in window.text("main"))
    assert window.script("return sessionStorage.length") == 0
    sign_in(window, "bound")
    window.wait(lambda: window.all(".card"))
    window.wait_settled()
    assert window.text("h1") == "octane-live"
    assert window.all("select[aria-label='App']") == []
    assert window.script("return document.cookie + localStorage.length") == "0"
    window.open("/dashboard?app=openstream")
    assert window.text("h1") == "octane-live"
    file.write_text(token_file("bound"))
    window.wait(
        lambda: (
            window.script("document.dispatchEvent(new Event('visibilitychange'))")
            or "Signed out: unknown token" in window.text("main")
        )
    )
    assert window.script("return sessionStorage.length") == 0
    assert window.accessibility_faults() == []
    sign_in(window, "all")
    window.wait(lambda: window.all(".card"))
    next(b for b in window.all("header button") if b.text == "Sign out").click()
    window.wait(lambda: window.all("#token"))
    assert "octane-live" not in window.text()
    sign_in(window, "metrics")
    window.wait(lambda: "does not have the scope report" in window.text("main"))
    window.driver.get(f"{window.base}/status")
    window.wait(lambda: window.all("[aria-label='API requests']"))
    window.script("sessionStorage.clear()")
    window.driver.get(f"{window.base}/status")
    sign_in(window, "bound")
    window.wait(lambda: "unknown token" in window.text("main"))


def table(page: Browser, title: str) -> list[list[str]]:
    """Return the texts of the cells of a panel's table."""
    rows = page.panel(title).find_elements(By.CSS_SELECTOR, "tbody tr")
    return [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in rows]


def wait_for_page(page: Browser, heading: str) -> None:
    page.wait(lambda: page.text("h1") == heading)
    page.wait_settled()


def sign_in(window: Browser, token: str) -> None:
    field = window.wait(lambda: window.all("#token"))[0]
    field.clear()
    field.send_keys(token, Keys.ENTER)
