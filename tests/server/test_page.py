"""The page in a real browser: from a drop to a picture, two stimuli, downloads, links, small and dark screens."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from server_of_tests import PRF, SPIKES

from berg import BERG

sync_api = pytest.importorskip(
    "playwright.sync_api", reason='the browser is driven by playwright: pip install "berg[dev]"'
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium"),
]
SOFTWARE = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
MICROPHONE = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=[*SOFTWARE, *MICROPHONE])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, client):
    """A page of the server; it fails for what goes wrong in the browser, and for each request to elsewhere."""
    context = browser.new_context(
        viewport={"width": 1400, "height": 900}, accept_downloads=True, permissions=["microphone"]
    )
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    wrong = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("request", lambda request: wrong.append(request.url))
    yield opened
    context.close()
    here = (client.address, "blob:", "data:")
    answered = "the server responded with a status of 422"  # a stimulus that cannot be read, which the page says
    assert [own for own in wrong if not own.startswith(here) and answered not in own] == []


def picture(seed=0, size=400):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size, size, 3), np.uint8))


@pytest.fixture
def folder(tmp_path):
    for seed in range(3):
        picture(seed).save(tmp_path / f"noise-{seed}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return tmp_path


def drawn(page, what="Visual field"):
    found = page.locator(f'#figures canvas[aria-label^="{what}"]')
    found.wait_for()
    return found


def test_a_picture_that_is_dropped_is_drawn(page, client, tmp_path):
    page.goto(f"{client.address}/#model={PRF}")
    page.get_by_text("held_out_r: median").wait_for()  # how well it does is seen before the first prediction
    page.get_by_text("Extrapolated").wait_for()
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    page.evaluate(
        """async (bytes) => {
            const files = new DataTransfer();
            files.items.add(new File([Uint8Array.from(bytes)], "face.png", {type: "image/png"}));
            document.dispatchEvent(new DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true}));
        }""",
        list(buffer.getvalue()),
    )
    words = drawn(page).get_attribute("aria-label")
    picture().save(tmp_path / "face.png")
    responses = BERG().encode(PRF, [tmp_path / "face.png"], labelled=True)["responses"].squeeze("stimulus")
    best = responses.isel(voxel=int(np.argmax(responses.values)))
    assert f"largest {float(best):.3g}" in words
    assert f"at x {float(best.x_deg):.3g}".replace("-", "−") in words
    assert "face.png" not in page.url  # what was uploaded is never in a link


def test_two_stimuli_are_compared_and_stand_in_the_link(page, client):
    page.goto(f"{client.address}/#model={PRF}&first=checks-left.png&second=ring.png")
    words = drawn(page).get_attribute("aria-label")
    assert "checks-left.png − ring.png" in words
    assert page.url.endswith(f"#model={PRF}&first=checks-left.png&second=ring.png")
    page.get_by_label("Compare with: ring.png").click()
    page.locator('#figures canvas[aria-label*="ring"]').first.wait_for(state="detached")
    assert "second" not in page.url


def test_downloads_hold_the_responses(page, client, folder):
    page.goto(f"{client.address}/#model={PRF}")
    page.locator("#drop input[type=file]").set_input_files(folder / "noise-0.png")
    drawn(page)
    expected = BERG().encode(PRF, [folder / "noise-0.png"], labelled=True)["responses"]
    saved = {name: _download(page, name) for name in ("Picture (PNG)", "Table (CSV)", "Labelled file (NetCDF)")}
    with xr.open_dataset(saved["Labelled file (NetCDF)"]) as found:
        np.testing.assert_allclose(found["responses"].values, expected.values, atol=1e-6)
    head, *rows = saved["Table (CSV)"].read_text("utf-8").splitlines()
    assert {"voxel", "x_deg", "held_out_r", "noise-0.png (BOLD amplitude)"} <= set(head.split(","))
    values = [float(row.split(",")[-1]) for row in rows]
    np.testing.assert_allclose(values, expected.values.ravel(), rtol=1e-5, atol=1e-6)
    with Image.open(saved["Picture (PNG)"]) as image:
        assert image.width > 800
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50
    page.get_by_text("The same in Python").click()
    assert f'"{PRF}"' in page.locator("#lines code").inner_text()


def _download(page, name):
    with page.expect_download() as info:
        page.get_by_role("button", name=name).click()
    path = Path(info.value.path())
    return path


def test_pictures_like_one_are_found_in_a_folder(page, client, folder):
    page.goto(f"{client.address}/#model={PRF}")
    page.locator("#drop input[type=file]").set_input_files(folder / "noise-1.png")
    drawn(page)
    page.locator("#similar input[type=file]").set_input_files(folder)
    first = page.locator("#similar li").first
    first.wait_for()
    assert first.inner_text().startswith("noise-1.png, r 1")
    assert page.locator("#similar li").count() == 3  # the broken one is left out
    sync_api.expect(page.locator("#status")).to_have_text("3 of 4 encoded.")


def test_sounds_are_recorded_and_drawn_with_their_envelope(page, client):
    page.goto(f"{client.address}/#model={SPIKES}")
    page.get_by_role("button", name="Record").click()
    page.wait_for_timeout(700)
    page.get_by_role("button", name="Stop the recording").click()
    assert "Firing rate (spikes/s)" in drawn(page, "1 units over time").get_attribute("aria-label")


def test_what_cannot_be_read_is_said_in_the_words_of_python(page, client, folder):
    page.goto(f"{client.address}/#model={PRF}")
    page.locator("#drop input[type=file]").wait_for(state="attached")
    page.locator("#drop input[type=file]").set_input_files(folder / "broken.png")
    sync_api.expect(page.locator("#status")).to_contain_text("broken.png", timeout=60_000)
    with pytest.raises(Exception, match=r"broken.png"):
        BERG().encode(PRF, [folder / "broken.png"])


def test_models_are_chosen_with_the_keyboard(page, client):
    page.goto(f"{client.address}/#model={PRF}")
    page.get_by_text("held_out_r: median").wait_for()
    page.locator(f'input[value="{PRF}"]').focus()
    page.keyboard.press("ArrowUp")
    page.locator("#about h3", has_text=SPIKES).wait_for()
    page.locator("#search").fill("human V1")
    assert page.locator("#models label").count() == 1
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea")].filter((own) => !own.hidden
            && own.offsetParent && !(own.textContent || own.getAttribute("aria-label") || own.labels?.length)).length"""
    )
    assert unnamed == 0


COLOUR_A_CORTEX = """async ([view, fronts]) => {
    const { Cortex, readMeshes } = await import("/cortex.js");
    const { Server } = await import("/source.js");
    const meshes = await readMeshes(new Server());
    const values = fronts.flatMap(([name, axis, sign]) => {
        const { points } = meshes[name];
        return Array.from({ length: points.length / 3 }, (_, i) => (sign * points[3 * i + axis] > 0 ? 1 : -1));
    });
    const cortex = await Cortex.get(document.querySelector("#figures"));
    cortex.colour(Float32Array.from(values), { colour: (value) => (value > 0 ? [255, 0, 0] : [0, 0, 255]) }, view);
    cortex.look(view);
    const { width, height } = cortex.picture();
    const pixels = cortex.picture().getContext("2d").getImageData(0, 0, width, height).data;
    const middles = { red: [0, 0, 0], blue: [0, 0, 0] };
    for (let i = 0; i < pixels.length; i += 4) {
        const [red, blue] = [pixels[i], pixels[i + 2]];
        const name = red > 120 && blue < 60 ? "red" : blue > 120 && red < 60 ? "blue" : null;
        if (!name) continue;
        middles[name][0] += 1;
        middles[name][1] += (i / 4) % width;
        middles[name][2] += Math.floor(i / 4 / width);
    }
    return Object.fromEntries(Object.entries(middles).map(([name, [n, x, y]]) => [name, [n, x / n, y / n]]));
}"""
FRONT, TOP = 1, 2  # axes of the mesh: x to the right, y to the front, z up


@pytest.mark.parametrize(
    ("view", "axis", "red_is"),
    [
        ("left, lateral", FRONT, "left"),
        ("left, medial", FRONT, "right"),
        ("right, lateral", FRONT, "right"),
        ("right, medial", FRONT, "left"),
        ("left, lateral", TOP, "above"),
        ("from behind", TOP, "above"),
        ("from above", FRONT, "above"),
        ("from below", FRONT, "above"),
    ],
)
def test_the_cortex_is_seen_from_where_the_button_says(page, client, view, axis, red_is):
    page.goto(f"{client.address}/#model={PRF}")
    page.get_by_text("held_out_r: median").wait_for()
    found = page.evaluate(COLOUR_A_CORTEX, [view, [["lh", axis, 1], ["rh", axis, 1]]])
    (n_red, red_x, red_y), (n_blue, blue_x, blue_y) = found["red"], found["blue"]
    assert min(n_red, n_blue) > 1000
    assert {"left": red_x < blue_x, "right": red_x > blue_x, "above": red_y < blue_y}[red_is]


def test_the_left_hemisphere_is_left_from_behind_and_right_from_below(page, client):
    page.goto(f"{client.address}/#model={PRF}")
    page.get_by_text("held_out_r: median").wait_for()
    sides = [["lh", 0, -1], ["rh", 0, -1]]  # x below 0: the left hemisphere is red
    behind, below = (page.evaluate(COLOUR_A_CORTEX, [view, sides]) for view in ("from behind", "from below"))
    assert behind["red"][1] < behind["blue"][1]
    assert below["red"][1] > below["blue"][1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_without_scrolling_sideways(browser, client, scheme):
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme=scheme, is_mobile=True)
    page = context.new_page()
    page.goto(f"{client.address}/#model={PRF}&first=ring.png")
    drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    context.close()


def test_an_explorer_shows_the_same_without_a_server(browser, tmp_path, folder):
    import functools
    import http.server
    import threading

    from berg.server.explorer import write_explorer

    out = tmp_path / "site"
    write_explorer(BERG(), out, [PRF], [folder / "noise-0.png", folder / "noise-1.png"], selection={"reliable": True})
    handler = functools.partial(_Quiet, directory=out)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{host.server_address[1]}/")
        assert "noise-0.png: largest" in drawn(page).get_attribute("aria-label")
        page.locator("#drop").get_by_text("noise-1.png").click()
        page.locator('#figures canvas[aria-label*="noise-1.png: largest"]').wait_for()
        assert "first=noise-1.png" in page.url
        page.close()
        host.shutdown()
    assert json.loads((out / "explorer" / "stimuli.json").read_text("utf-8"))["stimuli"][0]["name"] == "noise-0.png"


def _quiet_handler():
    import http.server

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    return Quiet


_Quiet = _quiet_handler()
