# What for: well-known CGI programs, each at a mount point of one application; take the lines that you need.
# Start: gunicorn --chdir deploy/programs --threads 16 programs
"""Every file that is named here has its pattern beside this one. README.rst tells what each program needs."""

from werkzeug.middleware.dispatcher import DispatcherMiddleware

from wsgicgi import CGIScript, create_app, presets

# .php files anywhere below /srv/site; -d comes before php.ini
PHP = {".php": ["php-cgi", "-d", "upload_max_filesize=64M", "-d", "post_max_size=64M"]}

site = create_app("/srv/site", interpreters=PHP, index_names=["index.php", "index.html"])

application = DispatcherMiddleware(
    site,
    {
        "/git": presets.git("/srv/git"),
        "/gitweb": presets.gitweb("/srv/etc/gitweb.conf"),
        "/cgit": presets.cgit("/srv/etc/cgitrc"),
        "/fossil": presets.fossil("/srv/etc/fossil.conf"),
        "/hg": presets.hgweb("/srv/etc/hgweb.config"),
        "/maps": presets.mapserver("/srv/etc/mapserver.conf"),
        "/awstats": presets.awstats("/srv/etc/awstats"),
        "/flask": CGIScript("/srv/apps/flask.cgi"),
        "/django": CGIScript("/srv/apps/django.cgi"),
    },
)
