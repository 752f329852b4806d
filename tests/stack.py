#!/usr/bin/env python3
"""Deploys what a release packs onto ministack, another implementation of AWS, and follows a push through it.

    python3 tests/stack.py [FOLDER]

FOLDER holds the programs `receive` and `deliver`; default: target/release. They are packed as for a release, and deployed in both
ways that docs/deploy.md has for it: `sam deploy`, and `aws cloudformation package` with `deploy`. ministack runs them as Lambda
functions, under the template's own roles: what a role does not allow is refused. Everything listens on loopback, and ends with
this script. What it needs is installed into target/stack; where that cannot be done it prints why, and succeeds.
"""

import base64
import contextlib
import http.client
import http.server
import io
import json
import os
import pathlib
import platform
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
import zipfile

import packages
from templates import documented

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "release"))

import pack

VENV = ROOT / "target" / "stack"
NEEDS = ["ministack", "boto3", "aws-sam-translator", "trustme", "aws-sam-cli", "awscli"]
STACK, REGION, ACCOUNT = "backlog-bridge", "us-east-1", "000000000000"
USER, PASSWORD = "robot@example.com", "p:a@s/s"
ROUTES = """\
[[space]]
name = "here"
url = "{url}"
credentials = "secret:backlog-bridge/git"

# Nobody listens there.
[[space]]
name = "down"
url = "https://127.0.0.1:1/git"

[[route]]
name = "web-main"
space = "here"
repository = "APP/web"
ref = "refs/heads/main"
object = "web/main.zip"

# Its jobs fail until they are given up. The sweep leaves it alone.
[[route]]
name = "unreachable"
space = "down"
repository = "APP/down"
ref = "refs/heads/*"
object = "down/{{ref}}.zip"
"""


# ── What stands in for Backlog ───────────────────────────────────────────────────────────────────────────────────────


class GitServer(http.server.BaseHTTPRequestHandler):
    """`git http-backend` behind TLS and a password, at /git."""

    protocol_version = "HTTP/1.1"
    root = None

    def answer(self, status, headers=(), body=b""):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def handle_request(self):
        body = self.body()
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {login}":
            return self.answer(401, [("WWW-Authenticate", "Basic")])
        url = urllib.parse.urlsplit(self.path)
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": url.path.removeprefix("/git"),
            "QUERY_STRING": url.query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, timeout=30)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = [tuple(line.split(": ", 1)) for line in head.decode().splitlines() if ": " in line]
        status = next((int(value.split()[0]) for name, value in headers if name == "Status"), 200)
        self.answer(status, [(name, value) for name, value in headers if name != "Status"], content)

    do_GET = do_POST = handle_request

    def log_message(self, *_):
        pass


class Repository:
    def __init__(self, folder):
        self.bare = folder / "repositories" / "APP" / "web.git"
        self.work = folder / "work"
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(self.bare), cwd=folder)
        self.git("clone", "--quiet", str(self.bare), str(self.work), cwd=folder)

    @staticmethod
    def git(*arguments, cwd):
        identity = ["-c", "user.name=Robot", "-c", "user.email=robot@example.com"]
        done = subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def push(self, name, text):
        (self.work / name).write_text(text)
        self.git("add", ".", cwd=self.work)
        self.git("commit", "--quiet", "--message", f"Add {name}", cwd=self.work)
        self.git("push", "--quiet", "origin", "HEAD:main", cwd=self.work)
        return self.git("rev-parse", "HEAD", cwd=self.work)


@contextlib.contextmanager
def git_server(folder):
    """Its URL, and the file with the certificate to trust."""
    import trustme

    authority = trustme.CA()
    trusted = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    GitServer.root = folder / "repositories"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), GitServer)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"https://localhost:{server.server_port}/git", trusted
    finally:
        server.shutdown()


# ── What stands in for AWS ───────────────────────────────────────────────────────────────────────────────────────────


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def ministack(folder, trusted):
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "IOT_MTLS_ENABLED": "0",
        # Roles and policies are looked at. The account's own key may do everything.
        "AUTH": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        # The functions inherit these two.
        "AWS_ENDPOINT_URL": endpoint,
        "SSL_CERT_FILE": str(trusted),
    }
    with open(folder / "ministack.log", "wb") as log:
        server = subprocess.Popen(
            [VENV / "bin" / "ministack"], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        wait("ministack answers", 60, lambda: is_healthy(endpoint))
        yield endpoint
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def is_healthy(endpoint):
    try:
        with urllib.request.urlopen(f"{endpoint}/_ministack/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def wait(what, seconds, look):
    """What `look` finds, which is asked until it is something."""
    started = time.monotonic()
    while True:
        if found := look():
            say(f"{what} ({time.monotonic() - started:.1f} s)")
            return found
        if time.monotonic() - started > seconds:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.2)


def say(text):
    print(f"  {text}", flush=True)


def check(is_so, text):
    if not is_so:
        raise AssertionError(text)
    say(text)


# ── The template ─────────────────────────────────────────────────────────────────────────────────────────────────────


def unpacked(folder, programs):
    """What somebody has who unpacked the functions of a release."""
    shared = folder / "shared"
    shared.mkdir()
    (shared / "THIRD-PARTY.txt").write_text("the licences\n")
    architecture = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
    content = pack.zipped(pack.functions(programs, shared, architecture))
    say(f"the functions of a release, for {architecture}: {len(content) / 1e6:.1f} MB")
    release = folder / "release"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(release)
    take_out(release / "template.yaml")
    return release


def take_out(file):
    """What cannot be true here."""
    from samtranslator.yaml_helper import yaml_parse

    template = yaml_parse(file.read_text())
    resources = template["Resources"]
    statements = resources["SourceBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    say("taken out: OnlyOverTls of the bucket, and QueuePolicy, which is the same, because ministack is spoken to without TLS")
    statements[:] = [statement for statement in statements if statement["Sid"] != "OnlyOverTls"]
    del resources["QueuePolicy"]
    say("left in, but without effect: OnlyConditionalWrites, because ministack knows none of its condition keys")
    # JSON is YAML, too.
    file.write_text(json.dumps(template, indent=1))


class Shell:
    """Runs commands of docs/deploy.md."""

    def __init__(self, folder, endpoint):
        self.folder = folder
        self.env = {
            "PATH": f"{VENV / 'bin'}:{os.environ['PATH']}",
            "HOME": str(folder),
            "SAM_CLI_TELEMETRY": "0",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_PAGER": "",
        }

    def run(self, command):
        started = time.monotonic()
        done = subprocess.run(["sh", "-c", command], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        say(f"{command} ({time.monotonic() - started:.1f} s)")


def stack(cloudformation, name):
    """The outputs of a stack that is there, and what is called what."""
    (found,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    resources = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
    check(found["StackStatus"] == "CREATE_COMPLETE", f"{found['StackStatus']}: {len(resources)} resources")
    kinds = sorted({each["ResourceType"].removeprefix("AWS::") for each in resources})
    say(f"their types: {', '.join(kinds)}")
    outputs = {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}
    return outputs, {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources}


def create(cloudformation, name, template, **values):
    """Creates a stack of a template that is small enough to be handed over."""
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=json.dumps(template),
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
    )
    cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    return stack(cloudformation, name)


# ── What must be true ────────────────────────────────────────────────────────────────────────────────────────────────


class Bridge:
    def __init__(self, client, endpoint, outputs, resources):
        self.s3, self.sqs = client("s3"), client("sqs")
        self.endpoint = urllib.parse.urlsplit(endpoint)
        self.api = resources["HttpApi"]
        self.bucket, self.queue, self.dead_letters = outputs["Bucket"], outputs["Queue"], outputs["DeadLetters"]

    def post(self, path, body, content_type):
        """What the API answers, as Backlog would be."""
        connection = http.client.HTTPConnection(self.endpoint.hostname, self.endpoint.port, timeout=30)
        headers = {"Content-Type": content_type}
        connection.request("POST", f"/_aws/execute-api/{self.api}/$default{path}", body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def versions(self, key):
        found = self.s3.list_object_versions(Bucket=self.bucket, Prefix=key)
        return [version["VersionId"] for version in found.get("Versions", []) if version["Key"] == key]

    def commit(self, key):
        try:
            return self.s3.head_object(Bucket=self.bucket, Key=key)["Metadata"].get("git-commit")
        except self.s3.exceptions.ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 404, error
            return None

    def buried(self):
        """Bodies of the messages in the dead-letter queue."""
        found = self.sqs.receive_message(QueueUrl=self.dead_letters, MaxNumberOfMessages=10, VisibilityTimeout=0)
        return [message["Body"] for message in found.get("Messages", [])]


def git_webhook(before, after, url):
    """The body of a Git webhook: the one in events/, with the commits of today."""
    body = json.loads((ROOT / "events" / "git-push-update.json").read_text())
    body |= {"before": before, "after": after, "ref": "refs/heads/main"}
    body["repository"]["url"] = f"{url}/APP/web"
    body["revisions"] = [body["revisions"][0] | {"id": after}]
    return urllib.parse.urlencode({"payload": json.dumps(body)}).encode()


def follow(client, endpoint, folder, url):
    programs = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "target" / "release"
    print("deploy")
    release = unpacked(folder, programs)
    shell = Shell(release, endpoint)
    shell.run(f"{documented('docs/deploy.md', 'sam deploy --parameter-overrides')} --no-confirm-changeset")
    outputs, resources = stack(client("cloudformation"), STACK)
    bridge = Bridge(client, endpoint, outputs, resources)

    print("configure")
    bridge.s3.put_object(Bucket=bridge.bucket, Key="config/routes.toml", Body=ROUTES.format(url=url).encode())
    say(f"routing table: {outputs['RoutingTable']}")
    secrets = client("secretsmanager")
    login = json.dumps({"username": USER, "password": PASSWORD})
    secrets.put_secret_value(SecretId=outputs["GitSecret"], SecretString=login)
    command = outputs["ShowToken"].split()
    secret = command[command.index("--secret-id") + 1]
    say("the token is stored anew: ministack puts punctuation into a generated one, whatever the template says")
    secrets.put_secret_value(SecretId=secret, SecretString="a-first-token-that-is-long-enough")
    token = secrets.get_random_password(PasswordLength=40, ExcludePunctuation=True)["RandomPassword"]
    secrets.put_secret_value(SecretId=secret, SecretString=token)

    print("a wrong token")
    form = "application/x-www-form-urlencoded"
    for path in ("/hooks/" + "x" * 40, "/"):
        answer = bridge.post(path, b"payload={}", form)
        check(answer == (404, {"error": "not found"}), f"{path}: {answer[0]} {answer[1]}")

    answer = bridge.post("/hooks/a-first-token-that-is-long-enough", b"payload={}", form)
    check(answer[0] == 400, f"the token before this one is valid: {answer[0]} {answer[1]}")

    print("a pipeline")
    starts = deploy_pipeline(client, bridge.bucket, "web/main.zip", outputs["AlarmTopic"])

    print("a webhook")
    repository = Repository(folder)
    first = repository.push("README.md", "Hello\n")
    answer = bridge.post(f"/hooks/{token}", git_webhook("0" * 40, first, url), form)
    check(answer == (202, {"accepted": ["web-main"]}), f"{answer[0]} {answer[1]}")
    wait("the object holds the commit", 60, lambda: bridge.commit("web/main.zip") == first)
    second = repository.push("日本.txt", "こんにちは\n")
    answer = bridge.post(f"/hooks/{token}", git_webhook(first, second, url), form)
    check(answer == (202, {"accepted": ["web-main"]}), f"{answer[0]} {answer[1]}")
    wait("the object holds the next commit", 60, lambda: bridge.commit("web/main.zip") == second)
    archive = bridge.s3.get_object(Bucket=bridge.bucket, Key="web/main.zip")
    with zipfile.ZipFile(io.BytesIO(archive["Body"].read())) as file:
        check(sorted(file.namelist()) == ["README.md", "日本.txt"], f"version {archive['VersionId']}: {file.namelist()}")
    check(archive["Metadata"]["git-ref"] == "refs/heads/main", f"metadata: {archive['Metadata']}")
    held = bridge.versions("web/main.zip")

    bridge.s3.put_object(Bucket=bridge.bucket, Key="web/main.zip.txt", Body=b"another key")
    wait("the rule starts the pipeline for both versions", 10, lambda: count(bridge.sqs, starts) == 2)

    print("jobs that nobody can handle")
    # So that five attempts take no half an hour.
    bridge.sqs.set_queue_attributes(QueueUrl=bridge.queue, Attributes={"VisibilityTimeout": "5"})
    bridge.sqs.send_message(QueueUrl=bridge.queue, MessageBody="poison", MessageGroupId="g", MessageDeduplicationId="1")
    lost = json.dumps({"route": "unreachable", "repository": "APP/down", "ref": "refs/heads/main"})
    bridge.sqs.send_message(QueueUrl=bridge.queue, MessageBody=lost, MessageGroupId="h", MessageDeduplicationId="2")
    # Before the queue itself would give it up.
    wait("what is no job is among the dead letters at once", 15, lambda: "poison" in bridge.buried())

    print("the sweep")
    third = repository.push("sweep.txt", "nobody told\n")
    say("a push without a webhook")
    scheduler = client("scheduler")
    name = resources["Sweep"].rsplit("/")[-1]
    schedule = scheduler.get_schedule(Name=name)
    check(schedule["ScheduleExpression"] == "rate(15 minutes)", f"{schedule['ScheduleExpression']}: {schedule['Target']}")
    kept = {key: schedule[key] for key in ("Name", "FlexibleTimeWindow", "Target")}
    scheduler.update_schedule(**kept, ScheduleExpression="rate(1 minute)")
    say("for this test: rate(1 minute)")
    wait("the object holds the commit that nobody told of", 120, lambda: bridge.commit("web/main.zip") == third)
    check(len(bridge.versions("web/main.zip")) == len(held) + 1, "one more version")

    wait("the rule starts the pipeline", 10, lambda: count(bridge.sqs, starts) == 3)

    print("a job that fails for the fifth time")
    # It waited for the server that gives no answer, and says so.
    wait("it is among the dead letters", 180, lambda: any('"route":"unreachable"' in body for body in bridge.buried()))

    print("the log")
    show_log(client)

    print("results")
    try_results(client, bridge.bucket, outputs["AlarmTopic"])

    print("the other parameters")
    try_other_parameters(client, shell)


def count(sqs, queue):
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
    return int(attributes["ApproximateNumberOfMessages"])


def deploy_pipeline(client, bucket, key, topic):
    """pipeline.yaml as far as ministack goes. The queue that is told instead of the pipeline."""
    from samtranslator.yaml_helper import yaml_parse

    queue = client("sqs").create_queue(QueueName="instead-of-the-pipeline")["QueueUrl"]
    template = yaml_parse((ROOT / "pipeline.yaml").read_text())
    say("taken out: the pipeline, because ministack knows none; the rule tells a queue instead")
    for name in ("Pipeline", "PipelineRole", "NewVersionRole", "Failed"):
        del template["Resources"][name]
    target = {"Id": "queue", "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:instead-of-the-pipeline"}
    template["Resources"]["NewVersion"]["Properties"]["Targets"] = [target]
    template["Outputs"] = {}
    values = {"SourceBucket": bucket, "ObjectKey": key, "AlarmTopicArn": topic}
    create(client("cloudformation"), "web-main", template, **values)
    return queue


def try_results(client, bucket, topic):
    """results.yaml as far as ministack goes: what its rules put on its queue."""
    from samtranslator.yaml_helper import yaml_parse

    template = yaml_parse((ROOT / "results.yaml").read_text())
    del template["Transform"]
    say("taken out: the function, because there is no Backlog and ministack knows no pipelines; OnlyOverTls")
    for name in ("Results", "ResultsFromQueue", "ResultsErrorsAlarm", "ResultsFailuresAlarm", "QueuePolicy"):
        del template["Resources"][name]
    say("the rules listen to sources of our own, because nobody may put events of AWS's")
    for name in ("Pipelines", "Builds"):
        pattern = template["Resources"][name]["Properties"]["EventPattern"]
        pattern["source"] = [source.replace("aws.", "test.") for source in pattern["source"]]
    values = {"SourceBucket": bucket, "AlarmTopicArn": topic}
    outputs, _ = create(client("cloudformation"), f"{STACK}-results", template, **values)
    detail = {"pipeline": "web-main", "execution-id": "e1", "version": 3.0}
    kind = "CodePipeline Pipeline Execution State Change"
    events = [
        {"Source": "test.codepipeline", "DetailType": kind, "Detail": json.dumps(detail | {"state": state})}
        for state in ("STARTED", "STOPPING", "SUCCEEDED")
    ]
    build = {"project-name": "web-branches", "build-id": "arn:x:build/web-branches:b1", "build-status": "FAILED"}
    for initiator in ("codepipeline/web-main", "backlog-bridge-starter"):
        more = {"additional-information": {"initiator": initiator}}
        events.append({"Source": "test.codebuild", "DetailType": "CodeBuild Build State Change", "Detail": json.dumps(build | more)})
    answer = client("events").put_events(Entries=events)
    check(answer["FailedEntryCount"] == 0, f"{len(events)} events are put")
    sqs, seen = client("sqs"), []

    def three():
        got = sqs.receive_message(QueueUrl=outputs["Queue"], MaxNumberOfMessages=10, AttributeNames=["All"]).get("Messages", [])
        for message in got:
            seen.append((message["Attributes"].get("MessageGroupId"), json.loads(message["Body"])))
            sqs.delete_message(QueueUrl=outputs["Queue"], ReceiptHandle=message["ReceiptHandle"])
        return len(seen) >= 3

    wait("three of them are on the queue", 20, three)
    groups, bodies = {group for group, _ in seen}, [body for _, body in seen]
    check(groups == {"results"}, f"all are in one group: {groups}")
    told = sorted((body.get("pipeline") or body.get("project"), body["state"]) for body in bodies)
    check(told == [("web-branches", "FAILED"), ("web-main", "STARTED"), ("web-main", "SUCCEEDED")], f"{told}")


def try_other_parameters(client, shell):
    """A second bridge beside the first, with all that is left empty there."""
    extra = [f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{name}" for name in ("partner-a1b2c3", "other-d4e5f6")]
    key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd"
    client("s3").create_bucket(Bucket="code")
    shell.run(documented("docs/deploy.md", "aws cloudformation package").replace("YOUR_BUCKET", "code"))
    values = {
        "GitSecretName": "second/git",
        "ExtraGitSecrets": ",".join(extra),
        "AllowedIps": "192.0.2.0/24,198.51.100.7/32",
        "ExistingBucket": "code",
        "BucketKmsKeyArn": key,
        "ExtraBuckets": "releases,partner-sources",
        "ObjectKeys": "'bridge/*.zip'",
        "DeliverTimeout": "900",
        "SweepMinutes": "60",
    }
    deploy = documented("docs/deploy.md", "aws cloudformation deploy --stack-name backlog-bridge --template-file packaged.yaml")
    deploy = deploy.replace("YOUR_BUCKET", "code")
    deploy = deploy.replace("--stack-name backlog-bridge", "--stack-name second")
    shell.run(f"{deploy} {' '.join(f'{name}={value}' for name, value in values.items())}")
    _, resources = stack(client("cloudformation"), "second")
    check("SourceBucket" not in resources, "an existing bucket: none is created, and no policy is written")
    functions, iam, sqs = client("lambda"), client("iam"), client("sqs")
    variables = functions.get_function_configuration(FunctionName="second-receive")["Environment"]["Variables"]
    check(variables["ALLOWED_IPS"] == "192.0.2.0/24,198.51.100.7/32", f"ALLOWED_IPS: {variables['ALLOWED_IPS']}")
    attributes = sqs.get_queue_attributes(QueueUrl=resources["Queue"], AttributeNames=["VisibilityTimeout"])["Attributes"]
    check(attributes["VisibilityTimeout"] == "960", "900 s for a delivery: a message is invisible for 960 s")
    policy = iam.get_role_policy(RoleName=resources["DeliverRole"], PolicyName="deliver")["PolicyDocument"]
    found = {statement["Sid"]: statement["Resource"] for statement in policy["Statement"]}
    for sid, expected in {
        "ExtraGitLogins": extra,
        "Objects": "arn:aws:s3:::code/bridge/*.zip",
        "ObjectsOfExtraBuckets": ["arn:aws:s3:::releases/*", "arn:aws:s3:::partner-sources/*"],
        "MissingIsNotForbiddenInExtraBuckets": ["arn:aws:s3:::releases", "arn:aws:s3:::partner-sources"],
        "EncryptedObjects": key,
    }.items():
        check(found[sid] == expected, f"{sid}: {found[sid]}")


def show_log(client):
    """The metrics that alarms watch are in the log as alarms name them."""
    logs, cloudwatch = client("logs"), client("cloudwatch")
    text, lines = "", []
    for name in ("receive", "deliver"):
        for event in logs.filter_log_events(logGroupName=f"/aws/lambda/{STACK}-{name}")["events"]:
            text += event["message"]
            with contextlib.suppress(json.JSONDecodeError):
                lines += [json.loads(part) for part in event["message"].splitlines() if part.startswith("{")]
    seen = set()
    for line in lines:
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", []):
            for dimensions in directive["Dimensions"]:
                for metric in directive["Metrics"]:
                    seen.add((directive["Namespace"], metric["Name"], *((name, line[name]) for name in dimensions)))
    check(lines and "not authorized" not in text, f"{len(lines)} lines of JSON, and no call was refused")
    watched = set()
    for alarm in cloudwatch.describe_alarms()["MetricAlarms"]:
        of = [each["MetricStat"]["Metric"] for each in alarm.get("Metrics", []) if "MetricStat" in each] or [alarm]
        for metric in of:
            if metric.get("Namespace") == "BacklogBridge":
                dimensions = ((each["Name"], each["Value"]) for each in metric["Dimensions"])
                watched.add((metric["Namespace"], metric["MetricName"], *dimensions))
    for metric in sorted(seen & watched):
        say(f"watched by an alarm: {metric}")
    drift = ("BacklogBridge", "SweepDrift", ("function", f"{STACK}-deliver"))
    failures = ("BacklogBridge", "PermanentFailures", ("function", f"{STACK}-deliver"))
    check({drift, failures} <= seen & watched, "the sweep and the poison were counted where alarms look")


def main():
    packages.inside(VENV, "ministack", NEEDS)
    import boto3

    missing = [program for program in ("git",) if shutil.which(program) is None]
    if missing:
        print(f"skipped: there is no {missing[0]}")
        return
    with tempfile.TemporaryDirectory(prefix="backlog-bridge-stack-") as name:
        folder = pathlib.Path(name)
        with git_server(folder) as (url, trusted), ministack(folder, trusted) as endpoint:

            def client(service):
                return boto3.client(
                    service,
                    endpoint_url=endpoint,
                    region_name=REGION,
                    aws_access_key_id="test",
                    aws_secret_access_key="test",
                )

            try:
                follow(client, endpoint, folder, url)
            except BaseException:
                print("what ministack and the functions said:")
                print("".join((folder / "ministack.log").read_text(errors="replace").splitlines(True)[-60:]))
                raise
    print("the stack works")


if __name__ == "__main__":
    main()
