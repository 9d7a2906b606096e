"""The HTML report and the progress bar: one file that needs nothing, in which everything is only text."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from handmade import DAY0, DAY1, FILE0, NOW, Directory, run
from hypothesis import given
from hypothesis import strategies as st

from trio_candles.audit import audit
from trio_candles.audit.bar import Bar, bar_line
from trio_candles.audit.daymap import STATES, DayMap
from trio_candles.audit.history import MOST, History, read_history
from trio_candles.audit.page import page, write_whole
from trio_candles.audit.report import KnownGap, Report, Tally, Violation
from trio_candles.audit.walk import Selection
from trio_candles.candles.model import DAY, MINUTE

HOSTILE = "</script><img src=x onerror=alert(1)>'\"&\x1b[2J"


class Elements(HTMLParser):
    """What a browser would make of a page: its elements and their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page_of(root: Path, **options: Any) -> str:
    covers: dict[tuple[str, str], dict[int, DayMap]] = {}
    report = audit(root, now=lambda: NOW, running=lambda: False, pauses=(), covers=covers, **options)
    return page(report, covers, read_history(root, Selection()))


def data_in(text: str) -> list[list[list[str]]]:
    """What the script draws from."""
    match = re.search(r'<script type="application/json" id="coverage-data">(.*?)</script>', text)
    assert match is not None
    return json.loads(match[1])


def decoded(code: str) -> list[int]:
    """The states of a day's minutes, as the page's script reads them."""
    if code[0] == "~":
        sixes = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        return [state for c in code[1:] for state in divmod(sixes.index(c), 8)]
    runs = re.findall(r"([a-g])([0-9A-Z]+)", code)
    return [ord(letter) - 97 for letter, length in runs for _ in range(int(length, 36))]


# --- the page


def test_the_page_is_one_file_that_asks_for_nothing(sound: Directory) -> None:
    text = page_of(sound.root)
    elements = Elements(text).elements
    assert not {"link", "img", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in elements}
    references = [value for _, found in elements for name, value in found.items() if name in ("src", "href", "action")]
    assert references
    assert all(value is not None and value.startswith("#") for value in references)
    assert "http" not in text.replace("http-equiv", "")
    assert "@import" not in text
    assert "url(" not in text


def test_its_content_policy_lets_its_own_script_run_and_no_other(sound: Directory) -> None:
    text = page_of(sound.root)
    policy = next(found["content"] for tag, found in Elements(text).elements if tag == "meta" and "http-equiv" in found)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}'" in policy


def test_whatever_a_ledger_holds_is_only_text(sound: Directory) -> None:
    harmless = Elements(page_of(sound.root)).elements
    text = HOSTILE.replace("'", "''")
    sound.sql(
        f"UPDATE gap SET reason = '{text}', detail = '{text}', last_error = '{text}';"
        f"INSERT INTO gap_event VALUES (1, 1, {DAY1}, {DAY1 + MINUTE}, '{text}', '{text}');"
        f"INSERT INTO revision VALUES (1, 0, 1, {DAY1}, '{text}', '{{\"open\": \"{text}\"}}', '{text}', 0);"
    )
    (sound.root / "quarantine").mkdir()
    (sound.root / "quarantine" / "<b onclick=x>").write_bytes(b"")
    (sound.root / "okx" / "<i onclick=x>").write_bytes(b"")
    seen = Elements(page_of(sound.root))
    assert {tag for tag, _ in seen.elements} <= {tag for tag, _ in harmless} | {"br", "tr", "td"}
    assert not [name for _, found in seen.elements for name in found if name.startswith("on")]
    told = HOSTILE.replace("\x1b", r"\x1b")
    assert sum(told in piece for piece in seen.text) >= 7
    assert "okx/<i onclick=x>" in seen.text
    assert "<b onclick=x>" in seen.text


def test_a_hostile_symbol_or_folder_is_only_text() -> None:
    tally = Tally(1, 5, DAY0, DAY0, 1, 2, 3)
    key = (HOSTILE, HOSTILE, "1m")
    violation = Violation(
        "checksum", HOSTILE, HOSTILE, venue=HOSTILE, symbol=HOSTILE, timeframe="1m", start_ms=DAY0, end_ms=DAY1
    )
    gap = KnownGap(HOSTILE, HOSTILE, DAY0, DAY1, HOSTILE, HOSTILE, 1)
    report = Report(HOSTILE, NOW, False, None, {key: tally}, (gap,), (violation,))
    covers = {(HOSTILE, HOSTILE): {DAY0: DayMap(3, 1, 0, 2, 0)}}
    seen = Elements(page(report, covers, History(quarantined=[HOSTILE], trouble=HOSTILE)))
    assert "img" not in {tag for tag, _ in seen.elements}
    assert not [name for _, found in seen.elements for name in found if name.startswith("on")]


def test_the_page_tells_verdict_gaps_history_revisions_and_quarantine(sound: Directory) -> None:
    sound.sql(
        "UPDATE gap SET last_error = 'HTTP 503', detail = 'the socket closed' WHERE id = 1;"
        f"INSERT INTO gap_event VALUES ({DAY1}, 1, {DAY1}, {DAY1 + 5 * MINUTE}, 'stored', 'from REST');"
        f"INSERT INTO revision VALUES (1, {DAY1}, 1, {DAY1}, '{{\"close\": 1.5}}', '{{\"close\": 1.75}}', 'kept', 0);"
    )
    (sound.root / "quarantine").mkdir()
    (sound.root / "quarantine" / "okx_BTC.parquet.0").write_bytes(b"")
    told = " ".join(Elements(page_of(sound.root)).text)
    for words in (
        "✓ OK", "disconnected", "not_collected", "HTTP 503", "the socket closed", "from REST", "close 1.5",
        "close 1.75", "kept", "okx_BTC.parquet.0", "2026-01-11 00:10 to 00:20", "kraken BTC/USD", "gap 00:10 to 00:20",
    ):  # fmt: skip
        assert words in told
    (sound.root / FILE0).unlink()
    told = " ".join(Elements(page_of(sound.root)).text)
    assert "✗ FAILED" in told
    assert "1 silent_gap" in told
    assert FILE0 in told


def test_the_map_shows_each_minute_as_what_it_is(sound: Directory) -> None:
    text = page_of(sound.root)
    kraken, okx = data_in(text)
    assert [day for day, _ in okx] == ["2026-01-11", "2026-01-10"]
    newest, oldest = (decoded(code) for _, code in okx)
    assert oldest == [0] * 1380 + [1] * 60
    assert newest == [1] * 10 + [3] * 10 + [2] * 5 + [4] * 2 + [1] * 33 + [0] * 1380
    assert decoded(kraken[1][1]) == oldest
    (sound.root / FILE0).unlink()
    assert decoded(data_in(page_of(sound.root))[1][1][1]) == [0] * 1380 + [5] * 60


def test_without_a_ledger_the_page_still_shows_what_is_stored(sound: Directory) -> None:
    (sound.root / "journal.sqlite3").write_bytes(b"garbage" * 99)
    text = page_of(sound.root)
    assert "The ledger cannot be read" in text
    assert decoded(data_in(text)[1][1][1])[1380:] == [1] * 60


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("UPDATE meta SET value = '99' WHERE key = 'format'", "the journal's format is 99"),
        ("DROP TABLE gap_event", "no such table: gap_event"),
    ],
)
def test_why_nothing_is_remembered_is_shown(sound: Directory, harm: str, words: str) -> None:
    sound.sql(harm)
    assert words in read_history(sound.root, Selection()).trouble


def test_a_ledger_with_nonsense_in_it_is_shown_as_far_as_it_makes_sense(sound: Directory) -> None:
    """What is wrong with it, the audit says; here a number that is none is 0."""
    sound.sql(
        "UPDATE gap SET until_ms = 'later', attempts = x'00', detail = 7 WHERE id = 1;"
        "UPDATE series SET first_ms = 'then', mark_ms = 'now' WHERE id = 1;"
        "INSERT INTO revision (at_ms, series_id, open_ms, stored, offered, outcome)"
        f" VALUES ('x', 1, {DAY1}, 'no candle', '{{}}', x'ff');"
    )
    history = read_history(sound.root, Selection())
    assert history.trouble == ""
    shown = [(gap.end, gap.attempts, gap.detail) for gap in history.gaps]
    assert (0, 0, "7") in shown
    assert len(shown) > 1
    assert [(one.at, one.stored, one.offered) for one in history.revisions] == [(0, "no candle", "")]


def test_the_newest_of_a_long_history_are_shown_and_the_rest_is_counted(sound: Directory) -> None:
    sound.sql(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2004)"
        f" INSERT INTO gap_event SELECT {DAY1} + i, 1, {DAY1}, {DAY1 + MINUTE}, 'opened', i FROM n;"
    )
    history = read_history(sound.root, Selection())
    assert history.more["events"] == 2005 - MOST
    assert [event.detail for event in history.events[:2]] == ["2004", "2003"]
    assert len(history.events) == MOST


RUNS = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 400)), min_size=1, max_size=60)
"""(state, minutes), again and again until the day is full."""


@given(RUNS.map(lambda runs: ([state for state, length in runs for _ in range(length)] * 1440)[:1440]))
def test_a_days_code_says_what_each_minute_is(states: list[int]) -> None:
    def bits(*of: int) -> int:
        return sum(1 << minute for minute, state in enumerate(states) if state in of)

    cover = DayMap(bits(1, 2, 3, 4, 5, 6), bits(1, 6), bits(2, 6), bits(3), bits(4))
    code = cover.as_code()
    assert decoded(code) == states
    assert len(code) <= 721
    assert sum(layer.bit_count() for layer in cover.layers()) == 1440
    assert len(STATES) == 7


def test_a_year_of_twenty_torn_series_stays_below_ten_megabytes() -> None:
    thin = sum(1 << minute for minute in range(1440) if minute * minute % 11 in (1, 4, 5))
    torn = DayMap((1 << 1440) - 1, thin, ((1 << 1440) - 1) & ~thin & ~(7 << 600), 7 << 600, 0)

    def size(days: int) -> int:
        covers = {("okx", "BTC-USDT"): {DAY0 + n * DAY: torn for n in range(days)}}
        return len(page(Report("data", NOW, False, None, {}, (), ()), covers, History()).encode())

    few, more = size(70), size(170)  # beyond those that are told as text, a day is as long as another
    assert 20 * few + 7300 * (more - few) / 100 < 10_000_000


# --- the command


def test_html_and_json_come_of_one_audit(sound: Directory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.html"
    code, out, err = run(capsys, "--data-dir", str(sound.root), "--json", "--html", str(file))
    assert (code, err) == (0, "")
    assert json.loads(out)["ok"] is True
    assert file.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert {path.name for path in tmp_path.iterdir()} == {"data", "report.html"}


def test_a_selection_narrows_the_page(sound: Directory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.html"
    assert run(capsys, "--data-dir", str(sound.root), "--venue", "kraken", "--html", str(file))[0] == 0
    text = file.read_text(encoding="utf-8")
    assert "kraken BTC/USD" in text
    assert "okx" not in text


def test_a_place_where_no_report_can_lie_is_said_at_once(
    sound: Directory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, word in (
        (tmp_path / "nowhere" / "x.html", "no such directory"),
        (tmp_path, "it is a directory"),
        (sound.root / "x.html", "writes nothing"),
        (sound.root / "okx" / "x.html", "writes nothing"),
    ):
        code, out, err = run(capsys, "--data-dir", str(sound.root), "--html", str(place))
        assert (code, out) == (2, "")
        assert word in err


def test_a_report_replaces_the_old_one_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_whole(file, "old")
    write_whole(file, "new ☃")
    assert file.read_text(encoding="utf-8") == "new ☃"
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "half \ud800")
    assert file.read_text(encoding="utf-8") == "new ☃"
    assert list(tmp_path.iterdir()) == [file]


# --- the bar


@given(st.integers(0, 10_000), st.integers(1, 10_000), st.floats(0, 1e6), st.integers(0, 200))
def test_a_bar_fits_its_terminal(done: int, more: int, seconds: float, columns: int) -> None:
    line = bar_line(done, done + more, seconds, columns)
    assert len(line) <= columns
    assert "\n" not in line


def test_a_bar_says_how_far_how_fast_and_how_long() -> None:
    line = bar_line(1825, 7300, 2.0, 79)
    assert line.startswith("audit [####")
    assert line.endswith("]   25 %  1,825 of 7,300 days  912/s  7 s left")
    assert bar_line(10, 7300, 2.0, 79).endswith("5/s  24 min left")
    assert bar_line(1825, 7300, 2.0, 30).endswith("]   25 %")
    assert bar_line(1825, 7300, 2.0, 5) == " 25 %"


class Screen(io.StringIO):
    """A terminal, and what stands in its line."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def line(self) -> str:
        shown: list[str] = []
        at = 0
        for c in re.sub(r"\x1b\[[0-9;]*m", "", self.getvalue()):
            if c == "\r":
                at = 0
            else:
                shown[at : at + 1] = [c]
                at += 1
        return "".join(shown).rstrip()


def test_a_bar_is_drawn_and_leaves_nothing_behind() -> None:
    screen, time = Screen(), [0]
    bar = Bar(screen, lambda: time[0], lambda: 80)
    for done in range(1, 100):
        time[0] += 50
        bar(done, 100)
        assert screen.line().startswith("audit [█") or done < 4
    assert "99 %" in screen.line() or "98 %" in screen.line()
    bar(100, 100)
    assert screen.line() == ""
    assert "\n" not in screen.getvalue()


def test_a_bar_is_plain_where_no_colour_is_wanted_and_absent_without_a_terminal() -> None:
    assert Bar.on(io.StringIO(), lambda: 0, {}) is None
    for environment, coloured in (({}, os.name != "nt"), ({"NO_COLOR": ""}, False), ({"TERM": "dumb"}, False)):
        screen = Screen()
        bar = Bar.on(screen, lambda: 0, environment)
        assert bar is not None
        bar(1, 10)
        assert ("\x1b" in screen.getvalue()) is coloured
