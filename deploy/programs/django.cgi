#!/srv/apps/venv/bin/python
# What for: a Django project as a CGI script: "project" in /srv/apps.
# Start: chmod 755 /srv/apps/django.cgi; CGIScript("/srv/apps/django.cgi"), or put it into a CGI directory.
import os
import sys
from wsgiref.handlers import CGIHandler

sys.path.insert(0, "/srv/apps")
os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"

from django.core.wsgi import get_wsgi_application  # noqa: E402

CGIHandler().run(get_wsgi_application())
