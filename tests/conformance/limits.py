"""Known limits of servers: what no application can change. The README lists them; ``test_limits`` proves each."""

from __future__ import annotations

from dataclasses import dataclass

#: How each server is started for the suite, beyond its defaults.
OPTIONS = {
    "gunicorn": ["--threads", "64", "--limit-request-line", "8190"],
    "gunicorn-sync": ["-w", "8", "--limit-request-line", "8190"],
    "gunicorn-gevent": ["--limit-request-line", "8190"],
    "waitress": ["--threads=64", "--connection-limit=1000"],
    "dev": [],
}

GUNICORN = ("gunicorn", "gunicorn-sync", "gunicorn-gevent")
WAITRESS = ("waitress", "dev")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A check that a server makes impossible.

    Attributes:
        check: The name of the test function.
        kinds: The servers.
        reason: What the server does, in a sentence for the README.
    """

    check: str
    kinds: tuple[str, ...]
    reason: str


LIMITS: tuple[Limit, ...] = (
    Limit(
        check="test_repeated_cookie_fields_are_joined_with_semicolons",
        kinds=(*GUNICORN, *WAITRESS),
        reason="Repeated Cookie fields are joined with a comma, as other fields are.",
    ),
    Limit(
        check="test_forwarded_scheme_of_a_stranger_is_not_believed",
        kinds=GUNICORN,
        reason="X-Forwarded-Proto of clients on the same machine is believed (forwarded_allow_ips).",
    ),
    Limit(
        check="test_chunked_coding_twice_is_refused",
        kinds=WAITRESS,
        reason="Transfer-Encoding: chunked, chunked counts as chunked.",
    ),
    Limit(
        check="test_connection_takes_one_request_after_the_other",
        kinds=("gunicorn-sync",),
        reason="Every connection is closed after one answer (no keep-alive).",
    ),
    Limit(
        check="test_pipelined_requests_are_answered_in_order",
        kinds=("gunicorn-sync",),
        reason="Every connection is closed after one answer (no pipelining).",
    ),
    Limit(
        check="test_pipelined_heads_and_ranges_stay_apart",
        kinds=("gunicorn-sync",),
        reason="Every connection is closed after one answer (no pipelining).",
    ),
    Limit(
        check="test_connection_goes_on_after_a_304",
        kinds=("gunicorn-sync", *WAITRESS),
        reason="The connection is closed after a 304 response.",
    ),
    Limit(
        check="test_higher_minor_version_is_answered_with_our_own",
        kinds=GUNICORN,
        reason="A request with HTTP/1.2 is answered with HTTP/1.2.",
    ),
    Limit(
        check="test_blank_before_the_method_is_refused",
        kinds=WAITRESS,
        reason="Blanks before the request line are passed over.",
    ),
    Limit(
        check="test_malformed_absolute_form_is_refused",
        kinds=WAITRESS,
        reason="A target such as http://[::1/ gets no answer; the connection is closed.",
    ),
    Limit(
        check="test_expectation_without_a_body_is_answered",
        kinds=WAITRESS,
        reason="A GET with Expect: 100-continue and no body gets the 100 and no answer.",
    ),
    Limit(
        check="test_connection_stays_after_short_answers",
        kinds=("gunicorn-sync",),
        reason="Every connection is closed after one answer (no keep-alive).",
    ),
    Limit(
        check="test_connection_stays_for_posts_and_heads_in_turn",
        kinds=("gunicorn-sync",),
        reason="Every connection is closed after one answer (no keep-alive).",
    ),
    Limit(
        check="test_slow_scripts_do_not_hold_up_others",
        kinds=("gunicorn-sync",),
        reason="A worker serves one request at a time: slow scripts hold up others when all workers are taken.",
    ),
    Limit(
        check="test_unfinished_heads_do_not_hold_up_others",
        kinds=("gunicorn", "gunicorn-sync"),
        reason="A request's head is read by the thread that would serve it: clients that do not finish theirs hold it.",
    ),
    Limit(
        check="test_slow_readers_do_not_hold_up_others",
        kinds=("gunicorn", "gunicorn-sync"),
        reason="After an answer that ends a connection it waits up to 2 s for the client's end of it, serving nobody.",
    ),
)


#: What the kinds are called in the README.
NAMES = {
    "gunicorn": "gunicorn gthread",
    "gunicorn-sync": "gunicorn sync",
    "gunicorn-gevent": "gunicorn gevent",
    "waitress": "waitress",
    "dev": "wsgicgi-dev",
}


def readme_list() -> str:
    """The limits as the README has them: a sentence each, and whose it is."""
    kinds: dict[str, list[str]] = {}
    for limit in LIMITS:
        named = kinds.setdefault(limit.reason, [])
        named += [NAMES[kind] for kind in limit.kinds if NAMES[kind] not in named]
    return "\n".join(f"* {reason} ({', '.join(named)})" for reason, named in kinds.items())
