"""A CGI program as a view of Django's, with Django's login and middlewares in front of it.

In ``urls.py``::

    git = presets.git("/srv/git")
    urlpatterns = [re_path(r"^git(?P<path>/.*)?$", login_required(as_view(git)))]

Answers stream, and uploads are not read before the program gets them. It runs under WSGI only.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.http import StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment


class CGIResponse(StreamingHttpResponse):  # type: ignore[misc]  # Django has no annotations
    """What a program answers: streamed, with fields that come more than once kept apart.

    Args:
        app_iter: The body.
        status_line: Status and reason.
        fields: Header fields.
    """

    def __init__(self, app_iter: Iterable[bytes], status_line: str, fields: Iterable[tuple[str, str]]) -> None:
        status, _, reason = status_line.partition(" ")
        super().__init__(app_iter, status=int(status), reason=reason)
        del self["Content-Type"]  # Django's; a program that gives none has none
        self._repeated = []
        for name, value in fields:
            if name in self or name.lower() == "set-cookie":
                self._repeated.append((name, value))
            else:
                self[name] = value

    def items(self) -> Iterable[tuple[str, str]]:
        """All header fields but those of Django's own cookies."""
        return [*super().items(), *self._repeated]


def as_view(app: WSGIApplication) -> Callable[..., Any]:
    """Make a view of a ``CGIScript`` or of what ``create_app`` gives.

    The URL pattern names the rest of the path ``path``; what comes before it is SCRIPT_NAME. REMOTE_USER is the user
    who has logged in to Django. The view is exempt from Django's CSRF check: other programs' forms know nothing of it.

    Args:
        app: What answers; an application of this package.

    Returns:
        The view: ``view(request, path="")``.
    """

    @csrf_exempt  # type: ignore[untyped-decorator]  # Django has no annotations
    def view(request: Any, path: str = "") -> CGIResponse:
        head: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, fields: list[tuple[str, str]], exc_info: object = None) -> Callable[..., Any]:
            head[:] = [(status, fields)]
            return list[bytes]().append  # nothing of ours uses it

        app_iter = app(_environ(request, path), start_response)
        return CGIResponse(app_iter, *head[0])

    return view  # type: ignore[no-any-return]


def _environ(request: Any, path: str) -> WSGIEnvironment:
    """The request as the server gave it, with the view's place in SCRIPT_NAME."""
    if "wsgi.input" not in request.META:
        raise ImproperlyConfigured("wsgicgi.django runs under WSGI: serve this project with its wsgi.py, not asgi.py")
    mount = request.path_info.removesuffix(path).rstrip("/")
    if not request.path_info.endswith(path) or (path and not request.path_info[len(mount) :].startswith("/")):
        route = request.resolver_match.route
        raise ImproperlyConfigured(
            f"{route!r}: the URL pattern of a CGI view names the rest of the path, as r'^tools(?P<path>/.*)?$' does"
        )
    environ = dict(request.META)
    environ["SCRIPT_NAME"] = _native(request.META.get("SCRIPT_NAME", "") + mount)
    environ["PATH_INFO"] = _native(request.path_info[len(mount) :])
    if request._read_started:  # a middleware has read the body; this raises when it did not keep it
        environ["wsgi.input"] = io.BytesIO(request.body)
        environ["CONTENT_LENGTH"] = str(len(request.body))
    _set_user(environ, getattr(request, "user", None))
    return environ


def _set_user(environ: WSGIEnvironment, user: Any) -> None:
    """Put Django's user in the place of the server's."""
    if user is None:
        return
    environ.pop("REMOTE_USER", None)
    if user.is_authenticated:
        environ["REMOTE_USER"] = _native(user.get_username())


def _native(text: str) -> str:
    """A text as PEP 3333 wants it; Django has decoded what it got."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")
