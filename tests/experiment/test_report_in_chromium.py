"""The report page in a browser: every section says something, nothing is asked for, nothing complained of, nothing runs over the edge."""

import numpy as np
import pytest

pytest.importorskip("click")
pytest.importorskip("sklearn", reason="needs the sklearn extra: pip install '.[sklearn]'")

from keydnn.cli import digits_experiment  # noqa: E402
from keydnn.experiment import Experiment, ExperimentContext, FeatureSet  # noqa: E402
from tests.browser import Browser  # noqa: E402

pytestmark = [pytest.mark.chromium, pytest.mark.slow]

SECTIONS = "summary graph data plan training metrics evaluations runs environment".split()
LOOK = """({
  sections: Object.fromEntries([...document.querySelectorAll('section')].map(one => [one.id, one.innerText.length])),
  pictures: Object.fromEntries([...document.querySelectorAll('section')].map(one => [one.id, one.querySelectorAll('svg').length])),
  missing: document.querySelectorAll('.none').length,
  over: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  small: [...document.querySelectorAll('figure svg text')].some(one => one.getBoundingClientRect().height < 9),
  cut: [...document.querySelectorAll('svg text')].filter(one => {
    const box = one.getBoundingClientRect(), whole = one.ownerSVGElement.getBoundingClientRect();
    return box.left < whole.left - 1 || box.right > whole.right + 1 || box.top < whole.top - 1 || box.bottom > whole.bottom + 1;
  }).map(one => one.textContent),
  scripts: document.scripts.length,
})"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The page of `keydnn run experiment`, of one epoch."""
    folder = tmp_path_factory.mktemp("digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits_experiment, "FOLDS", 2)
        digits_experiment.run(seed=1, folder=folder, epochs=2, verbose=0)
    return folder / digits_experiment.PAGE


def test_the_browser_tells_of_requests_and_complaints(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.error('oh'); nothing.there()</script>", encoding="utf-8")
    seen = browser.open(page)
    assert seen.requests == ["http://127.0.0.1:9/x.png"]
    assert any("oh" in one for one in seen.console) and any("nothing is not defined" in one for one in seen.console)


@pytest.mark.parametrize("width", [1280, 400])
def test_the_digits_page(browser, digits, width):
    seen = browser.open(digits, width=width, script=LOOK)
    assert (seen.requests, seen.console) == ([], [])
    found = seen.found
    assert list(found["sections"]) == SECTIONS and min(found["sections"].values()) > 40
    assert found["pictures"] == {**dict.fromkeys(SECTIONS, 0), "graph": 1, "training": 2, "evaluations": 3}
    assert (found["missing"], found["over"], found["small"], found["cut"], found["scripts"]) == (0, 0, False, [], 0)


def test_a_hostile_page(browser, tmp_path):
    """Labels that are HTML, and an experiment that never ran: every section still says something."""
    bad = "</title></style><script>alert(1)</script><img src=http://127.0.0.1:9/x.png onerror=alert(2)>" + "x" * 300 + "\u202e\x00\ud800"
    exp = Experiment(bad, ctx=ExperimentContext(), seed=0)
    with exp.ctx.activate():
        FeatureSet.from_dict("<svg><script>alert(3)", {"日本語<b>": np.arange(4.0)}, "日本語<b>", [])
    seen = browser.open(exp.report(tmp_path / "page.html"), width=400, script=LOOK)
    assert (seen.requests, seen.console) == ([], [])
    assert min(seen.found["sections"].values()) > 40 and list(seen.found["sections"]) == SECTIONS
    assert (seen.found["over"], seen.found["scripts"]) == (0, 0) and seen.found["missing"] >= 6
