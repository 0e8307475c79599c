"""What of a file a conditional or range request gets: the rules of RFC 9110 sections 13 and 14 as tables."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from wsgicgi.conditional import Selection, decide, select

ETAG = "abc-64"
MODIFIED = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)
SIZE = 100

SAME = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
AFTER = "Sun, 06 Nov 1994 08:49:38 GMT"

WHOLE = Selection(status=200, start=0, stop=SIZE)
NOT_MODIFIED = Selection(status=304, start=0, stop=0)
FAILED = Selection(status=412, start=0, stop=0)
UNSATISFIABLE = Selection(status=416, start=0, stop=0)


def part(start: int, stop: int) -> Selection:
    return Selection(status=206, start=start, stop=stop)


def selected(*, method: str = "GET", size: int = SIZE, **fields: str) -> Selection:
    """What a request with these fields gets; ``if_match="x"`` is the field If-Match."""
    environ: dict[str, Any] = {"REQUEST_METHOD": method}
    environ.update({f"HTTP_{name.upper()}": value for name, value in fields.items()})
    return select(environ, etag=ETAG, modified=MODIFIED, size=size)


# -- conditions

CONDITIONS = [
    pytest.param({}, WHOLE, id="none"),
    # If-Match, section 13.1.1: strong comparison
    pytest.param({"if_match": '"abc-64"'}, WHOLE, id="if-match-same"),
    pytest.param({"if_match": '"other", "abc-64"'}, WHOLE, id="if-match-one-of-several"),
    pytest.param({"if_match": "*"}, WHOLE, id="if-match-any"),
    pytest.param({"if_match": '"other"'}, FAILED, id="if-match-other"),
    pytest.param({"if_match": 'W/"abc-64"'}, FAILED, id="if-match-weak-never-matches"),
    pytest.param({"if_match": '"ABC-64"'}, FAILED, id="if-match-other-case"),
    pytest.param({"if_match": '"*"'}, FAILED, id="if-match-quoted-asterisk-is-a-tag"),
    # If-Unmodified-Since, section 13.1.4
    pytest.param({"if_unmodified_since": SAME}, WHOLE, id="if-unmodified-since-same"),
    pytest.param({"if_unmodified_since": AFTER}, WHOLE, id="if-unmodified-since-after"),
    pytest.param({"if_unmodified_since": BEFORE}, FAILED, id="if-unmodified-since-before"),
    pytest.param({"if_unmodified_since": "yesterday"}, WHOLE, id="if-unmodified-since-no-date"),
    # If-None-Match, section 13.1.2: weak comparison
    pytest.param({"if_none_match": '"abc-64"'}, NOT_MODIFIED, id="if-none-match-same"),
    pytest.param({"if_none_match": 'W/"abc-64"'}, NOT_MODIFIED, id="if-none-match-weak"),
    pytest.param({"if_none_match": '"other", W/"abc-64"'}, NOT_MODIFIED, id="if-none-match-one-of-several"),
    pytest.param({"if_none_match": "*"}, NOT_MODIFIED, id="if-none-match-any"),
    pytest.param({"if_none_match": '"other"'}, WHOLE, id="if-none-match-other"),
    pytest.param({"if_none_match": ""}, WHOLE, id="if-none-match-empty"),
    # If-Modified-Since, section 13.1.3
    pytest.param({"if_modified_since": SAME}, NOT_MODIFIED, id="if-modified-since-same"),
    pytest.param({"if_modified_since": AFTER}, NOT_MODIFIED, id="if-modified-since-after"),
    pytest.param({"if_modified_since": BEFORE}, WHOLE, id="if-modified-since-before"),
    pytest.param({"if_modified_since": "yesterday"}, WHOLE, id="if-modified-since-no-date"),
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("fields", "expected"), CONDITIONS)
def test_a_condition_decides_between_the_file_and_no_file(
    method: str, fields: dict[str, str], expected: Selection
) -> None:
    """Each condition by itself, for GET and HEAD alike (RFC 9110 sections 13.1.1 to 13.1.4)."""
    assert selected(method=method, **fields) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param(
            {"if_match": '"abc-64"', "if_unmodified_since": BEFORE}, WHOLE, id="if-match-hides-if-unmodified-since"
        ),
        pytest.param(
            {"if_match": '"other"', "if_unmodified_since": AFTER}, FAILED, id="if-match-fails-whatever-the-date-says"
        ),
        pytest.param(
            {"if_none_match": '"other"', "if_modified_since": AFTER}, WHOLE, id="if-none-match-hides-if-modified-since"
        ),
        pytest.param(
            {"if_none_match": '"abc-64"', "if_modified_since": BEFORE},
            NOT_MODIFIED,
            id="if-none-match-holds-whatever-the-date-says",
        ),
        pytest.param({"if_match": '"other"', "if_none_match": '"abc-64"'}, FAILED, id="412-before-304"),
        pytest.param({"if_match": '"abc-64"', "if_none_match": '"abc-64"'}, NOT_MODIFIED, id="304-after-if-match"),
        pytest.param(
            {"if_unmodified_since": BEFORE, "if_modified_since": AFTER}, FAILED, id="412-before-304-with-dates"
        ),
        pytest.param({"if_match": '"other"', "range": "bytes=0-9"}, FAILED, id="412-before-206"),
        pytest.param({"if_none_match": '"abc-64"', "range": "bytes=0-9"}, NOT_MODIFIED, id="304-before-206"),
        pytest.param({"if_none_match": '"abc-64"', "range": "bytes=500-"}, NOT_MODIFIED, id="304-before-416"),
        pytest.param(
            {"if_match": '"abc-64"', "if_none_match": '"other"', "if_range": '"abc-64"', "range": "bytes=0-9"},
            part(0, 10),
            id="206-when-all-hold",
        ),
        pytest.param(
            {"if_match": '"abc-64"', "if_range": '"other"', "range": "bytes=0-9"}, WHOLE, id="if-range-comes-last"
        ),
    ],
)
def test_conditions_are_asked_in_their_order(fields: dict[str, str], expected: Selection) -> None:
    """If-Match, else If-Unmodified-Since; If-None-Match, else If-Modified-Since; then If-Range (RFC 9110 13.2.2)."""
    assert selected(**fields) == expected


# -- dates


@pytest.mark.parametrize(
    "date",
    [
        pytest.param("Sun, 06 Nov 1994 08:49:37 GMT", id="imf-fixdate"),
        pytest.param("Sunday, 06-Nov-94 08:49:37 GMT", id="rfc-850"),
        pytest.param("Sun Nov  6 08:49:37 1994", id="asctime"),
    ],
)
def test_each_of_the_three_date_formats_is_understood(date: str) -> None:
    """A recipient takes all three formats (RFC 9110 section 5.6.7), and they name the same second."""
    assert selected(if_modified_since=date) == NOT_MODIFIED
    assert selected(if_unmodified_since=date) == WHOLE
    assert selected(if_range=date, range="bytes=0-9") == part(0, 10)


@pytest.mark.parametrize(
    "date",
    [
        pytest.param("", id="empty"),
        pytest.param("0", id="zero"),
        pytest.param("yesterday", id="word"),
        pytest.param("784111777", id="seconds"),
        pytest.param("1994-11-06T08:49:37Z", id="iso-8601"),
        pytest.param("Sun, 32 Nov 1994 08:49:37 GMT", id="day-32"),
        pytest.param("Sun, 30 Feb 2094 08:49:37 GMT", id="february-30"),
        pytest.param("Sun, 06 Nov 2094 25:49:37 GMT", id="hour-25"),
        pytest.param("Sun, 06 Nov 99999 08:49:37 GMT", id="year-99999"),
        pytest.param("Sun, 06 Nov 9999999999999999999999 08:49:37 GMT", id="endless-year"),
        pytest.param("Sun, 06 Xyz 2094 08:49:37 GMT", id="no-month"),
        pytest.param("\xff\xfe", id="latin-1"),
        pytest.param("," * 1000, id="commas"),
        pytest.param('"abc-64', id="half-a-tag"),
    ],
)
def test_what_is_no_date_counts_as_no_condition(date: str) -> None:
    """A condition with a date that is none is ignored (RFC 9110 13.1.3, 13.1.4); in If-Range it does not hold."""
    assert selected(if_modified_since=date) == WHOLE
    assert selected(if_unmodified_since=date) == WHOLE
    assert selected(if_range=date, range="bytes=0-9") == WHOLE


# -- ranges

RANGES = [
    pytest.param("bytes=0-0", part(0, 1), id="first-byte"),
    pytest.param("bytes=1-1", part(1, 2), id="second-byte"),
    pytest.param("bytes=99-99", part(99, 100), id="last-byte"),
    pytest.param("bytes=0-1", part(0, 2), id="first-two"),
    pytest.param("bytes=98-99", part(98, 100), id="last-two"),
    pytest.param("bytes=0-99", part(0, 100), id="all"),
    pytest.param("bytes=0-98", part(0, 99), id="all-but-the-last"),
    pytest.param("bytes=1-99", part(1, 100), id="all-but-the-first"),
    pytest.param("bytes=0-", part(0, 100), id="from-0"),
    pytest.param("bytes=1-", part(1, 100), id="from-1"),
    pytest.param("bytes=99-", part(99, 100), id="from-the-last"),
    pytest.param("bytes=50-100", part(50, 100), id="one-beyond-the-end"),
    pytest.param("bytes=50-99999999999999999999", part(50, 100), id="far-beyond-the-end"),
    pytest.param("bytes=-1", part(99, 100), id="suffix-of-1"),
    pytest.param("bytes=-99", part(1, 100), id="suffix-of-all-but-one"),
    pytest.param("bytes=-100", part(0, 100), id="suffix-of-all"),
    pytest.param("bytes=-101", part(0, 100), id="suffix-of-more"),
    pytest.param("bytes=-99999999999999999999", part(0, 100), id="suffix-of-far-more"),
    pytest.param("BYTES=0-0", part(0, 1), id="unit-in-capitals"),
    pytest.param("bytes=00-09", part(0, 10), id="leading-zeros"),
    pytest.param("bytes=100-", UNSATISFIABLE, id="from-the-end"),
    pytest.param("bytes=100-100", UNSATISFIABLE, id="at-the-end"),
    pytest.param("bytes=100-200", UNSATISFIABLE, id="behind-the-end"),
    pytest.param("bytes=99999999999999999999-", UNSATISFIABLE, id="far-behind-the-end"),
]


@pytest.mark.parametrize(("value", "expected"), RANGES)
def test_a_range_is_served_to_the_byte(value: str, expected: Selection) -> None:
    """The last position is inclusive, a suffix may be longer than the file, one behind it is 416 (RFC 9110 14.1.2)."""
    assert selected(range=value) == expected


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="empty"),
        pytest.param("bytes", id="unit-alone"),
        pytest.param("bytes=", id="nothing"),
        pytest.param("bytes=-", id="hyphen-alone"),
        pytest.param("bytes=5", id="no-hyphen"),
        pytest.param("bytes=9-5", id="backwards"),
        pytest.param("bytes=1-0", id="backwards-by-one"),
        pytest.param("bytes=a-b", id="letters"),
        pytest.param("bytes=0-9x", id="letter-at-the-end"),
        pytest.param("bytes=0x0-9", id="hexadecimal"),
        pytest.param("bytes=+0-9", id="plus"),
        pytest.param("bytes=--5", id="two-hyphens"),
        pytest.param("bytes=0--5", id="negative-end"),
        pytest.param("bytes=0-1_0", id="underscore"),
        pytest.param("bytes=0-\xb2", id="superscript"),
        pytest.param("bytes=1.5-2", id="fraction"),
        pytest.param("bytes 0-9", id="no-equals-sign"),
        pytest.param("=0-9", id="no-unit"),
        pytest.param("bytes=0-9;x", id="parameter"),
        pytest.param("bytes=-0", id="suffix-of-0"),
        pytest.param("items=0-9", id="other-unit"),
        pytest.param("none=0-9", id="unit-none"),
        pytest.param("bytes=" + "0-," * 10_000, id="endless"),
    ],
)
def test_what_is_no_single_range_of_bytes_counts_as_no_range(value: str) -> None:
    """A malformed Range, one in other units and one of very many ranges are ignored (RFC 9110 section 14.2)."""
    assert selected(range=value) == WHOLE


def test_several_ranges_are_parts_of_the_whole() -> None:
    """Section 14.6; what several ranges mean in detail is held by test_ranges."""
    assert selected(range="bytes=0-0,-1") == Selection(status=206, start=0, stop=SIZE, parts=((0, 1), (99, 100)))
    assert selected(range="bytes=0-50,25-75") == part(0, 76)
    assert selected(range="bytes=100-,200-") == UNSATISFIABLE
    assert selected(method="HEAD", range="bytes=0-0,-1") == WHOLE
    assert selected(if_range='"other"', range="bytes=0-0,-1") == WHOLE


FIELDS = {
    "if_match": (None, "*", '"abc-64"', '"other"', 'W/"abc-64"'),
    "if_none_match": (None, "*", '"abc-64"', '"other"', 'W/"abc-64"', '"other", "abc-64"', "abc-64", ""),
    "if_modified_since": (None, BEFORE, SAME, AFTER, "yesterday"),
    "if_unmodified_since": (None, BEFORE, SAME, AFTER, ""),
    "range": (None, "bytes=0-9", "bytes=500-", "bytes=0-0,-1", "items=0-9"),
    "if_range": (None, '"abc-64"', SAME),
}


def test_the_short_way_decides_as_the_long_one() -> None:
    """Every combination of fields: what is answered without parsing them is what parsing them gives."""
    for values in itertools.product(*FIELDS.values()):
        for method in ("GET", "HEAD"):
            fields = dict(zip(FIELDS, values, strict=True))
            environ = {f"HTTP_{name.upper()}": value for name, value in fields.items() if value is not None}
            environ["REQUEST_METHOD"] = method
            request = {"etag": ETAG, "modified": MODIFIED, "size": SIZE}
            assert select(environ, **request) == decide(environ, **request), environ


@pytest.mark.parametrize("value", ["bytes=0-0", "bytes=500-", "bytes=-1"])
def test_head_has_no_ranges(value: str) -> None:
    """Range is defined for GET only (RFC 9110 section 14.2)."""
    assert selected(method="HEAD", range=value) == WHOLE


def test_an_empty_file_is_served_whole() -> None:
    """A file of no bytes is a file."""
    assert selected(size=0) == Selection(status=200, start=0, stop=0)


@pytest.mark.parametrize("value", ["bytes=0-", "bytes=0-0", "bytes=1-5"])
def test_an_empty_file_has_no_first_byte(value: str) -> None:
    """No first position is inside a file of no bytes (RFC 9110 section 14.1.2)."""
    assert selected(size=0, range=value) == UNSATISFIABLE


def test_a_suffix_of_an_empty_file_is_no_partial_response() -> None:
    """No Content-Range can say "no bytes of 0" (RFC 9110 section 14.4), so a 206 is not possible."""
    assert selected(size=0, range="bytes=-5").status in (200, 416)


@pytest.mark.parametrize("size", [1, 2])
def test_a_file_of_few_bytes_has_ranges(size: int) -> None:
    """Ranges hold at the smallest sizes."""
    assert selected(size=size, range="bytes=0-0") == part(0, 1)
    assert selected(size=size, range="bytes=-1") == part(size - 1, size)
    assert selected(size=size, range=f"bytes={size}-") == UNSATISFIABLE


# -- If-Range


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param('"abc-64"', part(0, 10), id="strong-tag"),
        pytest.param('"other"', WHOLE, id="other-tag"),
        pytest.param('W/"abc-64"', WHOLE, id="weak-tag"),
        pytest.param("abc-64", WHOLE, id="tag-without-quotes"),
        pytest.param('"abc-64", "other"', WHOLE, id="several-tags"),
        pytest.param("*", WHOLE, id="asterisk"),
        pytest.param(SAME, part(0, 10), id="same-date"),
        pytest.param(BEFORE, WHOLE, id="earlier-date"),
        pytest.param(AFTER, WHOLE, id="later-date"),
        pytest.param("", WHOLE, id="empty"),
    ],
)
def test_a_range_is_served_if_the_client_has_a_part_of_this_very_file(value: str, expected: Selection) -> None:
    """If-Range holds for a strong tag or the very date only; else the whole file is sent (RFC 9110 section 13.1.5)."""
    assert selected(if_range=value, range="bytes=0-9") == expected


def test_if_range_without_a_range_is_ignored() -> None:
    """If-Range means something together with Range only (RFC 9110 section 13.1.5)."""
    assert selected(if_range='"other"') == WHOLE


def test_an_unsatisfiable_range_of_another_file_gets_the_whole() -> None:
    """Where If-Range does not hold, Range is ignored, even one that could not be satisfied (RFC 9110 13.1.5)."""
    assert selected(if_range='"other"', range="bytes=500-") == WHOLE
    assert selected(if_range='"abc-64"', range="bytes=500-") == UNSATISFIABLE
