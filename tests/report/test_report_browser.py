"""What a reader meets, in a real headless Chromium."""

from __future__ import annotations

import csv
import io
from itertools import pairwise
from typing import Any

import pytest

pytestmark = pytest.mark.browser


def selected(page: Any) -> str:
    return page.locator("#grid [aria-selected=true]").get_attribute("data-id")


def tiles(page: Any) -> list[str]:
    return page.locator("#grid .tile").evaluate_all("tiles => tiles.map(tile => tile.dataset.id)")


def fits(page: Any) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("name", ["classification", "quiet", "absent", "regression", "with_pool", "hostile"])
def test_a_report_opens_without_error_or_request_and_fits_its_window(visit, name, width, scheme):
    seen = visit(name, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = seen.page
    assert fits(page)
    page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
    assert fits(page)
    assert seen.problems == []
    assert [url for url in seen.requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in seen.requests if url.startswith("file:")]) == 1
    assert page.evaluate("window.owned") is None


def test_choosing_a_sample_shows_its_explanation_and_the_parts_add_up(visit, example):
    page = visit().page
    study = example.classification()
    rows = {row["id"]: row for row in study["explanations"]["samples"]}
    for identifier in tiles(page)[3:9]:
        page.locator(f"#grid [data-id='{identifier}']").click()
        assert selected(page) == identifier
        assert page.locator("#detail h3").inner_text() == identifier.replace("/", " ")
        row = rows[identifier]
        assert page.locator("#detail .people.for li").count() == len(row["supporters"])
        assert page.locator("#detail .people.against li").count() == len(row["opposers"])
        shown = page.locator("#detail .waterfall .num").all_inner_texts()
        *parts, whole = [float(text.replace("−", "-")) for text in shown]
        assert sum(parts) == pytest.approx(whole, abs=2.5e-3)  # five numbers rounded to three places
        assert whole == pytest.approx(row["output"], abs=1e-3)


def test_a_disagreeing_explanation_says_so_first_and_supports_its_own_class_only(visit, example):
    page = visit().page
    differing = [r for r in example.classification()["explanations"]["samples"] if r["explained"] != r["predicted"]]
    page.get_by_text("Models differ").click()
    assert sorted(tiles(page)) == sorted(row["id"] for row in differing)
    row = differing[0]
    page.locator(f"#grid [data-id='{row['id']}']").click()
    first = page.locator("#detail > *").first
    assert first.get_attribute("role") == "note"
    assert first.inner_text().startswith(f"The explanation model says {row['explained']}, not {row['predicted']}")
    headings = page.locator("#detail h4").all_inner_texts()
    assert f"Support {row['explained']}" in headings
    assert f"Support {row['predicted']}" not in headings


def test_suspected_labels_are_marked_among_the_supporters(visit, example):
    page, study = visit().page, example.classification()
    suspected = {row["id"] for row in study["labels"]["suspects"][: study["labels"]["count"]]}
    rows = study["explanations"]["samples"]
    touched = [r for r in rows if suspected & {w["id"] for w in r["supporters"] + r["opposers"]}]
    assert touched, "the example has a suspect among its supporters or opposers"
    page.locator(f"#grid [data-id='{touched[0]['id']}']").click()
    expected = sum(w["id"] in suspected for w in touched[0]["supporters"] + touched[0]["opposers"])
    assert page.locator("#detail .doubtful").count() == expected


def test_filters_by_outcome_class_and_confidence_show_exactly_the_samples_that_fit(visit, example):
    page = visit().page
    rows = example.classification()["explanations"]["samples"]
    page.get_by_text("Wrong", exact=True).click()
    assert set(tiles(page)) == {r["id"] for r in rows if r["predicted"] != r["label"]}
    page.get_by_text("Right", exact=True).click()
    assert set(tiles(page)) == {r["id"] for r in rows if r["predicted"] == r["label"]}
    page.get_by_text("All", exact=True).click()
    page.locator("#class").select_option("3")
    assert set(tiles(page)) == {r["id"] for r in rows if 3 in (r["predicted"], r["label"])}
    page.locator("#class").select_option("")
    page.locator("#confidence").evaluate(
        "(e) => { e.value = 60; e.dispatchEvent(new Event('input', {bubbles: true})); }"
    )
    assert set(tiles(page)) == {r["id"] for r in rows if r["probabilities"][r["predicted"]] <= 0.6}
    assert page.locator("#shown").inner_text() == f"{len(tiles(page))} of {len(rows)}"


def test_search_finds_a_sample_by_its_id(visit):
    page = visit().page
    page.locator("#search").fill("17")
    assert tiles(page) == ["test/17"]
    page.locator("#search").fill("test 23")
    assert "test/23" in tiles(page)
    page.locator("#search").press("Enter")
    assert selected(page) == "test/23"
    page.locator("#search").fill("nothing like this")
    assert tiles(page) == []
    assert page.get_by_text("No test sample fits these filters.").is_visible()


def test_arrow_keys_move_through_the_grid(visit):
    page = visit().page
    order = tiles(page)
    page.locator(f"#grid [data-id='{order[0]}']").click()
    columns = page.evaluate(
        """() => { const t = [...document.querySelectorAll('#grid .tile')];
        return t.findIndex(tile => tile.offsetTop !== t[0].offsetTop); }"""
    )
    assert columns > 2
    for key, expected in (
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowDown", 2 + columns),
        ("ArrowLeft", 1 + columns),
        ("ArrowUp", 1),
        ("End", len(order) - 1),
        ("ArrowRight", len(order) - 1),
        ("Home", 0),
        ("ArrowUp", 0),
    ):
        page.keyboard.press(key)
        assert selected(page) == order[expected], key
        assert page.evaluate("document.activeElement.dataset.id") == order[expected]


def test_everything_is_reached_by_the_tab_key_and_focus_can_be_seen(visit):
    page = visit().page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || String(document.activeElement.className)"))
        width = page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)")
        inside = page.evaluate("document.activeElement.type === 'radio'")  # its label carries the outline
        assert width >= 2 or inside
    assert {"theme", "class", "confidence", "search", "csv"} <= reached
    assert any("tile" in name for name in reached)


def test_the_list_of_suspects_is_saved_as_csv(visit, example):
    page, study = visit().page, example.classification()
    with page.expect_download() as waiting:
        page.locator("#csv").click()
    assert waiting.value.suggested_filename == "suspected-labels.csv"
    text = waiting.value.path().read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["id"] for row in rows] == [s["id"] for s in study["labels"]["suspects"]]
    assert [int(row["suggested"]) for row in rows] == [s["suggested"] for s in study["labels"]["suspects"]]
    assert [float(row["margin"]) for row in rows] == pytest.approx([s["score"] for s in study["labels"]["suspects"]])


def test_a_spreadsheet_does_not_run_names_from_the_csv(visit):
    page = visit("hostile").page
    with page.expect_download() as waiting:
        page.locator("#csv").click()
    text = waiting.value.path().read_text(encoding="utf-8-sig")
    names = {row[k] for row in csv.DictReader(io.StringIO(text)) for k in ("given_name", "suggested_name")}
    assert "'=1+1" in names
    assert not any(name.startswith(("=", "+", "-", "@")) for name in names)


def test_the_colours_follow_the_system_and_the_button(visit):
    def ground(page: Any) -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, dark = visit(color_scheme="light").page, visit(color_scheme="dark").page
    assert ground(light) != ground(dark)
    pale = ground(light)
    light.locator("#theme").click()  # light
    assert ground(light) == pale
    light.locator("#theme").click()  # dark
    assert ground(light) == ground(dark)
    light.reload()
    assert ground(light) == ground(dark)


def contrast(page: Any, selector: str) -> float:
    return page.evaluate(
        """(selector) => {
            const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
            const luminance = (colour) => {
                canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
                const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => v / 255)
                    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const node = document.querySelector(selector);
            const style = getComputedStyle(node);
            let ground = node;
            while (ground && /rgba\\(0, 0, 0, 0\\)|transparent/.test(getComputedStyle(ground).backgroundColor)) {
                ground = ground.parentElement;
            }
            const ink = node instanceof SVGElement ? style.fill : style.color;
            const [a, b] = [luminance(ink), luminance(getComputedStyle(ground || document.body).backgroundColor)];
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        }""",
        selector,
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_both_schemes(visit, scheme):
    page = visit(color_scheme=scheme).page
    for selector in (
        ".answer", ".card-note", ".muted", ".advice span", ".tile .caption", ".tile.wrong .caption", ".how > summary",
        ".chart .tick", ".chart .axis-label", ".flag", ".cell .num.out", ".facts",
    ):  # fmt: skip
        assert contrast(page, selector) >= 4.5, selector


def test_figures_tell_their_numbers_where_the_pointer_rests(visit):
    page = visit().page
    mark = page.locator("#labels .mark").first
    mark.scroll_into_view_if_needed()
    mark.hover()
    assert page.locator("#tip").is_visible()
    assert page.locator("#tip").inner_text() == mark.get_attribute("data-tip")


def test_a_link_leads_to_a_sample_and_shows_it(visit, example):
    closest = example.classification()["fragility"]["closest"][4]["id"]
    page = visit(fragment=f"#{closest}").page
    assert selected(page) == closest
    page.locator("#fragility .closest a").nth(2).click()
    page.wait_for_function(
        "(id) => document.querySelector('#grid [aria-selected=true]').dataset.id !== id", arg=closest
    )
    assert selected(page) == example.classification()["fragility"]["closest"][2]["id"]


def test_a_regression_shows_outputs_instead_of_classes(visit):
    page = visit("regression").page
    assert page.locator("#filters [name=outcome]").count() == 0
    page.locator("#grid .tile").nth(4).click()
    assert "Target" in page.locator("#detail .detail-head").inner_text()
    assert page.locator("#detail h4").all_inner_texts() == ["Pull the prediction up", "Pull it down", "It adds up"]


def test_a_quiet_section_is_one_line_and_opens(visit):
    page = visit("quiet").page
    fold = page.locator("#layers details.quiet")
    assert fold.get_attribute("open") is None
    assert page.locator("#layers .layers").is_hidden()
    page.locator("#layers summary.line").click()
    assert page.locator("#layers .layers").is_visible()


def test_a_report_prints_on_white_without_controls(visit):
    page = visit(color_scheme="dark").page
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("#filters").is_hidden()
    assert page.locator("#detail .waterfall").is_visible()
    document = page.pdf(format="A4")
    assert document.startswith(b"%PDF")
    assert 4 <= document.count(b"/Type /Page\n") + document.count(b"/Type /Page ") <= 14


def test_a_reader_of_the_page_without_a_screen_meets_names(visit):
    page = visit().page
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, a, input, select, svg[role=img], img')].filter(e =>
        !(e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim() || e.hasAttribute('alt')))
        .map(e => e.outerHTML.slice(0, 120))"""
    )
    assert unnamed == []
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
