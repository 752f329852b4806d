#!/usr/bin/env python3
"""What the programs are made of: a list of components (SBOM), and their licences.

    python3 release/inventory.py FOLDER [TARGET...]

Writes FOLDER/sbom.cdx.json (CycloneDX 1.5) and FOLDER/THIRD-PARTY.txt: what cargo compiles into the programs for these targets,
what tests and build scripts use left out. Default: the targets of a release. Fails where a component has no licence, or comes
without its text and the text is none of those that we know.
"""

import hashlib
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGETS = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "x86_64-apple-darwin", "aarch64-apple-darwin"]
TEXTS = re.compile(r"^(un)?licen[cs]e|^copying|^notice|^copyright", re.IGNORECASE)


def cargo(*arguments):
    done = subprocess.run(["cargo", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def compiled(target):
    """Names and versions of what is compiled into the programs for a target, and which use which."""
    tree = cargo("tree", "--locked", "--edges=normal,no-proc-macro", "--target", target, "--prefix=depth", "--no-dedupe", "--format= {p}")
    uses, above = {}, []
    for line in tree.splitlines():
        depth, name, version = re.match(r"(\d+) (\S+) v(\S+)", line).groups()
        del above[int(depth) :]
        uses.setdefault((name, version), set())
        if above:
            uses[above[-1]].add((name, version))
        above.append((name, version))
    return uses


def components(targets):
    """Each component with what cargo knows of it, without ourselves; and which use which."""
    uses = {}
    for target in targets:
        for component, used in compiled(target).items():
            uses.setdefault(component, set()).update(used)
    metadata = json.loads(cargo("metadata", "--locked", "--format-version=1"))
    packages = {(each["name"], each["version"]): each for each in metadata["packages"]}
    lock = (ROOT / "Cargo.lock").read_text()
    locked = re.findall(r'^name = "(.*)"\nversion = "(.*)"\nsource = .*\nchecksum = "(.*)"$', lock, re.MULTILINE)
    sums = {(name, version): checksum for name, version, checksum in locked}
    found = {component: packages[component] | {"checksum": sums.get(component)} for component in sorted(uses)}
    return found, uses


def purl(component):
    return "pkg:cargo/{}@{}".format(*component)


def sbom(found, uses):
    """CycloneDX, without a time and a random number, so that the same source gives the same bytes."""

    def described(component, package):
        described = {
            "type": "library",
            "bom-ref": purl(component),
            "name": component[0],
            "version": component[1],
            "licenses": [{"expression": package["license"].replace("/", " OR ")}],
            "purl": purl(component),
        }
        if package["checksum"]:
            described["hashes"] = [{"alg": "SHA-256", "content": package["checksum"]}]
        if package["repository"]:
            described["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
        return described

    (ours,) = (component for component, package in found.items() if package["source"] is None)
    all_described = {component: described(component, package) for component, package in found.items()}
    main = all_described.pop(ours) | {"type": "application"}
    edges = [{"ref": purl(component), "dependsOn": sorted(map(purl, uses[component]))} for component in found]
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": main},
        "components": list(all_described.values()),
        "dependencies": edges,
    }
    return json.dumps(bom, indent=1) + "\n"


def texts(package):
    """The licence texts that a package brings."""
    folder = pathlib.Path(package["manifest_path"]).parent
    there = sorted(path for path in folder.iterdir() if path.is_file() and TEXTS.match(path.name))
    return [path.read_text(errors="replace").replace("\r\n", "\n").strip() + "\n" for path in there]


def licences(found):
    """Each text once, with what it is the text of."""
    lines = ["What the programs of backlog-bridge are made of, and under which licences.", ""]
    of_text, bare = {}, []
    for component, package in found.items():
        if package["source"] is None:
            continue
        assert package["license"], f"{component} has no licence"
        lines.append(f"{component[0]} {component[1]}: {package['license']}")
        of_package = texts(package)
        for text in of_package:
            of_text.setdefault(text, []).append(component)
        if not of_package:
            bare.append((component, package["license"], package["authors"]))
    # Some bring no text. Theirs is then ours: the same two licences.
    for component, licence, _ in bare:
        choices = set(re.split(r" OR |/", licence))
        assert choices & {"MIT", "Apache-2.0"}, f"{component} brings no text of {licence}"
    lines += ["", "The Rust standard library: MIT OR Apache-2.0", ""]
    lines += ["Without a text of their own; see LICENSE-MIT and LICENSE-APACHE beside this file:", ""]
    for (name, version), licence, authors in bare:
        lines.append(f"{name} {version}: {licence}{', by ' if authors else ''}{', '.join(authors)}")
    text = "\n".join(lines) + "\n"
    for content, of in sorted(of_text.items(), key=lambda each: each[1]):
        names = ", ".join(f"{name} {version}" for name, version in of)
        text += f"\n{'=' * 100}\n{names}\n{'=' * 100}\n\n{content}"
    return text


def main():
    folder = pathlib.Path(sys.argv[1])
    found, uses = components(sys.argv[2:] or TARGETS)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("sbom.cdx.json", sbom(found, uses)), ("THIRD-PARTY.txt", licences(found))):
        (folder / name).write_text(text)
        print(f"{name}: {len(found) - 1} components, {len(text.encode())} bytes, {hashlib.sha256(text.encode()).hexdigest()[:16]}")


if __name__ == "__main__":
    main()
