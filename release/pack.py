#!/usr/bin/env python3
"""Packs what a release holds, from programs that are built.

    python3 release/pack.py PROGRAMS OUT

PROGRAMS has a folder for each system, as release/programs.sh fills it, and the folder `shared`: completions, manual pages,
licences, the list of components. The same files give the same bytes: names are sorted, times are those of the commit, and
nobody owns them.
"""

import gzip
import hashlib
import io
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import time
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAME = "backlog-bridge"
# What both the command line's archive and the functions' have.
TEXTS = ["CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "routes.example.toml"]
# The templates whose functions are built already: which program each is.
FUNCTIONS = {"template.yaml": {"Receive": "receive", "Deliver": "deliver"}, "results.yaml": {"Results": "results"}}
ARCHITECTURES = ["x86_64", "arm64"]


# The first instant that a zip can hold, in seconds since 1970.
EARLIEST = 315532800
# That of the commit, where this is no repository: `git archive` writes it here, as .gitattributes says.
COMMITTED = "$Format:%ct$"


def version():
    return re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]


def moment():
    """The time that everything in an archive has, in seconds since 1970: that of the commit, if there is one."""
    given = os.environ.get("SOURCE_DATE_EPOCH") or COMMITTED
    if not given.isdigit():
        given = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True).stdout
    return max(int(given or 0), EARLIEST)


# -- Archives -------------------------------------------------------------------------------------------------------------


def zipped(files):
    """A zip of files: name, content, and whether it can be run."""
    out = io.BytesIO()
    when = time.gmtime(moment())[:6]
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, (content, is_program) in sorted(files.items()):
            info = zipfile.ZipInfo(name, when)
            info.create_system = 3
            info.external_attr = (0o100755 if is_program else 0o100644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content, compresslevel=9)
    return out.getvalue()


def tarred(files, folder):
    """A tar of files below a folder, compressed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, (content, is_program) in sorted(files.items()):
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size, info.mtime, info.mode = len(content), moment(), 0o755 if is_program else 0o644
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(out.getvalue(), compresslevel=9, mtime=0)


def read(folder, *names):
    return {name: ((folder / name).read_bytes(), False) for name in names}


def below(folder):
    """All files of a folder, by their path in it."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), False) for path in paths}


# -- The command line -----------------------------------------------------------------------------------------------------


def command_line(programs, shared):
    files = read(ROOT, *TEXTS, "README.md", "README.ja.md") | read(shared, "THIRD-PARTY.txt")
    files |= {f"{folder}/{name}": each for folder in ("completions", "man") for name, each in below(shared / folder).items()}
    files |= read(ROOT / "release", f"{NAME}.service")
    return files | {NAME: ((programs / NAME).read_bytes(), True)}


# -- The functions --------------------------------------------------------------------------------------------------------


def packaged_template(template, architecture):
    """A template for programs that are built: it says where they lie, and for which processor they are."""
    text = (ROOT / template).read_text()
    for logical, name in FUNCTIONS[template].items():
        # In the template's own words, so that its comments stay. Each replacement must fit exactly once.
        resource = re.compile(rf"(^  {logical}:\n(?:    .*\n|\n)*?)(    Metadata:\n(?:      .*\n)+)", re.MULTILINE)
        text, count = resource.subn(r"\1", text)
        assert count == 1, f"{logical} has no Metadata"
        code = re.compile(rf"(^  {logical}:\n(?:    .*\n|\n)*?      CodeUri: )\.$", re.MULTILINE)
        text, count = code.subn(rf"\g<1>{name}.zip", text)
        assert count == 1, f"{logical} has no CodeUri"
    parameter = re.compile(r"(^  Architecture:\n    Type: String\n)    Default: .*\n    AllowedValues: .*\n", re.MULTILINE)
    text, count = parameter.subn(rf"\1    Default: {architecture}\n    AllowedValues: [{architecture}]\n", text)
    assert count == 1, "the parameter Architecture is another one"
    return text


def settings(architecture):
    """samconfig.toml for what is built already."""
    text = (ROOT / "samconfig.toml").read_text()
    text, count = re.subn(r'(parameter_overrides = "Architecture=)\w+"', rf'\g<1>{architecture}"', text)
    assert count == 2, "samconfig.toml is another one"
    return text


def functions(programs, shared, architecture):
    files = read(ROOT, *TEXTS, "pipeline.yaml", "branches.yaml") | read(shared, "THIRD-PARTY.txt")
    files |= {f"examples/{name}": each for name, each in below(ROOT / "examples").items()}
    for template in FUNCTIONS:
        files[template] = packaged_template(template, architecture).encode(), False
    files["samconfig.toml"] = settings(architecture).encode(), False
    for name in (name for names in FUNCTIONS.values() for name in names.values()):
        files[f"{name}.zip"] = zipped({"bootstrap": ((programs / name).read_bytes(), True)}), False
    return files


# -------------------------------------------------------------------------------------------------------------------------


def main():
    programs, out = map(pathlib.Path, sys.argv[1:])
    shared = programs / "shared"
    out.mkdir(parents=True, exist_ok=True)
    release = f"{NAME}-{version()}"
    made = {f"{release}.cdx.json": (shared / "sbom.cdx.json").read_bytes()}
    for folder in sorted(path for path in programs.iterdir() if path != shared):
        system, architecture = folder.name.split("-")
        name = f"{release}-{folder.name}"
        made[f"{name}.tar.gz"] = tarred(command_line(folder, shared), name)
        if system == "linux":
            made[f"{release}-functions-{architecture}.zip"] = zipped(functions(folder, shared, architecture))
    sums = ""
    for name, content in sorted(made.items()):
        (out / name).write_bytes(content)
        sums += f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        print(f"{name}: {len(content) / 1e6:.1f} MB")
    (out / "SHA256SUMS").write_text(sums)


if __name__ == "__main__":
    main()
