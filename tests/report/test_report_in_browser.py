"""The page in a browser: it has no errors, sorts its tables, opens origins and fits the screen of a phone."""

import json

import pytest
from browser import CHROMIUM, start_browser
from score_files import distilled, write_results, write_score

from ssondo.report.report import report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
]
# Widths of the window in pixels.
PHONE, DESK = 390, 1280


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    results = write_results(folder)
    (folder / "more").mkdir()
    scores = [
        write_score(folder / "more", distilled("m2d", "eres2net", loss, k), task, [0.1 * (k + 1) / 6, 0.5])
        for loss, k in (("cosine", 0), ("cosine", 3), ("mse", 0))
        for task in ("gtzan", "esc50")
    ]
    results["scores"] += scores
    # As many rules as the workflow has: the graph must not make the page wider than the screen.
    rules = {f"a_rule_of_some_length_{i}": [f"a_rule_of_some_length_{j}" for j in range(i)] for i in range(9)}
    rules["all"] = [f"a_rule_of_some_length_{i}" for i in range(9)]
    results["rule_graph"].write_text(json.dumps(rules))
    table2 = {"teacher": "m2d", "student": "eres2net", "losses": ["cosine", "mse"], "n_clusters": 0, "seeds": [0]}
    table2 |= {"music": ["gtzan"], "environment": ["esc50"]}
    fig2 = {"teacher": "m2d", "student": "eres2net", "loss": "cosine", "n_clusters": [0, 3], "seeds": [0]}
    fig2 |= {"tasks": ["gtzan", "esc50"]}
    report(**results, table2=table2, fig2=fig2, config={"a": "b" * 300})
    return results["out"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with start_browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_page_loads_without_errors_and_without_requests(browser, page, width):
    browser.errors.clear()
    browser.requests.clear()
    browser.open(page, width)
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]


def test_error_in_a_script_is_reported(browser, page, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace("<script>", "<script>nothing.there();", 1))
    browser.errors.clear()
    browser.open(broken, DESK)
    assert any("nothing is not defined" in error for error in browser.errors)
    browser.errors.clear()


def test_every_table_and_picture_is_filled(browser, page):
    browser.open(page, DESK)
    tables = browser.evaluate(
        "[...document.querySelectorAll('main table')].map(t => [...t.tBodies[0].rows].map(r => r.textContent.trim()))"
    )
    assert len(tables) >= 9
    assert all(rows and all(rows) for rows in tables)
    images = browser.evaluate("[...document.images].map(i => i.complete && i.naturalWidth)")
    assert len(images) == 3
    assert all(images)
    assert browser.evaluate("document.querySelectorAll('svg.graph .node').length") == 10


def test_a_click_on_a_heading_sorts_by_value_and_a_second_click_reverses_the_order(browser, page):
    browser.open(page, DESK)
    click = "document.querySelectorAll('#scores th')[7].querySelector('button').click()"
    column = "[...document.querySelector('#scores tbody').rows].map(r => Number(r.cells[7].dataset.order))"
    before = browser.evaluate(column)
    assert before != sorted(before)
    browser.evaluate(click)
    assert browser.evaluate(column) == sorted(before, reverse=True)
    browser.evaluate(click)
    assert browser.evaluate(column) == sorted(before)
    assert browser.evaluate("document.querySelectorAll('#scores th')[7].ariaSort") == "ascending"


def test_every_column_of_every_table_can_be_sorted(browser, page):
    browser.open(page, DESK)
    unsorted = browser.evaluate("""[...document.querySelectorAll('th')].filter(h => {
        h.querySelector('button').click(); return !h.ariaSort; }).length""")
    assert unsorted == 0
    assert browser.errors == []


def test_field_above_a_table_filters_its_rows(browser, page):
    browser.open(page, DESK)
    visible = browser.evaluate("""(() => { const field = document.querySelector('#scores .search');
        field.value = 'mse gtzan'; field.dispatchEvent(new Event('input'));
        const rows = [...document.querySelectorAll('#scores tbody tr')];
        return rows.filter(r => r.offsetHeight).map(r => r.innerText); })()""")
    assert len(visible) == 1
    assert "mse" in visible[0]


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_click_on_a_number_opens_its_origin(browser, page, width):
    browser.open(page, width)
    number = "[...document.querySelectorAll('#table1 button.open')].find(b => b.innerText.startsWith('86.4'))"
    box = "document.querySelector('.origin:popover-open')"
    assert browser.evaluate(box) is None
    browser.evaluate(f"{number}.click()")
    text = browser.evaluate(f"{box}.innerText")
    for expected in (
        "feed" * 16,
        "b" * 64,
        "0123456789abcdef",
        "2,000 (1,200 train, 400 valid, 400 test)",
        "torch 2.14.1",
    ):
        assert expected in text, expected
    edges = browser.evaluate(f"(r => [r.left, r.right, r.width])({box}.getBoundingClientRect())")
    assert edges[0] >= 0
    assert edges[1] <= width
    browser.evaluate(f"{box}.querySelector('.close').click()")
    assert browser.evaluate(box) is None


@pytest.mark.parametrize("width", [320, PHONE, 800])
def test_nothing_is_wider_than_the_screen(browser, page, width):
    browser.open(page, width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    # Wider elements must be inside a box that scrolls.
    outside = browser.evaluate(f"""[...document.querySelectorAll('main *, header *')].filter(e =>
        !e.closest('.scroll, [popover], svg') && e.getBoundingClientRect().right > {width} + 1)
        .map(e => e.outerHTML.slice(0, 80))""")
    assert outside == []


def test_fixed_column_leaves_room_for_other_columns_on_a_phone(browser, page):
    browser.open(page, PHONE)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    shares = browser.evaluate("""[...document.querySelectorAll('.scroll')].filter(b => b.querySelector('td'))
        .map(b => b.querySelector('td').offsetWidth / b.clientWidth)""")
    assert len(shares) >= 9
    assert max(shares) < 0.6


def test_text_is_readable_on_a_phone(browser, page):
    browser.open(page, PHONE)
    sizes = browser.evaluate("""[...document.querySelectorAll('main *')].filter(e => !e.closest('svg') &&
        [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
        .map(e => parseFloat(getComputedStyle(e).fontSize))""")
    assert min(sizes) >= 11


def test_pointer_shows_the_values_of_the_nearest_epoch(browser, page):
    browser.open(page, DESK)
    titles = browser.evaluate("""(() => { const chart = document.querySelector('#training svg.chart');
        chart.scrollIntoView({behavior: 'instant', block: 'center'});
        const box = chart.getBoundingClientRect();
        return [0.15, 0.5, 0.55, 0.95].map(share => document.elementFromPoint(
            box.left + share * box.width, box.top + 0.3 * box.height).querySelector('title')?.textContent); })()""")
    assert [title.partition(":")[0] for title in titles] == ["epoch 1", "epoch 2", "epoch 2", "epoch 3"]
