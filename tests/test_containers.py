"""The image, the compose file and the manifests of ``deploy/``: built, run, and held against their schemas."""

from __future__ import annotations

import configparser
import contextlib
import copy
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cluster
import compose_pydantic.models
import kubernetes_validate
import pydantic
import pytest
import yaml
from programs import find
from proxies import DEPLOY
from servers import running, wait_until
from sites import Site

from wsgicgi.config import setting_names

ROOT = DEPLOY.parent

# -- the image


class Image:
    """The image of the Containerfile, built by buildah, as a directory.

    There is no registry in a test, so this system's ``/usr`` stands for the image that it begins with.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._buildah = [
            *(find("buildah", package="buildah"), "--storage-driver", "vfs"),
            *("--root", place / "storage", "--runroot", place / "run"),
        ]
        self._make_base()
        self._build()
        name = self._run("from", "wsgicgi")
        self.root = Path(self._run("mount", name))
        inspected = json.loads(self._run("inspect", "--type", "image", "wsgicgi"))
        self.config = inspected["Docker"]["config"]

    def _run(self, *words: str | Path, seconds: float = 240) -> str:
        # steps see the variables of who builds: what this machine says of package indexes is not for them
        env = {"PATH": os.environ["PATH"], "HOME": str(self._place), "TMPDIR": str(self._place)}
        done = subprocess.run(
            [*self._buildah, *words], capture_output=True, text=True, timeout=seconds, cwd=ROOT, env=env
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout.strip()

    def _make_base(self) -> None:
        base = self._place / "base"
        for name in ("etc", "usr", "proc", "sys", "dev", "run", "var", "root", "srv", "opt", "tmp"):
            (base / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            if Path("/", name).is_symlink():
                (base / name).symlink_to(f"usr/{name}")
        (base / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (base / "etc/group").write_text("root:x:0:\n")
        (base / "etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        (base / "etc/ssl/certs").mkdir(parents=True)
        (base / "etc/ssl/certs/ca-certificates.crt").touch()  # Debian's pip asks for it whatever it does
        (self._place / "Base").write_text("FROM scratch\nCOPY base /\n")
        self._run("build", "--isolation", "chroot", "-t", "base", "-f", self._place / "Base", self._place)

    def _build(self) -> None:
        wheels = self._place / "wheels"
        asked = subprocess.run(["/usr/bin/python3", "-V"], capture_output=True, text=True, check=True)
        version = asked.stdout.split()[1]
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg")
        extras = setup["options.extras_require"]
        wanted = [setup["options"]["install_requires"], extras["gunicorn"], extras["metrics"], "setuptools>=77"]
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", str(wheels)]
        names = " ".join(wanted).split()
        subprocess.run([*download, f"--python-version={version}", *names], check=True, timeout=240)
        self._run(
            *("build", "--isolation", "chroot", "--format", "docker", "-t", "wsgicgi"),
            *("--build-arg", "PYTHON=localhost/base", "-f", DEPLOY / "Containerfile"),
            *("-v", "/usr:/usr:ro", "-v", f"{wheels}:/wheels:ro"),
            ROOT,
        )

    def command(self, *words: str, site: Path, **variables: str) -> list[str | Path]:
        """A command in the image: a read-only root, its own ``/tmp`` and processes, its user, no rights."""
        uid, gid = self.config["User"].split(":")
        said = {**dict(each.split("=", 1) for each in self.config["Env"]), **variables}
        return [
            *(find("bwrap", package="bubblewrap"), "--clearenv", "--unshare-pid", "--unshare-ipc", "--die-with-parent"),
            *("--ro-bind", self.root, "/", "--ro-bind", "/usr", "/usr", "--ro-bind", site, "/srv/site"),
            *("--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/tmp"),
            *(word for name, value in said.items() for word in ("--setenv", name, value)),
            *("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"),
            *("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs", *words),
        ]

    def close(self) -> None:
        self._run("rm", "--all")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Built once for the tests of this module."""
    made = Image(tmp_path_factory.mktemp("image"))
    yield made
    made.close()


@pytest.mark.root_only
def test_image_says_what_it_needs(image: Image) -> None:
    """A user without rights, the port, the signal, the health check."""
    config = image.config
    assert config["User"] == "10001:10001"
    assert list(config["ExposedPorts"]) == ["8000/tcp"]
    assert config["StopSignal"] == "SIGTERM"
    assert "Test" in config["Healthcheck"]
    assert not (image.root / "src").exists()


@pytest.mark.root_only
def test_image_serves_on_a_read_only_root_without_rights(image: Image, tmp_path: Path) -> None:
    """Its command with its user and a pod's variables, on a machine of its own; health, probes, metrics; its end."""
    template = manifests()["Deployment wsgicgi"]["spec"]["template"]
    annotations = template["metadata"]["annotations"]
    [pod] = template["spec"]["containers"]
    scaler = manifests()["HorizontalPodAutoscaler wsgicgi"]["spec"]
    site = Site(tmp_path / "site")
    site.file("a.txt", "a")
    site.sh(
        "who",
        "printf 'Content-Type: text/plain\\n\\n'; id -u; grep NoNewPrivs /proc/self/status\n"
        "for d in / /srv/site /opt/wsgicgi /etc; do touch $d/x 2>/dev/null && echo wrote $d; done\n"
        "touch /tmp/x && echo tmp\n",
    )
    for place in (tmp_path.parent.parent, tmp_path.parent, tmp_path):
        place.chmod(0o755)  # the image's user has to see the site
    with cluster.network(1) as net:
        health = image.command(*image.config["Healthcheck"]["Test"][1:], site=site.directory)
        if not net.on("m1"):  # this machine's own ports, then
            health = [str(word).replace("127.0.0.1:8000", f"{net.address('m1')}:{net.port}") for word in health]

        def is_healthy() -> bool:
            done = subprocess.run([*net.on("m1"), *health], capture_output=True, timeout=60)
            return done.returncode == 0

        def get(target: str) -> str:
            command = [
                "curl",
                "-sS",
                "--noproxy",
                "*",
                "--max-time",
                "30",
                f"http://{net.address('m1')}:{net.port}{target}",
            ]
            return subprocess.run([*net.on("balancer"), *command], capture_output=True, text=True, timeout=60).stdout

        assert not is_healthy()
        variables = {**{each["name"]: each["value"] for each in pod["env"]}, "DRAIN": "0"}
        if not net.on("m1"):
            variables["BIND"] = f"{net.address('m1')}:{net.port}"
        command = [*net.on("m1"), *image.command(*image.config["Cmd"], site=site.directory, **variables)]
        with running(command, r"(?s)Listening at: http://[\d.]+:(\d+).*Booting", tmp_path / "log") as server:
            wait_until(is_healthy, "the health check passes", 30)
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert get(pod[probe]["httpGet"]["path"]) == "ok\n"
            assert get("/a.txt") == "a"
            assert get("/cgi-bin/who").split() == ["10001", "NoNewPrivs:", "1", "tmp"]
            # what the HorizontalPodAutoscaler asks for, where its annotation says
            [pods] = [each["pods"] for each in scaler["metrics"] if each["type"] == "Pods"]
            value = re.compile(rf"(?m)^{pods['metric']['name']} (\S+)$")
            path = annotations["prometheus.io/path"]
            wait_until(lambda: [float(found) for found in value.findall(get(path))] == [0], "no script runs")
            [gunicorn] = [pid for pid in server.pids() if is_main(pid)]
            os.kill(gunicorn, 15)
            assert server.process.wait(30) == 0


def is_main(pid: int) -> bool:
    """Whether a process is gunicorn's first one: a child of what made the container."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        above = Path(f"/proc/{parent}/cmdline").read_bytes()
        return b"gunicorn" in b"".join(words[1:2]) and b"bwrap" in above
    return False


# -- the compose file


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def test_compose_file_is_one() -> None:
    """By models that were made from the schema of the Compose Specification; a wrong key is seen."""
    compose_pydantic.models.ComposeSpecification(**compose())
    wrong = compose()
    wrong["services"]["m1"]["readonly"] = True
    with pytest.raises(pydantic.ValidationError, match="readonly"):
        compose_pydantic.models.ComposeSpecification(**wrong)


def test_compose_file_fits_the_other_files() -> None:
    """The addresses of haproxy.cfg, the variables it asks for, the paths of the image, files that are there."""
    services = compose()["services"]
    proxy = services.pop("proxy")
    machines = dict(re.findall(r"(?m)^    server (m\d) ([\d.]+):8000$", (DEPLOY / "haproxy.cfg").read_text()))
    assert {name: each["networks"]["inner"]["ipv4_address"] for name, each in services.items()} == machines
    [line] = re.findall(r"(?m)^# On each machine: (.*)$", (DEPLOY / "haproxy.cfg").read_text())
    image = (DEPLOY / "Containerfile").read_text()
    for each in services.values():
        assert f"WSGICGI_TRUSTED_PROXIES={proxy['networks']['inner']['ipv4_address']} " in line
        assert each["environment"]["WSGICGI_TRUSTED_PROXIES"] == proxy["networks"]["inner"]["ipv4_address"]
        assert f"DRAIN={each['environment']['DRAIN']}" in line
        assert "WSGICGI_HEALTH=yes" in line
        assert "WSGICGI_HEALTH=yes" in image
        assert (DEPLOY / each["build"]["context"] / each["build"]["dockerfile"]).samefile(DEPLOY / "Containerfile")
        assert each["volumes"][0].split(":")[-2] in re.findall(r"WSGICGI_DIRECTORY=(\S+)", image)
        assert each["read_only"] and each["tmpfs"] == ["/tmp"]
        assert seconds_to_stop(float(each["environment"]["DRAIN"])) < int(each["stop_grace_period"].removesuffix("s"))
    assert (DEPLOY / proxy["volumes"][0].split(":")[0]).samefile(DEPLOY / "haproxy.cfg")


def seconds_to_stop(drain: float) -> float:
    """How long gunicorn may take to stop, with the default settings."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("WSGICGI_")}
    try:
        return drain + float(runpy.run_path(str(DEPLOY / "gunicorn.conf.py"))["graceful_timeout"])
    finally:
        os.environ.update(kept)


# -- Kubernetes

#: The oldest release that is likely to be met, and the newest that the schemas know.
RELEASES = ["1.27", kubernetes_validate.latest_version()]


def manifests() -> dict[str, dict[str, Any]]:
    """By kind and name."""
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    return {f"{each['kind']} {each['metadata']['name']}": each for each in documents}


@pytest.mark.parametrize("release", RELEASES)
def test_manifests_are_what_the_api_takes(release: str) -> None:
    """By the schemas of the API, strictly: an unknown key is an error."""
    found = manifests()
    kinds = {name.split()[0] for name in found}
    assert kinds == {"Deployment", "Service", "Ingress", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
    for each in found.values():
        kubernetes_validate.validate(each, release, strict=True)
    wrong = copy.deepcopy(found["Deployment wsgicgi"])
    wrong["spec"]["template"]["spec"]["containers"][0]["readinessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, release, strict=True)


def test_manifests_fit_together() -> None:
    """Labels, names and ports that refer to each other; times; variables that are settings."""
    found = manifests()
    deployment = found["Deployment wsgicgi"]["spec"]
    pod = deployment["template"]
    [container] = pod["spec"]["containers"]
    labels = pod["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    assert found["Service wsgicgi"]["spec"]["selector"].items() <= labels.items()
    assert not found["Service wsgicgi-hidden"]["spec"]["selector"].items() <= labels.items()
    assert found["PodDisruptionBudget wsgicgi"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    [port] = container["ports"]
    assert {each["targetPort"] for each in found["Service wsgicgi"]["spec"]["ports"]} == {port["name"]}
    paths = found["Ingress wsgicgi"]["spec"]["rules"][0]["http"]["paths"]
    assert {each["backend"]["service"]["name"] for each in paths} == {"wsgicgi", "wsgicgi-hidden"}
    target = found["HorizontalPodAutoscaler wsgicgi"]["spec"]["scaleTargetRef"]
    assert f"{target['kind']} {target['name']}" in found
    image = (DEPLOY / "Containerfile").read_text()
    assert f"EXPOSE {port['containerPort']}" in image
    assert f"USER {pod['spec']['securityContext']['runAsUser']}:" in image
    assert {each["mountPath"] for each in container["volumeMounts"]} == {"/srv/site", "/tmp"}
    variables = {each["name"]: each["value"] for each in container["env"]}
    ours = {name.removeprefix("WSGICGI_").lower() for name in variables if name.startswith("WSGICGI_")}
    assert ours <= set(setting_names())
    assert seconds_to_stop(float(variables["DRAIN"])) < pod["spec"]["terminationGracePeriodSeconds"]
    unready = container["readinessProbe"]["periodSeconds"] * container["readinessProbe"]["failureThreshold"]
    assert unready < float(variables["DRAIN"])
