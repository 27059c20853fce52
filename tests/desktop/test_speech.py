"""The Speech page in a browser, with the real speech engine: files, microphone, voices, other apps, downloads."""
import base64
import json
import pathlib
import re
import shutil
import sys
import wave

import pytest
from playwright.sync_api import expect

from desktop import MODELS, ROOT, until
from test_ui import Server, by, browse, chromium  # noqa: F401  (fixtures)

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "clients" / "python"))
from origin import Origin  # noqa: E402

AUDIO = ROOT / "crates" / "testkit" / "fixtures" / "audio"
EXPECTED = json.loads((AUDIO / "expected.json").read_text())
HELLO = EXPECTED["hello.mp3"]
MODEL = "tiny-whisper"


@pytest.fixture(scope="module")
def server():
    running = Server()
    yield running
    running.close()


def drop(page, path):
    """What a file manager does: a file over the page, then let go."""
    data = base64.b64encode(path.read_bytes()).decode()
    transfer = page.evaluate_handle("""([data, name]) => {
        const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], name));
        return transfer;
    }""", [data, path.name])
    for event in ("dragover", "drop"):
        page.dispatch_event("[data-testid=drop]", event, {"dataTransfer": transfer})


def finished(page):
    expect(by(page, "transcript")).to_have_attribute("data-status", "done", timeout=60000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_dropped_file_becomes_text(server, browse, pictures, scheme, tmp_path):  # noqa: F811
    page = browse(server.ui + "#/speech", scheme)
    page.screenshot(path=pictures / f"speech-begin-{scheme}.png")
    drop(page, AUDIO / "hello.mp3")
    finished(page)
    first, second = HELLO["segments"]
    expect(by(page, "segments").locator("li")).to_have_text([f"0:00{first['text']}", f"0:01{second['text']}"])
    expect(by(page, "heard")).to_contain_text(re.compile(r"9 words.*English \((9\d|100)% sure\).*3\.4 s long"))
    expect(by(page, "speech-announcement")).to_have_text("Done, 9 words.")
    for form, wanted in {
        "txt": f"{HELLO['got_text']}\n",
        "srt": f"1\n00:00:00,000 --> 00:00:01,520\n{first['text']}\n\n2\n00:00:01,520 --> 00:00:03,160\n{second['text']}\n\n",
        "vtt": f"WEBVTT\n\n00:00:00.000 --> 00:00:01.520\n{first['text']}\n\n00:00:01.520 --> 00:00:03.160\n{second['text']}\n\n",
    }.items():
        with page.expect_download() as download:
            by(page, f"save-{form}").click()
        assert download.value.suggested_filename == f"hello.{form}"
        assert pathlib.Path(download.value.path()).read_text() == wanted

    by(page, "say-text").fill("The quick brown fox jumps over the lazy dog.")
    by(page, "voice").select_option("en-us")
    by(page, "say-it").click()
    expect(by(page, "sound")).to_be_visible(timeout=60000)
    # The page's rules forbid the browser's own waiting for an expression.
    until(lambda: page.evaluate("document.querySelector('audio').duration") > 1.5, "the sound is read")
    page.screenshot(path=pictures / f"speech-{scheme}.png", full_page=True)
    # What was said is heard.
    with page.expect_download() as download:
        by(page, "save-sound").click()
    assert download.value.suggested_filename == "speech.mp3"
    said = tmp_path / "said.mp3"
    shutil.copy(download.value.path(), said)
    by(page, "file").set_input_files(said)
    expect(by(page, "transcript")).to_contain_text("said.mp3")
    finished(page)
    expect(by(page, "segments")).to_contain_text(EXPECTED["fox.wav"]["got_text"])

    by(page, "nav-home").click()
    expect(by(page, "loaded")).to_contain_text(MODEL)
    expect(by(page, "loaded")).to_contain_text("speech to text")
    expect(by(page, "loaded")).to_contain_text("text to speech")
    page.screenshot(path=pictures / f"speech-home-{scheme}.png")
    by(page, "nav-models").click()
    by(page, f"model-{MODEL}").get_by_role("link").click()
    expect(by(page, "detail")).to_contain_text("transcription")
    page.screenshot(path=pictures / f"speech-model-{scheme}.png")
    by(page, "detail").get_by_role("link", name="Try it").click()
    expect(by(page, "speech-model")).to_have_value(MODEL)
    # What was said once is not said again by itself.
    expect(by(page, "player")).to_be_visible()
    assert not page.evaluate("document.querySelector('audio').autoplay")


def test_language_and_translation(server, browse):  # noqa: F811
    page = browse(server.ui + "#/speech")
    by(page, "translate").check()
    by(page, "file").set_input_files(AUDIO / "german-service.wav")
    finished(page)
    expect(by(page, "segments")).to_contain_text(EXPECTED["german-service.wav"]["got_translation"])
    expect(by(page, "heard")).to_contain_text("German")
    by(page, "translate").uncheck()
    by(page, "speech-language").select_option("de")
    by(page, "file").set_input_files(AUDIO / "german-morning.mp3")
    expect(by(page, "transcript")).to_contain_text("german-morning.mp3")
    finished(page)
    expect(by(page, "segments")).to_contain_text(EXPECTED["german-morning.mp3"]["got_text"])


def test_refusals_are_said(server, browse):  # noqa: F811
    page = browse(server.ui + "#/speech")
    by(page, "file").set_input_files(AUDIO / "not-audio.mp3")
    expect(by(page, "speech-error")).to_contain_text("No text.", timeout=60000)
    by(page, "file").set_input_files(AUDIO / "silence-3s.wav")
    expect(by(page, "transcript")).to_contain_text("Nothing was heard in this recording.", timeout=60000)
    page.route("**/v1/audio/transcriptions", lambda route: route.abort())
    by(page, "file").set_input_files(AUDIO / "fox.wav")
    expect(by(page, "speech-error")).to_contain_text("The connection to LlamaRunner was lost.")
    page.unroute("**/v1/audio/transcriptions")
    # The recording is kept while another page is looked at.
    by(page, "nav-home").click()
    by(page, "nav-speech").click()
    page.get_by_role("button", name="Try again").click()
    finished(page)
    expect(by(page, "segments")).to_contain_text(EXPECTED["fox.wav"]["got_text"])
    page.errors.clear()  # the browser logs refused requests itself


@pytest.fixture(scope="module")
def long_recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("audio") / "long.wav"
    with wave.open(str(AUDIO / "two-sentences.wav")) as source, wave.open(str(path), "wb") as out:
        out.setparams(source.getparams())
        frames = source.readframes(source.getnframes())
        for _ in range(1800 * source.getframerate() // source.getnframes()):
            out.writeframes(frames)
    return path


def test_a_long_job_shows_its_way_and_can_be_cancelled(server, browse, pictures, long_recording):  # noqa: F811
    page = browse(server.ui + "#/speech")
    other = browse(server.ui + "#/speech")
    by(page, "file").set_input_files(long_recording)
    expect(by(page, "segments").locator("li").first).to_have_text(re.compile("The quick brown fox"), timeout=60000)
    expect(by(page, "transcript").get_by_role("progressbar")).to_have_attribute("aria-valuenow", re.compile(r"^\d+$"))
    expect(by(page, "transcript")).to_contain_text(re.compile(r"\d+:\d\d of 29:5\d"))
    expect(by(page, "transcript")).to_contain_text(re.compile(r"\d+:\d\d left"))
    # Own work is not told twice; another page sees it.
    expect(by(page, "others")).to_have_count(0)
    expect(by(other, "others")).to_contain_text(re.compile(f"{MODEL}.*transcription.*\\d+%"))
    page.screenshot(path=pictures / "speech-running.png")
    other.screenshot(path=pictures / "speech-others.png")
    by(page, "speech-cancel").click()
    expect(by(page, "transcript")).to_have_attribute("data-status", "stopped")
    expect(by(other, "others")).to_have_count(0, timeout=30000)
    base = server.ui.replace("/ui/", "")
    until(lambda: page.request.get(f"{base}/v1/state").json()["requests"] == [], "the engine is free again", 30)


def test_the_microphone(server, browse, pictures):  # noqa: F811
    page = browse(server.ui + "#/speech", permissions=["microphone"])
    by(page, "record").click()
    expect(by(page, "record-finish")).to_be_focused()
    expect(by(page, "drop")).to_contain_text("Recording 0:01")
    page.screenshot(path=pictures / "speech-recording.png")
    page.get_by_role("button", name="Discard").click()
    expect(by(page, "record")).to_be_focused()
    expect(by(page, "transcript")).to_have_count(0)
    page.keyboard.press("Enter")
    expect(by(page, "drop")).to_contain_text("Recording 0:01")
    page.keyboard.press("Enter")
    expect(by(page, "transcript")).to_contain_text("recording.webm")
    finished(page)

    refused = browse(server.ui + "#/speech")
    by(refused, "record").click()
    expect(by(refused, "microphone-problem")).to_contain_text("The microphone was refused.")
    refused.screenshot(path=pictures / "speech-refused.png")


def test_by_keyboard_alone(server, browse):  # noqa: F811
    page = browse(server.ui)
    expect(by(page, "serving")).to_be_visible()
    # Choosers are taken from now on: a listener that comes with the key press may come too late.
    page.on("filechooser", lambda chooser: chooser.set_files(AUDIO / "fox.wav"))
    page.keyboard.press("Control+4")
    expect(by(page, "choose")).to_be_visible()
    by(page, "speech-model").focus()
    seen = []
    for _ in range(5):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.dataset.testid"))
    assert seen == ["speech-language", "translate", "choose", "record", "say-text"]
    by(page, "choose").focus()
    page.keyboard.press("Enter")
    finished(page)


def test_without_a_speech_model_one_is_offered_and_fetched(browse, pictures, tmp_path):  # noqa: F811
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(MODELS / "tiny-chat.gguf", models)
    origin = Origin()
    files = [{"path": file.name, "from": str(file), "lfs": file.name == "model.bin"} for file in (MODELS / MODEL).iterdir() if file.is_file()]
    origin.set_up(repos=[{"repo": "Systran/faster-whisper-base", "files": files}],
                  faults=[{"path": "model.bin", "times": 1, "fault": {"slow": {"bytes_per_second": 2_000_000}}}])
    server = Server(models=models, config=origin.config)
    try:
        page = browse(server.ui + "#/speech")
        expect(by(page, "listen")).to_contain_text("No speech model is installed.")
        page.screenshot(path=pictures / "speech-none.png")
        by(page, "get-whisper-base").click()
        expect(by(page, "choose")).to_be_visible(timeout=60000)
        expect(by(page, "speech-model")).to_have_value("whisper-base")
        drop(page, AUDIO / "fox.wav")
        finished(page)
        expect(by(page, "segments")).to_contain_text(EXPECTED["fox.wav"]["got_text"])
        page.close()
    finally:
        server.close()
        origin.stop()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_reflows_and_names_its_controls(server, browse, pictures, scheme):  # noqa: F811
    page = browse(server.ui + "#/speech", scheme, size=(320, 640), reduced_motion="reduce")
    by(page, "file").set_input_files(AUDIO / "hello.mp3")
    finished(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.evaluate("document.querySelector('main').scrollWidth") <= 320
    page.screenshot(path=pictures / f"speech-narrow-{scheme}.png", full_page=True)
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, a[href], input, select, textarea, audio')]
        .filter((e) => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map((e) => e.outerHTML)""")
    assert nameless == []
