# What for: git repositories in /srv/git that everybody may clone and users may push to, with a password (HTTP Basic).
# Start: gunicorn --chdir deploy/programs --threads 16 git_users
"""The users are in /srv/etc/git-users, a line NAME:HASH each. Serve it by TLS only.

For the hash of a password, run
python -c 'import getpass, werkzeug.security as s; print(s.generate_password_hash(getpass.getpass()))'
"""

from pathlib import Path

from werkzeug.security import check_password_hash
from werkzeug.wrappers import Request, Response

from wsgicgi import presets

USERS = dict(line.split(":", 1) for line in Path("/srv/etc/git-users").read_text().split())

git = presets.git("/srv/git", push="users")


def application(environ, start_response):
    """Ask for a password where somebody pushes."""
    request = Request(environ, populate_request=False)
    user = request.authorization
    if user and user.type == "basic" and check_password_hash(USERS.get(user.username, ""), user.password or ""):
        environ.update(REMOTE_USER=user.username, AUTH_TYPE="Basic")
    elif user or "git-receive-pack" in (request.args.get("service"), request.path.rpartition("/")[2]):
        refusal = Response("Who are you?\n", 401, {"WWW-Authenticate": 'Basic realm="git", charset="UTF-8"'})
        return refusal(environ, start_response)
    return git(environ, start_response)
