"""The report in Chromium: requests, layout, sorting and accessibility (axe).

Its structure is tested without a browser in ``tests/unit/test_report_page.py``.
"""

from importlib.resources import files

import pytest
from report_helpers import make_record

from hf_finetune.report.page import figures_of, render_report

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
MANY = tuple(f"class {index:03d} of a long name that goes on" for index in range(110))
SCRIPT = "</script><script>document.title = 'taken over'</script>"
UNBROKEN = "x" * 200
RECORDS = {
    "three": {},
    "many": {"names": MANY, "examples": 330},
    "long": {"names": (UNBROKEN, "soup", "tea"), "name": UNBROKEN},
    "multi": {"target": "multi_label"},
    "amounts": {"target": "regression"},
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Write a report of each kind and return their folder."""
    folder = tmp_path_factory.mktemp("reports")
    for name, options in RECORDS.items():
        record = make_record(**options)
        page = render_report(record, figures_of(record))
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return folder


def address_of(folder, name):
    return (folder / f"{name}.html").as_uri()


def column(page, number):
    return page.locator("table.sortable tbody tr").evaluate_all(
        "(rows, number) => rows.map(row => row.cells[number].textContent)", number
    )


@pytest.mark.parametrize("name", RECORDS)
def test_a_report_makes_no_requests_and_logs_no_errors(visit, reports, name):
    page = visit(address_of(reports, name))
    page.emulate_media(media="print")
    asked = [url for url in page.requests if not url.startswith("data:")]
    assert asked == [address_of(reports, name)]
    assert page.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", RECORDS)
def test_axe_has_no_serious_objection(visit, reports, name, scheme):
    pytest.importorskip("axe_playwright_python", reason="needs axe-playwright-python, of the extra dev")
    page = visit(address_of(reports, name), color_scheme=scheme, viewport=DESK)
    page.locator("summary").click()
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 10
    grave = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in grave] == []


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_nothing_scrolls_sideways_but_wide_tables_and_figures_in_themselves(visit, reports, name, viewport):
    page = visit(address_of(reports, name), viewport=viewport)
    page.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    outside = page.evaluate(
        "() => [...document.querySelectorAll('body *')].filter(each => !each.closest('.scroll, pre, svg')"
        " && each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML.slice(0, 80))"
    )
    assert outside == []


def test_letters_of_figures_can_be_read_on_a_phone(visit, reports):
    page = visit(address_of(reports, "many"), viewport=PHONE)
    heights = page.locator("svg text").evaluate_all(
        "texts => texts.map(each => parseFloat(getComputedStyle(each).fontSize)"
        " * Math.hypot(each.getScreenCTM().a, each.getScreenCTM().b))"
    )
    assert len(heights) > 50
    assert min(heights) >= 7


def test_the_report_follows_the_color_scheme_of_the_system(visit, reports):
    def lightness(scheme, query):
        page = visit(address_of(reports, "three"), color_scheme=scheme)
        said = page.locator(query).first.evaluate(
            "each => { const style = getComputedStyle(each); "
            "return each instanceof SVGElement ? style.fill : style.backgroundColor; }"
        )
        return sum(int(part) for part in said.removeprefix("rgb(").rstrip(")").split(",")) / 3

    assert lightness("light", "body") > 240 > 60 > lightness("dark", "body")
    assert lightness("light", "svg text") < 128 < lightness("dark", "svg text")


def test_a_printed_report_is_light_and_complete(visit, reports):
    page = visit(address_of(reports, "many"), color_scheme="dark", viewport=DESK)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden()
    # Chromium 150 leaves a table's head empty on every page but the first if it holds the box of a button.
    assert page.locator("th button").first.evaluate("each => getComputedStyle(each).display") == "contents"
    cut = page.evaluate(
        "() => [...document.querySelectorAll('.scroll')]"
        ".filter(each => each.scrollHeight > each.clientHeight + 1).length"
    )
    assert cut == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details pre").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not page.locator("details pre").is_visible()


def test_a_click_sorts_the_table_and_another_turns_it_round(visit, reports):
    page = visit(address_of(reports, "many"))
    names, f1 = column(page, 0), list(map(float, column(page, 1)))
    assert f1 == sorted(f1) and names != sorted(names)
    head = page.get_by_role("columnheader", name="test examples")
    assert head.get_attribute("aria-sort") == "none"
    head.get_by_role("button").click()
    tested = list(map(int, column(page, 4)))
    assert tested == sorted(tested, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    assert page.locator("th[aria-sort=ascending]").count() == 0
    head.get_by_role("button").click()
    assert list(map(int, column(page, 4))) == sorted(tested)
    assert head.get_attribute("aria-sort") == "ascending"
    assert sorted(column(page, 0)) == sorted(names)


def test_the_table_is_sorted_from_the_keyboard(visit, reports):
    page = visit(address_of(reports, "three"))
    button = page.get_by_role("columnheader", name="class").get_by_role("button")
    for _ in range(40):
        if button.evaluate("each => each === document.activeElement"):
            break
        page.keyboard.press("Tab")
    assert button.evaluate("each => getComputedStyle(each).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert column(page, 0) == ["cake", "soup", "tea"]
    page.keyboard.press("Space")
    assert column(page, 0) == ["tea", "soup", "cake"]


def test_untested_rows_stay_last(visit, tmp_path):
    record = make_record(names=("cake", "soup", "tea", "unseen"))
    labels = record.predictions.labels
    labels[labels == 3] = 0
    (tmp_path / "report.html").write_text(render_report(record, figures_of(record)), encoding="utf-8")
    page = visit(address_of(tmp_path, "report"))
    recall = page.get_by_role("columnheader", name="recall").get_by_role("button")
    for _ in range(2):
        recall.click()
        assert column(page, 0)[-1] == "unseen"
        shown = list(map(float, column(page, 3)[:-1]))
        assert shown == sorted(shown) or shown == sorted(shown, reverse=True)
    assert shown == sorted(shown)


def test_a_script_in_the_data_stays_text(visit, tmp_path):
    record = make_record(names=(SCRIPT, "soup", "tea"))
    record.mistakes[0].update(id=SCRIPT, text=SCRIPT, label=SCRIPT)
    record.data["notes"].append(SCRIPT)
    (tmp_path / "report.html").write_text(render_report(record, figures_of(record)), encoding="utf-8")
    page = visit(address_of(tmp_path, "report"))
    assert page.title() == "dishes: report"
    assert page.locator("script").count() == 1
    assert page.locator("blockquote").first.inner_text() == SCRIPT
    assert page.locator("svg text", has_text="</script>").count() > 0


def test_an_injected_script_would_not_run(visit, reports, tmp_path):
    source = (reports / "three.html").read_text(encoding="utf-8")
    broken = source.replace("<main>", "<main><script>document.title = 'taken over'</script>")
    (tmp_path / "report.html").write_text(broken, encoding="utf-8")
    page = visit(address_of(tmp_path, "report"))
    assert page.title() == "dishes: report"
    assert any("Content Security Policy" in said for said in page.complaints)
