#!/usr/bin/env python3
"""Types the documents' shell blocks into a terminal, as somebody does who pastes them.

    python3 tests/documents.py

Each block is valid in bash and in zsh, holds no comment, which an interactive zsh would run, and has nothing behind a command
that asks, which would be taken for the answer. The blocks that set values and that ask for the login are run in a terminal
without bracketed paste, with stand-ins for `aws` and `jq`. A shell that is not there is skipped, and said so.
"""

import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENTS = ["README.md", "README.ja.md", *(f"docs/{name}.md" for name in ("deploy", "deploy.ja", "branches", "branches.ja", "operate", "migrate", "reference", "reference.ja", "unverified"))]
# How each shell is started without anybody's settings, and told not to bracket what is pasted.
SHELLS = {
    "bash": (["--noprofile", "--norc", "-i"], "bind 'set enable-bracketed-paste off' 2>/dev/null\n"),
    "zsh": (["-f", "-i"], "unset zle_bracketed_paste\n"),
}
# They read from the terminal, or may do so.
ASKS = re.compile(r"\bread -|routes push|sam (deploy|delete)|git ls-remote|curl .*--user [^:]*$")
USER, PASSWORD = "robot@example.com", "p:a's\"s/\\s"
OUTPUTS = {
    "Bucket": "sources",
    "Queue": "https://sqs.example.com/q.fifo",
    "DeadLetters": "https://sqs.example.com/d.fifo",
    "AlarmTopic": "arn:aws:sns:ap-northeast-1:123456789012:alarms",
    "WebhookUrl": "https://api.example.com/hooks/TOKEN",
    "ShowToken": "aws secretsmanager get-secret-value --region ap-northeast-1 --secret-id arn:token --query SecretString --output text",
}

AWS = f"""\
#!{sys.executable}
import json, os, pathlib, re, sys
called = sys.argv[1:3]
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
if called == ["cloudformation", "describe-stacks"]:
    print({OUTPUTS!r}[re.search("OutputKey=='(.*)'", options["--query"])[1]])
elif called == ["secretsmanager", "get-secret-value"]:
    assert options["--secret-id"] == "arn:token", options
    print("a-token-of-some-length")
else:
    assert called == ["secretsmanager", "put-secret-value"], sys.argv
    stored = pathlib.Path(options["--secret-string"].removeprefix("file://")).read_text()
    pathlib.Path(os.environ["STORED"]).write_text(json.dumps([options["--secret-id"], stored]))
    print("stored")
"""
JQ = f"""\
#!{sys.executable}
import json, os, sys
assert sys.argv[1:] == ["-n", "{{username: env.BACKLOG_USER, password: env.BACKLOG_PASS}}"], sys.argv
print(json.dumps({{"username": os.environ["BACKLOG_USER"], "password": os.environ["BACKLOG_PASS"]}}))
"""


def check(is_so, text):
    if not is_so:
        raise AssertionError(text)
    print(f"  {text}", flush=True)


def blocks(document):
    """Each shell block, as it is copied from the rendered page."""
    found = re.findall(r"^( *)```sh\n(.*?)^ *```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    return ["".join(line.removeprefix(indent) for line in text.splitlines(True)) for indent, text in found]


def block(document, words):
    (found,) = (each for each in blocks(document) if words in each)
    return found


def commands(text):
    """The lines of a block, with those together that the shell reads before it runs any of them."""
    whole = re.sub(r"\\\n", " ", text)
    whole = re.sub(r"^(\w+\(\) \{|\()\n.*?^(\}|\))$", lambda found: found[0].replace("\n", " "), whole, flags=re.MULTILINE | re.DOTALL)
    whole = re.sub(r"<<'(\w+)'\n.*?^\1$", "<<", whole, flags=re.MULTILINE | re.DOTALL)
    return whole.rstrip("\n").split("\n")


def try_blocks(shells):
    for document in DOCUMENTS:
        found = blocks(document)
        for text in found:
            for shell in shells:
                done = subprocess.run([shell, "-n", "-c", text], capture_output=True, text=True)
                assert done.returncode == 0, f"{document}: {shell}: {done.stderr}{text}"
            lines = commands(text)
            commented = [line for line in lines if re.search(r"(^|\s)#", line)]
            assert not commented, f"{document}: an interactive zsh has no comments: {commented}"
            early = [line for line in lines[:-1] if ASKS.search(line)]
            assert not early, f"{document}: takes the next line for an answer: {early}"
            empty = re.findall(r"(?<![A-Z_$\"{])\b(BUCKET|QUEUE|DEAD_LETTERS|TOPIC|ALARM_TOPIC|HOOK)\b(?!=|[A-Z_\"}])", text)
            assert not empty, f"{document}: {empty} is to be filled in by hand: {text}"
        check(found, f"{document}: {len(found)} blocks")


class Terminal:
    """An interactive shell at a terminal."""

    def __init__(self, shell, folder):
        arguments, setting = SHELLS[shell]
        self.said = ""
        tools = folder / "tools"
        env = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TERM": "dumb",
            "LC_ALL": "C.UTF-8",
            "PS1": "$ ",
            "STORED": str(folder / "stored"),
        }
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.execvpe(shell, [shell, *arguments], env)
        self.type(setting + "echo 'rea''dy'\n")
        self.until("ready")

    def type(self, text):
        os.write(self.terminal, text.encode())

    def until(self, words, seconds=20):
        """Waits for these words, and forgets what came before them."""
        end = time.monotonic() + seconds
        while words not in self.said:
            if not select.select([self.terminal], [], [], max(0, end - time.monotonic()))[0]:
                raise AssertionError(f"{words!r} did not come: {self.said!r}")
            self.said += os.read(self.terminal, 65536).decode(errors="replace")
        before, _, self.said = self.said.partition(words)
        return before

    def until_unseen(self, seconds=20):
        """Waits until nothing that is typed is shown. A person is slower than the shell; this is not."""
        end = time.monotonic() + seconds
        while termios.tcgetattr(self.terminal)[3] & termios.ECHO:
            assert time.monotonic() < end, "what is typed is still shown"
            time.sleep(0.01)

    def close(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


def with_tools(folder):
    (folder / "tools").mkdir()
    for tool, text in (("aws", AWS), ("jq", JQ)):
        (folder / "tools" / tool).write_text(text)
        (folder / "tools" / tool).chmod(0o755)
    return folder


def paste_login(shell, document, text):
    with tempfile.TemporaryDirectory(prefix="backlog-bridge-documents-") as name:
        folder = with_tools(pathlib.Path(name))
        terminal = Terminal(shell, folder)
        try:
            first, second = re.findall(r"printf '(.*?): ' && read", text)
            # The typed text is shown, too. So is its copy by the line editor of a shell; the question stands alone.
            terminal.type(text)
            terminal.until(f"\n{first}: ")
            terminal.type(f"{USER}\n")
            terminal.until(f"{second}: ")
            terminal.until_unseen()
            terminal.type(f"{PASSWORD}\n")
            shown = terminal.until("stored")
            terminal.type("echo \"[$BACKLOG_USER$BACKLOG_PASS]\"\n")
            terminal.until("\n[]")
        finally:
            terminal.close()
        secret, stored = json.loads((folder / "stored").read_text())
        as_typed = json.loads(stored) == {"username": USER, "password": PASSWORD}
        check(secret == "backlog-bridge/git" and as_typed and PASSWORD not in shown, f"{document} in {shell}: the login is stored as it was typed")


def paste_values(shell, document, text):
    with tempfile.TemporaryDirectory(prefix="backlog-bridge-documents-") as name:
        terminal = Terminal(shell, with_tools(pathlib.Path(name)))
        try:
            terminal.type(text)
            terminal.until("\nsources")
            terminal.type("echo \"<$BUCKET|$QUEUE|$DEAD_LETTERS|$TOPIC|$HOOK>\"\n")
            terminal.until("\n<")
            found = terminal.until(">").split("|")
        finally:
            terminal.close()
        expected = [OUTPUTS[name] for name in ("Bucket", "Queue", "DeadLetters", "AlarmTopic")]
        expected.append("https://api.example.com/hooks/a-token-of-some-length")
        check(found == expected, f"{document} in {shell}: {found}")


def main():
    shells = [shell for shell in SHELLS if shutil.which(shell)]
    for shell in SHELLS.keys() - set(shells):
        print(f"skipped: there is no {shell}")
    print("blocks")
    try_blocks(shells)
    print("pasted")
    for document in ("docs/deploy.md", "docs/deploy.ja.md"):
        for shell in shells:
            paste_values(shell, document, block(document, "HOOK="))
            paste_login(shell, document, block(document, "put-secret-value --secret-id backlog-bridge/git"))
    print("every block can be pasted")


if __name__ == "__main__":
    main()
