"""``create_app`` with slots for its scripts, for the servers of test_admission: ``MAX_SCRIPTS``, ``QUEUE_TIMEOUT``."""

import os

import wsgicgi
from wsgicgi.admission import Pool
from wsgicgi.app import Application


def make() -> Application:
    app = wsgicgi.create_app()
    gateway = app._app._gateway
    gateway.pools = (Pool("all", int(os.environ["MAX_SCRIPTS"])),)
    gateway.queue_timeout = float(os.environ["QUEUE_TIMEOUT"])
    return app
