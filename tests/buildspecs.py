#!/usr/bin/env python3
"""Runs each example of examples/buildspec as CodeBuild would, on the archive that the bridge makes of it.

    python3 tests/buildspecs.py [PROGRAM]

PROGRAM is `backlog-bridge`; default: target/debug/backlog-bridge. The example becomes a repository, `sync` delivers it into
the embedded S3, the archive is unpacked, and the phases run in one shell. `aws` and `docker` are small stand-ins: the first
answers from the embedded S3, the second only looks at what it is told. Any phase that fails, fails this. What it needs is
installed into target/buildspecs; where that cannot be done it prints why, and succeeds.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
import zipfile

import packages

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / "target" / "buildspecs"
EXAMPLES = {"docker": ["docker", "jq"], "node": ["node", "npm", "jq"], "python": ["jq"]}
PHASES = ["install", "pre_build", "build", "post_build"]
REGISTRY = "123456789012.dkr.ecr.ap-northeast-1.amazonaws.com"

AWS = """\
#!{python}
import json, os, pathlib, sys
if sys.argv[1:3] == ["ecr", "get-login-password"]:
    print("a-password")
    sys.exit()
assert sys.argv[1:3] == ["s3api", "head-object"], sys.argv
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
assert options.pop("--query") == "Metadata" and options.pop("--output") == "json", sys.argv
folder = pathlib.Path(os.environ["STORE"], options.pop("--bucket"), options.pop("--key"))
wanted = options.pop("--version-id")
assert not options, options
for record in folder.glob("@*/version.json"):
    record = json.loads(record.read_text())
    if record["version_id"] == wanted:
        print(json.dumps(record["content"]["metadata"]))
        sys.exit()
sys.exit("An error occurred (404) when calling the HeadObject operation: Not Found")
"""

DOCKER = """\
#!{python}
import json, os, pathlib, sys
log = pathlib.Path(os.environ["DOCKER_LOG"])
calls = json.loads(log.read_text()) if log.exists() else []
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
if sys.argv[1] == "login":
    assert sys.stdin.read().strip() == "a-password"
    assert sys.argv[2:] == ["--username", "AWS", "--password-stdin", "{registry}"], sys.argv
elif sys.argv[1] == "build":
    assert sys.argv[-1] == "." and pathlib.Path("Dockerfile").exists()
    calls.append(["build", options["--tag"], options["--build-arg"]])
elif sys.argv[1] == "push":
    assert sys.argv[2] in [call[1] for call in calls], "pushed before it was built"
    calls.append(["push", sys.argv[2]])
else:
    sys.exit("docker: " + sys.argv[1])
log.write_text(json.dumps(calls))
"""


class Delivered:
    """An example as the bridge delivers it."""

    def __init__(self, program, example, folder):
        self.folder, self.store = folder, folder / "store"
        repository = folder / "repositories" / "APP" / f"{example}.git"
        work = folder / "work"
        shutil.copytree(ROOT / "examples" / "buildspec" / example, work)
        git = ["git", "-c", "user.name=Robot", "-c", "user.email=robot@example.com"]
        subprocess.run([*git, "init", "--quiet", "--initial-branch=main"], cwd=work, check=True)
        subprocess.run([*git, "add", "."], cwd=work, check=True)
        subprocess.run([*git, "commit", "--quiet", "--message", "Say \"hello\" & more"], cwd=work, check=True)
        subprocess.run([*git, "clone", "--quiet", "--bare", ".", str(repository)], cwd=work, check=True)
        routes = folder / "routes.toml"
        routes.write_text(
            f'[[space]]\nurl = "file://{folder}/repositories"\n[[route]]\nrepository = "APP/{example}"\n'
            f'ref = "refs/heads/main"\nobject = "{example}/main.zip"\n'
        )
        sync = [program, "sync", "--routes", str(routes), "--store", str(self.store)]
        done = subprocess.run(sync, cwd=folder, check=True, capture_output=True, text=True)
        line = json.loads(done.stdout)
        self.bucket, self.key, self.commit = line["bucket"], line["object_key"], line["commit"]
        self.version = line["version_id"]
        (archive,) = (self.store / self.bucket / self.key).glob("@*/main.zip")
        self.archive = archive

    def unpacked(self, name):
        source = self.folder / name
        with zipfile.ZipFile(self.archive) as file:
            file.extractall(source)
        return source


def run(spec, folder, source, variables, tools):
    """The phases, one after the other in one shell. The exit status, and the phase that failed. What is exported lies beside it."""
    script = ["fail() { echo \"phase $1 failed: $2\" >&2; exit 1; }"]
    for phase in PHASES:
        for number, command in enumerate(spec["phases"].get(phase, {}).get("commands", []), 1):
            script += [command, f"[ $? -eq 0 ] || fail {phase} 'command {number}'"]
    script.append('env -0 >"$HOME/exported"')
    env = variables | {"PATH": f"{tools}:{VENV / 'bin'}:{os.environ['PATH']}", "HOME": str(folder)}
    # What CodeBuild uses unless the buildspec says otherwise.
    return subprocess.run(["sh", "-c", "\n".join(script)], cwd=source, env=env, capture_output=True, text=True, timeout=300)


def exported(spec, folder):
    """What a pipeline, or who looks at the build, can read of it."""
    variables = dict(each.split("=", 1) for each in (folder / "exported").read_text().split("\0") if each)
    return {name: variables[name] for name in spec["env"]["exported-variables"]}


def check(example, delivered, source, spec):
    """What a build leaves behind is what the buildspec promised, and knows its commit."""
    found = exported(spec, delivered.folder)
    expected = {"COMMIT_ID": delivered.commit, "GIT_REF": "refs/heads/main", "GIT_AUTHOR": "Robot", "COMMIT_MESSAGE": 'Say "hello" & more'}
    assert found == expected, found
    print(f"  exported: {found}")
    promised = [(spec["artifacts"].get("base-directory", "."), pattern) for pattern in spec["artifacts"]["files"]]
    for group in spec.get("reports", {}).values():
        promised += [(group["base-directory"], pattern) for pattern in group["files"]]
        report = xml.etree.ElementTree.parse(source / group["base-directory"] / group["files"][0])
        cases = [case.get("name") for case in report.getroot().iter("testcase")]
        assert cases, "the report is empty"
        print(f"  report: {cases}")
    for folder, pattern in promised:
        found = [str(path.relative_to(source)) for path in (source / folder).glob(pattern) if path.is_file()]
        assert found, f"nothing matches {pattern} in {folder}"
        print(f"  {pattern}: {sorted(found)}")
    if example == "docker":
        image = f"{REGISTRY}/web:{delivered.commit[:7]}"
        calls = json.loads((delivered.folder / "docker.json").read_text())
        assert calls == [["build", image, f"COMMIT_ID={delivered.commit}"], ["push", image]], calls
        definitions = json.loads((source / "imagedefinitions.json").read_text())
        assert definitions == [{"name": "web", "imageUri": image}], definitions
        print(f"  image: {image}")
    elif example == "node":
        version = json.loads((source / "dist" / "version.json").read_text())
        expected = {"commit": delivered.commit, "ref": "refs/heads/main", "message": "Say \"hello\" & more"}
        assert version == expected, version
        print(f"  version.json: {version}")
    else:
        said = subprocess.run([sys.executable, source / "dist" / "app.pyz"], capture_output=True, text=True, check=True)
        assert said.stdout == f"Hello, api {delivered.commit}\n", said.stdout
        print(f"  says: {said.stdout.strip()}")


def main():
    packages.inside(VENV, "PyYAML", ["pyyaml", "pytest"])
    import yaml

    program = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/debug/backlog-bridge").resolve()
    for example, needs in EXAMPLES.items():
        with tempfile.TemporaryDirectory(prefix="backlog-bridge-buildspec-") as name:
            folder = pathlib.Path(name)
            tools = folder / "tools"
            tools.mkdir()
            for tool, text in (("aws", AWS), ("docker", DOCKER)):
                (tools / tool).write_text(text.format(python=sys.executable, registry=REGISTRY))
                (tools / tool).chmod(0o755)
            missing = [need for need in needs if not shutil.which(need, path=f"{tools}:{os.environ['PATH']}")]
            if missing:
                print(f"{example}: skipped: there is no {missing[0]}")
                continue
            delivered = Delivered(program, example, folder)
            print(f"{example}: version {delivered.version} holds {delivered.commit}")
            source = delivered.unpacked("source")
            spec = yaml.safe_load((source / "buildspec.yml").read_text())
            variables = {
                "CODEBUILD_RESOLVED_SOURCE_VERSION": delivered.version,
                "SOURCE_BUCKET": delivered.bucket,
                "SOURCE_KEY": delivered.key,
                "IMAGE_REPOSITORY": f"{REGISTRY}/web",
                "CONTAINER_NAME": "web",
                "STORE": str(delivered.store),
                "DOCKER_LOG": str(folder / "docker.json"),
            }
            done = run(spec, folder, source, variables, tools)
            if done.returncode:
                sys.exit(f"{done.stdout}{done.stderr}{example}: the build failed")
            check(example, delivered, source, spec)
            # Without the commit, nothing may be built.
            other = delivered.unpacked("other")
            variables["CODEBUILD_RESOLVED_SOURCE_VERSION"] = "no-such-version"
            refused = run(spec, folder, other, variables, tools)
            assert refused.returncode == 1 and "phase pre_build failed" in refused.stderr, refused
            print("  of a version that is not there: phase pre_build fails")
    print("every example builds")


if __name__ == "__main__":
    main()
