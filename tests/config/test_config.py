"""What a config.yaml may say, and that everything else is refused by file, line and key."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import attrs
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from schemas import faults

from trio_candles.config.kinds import is_loopback_url
from trio_candles.config.load import (
    Aggregation,
    Config,
    ConfigError,
    GapDetection,
    Shutdown,
    Status,
    Storage,
    VenueConfig,
    load_config,
    schema,
)

SHIPPED = Path(__file__).parents[2] / "config.yaml"
VENUES = "venues: {okx: {symbols: [BTC-USDT]}}\n"
"""The least that a configuration must say, on its first line."""
TOP = "data_dir, log_dir, venues, gap_detection, aggregation, storage, status, shutdown, feed, logging"
MUST_BE_QUOTED = "; put it in quotes if it is meant as text"
NOT_DECIMAL = "; write it in plain decimal digits"


INEXPRESSIBLE = re.compile(
    "repeated key|duplicate of|found the (alias|anchor|tag) |plain decimal digits|at most 1 MiB"
    # A host that is no address, half a surrogate pair: JSON Schema has no more than regular expressions.
    r"|(256\.0\.0\.1|\[1\.2\.3\.4\]|:65536|:99999)\'$|\\ud800"
)
"""Refusals whose reasons a schema cannot have: it sees values, not how they are written."""


def forbidden(content: str | bytes) -> list[str]:
    """What the schema for editors has against *content*; nothing against what is no YAML."""
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        return [*faults(yaml.safe_load(text), schema())]
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError):
        return ["no YAML"]


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads a config.yaml with the given content, which the schema allows if it is one."""
    monkeypatch.chdir(tmp_path)

    def load(content: str | bytes) -> Config:
        Path("config.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
        config = load_config(Path("config.yaml"))
        assert forbidden(content) == []
        return config

    return load


@pytest.fixture
def problems(load):
    """What is wrong with the given content, without the name of the file; the schema forbids it too, where it can."""

    def problems(content: str | bytes) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(content)
        assert str(caught.value) == "\n".join(caught.value.problems)
        assert all(len(problem.splitlines()) == 1 for problem in caught.value.problems)
        assert all(problem.startswith("config.yaml:") for problem in caught.value.problems)
        assert forbidden(content) or all(INEXPRESSIBLE.search(problem) for problem in caught.value.problems)
        return [problem.removeprefix("config.yaml:") for problem in caught.value.problems]

    return problems


# --- what is accepted ---------------------------------------------------------------------------------------


def test_the_shipped_file_says_the_documented_defaults():
    assert load_config(SHIPPED) == Config(
        data_dir=Path("data"),
        log_dir=Path("logs"),
        venues=(
            VenueConfig("coinbase", True, ("BTC-USD", "ETH-USD"), None, None),
            VenueConfig("kraken", True, ("BTC/USD", "ETH/USD"), None, None),
            VenueConfig("okx", True, ("BTC-USDT", "ETH-USDT"), None, None),
        ),
        gap_detection=GapDetection(enabled=True, lookback_days=3),
        aggregation=Aggregation(True, "1m", ("5m", "15m", "1h", "4h", "1d")),
        storage=Storage(flush_interval_seconds=60),
        status=Status(interval_seconds=30),
        shutdown=Shutdown(timeout_seconds=10),
    )


def test_every_key_but_venues_has_the_shipped_files_value_as_default(load):
    config = load(VENUES)
    assert config.venues == (VenueConfig("okx", True, ("BTC-USDT",), None, None),)
    assert attrs.evolve(config, venues=()) == attrs.evolve(load_config(SHIPPED), venues=())


def test_an_empty_section_has_its_defaults(load):
    assert load(VENUES + "gap_detection: {}\nstorage: {}\n") == load(VENUES)


def test_every_key_is_read(load):
    assert load(
        "data_dir: some/where\n"
        "log_dir: /var/log/candles\n"
        "venues:\n"
        "  kraken: {enabled: no, symbols: [DOGE/EUR], rest_url: 'http://[::1]:8080/'}\n"
        "  coinbase: {symbols: [BTC-USD], websocket_url: 'wss://feed.example.com/ws?a=b'}\n"
        "gap_detection: {enabled: false, lookback_days: 0.5}\n"
        "aggregation: {enabled: off, base_timeframe: 1m, timeframes: [2h]}\n"
        "storage: {flush_interval_seconds: 1}\n"
        "status: {interval_seconds: 2.5}\n"
        "shutdown: {timeout_seconds: 600}\n"
    ) == Config(
        data_dir=Path("some/where"),
        log_dir=Path("/var/log/candles"),
        venues=(
            VenueConfig("kraken", False, ("DOGE/EUR",), None, "http://[::1]:8080"),
            VenueConfig("coinbase", True, ("BTC-USD",), "wss://feed.example.com/ws?a=b", None),
        ),
        gap_detection=GapDetection(False, 0.5),
        aggregation=Aggregation(False, "1m", ("2h",)),
        storage=Storage(1.0),
        status=Status(2.5),
        shutdown=Shutdown(600.0),
    )


def test_enabled_venues_are_those_not_disabled_in_the_files_order(load):
    config = load("venues: {okx: {symbols: [A-B]}, kraken: {enabled: no, symbols: [A/B]}, coinbase: {symbols: [A-B]}}")
    assert [venue.name for venue in config.venues] == ["okx", "kraken", "coinbase"]
    assert [venue.name for venue in config.enabled_venues] == ["okx", "coinbase"]


def test_a_given_data_dir_goes_before_the_files(load):
    load(VENUES + "data_dir: from-file\n")
    assert load_config(Path("config.yaml")).data_dir == Path("from-file")
    assert load_config(Path("config.yaml"), data_dir=Path("given")).data_dir == Path("given")


def test_a_given_data_dir_does_not_excuse_a_wrong_one_in_the_file(load):
    with pytest.raises(ConfigError, match="data_dir"):
        load(VENUES + "data_dir: 1\n")
    with pytest.raises(ConfigError, match="data_dir"):
        load_config(Path("config.yaml"), data_dir=Path("given"))


def test_a_windows_editors_byte_order_mark_and_line_ends_are_accepted(load):
    content = b"\xef\xbb\xbf" + SHIPPED.read_bytes().replace(b"\n", b"\r\n")
    assert load(content) == load_config(SHIPPED)


def test_a_windows_path_without_quotes_is_taken_as_it_is(load):
    assert load(VENUES + r"data_dir: C:\temp\new").data_dir == Path(r"C:\temp\new")


# --- the form of an error -----------------------------------------------------------------------------------


def test_an_unknown_key_is_refused_in_the_contracts_very_words(load):
    with pytest.raises(ConfigError) as caught:
        load(VENUES + "\n" * 9 + "storage:\n  flush_interval: 60\n")
    assert str(caught.value) == (
        "config.yaml:12: storage.flush_interval: unknown key; did you mean flush_interval_seconds?"
    )


def test_the_file_is_named_as_the_user_gave_it(tmp_path):
    path = tmp_path / "other.yml"
    path.write_text("- 1")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == f"{path}:1: expected a mapping of {TOP}, found a list"


def test_all_problems_are_said_at_once_in_the_order_of_lines(problems):
    assert problems(
        "data_dir: 5\n"
        "venues:\n"
        "  kraken:\n"
        "    enabled: perhaps\n"
        "    symbol: [BTC/USD]\n"
        "  okx:\n"
        "    symbols:\n"
        "      - BTC-USDT\n"
        "      - btc-usdt\n"
        "status: {interval_seconds: 0}\n"
        "colour: red\n"
    ) == [
        f"1: data_dir: expected a directory, found the number 5{MUST_BE_QUOTED}",
        "3: venues.kraken.symbols: missing; it has no default",
        "4: venues.kraken.enabled: expected true or false, found the text 'perhaps'",
        "5: venues.kraken.symbol: unknown key; did you mean symbols?",
        "9: venues.okx.symbols[1]: expected BASE-QUOTE in upper case, as in BTC-USDT,"
        " found the text 'btc-usdt'; did you mean BTC-USDT?",
        "9: venues.okx.symbols[1]: duplicate of venues.okx.symbols[0] on line 8",
        "10: status.interval_seconds: expected a number from 1 to 3600, found the number 0",
        f"11: colour: unknown key; known: {TOP}",
    ]


def test_a_key_in_the_wrong_case_is_told_the_right_one(problems):
    assert problems(VENUES + "DATA_DIR: x") == ["2: DATA_DIR: unknown key; did you mean data_dir?"]
    assert problems(VENUES + "storage: {flush: 60}") == [
        "2: storage.flush: unknown key; did you mean flush_interval_seconds?"
    ]
    assert problems(VENUES + "status: {<<: {a: 1}}") == [
        "2: status: expected a key, one of interval_seconds, found a merge key, which is not followed"
    ]


def test_a_long_or_malicious_key_or_value_is_shown_short_and_escaped(problems):
    assert problems(VENUES + '"\\e[31m\\n": 1') == [rf"2: '\x1b[31m\n': unknown key; known: {TOP}"]
    assert problems(VENUES + f"{'k' * 900}: 1") == [f"2: '{'k' * 60}'…: unknown key; known: {TOP}"]
    assert problems(VENUES + f"aggregation: {{timeframes: [{'5' * 900}m]}}") == [
        f"2: aggregation.timeframes[0]: '{'5' * 60}' is no timeframe; expected a number and m, h or d, as in 5m"
    ]


# --- the file as a whole ------------------------------------------------------------------------------------


def test_a_missing_file_is_a_problem(tmp_path):
    path = tmp_path / "none.yaml"
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.problems == (f"{path}:1: cannot be read: {os.strerror(2)}",)


def test_a_directory_is_a_problem(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path)
    assert caught.value.problems == (f"{tmp_path}:1: expected a file, found a directory",)


@pytest.mark.skipif(sys.platform == "win32", reason="a folder may not be entered: POSIX permissions")
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_a_problem(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(VENUES)
    path.chmod(0)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        load_config(path)


def test_a_path_no_system_can_open_is_a_problem():
    with pytest.raises(ConfigError, match=":1: cannot be read: embedded null"):
        load_config(Path("a\0b"))


@pytest.mark.parametrize("content", ["", "# nothing\n", "\n\n"])
def test_an_empty_file_is_a_problem(problems, content):
    assert problems(content) == [f"1: expected a mapping of {TOP}, found an empty file"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("--- ~", "nothing"),
        ("5", "the number 5"),
        ("venues", "the text 'venues'"),
        ("[a]", "a list"),
        ("yes", "the boolean yes"),
    ],
)
def test_a_file_that_is_no_mapping_is_a_problem(problems, content, found):
    assert problems(content) == [f"1: expected a mapping of {TOP}, found {found}"]


def test_a_file_without_venues_is_a_problem(problems):
    assert problems("data_dir: x") == ["1: venues: missing; it has no default"]


def test_bytes_that_are_not_utf8_are_a_problem_with_their_line(problems):
    assert problems(b"data_dir: x\nlog_dir: \xe4\n") == ["2: expected UTF-8, found the byte 0xe4"]


def test_the_utf16_of_windows_powershell_is_recognised(problems):
    assert problems(b"\xff\xfe" + VENUES.encode("utf-16-le")) == [
        "1: expected UTF-8, found the byte 0xff; it looks like UTF-16, save it as UTF-8"
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            "a: b\n\tc: d",
            "2: not YAML: while scanning for the next token, found character '\\t' that cannot start any token",
        ),
        ("\na: b: c", "2: not YAML: mapping values are not allowed here"),
        ("a: 'x\n", "2: not YAML: while scanning a quoted scalar, found unexpected end of stream"),
        (
            "a: 1\n---\nb: 2",
            "2: not YAML: expected a single document in the stream, but found another document",
        ),
        ("a: &x 1\nb: &x 2", "2: not YAML: found duplicate anchor 'x'; first occurrence, second occurrence"),
        ("a: 1\nb: \0", "2: not YAML: the character U+0000 is not allowed"),
        ('\na: "\\U00110000"', "2: not YAML: chr() arg not in range(0x110000)"),
        (
            'a: 1\ndata_dir: "C:\\data"',
            "2: not YAML: while scanning a double-quoted scalar, found unknown escape character 'd';"
            " in double quotes \\ starts an escape, use single quotes",
        ),
    ],
)
def test_a_syntax_error_is_a_problem_with_its_line(problems, content, problem):
    assert problems(content) == [problem]


@pytest.mark.parametrize("content", ['a: "\\UFFFFFFFF"', f"%YAML {'9' * 5000}.1\n--- a"])
def test_what_pyyaml_itself_trips_over_is_a_problem(problems, content):
    (problem,) = problems(content)
    assert problem.startswith("1: not YAML: ")


def test_more_than_a_mebibyte_is_a_problem(load, problems):
    least = VENUES.encode() + b"#"
    assert load(least + b"x" * ((1 << 20) - len(least))) == load(VENUES)
    assert problems(least + b"x" * ((1 << 20) - len(least) + 1)) == ["1: expected at most 1 MiB, found more"]


@pytest.mark.parametrize("content", ["[" * 3000, "{a: " * 3000, "- " * 3000, "? " * 3000])
def test_nesting_that_would_exhaust_the_stack_is_a_problem(problems, content):
    assert problems("\n" + content) == ["2: expected at most 16 levels, found a deeper nesting"]


def test_more_values_than_any_configuration_has_are_a_problem(problems):
    # Three values come before the list's own: the whole, the key, the list.
    assert problems("a: [" + "a,\n" * 21_000) == ["19998: expected at most 20000 values, found more"]


# --- lenient parsers' traps ---------------------------------------------------------------------------------


def test_a_repeated_key_is_refused_wherever_it_stands(problems):
    assert problems(
        "venues:\n  okx: {symbols: [A-B]}\n  okx:\n    symbols: [A-B]\n    symbols: [C-D]\nstatus: {}\nstatus: {}\n"
    ) == [
        "3: venues.okx: repeated key; first given on line 2",
        "5: venues.okx.symbols: repeated key; first given on line 4",
        "7: status: repeated key; first given on line 6",
    ]


def test_what_a_repeated_key_says_is_checked_too(problems):
    assert problems(VENUES + "data_dir: a\ndata_dir: 1") == [
        "3: data_dir: repeated key; first given on line 2",
        f"3: data_dir: expected a directory, found the number 1{MUST_BE_QUOTED}",
    ]


def test_aliases_and_anchors_are_refused_by_their_keys(problems):
    assert problems(VENUES + "data_dir: &here x\nlog_dir: *here\nstatus: &s {}\nstorage: *s\nshutdown: *nowhere") == [
        "2: data_dir: expected a directory, found the anchor '&here'; leave it out",
        "3: log_dir: expected a directory, found the alias '*here'; write the value out",
        "4: status: expected a mapping of interval_seconds, found the anchor '&s'; leave it out",
        "5: storage: expected a mapping of flush_interval_seconds, found the alias '*s'; write the value out",
        "6: shutdown: expected a mapping of timeout_seconds, found the alias '*nowhere'; write the value out",
    ]


def test_an_alias_bomb_is_refused_at_once(problems):
    bomb = "a: &a [x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(8)
    )
    assert len(problems(VENUES + bomb)) == 9


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!mine", "!!map", "!"])
def test_a_tag_is_refused_and_never_obeyed(problems, tag):
    (problem,) = problems(VENUES + f"status: {tag} {{}}")
    assert problem.startswith("2: status: expected a mapping of interval_seconds, found the tag ")


@pytest.mark.parametrize("value", ["!!int '5'", "!!str 5", "!!float 5", "!!int abc"])
def test_a_tag_does_not_make_a_number_of_a_text_or_the_reverse(problems, value):
    found = problems(VENUES + f"data_dir: {value}\nstatus: {{interval_seconds: {value}}}")
    assert [problem.split(",")[0] for problem in found] == [
        "2: data_dir: expected a directory",
        "3: status.interval_seconds: expected a number from 1 to 3600",
    ]


@pytest.mark.parametrize("key", ["1", "no", "~", "[a]", "{a: b}", "<<", "=", "2026-01-10", "!!str a", "&a a"])
def test_a_key_that_is_no_plain_text_is_refused(problems, key):
    (problem,) = problems(VENUES + f"? {key}\n: 1")
    assert problem.startswith(f"2: expected a key, one of {TOP}, found ")


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("NO", "the boolean NO"),
        ("on", "the boolean on"),
        ("017", "the number 017"),
        ("12:30:00", "the number 12:30:00"),
        ("1.5", "the number 1.5"),
        (".nan", "the number .nan"),
        ("2026-01-10", "the date 2026-01-10"),
    ],
)
def test_what_yaml_takes_for_another_type_is_no_text_and_must_be_quoted(problems, written, found):
    assert problems(f"venues: {{okx: {{symbols: [{written}]}}}}\nlog_dir: {written}") == [
        f"1: venues.okx.symbols[0]: expected BASE-QUOTE in upper case, as in BTC-USDT, found {found}{MUST_BE_QUOTED}",
        f"2: log_dir: expected a directory, found {found}{MUST_BE_QUOTED}",
    ]


def test_a_quoted_word_is_text_whatever_it_looks_like(load):
    config = load(VENUES + "data_dir: 'NO'\nlog_dir: \"017\"")
    assert (config.data_dir, config.log_dir) == (Path("NO"), Path("017"))


def test_a_single_symbol_where_a_list_belongs_is_refused_and_never_taken_apart(problems):
    assert problems("venues: {kraken: {symbols: BTC/USD}}") == [
        "1: venues.kraken.symbols: expected a list of symbols, at least one, found the text 'BTC/USD'"
    ]


@pytest.mark.parametrize("found", ["a mapping", "nothing"])
def test_what_is_no_list_is_refused_where_one_belongs(problems, found):
    written = {"a mapping": "{BTC-USDT: 1}", "nothing": ""}[found]
    assert problems(f"venues: {{okx: {{symbols: {written}}}}}\naggregation: {{timeframes: {written}}}") == [
        f"1: venues.okx.symbols: expected a list of symbols, at least one, found {found}",
        f"2: aggregation.timeframes: expected a list of timeframes, found {found}",
    ]


def test_a_section_with_nothing_in_it_is_refused(problems):
    assert problems(VENUES + "gap_detection:\n  # enabled: true\nstatus: 30\n") == [
        "2: gap_detection: expected a mapping of enabled, lookback_days, found nothing",
        "4: status: expected a mapping of interval_seconds, found the number 30",
    ]


# --- booleans and numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "found"),
    [("1", "the number 1"), ("'true'", "the text 'true'"), ("", "nothing"), ("y", "the text 'y'")],
)
def test_a_switch_is_true_or_false_and_nothing_like_it(problems, written, found):
    assert problems(VENUES + f"gap_detection: {{enabled: {written}}}") == [
        f"2: gap_detection.enabled: expected true or false, found {found}"
    ]


NUMBERS = [
    ("gap_detection", "lookback_days", 0, 3650),
    ("storage", "flush_interval_seconds", 1, 3600),
    ("status", "interval_seconds", 1, 3600),
    ("shutdown", "timeout_seconds", 1, 600),
    ("feed", "retention_hours", 25, 2160),
    ("feed", "max_changes", 100_000, 1_000_000_000),
]


@pytest.mark.parametrize(("section", "key", "least", "most"), NUMBERS)
def test_a_numbers_range_includes_both_ends(load, section, key, least, most):
    for value in (least, most, least + 0.5):
        config = load(VENUES + f"{section}: {{{key}: {value}}}")
        number = getattr(getattr(config, section), key)
        assert number == value
        assert type(number) is float


@pytest.mark.parametrize(("section", "key", "least", "most"), NUMBERS)
@pytest.mark.parametrize(
    ("written", "found", "hint"),
    [
        ("-0.001", "the number -0.001", ""),
        ("3650.001", "the number 3650.001", ""),
        ("9" * 400, f"the number {'9' * 60}", ""),
        (".nan", "the number .nan", NOT_DECIMAL),
        (".inf", "the number .inf", NOT_DECIMAL),
        ("-.inf", "the number -.inf", NOT_DECIMAL),
        ("017", "the number 017", NOT_DECIMAL),
        ("0x1F", "the number 0x1F", NOT_DECIMAL),
        ("1_0", "the number 1_0", NOT_DECIMAL),
        ("12:30", "the number 12:30", NOT_DECIMAL),
        ("1e2", "the text '1e2'", ""),
        ("'60'", "the text '60'", ""),
        ("60s", "the text '60s'", ""),
        ("true", "the boolean true", ""),
        ("", "nothing", ""),
        ("[60]", "a list", ""),
    ],
)
def test_a_number_out_of_range_or_not_in_plain_digits_is_refused(
    problems, section, key, least, most, written, found, hint
):
    assert problems(VENUES + f"{section}: {{{key}: {written}}}") == [
        f"2: {section}.{key}: expected a number from {least} to {most}, found {found}{hint}"
    ]


# --- directories --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["''", "'  '", "'~'", "~/candles", "~\\candles"])
def test_a_directory_is_not_empty_and_needs_no_expansion(problems, written):
    (problem,) = problems(VENUES + f"data_dir: {written}")
    assert problem.startswith("2: data_dir: expected a directory, written out, found the text ")


@pytest.mark.parametrize(
    ("written", "shown"),
    [(r"\0", r"\x00"), (r"C:\temp", r"C:\temp"), (r"a\e[0m", r"a\x1b[0m"), (r"\uD800", r"\ud800")],
)
def test_a_directory_holds_no_control_character(problems, written, shown):
    assert problems(VENUES + f'log_dir: "{written}"') == [
        f"2: log_dir: expected a directory without control characters, found the text '{shown}';"
        " in double quotes \\ starts an escape, use single quotes"
    ]


# --- timeframes ---------------------------------------------------------------------------------------------


def test_the_format_of_the_log_is_text_or_json(load, problems):
    assert load(VENUES).logging.format == "text"
    assert load(VENUES + "logging: {format: json}").logging.format == "json"
    assert problems(VENUES + "logging: {format: xml}") == [
        "2: logging.format: expected text or json, found the text 'xml'"
    ]
    assert problems(VENUES + "logging: {format: [json]}") == ["2: logging.format: expected text or json, found a list"]


def test_the_base_timeframe_is_one_minute(problems):
    assert problems(VENUES + "aggregation: {base_timeframe: 5m}") == [
        "2: aggregation.base_timeframe: expected \"1m\", found the text '5m'"
    ]
    assert problems(VENUES + "aggregation: {base_timeframe: 1}") == [
        f'2: aggregation.base_timeframe: expected "1m", found the number 1{MUST_BE_QUOTED}'
    ]


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("7m", "'7m' does not divide a day"),
        ("2d", "'2d' does not divide a day"),
        ("5M", "'5M' is no timeframe; expected a number and m, h or d, as in 5m"),
        ("300s", "'300s' is no timeframe; expected a number and m, h or d, as in 5m"),
        ("'5m\n\n'", "'5m\\n' is no timeframe; expected a number and m, h or d, as in 5m"),
        ("1m", "expected a timeframe longer than the base, 1m, found the text '1m'"),
        ("5", f'expected a timeframe, as in "5m", found the number 5{MUST_BE_QUOTED}'),
    ],
)
def test_a_timeframe_divides_a_day_and_is_longer_than_the_base(problems, written, problem):
    assert problems(VENUES + f"aggregation: {{timeframes: [15m, {written}]}}") == [
        f"2: aggregation.timeframes[1]: {problem}"
    ]


def test_two_timeframes_of_one_length_are_duplicates(problems):
    assert problems(VENUES + "aggregation:\n  timeframes:\n  - 1h\n  - 5m\n  - 60m\n  - 5m\n") == [
        "6: aggregation.timeframes[2]: duplicate of aggregation.timeframes[0] on line 4",
        "7: aggregation.timeframes[3]: duplicate of aggregation.timeframes[1] on line 5",
    ]


def test_no_timeframes_are_as_good_as_no_aggregation(load):
    assert load(VENUES + "aggregation: {timeframes: []}").aggregation.timeframes == ()


# --- venues and symbols -------------------------------------------------------------------------------------


def test_an_unknown_venue_is_told_the_nearest_and_all_known(problems):
    assert problems("venues: {Krakn: {symbols: [BTC/USD]}, binance: {symbols: [BTCUSDT]}}") == [
        "1: venues.Krakn: unknown key; did you mean kraken? known venues: coinbase, kraken, okx",
        "1: venues.binance: unknown key; known venues: coinbase, kraken, okx",
    ]


def test_a_venue_without_symbols_is_refused(problems):
    keys = "enabled, symbols, websocket_url, rest_url"
    assert problems("venues:\n  coinbase:\n  kraken: {}\n  okx: {symbols: []}\n") == [
        f"2: venues.coinbase: expected a mapping of {keys}, found nothing",
        "3: venues.kraken.symbols: missing; it has no default",
        "4: venues.okx.symbols: expected a list of symbols, at least one, found an empty list",
    ]


def test_at_least_one_venue_is_named(problems):
    assert problems("venues:") == ["1: venues: expected a mapping of coinbase, kraken, okx, found nothing"]
    assert problems("venues: [okx]") == ["1: venues: expected a mapping of coinbase, kraken, okx, found a list"]
    assert problems("venues: {}") == [
        "1: venues: expected at least one enabled venue of coinbase, kraken, okx, found none"
    ]


def test_at_least_one_venue_is_enabled(problems):
    assert problems("\nvenues: {okx: {enabled: false, symbols: [A-B]}, kraken: {enabled: no, symbols: [A/B]}}") == [
        "2: venues: expected at least one enabled venue of coinbase, kraken, okx, found all of them disabled"
    ]


def test_a_disabled_venue_is_checked_too(problems):
    assert problems(VENUES.replace("}}", "}, kraken: {enabled: false, symbols: []}}")) == [
        "1: venues.kraken.symbols: expected a list of symbols, at least one, found an empty list"
    ]


@pytest.mark.parametrize(
    ("venue", "written", "meant"),
    [
        ("coinbase", "btc-usd", "BTC-USD"),
        ("coinbase", "BTC/USD", "BTC-USD"),
        ("coinbase", "' BTC_USD '", "BTC-USD"),
        ("coinbase", '"BTC-USD\\n"', "BTC-USD"),
        ("okx", "BTC/USDT", "BTC-USDT"),
        ("okx", "btc:usdt", "BTC-USDT"),
        ("kraken", "BTC-USD", "BTC/USD"),
        ("kraken", "eth/eur", "ETH/EUR"),
        ("kraken", "XBT/USD", "BTC/USD"),
        ("kraken", "XBT-usd", "BTC/USD"),
        ("kraken", "ETH/XBT", "ETH/BTC"),
        ("kraken", "XDG/EUR", "DOGE/EUR"),
    ],
)
def test_a_symbol_not_in_the_venues_own_form_is_told_that_form(load, problems, venue, written, meant):
    (problem,) = problems(f"venues: {{{venue}: {{symbols: [{written}]}}}}")
    form = {"coinbase": "BASE-QUOTE", "okx": "BASE-QUOTE", "kraken": "BASE/QUOTE"}[venue]
    assert problem.startswith(f"1: venues.{venue}.symbols[0]: expected {form} in upper case, as in BTC")
    assert problem.endswith(f"; did you mean {meant}?")
    assert load(f"venues: {{{venue}: {{symbols: [{meant}]}}}}").venues[0].symbols == (meant,)


@pytest.mark.parametrize("venue", ["coinbase", "kraken", "okx"])
@pytest.mark.parametrize(
    "written",  # between double quotes, so that \\ is one backslash and \0 a NUL
    ["../x", "..", ".", "", "/", "BTC", "BTCUSD", "A/../B", "BTC-USDT-SWAP", r"C:\\X", "CON", "COM1.A", "-",
     "A-", "/etc/passwd", r"BTC-USD\0", r"BTC\n-USD", r"\u0412-USD", r"BTC-US\u00D0", r"BTC-\u0661",
     "A" * 21 + "-B"],
)  # fmt: skip
def test_a_symbol_that_could_be_another_path_is_refused(problems, venue, written):
    (problem,) = problems(f'venues: {{{venue}: {{symbols: ["{written}"]}}}}')
    assert problem.startswith(f"1: venues.{venue}.symbols[0]: expected BASE")
    assert "did you mean" not in problem


def test_a_duplicate_symbol_is_refused_with_the_place_of_the_first(problems):
    assert problems("venues:\n  okx:\n    symbols:\n    - A-B\n    - C-D\n    - A-B\n    - A-B\n") == [
        "6: venues.okx.symbols[2]: duplicate of venues.okx.symbols[0] on line 4",
        "7: venues.okx.symbols[3]: duplicate of venues.okx.symbols[0] on line 4",
    ]


def test_a_symbol_that_will_be_a_duplicate_once_corrected_is_one_already(problems):
    found = problems("venues: {kraken: {symbols: [BTC/USD, XBT/USD, BTC-USD]}}")
    assert [problem for problem in found if "duplicate" in problem] == [
        "1: venues.kraken.symbols[1]: duplicate of venues.kraken.symbols[0] on line 1",
        "1: venues.kraken.symbols[2]: duplicate of venues.kraken.symbols[0] on line 1",
    ]


def test_two_venues_may_have_the_same_symbol(load):
    assert len(load("venues: {okx: {symbols: [BTC-USD]}, coinbase: {symbols: [BTC-USD]}}").venues) == 2


# --- endpoints ----------------------------------------------------------------------------------------------


def endpoint(key: str, url: str) -> str:
    return f"venues: {{okx: {{symbols: [BTC-USDT], {key}: '{url}'}}}}"


WEBSOCKET = (
    "1: venues.okx.websocket_url: expected wss://host[:port][/path], or ws:// to 127.0.0.1, [::1] or localhost, found "
)
REST = (
    "1: venues.okx.rest_url: expected https://host[:port] and nothing after it,"
    " or http:// to 127.0.0.1, [::1] or localhost, found "
)


@pytest.mark.parametrize(
    "url",
    ["wss://ws.okx.com:8443/ws/v5/business", "wss://a", "wss://a/", "wss://10.0.0.1/x?y=z&a=%20",
     "wss://[2001:db8::1]:1/", "wss://my_proxy:65535/a@b", "ws://127.0.0.1:80/ws", "ws://127.9.9.9",
     "ws://[::1]:9000/a", "ws://localhost:1/"],
)  # fmt: skip
def test_a_websocket_url_is_kept_whole(load, url):
    assert load(endpoint("websocket_url", url)).venues[0].websocket_url == url


@pytest.mark.parametrize(
    "url",
    ["ws://a", "ws://10.0.0.1/", "ws://localhost.example.com", "ws://127.0.0.1.example.com", "https://a",
     "http://127.0.0.1", "WSS://a", "wss:/a", "wss://", "wss:///a", "//a", "a", "", " wss://a", "wss://a ",
     "wss://a b", "wss://a/ü", "wss://a/#b", "wss://a#", "wss://a\\b", "wss://a:0", "wss://a:65536", "wss://a:",
     "wss://a:x", "wss://a:-1", "wss://127.1", "wss://256.0.0.1", "wss://0x7f.1", "wss://[::1",
     "wss://[1.2.3.4]", "wss://::1/", "wss://-a", "wss://a..b", "wss://a."],
)  # fmt: skip
def test_any_other_websocket_url_is_refused(problems, url):
    assert problems(endpoint("websocket_url", url)) == [f"{WEBSOCKET}the text {url!a}"]


@pytest.mark.parametrize(
    "url",
    ["https://www.okx.com", "https://a:1", "http://127.0.0.1:8080", "http://localhost", "http://[::1]:1"],
)
def test_a_rest_url_is_kept_without_the_slash_at_its_end(load, url):
    assert load(endpoint("rest_url", url)).venues[0].rest_url == url
    assert load(endpoint("rest_url", url + "/")).venues[0].rest_url == url


@pytest.mark.parametrize(
    "url",
    ["https://a/b", "https://a//", "https://a?b", "https://a/?", "https://a#", "http://a", "http://10.0.0.1", "wss://a",
     "https://a:99999", "https://", ""],
)  # fmt: skip
def test_a_rest_url_with_a_path_or_without_tls_is_refused(problems, url):
    assert problems(endpoint("rest_url", url)) == [f"{REST}the text {url!a}"]


@pytest.mark.parametrize("rest", ["me:secret@host", "secret@host", "127.0.0.1@secret", "[secret@"])
def test_a_url_with_credentials_is_refused_and_not_shown(problems, rest):
    hidden = "a URL with an @ (not shown); leave out user and password"
    assert problems(endpoint("websocket_url", "wss://" + rest)) == [WEBSOCKET + hidden]
    assert problems(endpoint("rest_url", "https://" + rest)) == [REST + hidden]


@pytest.mark.parametrize("char", ["\\n", "\\t", "\\0", "\\e", "\\xA0"])
def test_a_url_with_a_character_that_a_library_would_drop_is_refused(problems, char):
    (problem,) = problems(f'venues: {{okx: {{symbols: [BTC-USDT], websocket_url: "wss://a/{char}b"}}}}')
    assert problem.startswith(WEBSOCKET)


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("ws://127.0.0.1:8765/ws", True),
        ("wss://127.255.255.254", True),
        ("http://localhost:1", True),
        ("http://LOCALHOST", True),
        ("http://[::1]:8080/x", True),
        ("http://[0:0:0:0:0:0:0:1]", True),
        ("http://[::ffff:127.0.0.1]", False),
        ("http://[::2]", False),
        ("http://128.0.0.1", False),
        ("http://0.0.0.0", False),
        ("http://127.1", False),
        ("http://localhost.", False),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1.example.com", False),
        ("http://127.0.0.1@example.com", False),
        ("http://127.0.0.1\\@example.com", False),
        ("http://example.com/#127.0.0.1", False),
        ("http://example.com?localhost", False),
        ("127.0.0.1", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_only_what_surely_stays_on_this_machine_is_loopback(url, loopback):
    assert is_loopback_url(url) is loopback


# --- anything at all ----------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [*TOP.split(", "), "okx", "kraken", "symbols", "enabled", "rest_url", "timeframes", "BTC-USDT", "BTC/USD",
     "5m", "NO", "017", "1.5", ".nan", "~", "''", '"\\u', '"', "'", ": ", ":", "- ", "[", "]", "{", "}", ", ",
     "\n", "\n  ", "\t", "&a", "*a", "!!int ", "!", "%TAG ! !", "|", ">", "? ", "<<", "# ", "---", "...",
     "\ufeff", "\x85", "\u2028", "@", "wss://[::"],
)  # fmt: skip
ANYTHING = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(WORDS, max_size=40).map(lambda words: "".join(words).encode()),
    st.lists(WORDS, max_size=12).map(lambda words: (VENUES + "".join(words)).encode()),
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("anything") / "config.yaml"


@settings(deadline=None, derandomize=True)
@given(content=ANYTHING)
def test_whatever_the_file_holds_the_answer_is_a_config_or_one_clean_line_per_problem(scratch, content):
    scratch.write_bytes(content)
    problems: tuple[str, ...] = ()
    try:
        assert load_config(scratch).enabled_venues
    except ConfigError as error:
        problems = error.problems or ("",)
    last = 1 + sum(content.count(end) for end in (b"\n", b"\r", b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xa9"))
    for problem in problems:
        line, _, message = problem.removeprefix(f"{scratch}:").partition(": ")
        assert 1 <= int(line) <= last
        assert message.isprintable()
