#!/usr/bin/env python3
"""From nothing to a deployed bridge with a browser alone, as docs/deploy.md has it.

    python3 tests/cloudshell.py PROGRAM

Every command of "From a browser alone", of "From a release", and the deployment is typed into one shell, as in CloudShell, against
ministack. It keeps CodeBuild's projects and runs no builds: what a build would do is done here, in the source that it would get,
with PROGRAM, a `backlog-bridge` for this machine, and with texts in place of the functions. What is deployed is the last commit.
Everything listens on loopback. Where ministack cannot be had, it prints why, and succeeds.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import zipfile

import packages
import stack
from release import here
from stack import REGION, check, say, take_out

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENT = (ROOT / "docs" / "deploy.md").read_text()


def blocks(title):
    """The shell blocks of a section of docs/deploy.md."""
    section = DOCUMENT.split(f"### {title}\n", 1)[1].split("\n### ", 1)[0]
    found = re.findall(r"^ *```sh\n(.*?)^ *```", section, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for block in found]


class CloudShell:
    """A bash that lives from one block to the next, as somebody's who pastes them."""

    def __init__(self, folder, env):
        self.bash = subprocess.Popen(
            ["bash", "-e"], cwd=folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        # It gives up where the shell would wait for ever.
        self.end = threading.Timer(300, self.bash.kill)
        self.end.start()

    def paste(self, block):
        """What it prints."""
        started = time.monotonic()
        print("".join(f"  $ {line}\n" for line in block.splitlines()), end="", flush=True)
        # What a command reads is not what is pasted after it.
        self.bash.stdin.write(f"{{ {block}\n}} </dev/null\necho; echo pasted\n")
        self.bash.stdin.flush()
        said = ""
        for line in self.bash.stdout:
            if line == "pasted\n":
                say(f"({time.monotonic() - started:.1f} s)")
                return said.strip()
            said += line
        raise AssertionError(f"it ended:\n{said}")

    def close(self):
        self.end.cancel()
        self.bash.kill()
        self.bash.wait()


def source(folder):
    """The clone, and what cannot be true here."""
    from samtranslator.yaml_helper import yaml_parse

    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", folder], check=True)
    template = yaml_parse((folder / "build.yaml").read_text())
    say("taken out: BucketPolicy, because ministack is spoken to without TLS")
    del template["Resources"]["BucketPolicy"]
    (folder / "build.yaml").write_text(json.dumps(template))


def build(project, s3, program, folder):
    """What the project's build would do, but for the compiler's work."""
    bucket, key = project["source"]["location"].split("/", 1)
    place, programs, out = folder / "codebuild", folder / "programs", folder / "built"
    s3.download_file(bucket, key, str(folder / "source.zip"))
    with zipfile.ZipFile(folder / "source.zip") as archive:
        archive.extractall(place)
    command = re.search(r"bash release/make.sh (.*)", project["source"]["buildspec"])[1]
    check(command == here(), f"the build makes: {command}")
    (programs / here()).mkdir(parents=True)
    for name in ("receive", "deliver", "results"):
        (programs / here() / name).write_text(f"stands in for {name}\n")
    shutil.copy(program, programs / here())
    subprocess.run(["bash", "release/assemble.sh", programs, out], cwd=place, check=True, stdout=subprocess.DEVNULL)
    say("instead of CodeBuild: release/assemble.sh in the source that it would get, with programs that are there")
    with zipfile.ZipFile(folder / "built.zip", "w") as archive:
        for file in sorted(out.iterdir()):
            archive.write(file, file.name)
    s3.upload_file(str(folder / "built.zip"), project["artifacts"]["location"], project["artifacts"]["name"])
    # The same from the repository itself.
    again = folder / "again"
    subprocess.run(["bash", "release/assemble.sh", programs, again], cwd=folder / "source", check=True, stdout=subprocess.DEVNULL)
    same = (out / "SHA256SUMS").read_bytes() == (again / "SHA256SUMS").read_bytes()
    check(same, "the source without its repository gives the same bytes")


def follow(client, endpoint, folder, program):
    source(folder / "source")
    env = stack.Shell(folder, endpoint).env
    env |= {"LANG": "C.UTF-8", "PATH": f"{folder}/.local/bin:{env['PATH']}"}
    shell = CloudShell(folder / "source", env)
    try:
        make, start, ask, fetch = blocks("From a browser alone")
        print("the project, and the source")
        shell.paste(make)
        print("the build")
        shell.paste(start)
        said = shell.paste(ask)
        check(said.endswith("SUCCEEDED"), said)
        (project,) = client("codebuild").batch_get_projects(names=["backlog-bridge-build"])["projects"]
        build(project, client("s3"), program, folder)
        shell.paste(fetch)
        print("as from a release")
        (unpack,) = blocks("From a release")
        said = shell.paste(unpack)
        check(said.count(": OK\n") == 3, "SHA256SUMS: three files are OK")
        said = shell.paste("backlog-bridge --version")
        check(said.startswith("backlog-bridge "), said)
        take_out(folder / "source" / "built" / "functions" / "template.yaml")
        print("the bridge")
        shell.paste("cd functions")
        shell.paste(f"{stack.documented('docs/deploy.md', 'sam deploy --parameter-overrides')} --no-confirm-changeset")
        print("the routing table")
        (table,) = re.findall(r"^ *```toml\n(.*?)^ *```", DOCUMENT, re.MULTILINE | re.DOTALL)
        shell.paste(f"cat >routes.toml <<'END'\n{textwrap.dedent(table)}END\n")
        said = shell.paste("backlog-bridge routes push --stack backlog-bridge --yes")
        bucket = stack.stack(client("cloudformation"), stack.STACK)[0]["Bucket"]
        stored = client("s3").get_object(Bucket=bucket, Key="config/routes.toml")["Body"].read().decode()
        check(stored == textwrap.dedent(table), said.splitlines()[-1])
    finally:
        shell.close()


def main():
    packages.inside(stack.VENV, "ministack", stack.NEEDS)
    import boto3

    program = pathlib.Path(sys.argv[1]).resolve()
    if here() != "linux-x86_64" or shutil.which("unzip") is None:
        print("skipped: CloudShell is linux-x86_64, with unzip")
        return
    with tempfile.TemporaryDirectory(prefix="backlog-bridge-cloudshell-") as name:
        folder = pathlib.Path(name)
        (folder / "none.pem").touch()
        with stack.ministack(folder, folder / "none.pem") as endpoint:

            def client(service):
                return boto3.client(
                    service, endpoint_url=endpoint, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test"
                )

            follow(client, endpoint, folder, program)
    print("a browser is enough")


if __name__ == "__main__":
    main()
