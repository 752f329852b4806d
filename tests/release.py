#!/usr/bin/env python3
"""What a release holds is whole, and the same bytes each time.

    python3 tests/release.py PROGRAM    packs a release twice, of this program and stand-ins for the others
    python3 tests/release.py FOLDER     looks at a release that is made

PROGRAM is `backlog-bridge` for this machine. Nothing is built.
"""

import hashlib
import io
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SYSTEMS = ["linux-x86_64", "linux-arm64", "macos-x86_64", "macos-arm64"]


def check(is_so, text):
    if not is_so:
        raise AssertionError(text)
    print(f"  {text}", flush=True)


def here():
    """This machine, as a release calls it."""
    system = {"Linux": "linux", "Darwin": "macos"}[platform.system()]
    return f"{system}-{ {'aarch64': 'arm64'}.get(platform.machine(), platform.machine())}"


def made_of(program, folder):
    """A release of this program, and of texts where others would be."""
    programs = folder / "programs"
    for system in SYSTEMS:
        (programs / system).mkdir(parents=True)
        for name in ["backlog-bridge"] + ["receive", "deliver", "results"] * system.startswith("linux"):
            (programs / system / name).write_text(f"stands in for {name} on {system}\n")
    shutil.copy(program, programs / here() / "backlog-bridge")
    # As it comes from another machine.
    (programs / here() / "backlog-bridge").chmod(0o644)
    out = folder / "files"
    subprocess.run(["bash", ROOT / "release" / "assemble.sh", programs, out], check=True, stdout=subprocess.DEVNULL)
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Archive:
    """What is in an archive: content by name, and which can be run."""

    def __init__(self, name, content):
        self.name, self.files, self.programs, times = name, {}, set(), set()
        if name.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                names = archive.namelist()
                for info in archive.infolist():
                    self.files[info.filename] = archive.read(info)
                    times.add(info.date_time)
                    if info.external_attr >> 16 & 0o111:
                        self.programs.add(info.filename)
        else:
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                names = archive.getnames()
                for info in archive.getmembers():
                    folder, path = info.name.split("/", 1)
                    assert folder == name.removesuffix(".tar.gz"), f"{name}: {info.name} lies elsewhere"
                    assert (info.uid, info.gid, info.uname) == (0, 0, ""), f"{name}: somebody owns {path}"
                    self.files[path] = archive.extractfile(info).read()
                    times.add(info.mtime)
                    if info.mode & 0o111:
                        self.programs.add(path)
        assert names == sorted(names) and len(names) == len(set(names)), f"{name}: not in order"
        assert len(times) == 1, f"{name}: more than one time"

    def has(self, names):
        lacks = names - self.files.keys()
        check(not lacks, f"{self.name}: {', '.join(sorted(names))}" if not lacks else f"{self.name} lacks {lacks}")


def commands(program):
    said = subprocess.run([program, "--help"], check=True, capture_output=True, text=True).stdout
    names = re.findall(r"^  (\w+) ", said.split("Commands:\n", 1)[1].split("\n\n", 1)[0], re.MULTILINE)
    return set(names) - {"help"}


def try_command_line(archive, version, folder):
    archive.has({"LICENSE-MIT", "LICENSE-APACHE", "THIRD-PARTY.txt", "README.md", "README.ja.md", "routes.example.toml", "backlog-bridge.service"})
    archive.has({"completions/backlog-bridge.bash", "completions/_backlog-bridge", "completions/backlog-bridge.fish"})
    check(archive.programs == {"backlog-bridge"}, f"{archive.name}: backlog-bridge alone can be run")
    if not archive.name.endswith(f"-{here()}.tar.gz"):
        return
    place = folder / "unpacked"
    for name, content in archive.files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    program = place / "backlog-bridge"
    program.chmod(0o755)
    said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    check(said == f"backlog-bridge {version}\n", f"it is {said.strip()}")
    pages = {name.removeprefix("man/man1/") for name in archive.files if name.startswith("man/")}
    wanted = {"backlog-bridge.1"} | {f"backlog-bridge-{name}.1" for name in commands(program)}
    check(wanted <= pages, f"manual pages: {', '.join(sorted(pages))}")
    # Typed, and completed as by the Tab key.
    script = (
        f"source {place}/completions/backlog-bridge.bash\n"
        "[[ $(complete -p backlog-bridge) =~ -F\\ ([^ ]+) ]] && COMP_WORDS=(backlog-bridge sy) COMP_CWORD=1\n"
        "\"${BASH_REMATCH[1]}\" backlog-bridge sy backlog-bridge && echo \"${COMPREPLY[@]}\""
    )
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    check(said.stdout == "sync\n", f"bash completes `sy` to {said.stdout.strip() or said.stderr}")


def try_functions(archive):
    architecture = re.search(r"-functions-(\w+)\.zip", archive.name)[1]
    archive.has({"template.yaml", "pipeline.yaml", "branches.yaml", "results.yaml", "samconfig.toml", "routes.example.toml", "LICENSE-MIT", "LICENSE-APACHE", "THIRD-PARTY.txt"})
    template = archive.files["template.yaml"].decode()
    both = template + archive.files["results.yaml"].decode()
    code = re.findall(r"^      CodeUri: (\S+)$", both, re.MULTILINE)
    check(code == ["receive.zip", "deliver.zip", "results.zip"], f"{archive.name}: its functions are {code}")
    for name in code:
        function = Archive(name, archive.files[name])
        check(function.programs == function.files.keys() == {"bootstrap"}, f"{archive.name}: {name} has a bootstrap that can be run")
    # With it, SAM would want to build, and find no source.
    check("BuildMethod" not in both, f"{archive.name}: there is nothing to build")
    only = f"    Default: {architecture}\n    AllowedValues: [{architecture}]\n"
    settings = archive.files["samconfig.toml"].decode()
    chosen = set(re.findall(r"Architecture=(\w+)", settings))
    check(only in template and chosen == {architecture}, f"{archive.name}: for {architecture} alone")
    # More cannot be handed over to CloudFormation without a bucket.
    check(len(template) <= 51200, f"{archive.name}: the template has {len(template)} bytes")


def try_documented(files, folder, version):
    """The commands of docs/deploy.md, beside the files of a release."""
    if here() != "linux-x86_64" or shutil.which("unzip") is None:
        print("  skipped: what docs/deploy.md says is for linux-x86_64, with unzip")
        return
    (block,) = re.findall(r"^```sh\n(sha256sum .*?)^```", (ROOT / "docs" / "deploy.md").read_text(), re.MULTILINE | re.DOTALL)
    place = folder / "downloads"
    shutil.copytree(files, place)
    env = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    for line in block.splitlines():
        subprocess.run(["bash", "-c", line], cwd=place, env=env, check=True, stdout=subprocess.DEVNULL)
    said = subprocess.run(["bash", "-c", "~/.local/bin/backlog-bridge --version"], env=env, capture_output=True, text=True).stdout
    check(said == f"backlog-bridge {version}\n", f"as docs/deploy.md unpacks it: {said.strip()}")
    check((place / "functions" / "template.yaml").exists(), "and the functions are in their folder")


def try_image():
    """What the sources include is among what the Dockerfile copies."""
    copied = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    included = set()
    for file in (ROOT / "src").rglob("*.rs"):
        for path in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', file.read_text()):
            included.add(os.path.relpath(file.parent / path, ROOT))
    lacks = {path for path in included if path.split("/")[0] not in copied}
    check(included and not lacks, f"the image's source lacks {', '.join(sorted(lacks)) or 'nothing'} of {len(included)} included files")


def try_inventory(bom, archives):
    names = {(each["name"], each["version"]) for each in bom["components"]}
    for archive in archives:
        text = archive.files["THIRD-PARTY.txt"].decode()
        named = set(re.findall(r"^(\S+) (\d+\.\d+\.\d+\S*): ", text.split("The Rust standard library", 1)[0], re.MULTILINE))
        assert named == names, f"{archive.name}: {named ^ names}"
    crates = {name for name, _ in names}
    check({"gix", "rustls", "aws-lc-sys", "aws-sdk-s3"} <= crates, f"{len(names)} components, each with its licence in every archive")
    check(not {"insta", "proptest", "rcgen", "cc", "syn"} & crates, "what only builds and tests use is not among them")
    edges = {each["ref"]: each["dependsOn"] for each in bom["dependencies"]}
    root = bom["metadata"]["component"]["bom-ref"]
    reached, open_ = set(), [root]
    while open_:
        if (ref := open_.pop()) not in reached:
            reached.add(ref)
            open_ += edges[ref]
    check(reached == {root} | {each["bom-ref"] for each in bom["components"]}, "each is used by another one")


def look(folder):
    files = contents(folder)
    sums = dict(reversed(line.split("  ")) for line in files.pop("SHA256SUMS").decode().splitlines())
    check(sums == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}, f"SHA256SUMS: {len(sums)} files")
    (version,) = {re.match(r"backlog-bridge-(\d+\.\d+\.\d+)[-.]", name)[1] for name in files}
    (bom,) = (json.loads(content) for name, content in files.items() if name.endswith(".cdx.json"))
    check(bom["metadata"]["component"]["version"] == version, f"all is {version}")
    archives = [Archive(name, content) for name, content in sorted(files.items()) if not name.endswith(".json")]
    with tempfile.TemporaryDirectory(prefix="backlog-bridge-release-") as temporary:
        for archive in archives:
            if "-functions-" in archive.name:
                try_functions(archive)
            else:
                try_command_line(archive, version, pathlib.Path(temporary))
        try_documented(folder, pathlib.Path(temporary), version)
    try_inventory(bom, archives)
    return {archive.name.split(version, 1)[1].split(".")[0].lstrip("-") for archive in archives}


def main():
    given = pathlib.Path(sys.argv[1]).resolve()
    if given.is_dir():
        look(given)
        print("the release is whole")
        return
    try_image()
    with tempfile.TemporaryDirectory(prefix="backlog-bridge-release-") as temporary:
        folder = pathlib.Path(temporary)
        first = made_of(given, folder / "first")
        # Another place, another hour, another user's settings.
        os.umask(0o077)
        time.sleep(2.1)
        second = made_of(given, folder / "second")
        differ = {name for name, content in contents(first).items() if content != contents(second).get(name)}
        check(not differ, f"packed twice, other bytes: {', '.join(sorted(differ)) or 'none'}")
        there = look(first)
        check(there == {*SYSTEMS, "functions-x86_64", "functions-arm64"}, f"it has {', '.join(sorted(there))}")
    print("a release can be packed")


if __name__ == "__main__":
    main()
