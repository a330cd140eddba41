"""The steps of `deploy/Dockerfile` without a container: in a folder that stands for the root of the image.

python -m tests.deploy.image

It takes the steps, which install packages by pip, and serves as the image does: as a user without rights. Then it
checks the health, sends a message, and looks for what the server has written. Only root can run it.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from docker.utils.build import exclude_paths  # type: ignore[import-not-found, import-untyped, unused-ignore]

from tests.ports import free_port
from tests.serving import ROOT
from tests.waiting import eventually

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
PYTHON = Path("/usr/bin/python3")
"""The system's Python in place of the base image's: the user of the image may execute it."""

_ABSOLUTE = re.compile(r"(?<![\w.}-])/(?=(?:opt|var|keys|src|app)\b)")
"""The slash of a path that the Dockerfile itself makes."""


def instructions() -> Iterator[tuple[str, str]]:
    """The instructions in order: name and argument."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, argument = line.strip().partition(" ")
            yield name, argument.strip()


def variables() -> dict[str, str]:
    """The variables that the image gives every process."""
    env: dict[str, str] = {}
    for name, argument in instructions():
        match name:
            case "FROM":
                env = {}
            case "ENV":
                env |= dict(pair.split("=", 1) for pair in argument.split())
    return env


def sent() -> set[str]:
    """The files of the checkout that are sent to the builder, as .dockerignore says."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    return {path for path in exclude_paths(str(ROOT), patterns) if (ROOT / path).is_file()}


@dataclass
class Image:
    """What the steps have made. `root` is the folder that stands for `/`."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    working: str = "/"
    user: str = ""
    entrypoint: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def build(self) -> None:
        """Take all steps."""
        self.inside("/usr/bin").mkdir(parents=True)
        self.inside("/usr/bin/python").symlink_to(PYTHON)
        files = sent()
        for name, argument in instructions():
            match name:
                case "FROM":
                    self.working, self.env = "/", {}
                case "WORKDIR":
                    self.working = argument
                    self.inside(argument).mkdir(parents=True, exist_ok=True)
                case "COPY" if not argument.startswith("--from="):
                    *sources, target = argument.split()
                    self._copy(files, sources, target)
                case "RUN":
                    command = ["sh", "-ec", self.moved(argument)]
                    subprocess.run(command, cwd=self.inside(self.working), env=self._build_env(), check=True)
                case "ENV":
                    self.env |= dict(pair.split("=", 1) for pair in argument.split())
                case "USER":
                    self.user = argument
                case "ENTRYPOINT":
                    self.entrypoint = json.loads(argument)
                case "HEALTHCHECK":
                    self.health = json.loads(argument.partition("CMD ")[2])
                case "COPY" | "EXPOSE":
                    pass
                case _:
                    raise ValueError(f"the instruction {name} is new: see what it means here")

    def inside(self, path: str) -> Path:
        """Where a path of the image is."""
        return self.root / path.lstrip("/")

    def moved(self, text: str) -> str:
        """A text whose paths of the image are those below `root`."""
        return _ABSOLUTE.sub(f"{self.root}/", text)

    def variables(self) -> dict[str, str]:
        """The environment of a process in the image."""
        path = f"{self.inside('/opt/jimsapi/bin')}:{os.environ['PATH']}"
        own = {name: self.moved(value) for name, value in self.env.items() if name != "PATH"}
        return {"PATH": path, **own}

    def serve(self) -> None:
        """Serve, and check that the server is healthy and answers, and writes its database and nothing else."""
        port = free_port()
        env = {**self.variables(), "JIMS_HOST": "127.0.0.1", "JIMS_PORT": str(port), "JIMS_METRICS_PORT": "0"}
        env["JIMS_STORE"] = f"sqlite:///{self.inside('/var/lib/jimsapi')}/jims.db"  # the image names no store
        user, group = map(int, self.user.split(":"))
        command = [self.inside("/opt/jimsapi/bin") / self.entrypoint[0]]
        health = [part.replace("8080", str(port)) for part in self.health]
        with subprocess.Popen(
            command, cwd=self.inside(self.working), env=env, user=user, group=group, extra_groups=[]
        ) as served:
            try:
                eventually(lambda: subprocess.run(health, env=env, check=False, capture_output=True).returncode == 0)
                message = {"contact_id": "ann", "message": "hi"}
                answer = httpx.post(f"http://127.0.0.1:{port}/api/v1/chat", json=message, trust_env=False)
                assert answer.json()["assistant_messages"] == ["You said: hi"]
            finally:
                served.send_signal(signal.SIGTERM)
                assert served.wait(30) == 0
        data = self.inside("/var/lib/jimsapi")
        assert (data / "jims.db").stat().st_mode & 0o777 == 0o600
        assert {path for path in owned_by(self.root, user) if not path.is_relative_to(data)} == {self.inside("/keys")}

    def _build_env(self) -> dict[str, str]:
        """The environment of a step: the variables of this machine, such as pip's, and the image's Python."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("JIMS_", "PYTHON"))}
        return {**clean, **self.env, "PATH": f"{self.inside('/usr/bin')}:{os.environ['PATH']}"}

    def _copy(self, files: set[str], sources: list[str], target: str) -> None:
        to = self.inside(target) if target.startswith("/") else self.inside(self.working) / target
        for source in sources:
            found = sorted(path for path in files if path == source or path.startswith(f"{source}/"))
            if not found:
                raise FileNotFoundError(f"the builder does not get {source}")
            for path in found:
                into = to / Path(path).relative_to(source) if path != source else to
                if path == source and target.endswith("/"):
                    into = to / Path(path).name
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / path, into)


def owned_by(folder: Path, user: int) -> Iterator[Path]:
    """What belongs to a user, below a folder."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.lstat().st_uid == user:
                yield path


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="image-") as folder:
        Path(folder).chmod(0o755)  # the user of the image has to reach it
        image = Image(Path(folder).resolve())
        image.build()
        image.serve()
        size = sum(path.lstat().st_size for path in image.inside("/opt/jimsapi").rglob("*")) / 2**20
    print(f"The image serves as user {image.user}, and is healthy. /opt/jimsapi has {size:.0f} MiB.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
