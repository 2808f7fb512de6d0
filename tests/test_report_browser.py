"""The report page in a real Chromium: it is quiet, it shows what the index says, and a keyboard is enough for it."""

import base64
import io
import itertools
import os
import re
import shlex
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import reports_made
from PIL import Image

import tfzip
from tfzip import cli, naming, rules, selection
from tfzip.errors import UsageError
from tfzip.evaluate import lacks

pytestmark = pytest.mark.browser

KINDS = list(reports_made.KINDS)
SURE = [kind for kind in KINDS if kind not in ("raw", "only_labels")]  # those with confidences
CLASSED = [kind for kind in KINDS if kind != "raw"]
PICTURED = [kind for kind in KINDS if kind != "no_images"]
SCHEMES, WIDTHS = ("light", "dark"), (1280, 390)


@pytest.fixture(scope="module")
def exports(digits, digits_model, photographs, photographs_model, tmp_path_factory):
    """What an export of a kind says, and the path of its report; each is made once."""
    made = {}

    def of_kind(kind):
        if kind not in made:
            given = (digits, digits_model) if kind == "digits" else (photographs, photographs_model)
            export = reports_made.KINDS[kind](*given, tmp_path_factory.mktemp(kind))
            made[kind] = reports_made.Said(export), Path(tfzip.report(export))
        return made[kind]

    return of_kind


@pytest.fixture(scope="module")
def chromium():
    """The system's browser; without one this is an error."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert path, "Chromium is not found; scripts/test --browser installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


class Looked:
    """A page that is open, and all it did that it should not: it must stay quiet, whatever a test does there.

    Quiet: nothing on the console, no error, no dialog, no window, no request but for the file itself.
    """

    def __init__(self, chromium, path):
        self.heard = []
        url = path.as_uri()
        self.context = chromium.new_context(viewport={"width": 1280, "height": 900}, offline=True)
        self.context.set_default_timeout(10_000)  # milliseconds
        self.context.route("**/*", lambda route: route.continue_() if route.request.url == url else route.abort())
        self.page = page = self.context.new_page()
        self.context.on("page", lambda other: self.heard.append(f"window {other.url}"))
        page.on("request", lambda asked: asked.url in (url, "data:,") or self.heard.append(f"request {asked.url}"))
        page.on("console", lambda message: self.heard.append(f"console {message.type} {message.text}"))
        page.on("pageerror", lambda error: self.heard.append(f"error {error}"))
        page.on("dialog", lambda dialog: (self.heard.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.goto(url)


@pytest.fixture
def look(chromium, exports):
    """Opens the report of a kind of export, or a copy of it, for a test alone."""
    opened = []

    def of_kind(kind, at=None):
        said, path = exports(kind)
        opened.append(Looked(chromium, at or path))
        return opened[-1].page, said

    yield of_kind
    for each in opened:
        each.context.close()
    assert [each.heard for each in opened] == [[]] * len(opened)


@pytest.fixture(scope="module")
def stills(chromium):
    made = {}

    def at(path):
        if path not in made:
            made[path] = Looked(chromium, path)
        return made[path]

    yield at
    for each in made.values():
        each.context.close()


@pytest.fixture
def read(exports, stills):
    """The same of a kind for tests that only read, which share it."""

    seen = []

    def of_kind(kind):
        said, path = exports(kind)
        seen.append(stills(path))
        return seen[-1].page, said

    yield of_kind
    assert [each.heard for each in seen] == [[]] * len(seen)


def texts(page, selector):
    return page.eval_on_selector_all(selector, "found => found.map((each) => each.textContent)")


def number(text):
    return int(text.replace(",", ""))


# Nothing but the page.

MIDDLES = """selectors => selectors.flatMap((selector) => [...document.querySelectorAll(selector)].slice(0, 2))
    .map((each) => each.getBoundingClientRect()).filter((box) => box.width)
    .map((box) => [box.x + box.width / 2, scrollY + box.y + box.height / 2])"""


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_said_or_asked_for_whatever_is_touched(look, kind):
    page, _ = look(kind)
    for x, y in page.evaluate(MIDDLES, [".ct-bar", ".ct-point", "rect", ".card", "summary", "th", "figure", "dd"]):
        page.evaluate("y => scrollTo(0, y - 300)", y)
        page.mouse.move(x, y - page.evaluate("scrollY"))
    if kind in SURE:
        page.locator("#threshold").click(position={"x": 30, "y": 8})
        page.locator("#class").select_option(index=1)
    page.locator("#search").fill("a")
    page.locator("#search").press("Enter")
    page.evaluate("document.querySelectorAll('summary, nav a').forEach((each) => each.click())")
    assert (
        page.evaluate("performance.getEntriesByType('resource').filter((each) => !each.name.startsWith('data:'))") == []
    )


@pytest.mark.parametrize("kind", ["digits", "hostile", "detection"])
def test_the_file_alone_is_the_same_page_elsewhere(look, read, kind, exports, tmp_path):
    page, _ = read(kind)
    copy = tmp_path / "alone.html"
    shutil.copy(exports(kind)[1], copy)
    moved, _ = look(kind, copy)
    assert moved.content() == page.content()
    assert moved.screenshot() == page.screenshot()


@pytest.mark.parametrize("kind", KINDS)
def test_what_names_hold_is_text(read, kind):
    page, said = read(kind)
    path = naming.printable(said.export.path)
    assert page.title() == f"{path} - tfzip report"
    assert texts(page, "h1") == [path]
    assert page.locator("script").count() == 3
    assert page.locator("img:not(.thumbnail), iframe, object, embed, base, link:not([rel=icon]), video").count() == 0
    assert page.locator("style").count() == 1
    attributes = page.evaluate(
        "[...document.querySelectorAll('*')].flatMap((each) => [...each.attributes].map((a) => [a.name, a.value]))"
    )
    assert not [name for name, _ in attributes if name.startswith("on")]
    assert all(value.startswith("#") for name, value in attributes if name in ("href", "action") and value != "data:,")
    assert all(value.startswith("data:image/webp;base64,") for name, value in attributes if name == "src")
    whole = page.locator("body").inner_text()
    assert not {c for c in whole if not c.isprintable()} - set("\n\t\xa0")
    assert set(texts(page, ".card .filename")) <= said.records.keys()
    if kind != "raw":
        names = texts(page, "#class-table tbody th")
        assert len(set(names)) == len(names)
        assert set(names) <= said.classes.keys()


def test_hostile_names_are_all_there(read):
    page, said = read("hostile")
    hostile = [naming.printable(text) for text in reports_made.HOSTILE]
    names, failed = texts(page, "#cards .filename"), texts(page, "#failure-table .filename")
    assert sorted(names) == sorted(said.records)
    for text in hostile:
        assert any(text in name for name in names)
    assert any(text in name for name in failed for text in hostile)
    assert set(texts(page, "#cards .truth span")) == set(hostile[:7])
    assert len(set(texts(page, "#class-table tbody th")) & set(hostile[:7])) > 4


def test_failures_are_those_of_the_export(read):
    for kind in ("digits", "hostile"):
        page, said = read(kind)
        counts = Counter(failure.stage for failure in said.export.failures)
        assert sum(counts.values()) > 1
        found = Counter()
        for stage, images in zip(*(texts(page, f"#failure-table td:nth-child({n})") for n in (1, 3)), strict=True):
            found[stage] += number(images)
        assert found == counts


# Numbers.


def class_rows(page):
    """Name, records, how many pass, and the share of these, of each row."""
    rows = page.eval_on_selector_all(
        "#class-table tbody tr",
        """rows => rows.map((row) => [row.querySelector("th").textContent, row.cells[1].textContent,
           row.querySelector(".passing")?.textContent, row.querySelector(".bar")?.textContent])""",
    )
    return [(name, number(records), passing and number(passing), share) for name, records, passing, share in rows]


@pytest.mark.parametrize("kind", CLASSED)
def test_classes_have_their_records_the_most_frequent_first(read, kind):
    page, said = read(kind)
    rows = [row[:2] for row in class_rows(page)]
    counts = {name: len(of_class) for name, of_class in said.classes.items()}
    assert rows == [(name, counts[name]) for name, _ in rows]
    shown = [count for _, count in rows]
    assert shown == sorted(counts.values(), reverse=True)[:1000]
    if kind == "many":
        assert f"and {len(counts) - 1000} less frequent classes" in texts(page, "section p")
    elif said.export.labels:
        numbers = page.eval_on_selector_all("#class-table tbody tr", "rows => rows.map((row) => row.dataset.class)")
        assert [naming.printable(said.export.labels[int(each)]) for each in numbers] == [name for name, _ in rows]


MOVES = ["Home", "ArrowRight", *["PageUp"] * 3, "ArrowLeft", *["PageUp"] * 4, *["ArrowRight"] * 3, "End", "ArrowLeft",
         "PageDown"]  # fmt: skip


@pytest.mark.parametrize("kind", SURE)
def test_the_slider_says_how_many_pass(look, kind):
    page, said = look(kind)
    slider = page.get_by_role("slider", name="Threshold")
    slider.focus()
    seen, totals = [], set()
    for move in [None, *MOVES]:
        if move:
            page.keyboard.press(move)
        value = float(page.locator("#threshold-value").inner_text())
        seen.append(value)
        totals.add(assert_passing(page, said, value))
    assert (seen[0], seen[1], seen[-3]) == (0.9, 0, 1)
    assert len(set(seen)) >= len(MOVES) - 2
    if kind != "one":
        assert len(totals) > 2


def assert_passing(page, said, threshold):
    """All numbers that follow the slider are those of the index; returns how many records pass."""
    passes, total = said.passes(threshold), len(said.records)
    count = int(passes.sum())
    assert number(page.locator("#passing-count").inner_text()) == count
    said_aloud = page.locator("#threshold").get_attribute("aria-valuetext")
    assert said_aloud == f"{threshold:g}: {count:,} of {total:,} records pass"
    for name, records, passing, share in class_rows(page):
        assert passing == said.passes(threshold, name).sum(), name
        assert float(share.removesuffix("%")) == pytest.approx(100 * passing / records, abs=0.051)
    assert marker(page) == pytest.approx(threshold, abs=0.01)
    if lacks(said.export):
        assert page.locator("#passing-known").count() == 0
        return count
    columns = said.export.metadata
    known = passes & (columns["truth"] >= 0)
    right = int((columns["label"] == columns["truth"])[known].sum())
    assert [number(page.locator(f"#passing-{each}").inner_text()) for each in ("known", "right")] == [
        known.sum(),
        right,
    ]
    share = f"{100 * right / known.sum():.1f}%" if known.any() else "-"
    assert page.locator("#passing-accuracy").inner_text() == share
    return count


def marker(page):
    """Where the line that marks the threshold is drawn, between the grid lines of 0 and 1."""
    grid = page.eval_on_selector_all(
        "#chart-coverage .ct-grid.ct-horizontal", "lines => lines.map((l) => +l.getAttribute('x1'))"
    )
    drawn = page.locator("#chart-coverage .ct-marker .ct-line").get_attribute("d")
    across = float(re.match(r"M\s*([\d.]+)", drawn)[1])
    return (across - min(grid)) / (max(grid) - min(grid))


@pytest.mark.parametrize("kind", SURE)
def test_as_many_are_selected_and_by_the_command_that_is_shown(look, kind, capsys, tmp_path, monkeypatch):
    page, said = look(kind)
    if kind in ("multilabel", "detection", "hostile"):  # nothing can be selected, or a path cannot be shown as it is
        assert page.locator("#command").count() == 0
        return
    monkeypatch.chdir(tmp_path)
    page.locator("#threshold").focus()
    tried = set()
    for move in (None, "Home", "PageUp", "End"):
        if move:
            page.keyboard.press(move)
        threshold = float(page.locator("#threshold-value").inner_text())
        tried.add(threshold)
        count = number(page.locator("#passing-count").inner_text())
        assert selected(said.export, threshold) == count
        words = shlex.split(page.locator("#command").inner_text())
        assert words[:4] == ["python", "-m", "tfzip", "select"]
        capsys.readouterr()
        assert cli.main([*words[3:], "--dry-run"]) == (0 if count else 2)
        if count:
            assert re.match(rf"{count} of \d+ selected\n", capsys.readouterr().out)
    assert len(tried) == 4
    assert not list(tmp_path.iterdir())


def selected(export, threshold):
    try:
        return len(selection.select_rows(export, rules.Rules(min_confidence=threshold)).choice.rows)
    except UsageError:
        return 0


@pytest.mark.parametrize("kind", SURE)
def test_the_histogram_is_of_the_class_that_is_chosen(look, kind):
    page, said = look(kind)
    choice = page.get_by_role("combobox", name="Show")
    offered = texts(page, "#class option")
    names = [row[0] for row in class_rows(page)]
    assert offered == ["all classes", *(f"{name} ({len(said.classes[name]):,})" for name in names)]
    choice.focus()
    seen = set()
    for name in [None, *names[:4]]:
        if name is not None:
            page.keyboard.press("ArrowDown")
        counts = [number(text) for text in texts(page, "#bins td")]
        assert counts == said.histogram(20, name)
        lengths = np.array(bar_lengths(page, "chart-confidence"))
        np.testing.assert_allclose(lengths / lengths.sum(), np.array(counts) / sum(counts), atol=1e-3)
        seen.add(tuple(counts))
    assert len(seen) > 2 or kind == "one"
    page.keyboard.press("Home")
    assert [number(text) for text in texts(page, "#bins td")] == said.histogram(20)


def bar_lengths(page, figure):
    return page.eval_on_selector_all(
        f"#{figure} .ct-bar", "bars => bars.map((bar) => Math.abs(bar.getAttribute('y1') - bar.getAttribute('y2')))"
    )


def test_outputs_are_spread_as_their_values_are(read):
    page, said = read("raw")
    names = list(next(iter(said.records.values())).outputs)
    assert len(names) == 3
    for place, name in enumerate(names):
        values = np.concatenate([record.outputs[name].ravel() for record in said.records.values()]).astype(np.float64)
        assert page.locator(f"#output-{place} strong").inner_text() == name
        told = texts(page, f".output:has(#output-{place}) dd")
        assert told == [f"{each:.4g}" for each in (*np.quantile(values, (0, 0.25, 0.5, 0.75, 1)), values.mean())]
        lengths = np.array(bar_lengths(page, f"output-{place}"))
        counts = np.histogram(values, 20)[0] if len(set(values.tolist())) > 1 else np.array([len(values)])
        np.testing.assert_allclose(lengths / lengths.sum(), counts / counts.sum(), atol=1e-3)


def test_the_truth_is_told_as_the_index_has_it(read):
    page, said = read("digits")
    columns = said.export.metadata
    truth, label = columns["truth"], columns["label"]
    cells = [[number(text.replace("·", "0")) for text in row] for row in page.eval_on_selector_all(
        "#confusion tbody tr", "rows => rows.map((row) => [...row.querySelectorAll('td')].map((c) => c.textContent))"
    )]  # fmt: skip
    assert cells == [[int(((truth == one) & (label == other)).sum()) for other in range(10)] for one in range(10)]
    assert f"{(truth == label).mean():.1%}" in page.locator("section:has(#truth) > p").inner_text()


# The sample.


def kept_cards(page):
    return texts(page, "#cards > li:not([hidden]) .filename")


def assert_shown(page, expected):
    """The cards that are not hidden are those of these names, and the page says how many."""
    assert page.locator("#cards > li:visible").count() == len(expected)
    assert sorted(kept_cards(page)) == sorted(expected)
    total = page.locator("#cards > li").count()
    assert page.locator("#shown").inner_text() == f"{len(expected)} of {total} shown"


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_finds_the_cards_that_hold_it(look, kind):
    page, said = look(kind)
    sample = texts(page, "#cards .filename")
    assert len(set(sample)) == len(sample) == min(200, len(said.records))
    search = page.get_by_role("searchbox", name="Filename, prediction or truth holds")
    for word in searches(said, sample):
        search.focus()
        page.keyboard.press("Control+A")
        page.keyboard.type(word)
        wanted = word.strip().lower()
        found = [name for name in sample if any(wanted in text.lower() for text in said.words(said.records[name]))]
        assert_shown(page, found)
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    assert_shown(page, sample)


def searches(said, sample):
    """Parts of names and of what is said, in capitals too, and what is in no record but might be in a card."""
    first = said.words(said.records[sample[0]])
    special = ["<script>", "ALERT(2)", "\\u202e", "{{", '"'] if any("alert" in name for name in sample) else []
    return [sample[0], sample[-1][-5:].upper(), f" {first[-1]} ", "truth", "nowhere", "0.", *special]


@pytest.mark.parametrize("kind", CLASSED)
def test_the_class_filter_keeps_the_cards_of_a_class(look, kind):
    page, said = look(kind)
    sample, names = texts(page, "#cards .filename"), [row[0] for row in class_rows(page)]
    every = list(said.records)
    choice = page.get_by_role("combobox", name="Class")
    assert texts(page, "#filter option") == ["any", *names]
    choice.focus()
    for name in names[:3]:
        page.keyboard.press("ArrowDown")
        of_class = {every[row] for row in said.classes[name]}
        assert_shown(page, [each for each in sample if each in of_class])
    page.keyboard.press("Home")
    assert_shown(page, sample)


def test_only_what_is_wrong_and_filters_together(look):
    page, said = look("digits")
    sample, every = texts(page, "#cards .filename"), list(said.records)
    wrong = {name for name, record in said.records.items() if record.prediction.label != record.truth.label}
    page.get_by_role("checkbox", name="only what is wrong").focus()
    page.keyboard.press("Space")
    expected = [name for name in sample if name in wrong]
    assert 1 < len(expected) < len(sample) / 2
    assert_shown(page, expected)
    label = Counter(said.records[name].prediction.text for name in expected).most_common(1)[0][0]
    page.get_by_label("Class", exact=True).select_option(label=label)
    expected = [name for name in expected if every.index(name) in said.classes[label]]
    assert_shown(page, expected)
    page.locator("#search").fill(expected[0])
    assert_shown(page, expected[:1])


# Pictures.


@pytest.mark.parametrize("kind", PICTURED)
def test_thumbnails_decode_and_are_of_their_record(read, kind):
    page, said = read(kind)
    found = page.eval_on_selector_all("img.thumbnail", "all => all.map((each) => each.complete && each.naturalWidth)")
    assert len(found) >= min(200, len(said.records))
    assert all(found)
    images = {name: picture(record) for name, record in said.records.items()}
    cards = page.locator("#cards > li").all()
    for card in cards[:: -(-len(cards) // 8)]:
        name, drawn = card.locator(".filename").text_content(), drawn_pixels(card)
        if max(images[name].size) <= 64:
            np.testing.assert_array_equal(drawn, np.array(images[name]))
        far = {each: np.abs(small(image) - small(drawn)).mean() for each, image in images.items()}
        assert far[name] == min(far.values()) < 6, name


def picture(record):
    """A record's image on white."""
    with Image.open(io.BytesIO(record.encoded)) as image:
        colours = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")


def small(image):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return np.array(image.resize((8, 8), Image.Resampling.BOX), np.float64)


def drawn_pixels(card):
    """What the browser makes of a card's thumbnail, on white, [H, W, 3]."""
    png = card.locator("img").evaluate(
        """image => {
            const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            context.fillStyle = "white";
            context.fillRect(0, 0, canvas.width, canvas.height);
            context.drawImage(image, 0, 0);
            return canvas.toDataURL().split(",")[1];
        }"""
    )
    return np.array(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))


PLACES = """svg => {
    const image = svg.previousElementSibling.getBoundingClientRect();
    return [...svg.querySelectorAll("rect")].map((each) => {
        const box = each.getBBox(), at = each.getScreenCTM();
        const place = (x, y) => [(at.f + at.d * y - image.y) / image.height, (at.e + at.a * x - image.x) / image.width];
        return [...place(box.x, box.y), ...place(box.x + box.width, box.y + box.height)];
    });
}"""  # of each rect ymin, xmin, ymax, xmax, as shares of the image beneath


CARDS = f"""cards => cards.map((card) => {{
    const svg = card.querySelector("svg");
    const titles = [...svg.querySelectorAll("title")].map((each) => each.textContent);
    return [card.querySelector(".filename").textContent, svg.getAttribute("aria-label"), ({PLACES})(svg), titles];
}})"""


def test_boxes_are_drawn_where_the_record_has_them(read):
    page, said = read("detection")
    checked = cut = 0
    drawn = page.eval_on_selector_all("#cards > li:has(rect)", CARDS)
    for name, aloud, places, told in drawn:
        prediction = said.records[name].prediction
        order = np.argsort(-prediction.scores)
        boxes = prediction.boxes[order].clip(0, 1)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        np.testing.assert_allclose(places, boxes[inside], atol=2e-3)
        titles = [f"{prediction.texts[each]} {prediction.scores[each]:.2f}" for each in order[inside]]
        assert told == titles
        assert aloud == ", ".join(titles)
        checked, cut = checked + len(titles), cut + int((boxes != prediction.boxes[order]).any())
    assert checked > 50
    assert cut > 10


def test_boxes_are_painted_over_the_picture(read):
    page, _ = read("detection")
    frame = page.locator("#cards > li:has(rect) .picture").first
    for _ in range(2):  # what comes into view takes its place
        frame.scroll_into_view_if_needed()
        page.wait_for_timeout(100)
    y, x, bottom, _ = frame.locator("svg").evaluate(PLACES)[0]
    taken = page.screenshot(clip=frame.bounding_box())
    shot = np.array(Image.open(io.BytesIO(taken)).convert("RGB")).astype(int)
    row, column = int((y + bottom) / 2 * len(shot)), int(x * len(shot[0]))
    near = shot[row, max(0, column - 2) : column + 3]
    assert (np.abs(near - [0xFF, 0x3D, 0xB5]).sum(axis=1) < 60).any()


def test_without_images_cards_say_so(read):
    page, said = read("no_images")
    assert page.locator("img").count() == 0
    assert page.locator("#cards .none").count() == len(said.records)
    assert all(texts(page, "#cards .none"))


# By keyboard.

CONTROLS = "a[href], button, input, select, textarea, summary, [tabindex]"


@pytest.mark.parametrize("kind", ["digits", "hostile", "raw", "one"])
def test_tab_reaches_all_in_order_and_shows_where_it_is(look, kind):
    page, _ = look(kind)
    every = page.evaluate(
        f"(window.every = [...document.querySelectorAll('{CONTROLS}')].filter((each) => each.checkVisibility())).length"
    )
    assert every > 6
    for place in range(every):
        page.keyboard.press("Tab")
        at = page.evaluate(
            """() => {
                const active = document.activeElement, style = getComputedStyle(active);
                const box = active.getBoundingClientRect();
                return { place: window.every.indexOf(active), what: active.outerHTML.slice(0, 80),
                         outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 1,
                         seen: box.bottom > 0 && box.top < innerHeight && box.left >= 0 && box.right <= innerWidth };
            }"""
        )
        assert (at["place"], at["outlined"], at["seen"]) == (place, True, True), at
    page.keyboard.press("Tab")
    assert page.evaluate("window.every.indexOf(document.activeElement)") <= 0, "no trap at the end"


AT_END = "scrollY + innerHeight > document.documentElement.scrollHeight - 2"


def test_keys_do_what_a_mouse_does(look):
    page, _ = look("digits")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")
    details = page.locator("details").last
    details.locator("summary").focus()
    for key, is_open in (("Enter", True), ("Enter", False), ("Space", True), ("Space", False)):
        page.keyboard.press(key)
        assert details.evaluate("each => each.open") is is_open
        assert details.locator("img").first.is_visible() is is_open
    region = page.get_by_role("region", name="Pictures of the sample")
    region.focus()
    page.keyboard.press("End")
    waited(page, lambda: region.evaluate("each => each.scrollTop") > 100)
    for link in page.locator("nav a").all():
        link.focus()
        page.wait_for_timeout(200)  # what comes into view takes its place
        page.keyboard.press("Enter")
        assert page.url.endswith(link.get_attribute("href"))
        heading = page.locator(link.get_attribute("href"))
        waited(page, lambda heading=heading: -1 < heading.bounding_box()["y"] < 450 or page.evaluate(AT_END))


def waited(page, is_so):
    """Scrolling takes a moment; the page allows no function to wait for it, which would be a script."""
    for _ in range(60):
        if is_so():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not scroll there")


# For screen readers, and all eyes.

AXE = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "resultTypes": ["violations"],
}


@pytest.mark.parametrize("kind", ["digits", "hostile", "detection", "raw", "no_images"])
def test_axe_finds_nothing_amiss(look, kind):
    from axe_playwright_python.sync_playwright import Axe

    page, _ = look(kind)
    page.evaluate("document.querySelectorAll('details').forEach((each, place) => { each.open = place < 4; })")
    page.evaluate(  # more of the same takes long and shows no more
        """document.querySelectorAll("tbody > tr:nth-child(n + 25), .cards > :nth-child(n + 5)")
           .forEach((each) => each.remove())"""
    )
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page, options=AXE)
        assert found.response["passes"], "axe has run"
        assert not found.response["violations"], found.generate_report()


@pytest.mark.parametrize("kind", KINDS)
def test_headings_tables_names_and_ids_are_in_order(read, kind):
    page, _ = read(kind)
    assert page.locator("html").get_attribute("lang") == "en"
    levels = [
        int(each)
        for each in page.eval_on_selector_all("h1, h2, h3, h4, h5, h6", "all => all.map((each) => each.tagName[1])")
    ]
    assert levels.index(1) == 0
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))
    assert page.locator("th:not([scope])").count() == 0
    ids = page.eval_on_selector_all("[id]", "all => all.map((each) => each.id)")
    assert len(set(ids)) == len(ids)
    for attribute in ("for", "aria-labelledby", "aria-describedby"):
        named = page.eval_on_selector_all(
            f"[{attribute}]", f"all => all.map((each) => each.getAttribute('{attribute}'))"
        )
        assert set(named) <= set(ids)
    assert set(page.eval_on_selector_all("nav a", "all => all.map((each) => each.hash.slice(1))")) <= set(ids)
    drawn = page.locator("svg").all()
    assert all(each.get_attribute("role") == "img" and each.get_attribute("aria-label") for each in drawn)


OUTSIDE = f"""() => {{
    const wide = document.documentElement.clientWidth;
    return [...document.querySelectorAll('{CONTROLS}, figure, .card, .threshold')].filter((each) => {{
        const box = each.getBoundingClientRect();
        return !each.matches('.skip') && each.checkVisibility() && (box.left < 0 || box.right > wide + 0.5);
    }}).map((each) => each.outerHTML.slice(0, 80));
}}"""


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_wider_than_the_window(look, kind):
    page, _ = look(kind)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            scroll, client = page.evaluate(
                "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
            )
            assert scroll <= client == width
            assert page.evaluate(OUTSIDE) == []


def test_dark_is_dark_and_light_is_light(look):
    page, _ = look("digits")
    for scheme, wanted in (("light", range(200, 256)), ("dark", range(60))):
        page.emulate_media(color_scheme=scheme)
        ground = page.locator("body").evaluate("each => getComputedStyle(each).backgroundColor")
        assert all(int(each) in wanted for each in re.findall(r"\d+", ground)[:3])


@pytest.mark.parametrize("kind", ["digits", "hostile", "detection", "many"])
def test_on_paper_all_is_open_and_afterwards_as_it_was(look, kind):
    page, _ = look(kind)
    count = "[...document.querySelectorAll('details')].map((each) => each.open)"
    page.evaluate(f"window.addEventListener('beforeprint', () => {{ window.printed = {count}; }})")
    before = page.evaluate(count)
    assert False in before or kind not in SURE
    assert page.pdf().startswith(b"%PDF")
    assert all(page.evaluate("window.printed"))
    assert page.evaluate(count) == before
    page.emulate_media(media="print")
    assert (
        page.evaluate(
            "[...document.querySelectorAll('.scroll')].filter((it) => it.scrollHeight > it.clientHeight + 1).length"
        )
        == 0
    )
    assert not page.locator("nav").is_visible()
