#!/srv/apps/venv/bin/python
# What for: a Flask application as a CGI script: "app" in /srv/apps/shop.py.
# Start: chmod 755 /srv/apps/flask.cgi; CGIScript("/srv/apps/flask.cgi"), or put it into a CGI directory.
import sys
from wsgiref.handlers import CGIHandler

sys.path.insert(0, "/srv/apps")

from shop import app  # noqa: E402

CGIHandler().run(app)
