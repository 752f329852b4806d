#!/usr/bin/env python3
"""What branches.yaml does, without AWS.

    python3 tests/branches.py [PROGRAM]

PROGRAM is `backlog-bridge`; default: target/debug/backlog-bridge. The template's own function runs against stand-ins for S3 and
CodeBuild, in virtual time: pushes come in any order, events get lost, builds take their time. The table of docs/branches.md is
compared with the policies. Then the stack is deployed onto ministack, and a push to `feature/x` is followed through `serve` to
what the build is told, and to the build itself. What it needs is installed into target/stack; where that cannot be done it
prints why, and succeeds.
"""

import collections
import contextlib
import io
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile

import buildspecs
import packages
import stack
from codebuild import CodeBuild
from stack import check, say, wait
from templates import PSEUDO, Template
from virtual import BUCKET, PREFIX, PROJECT, SWEEP, World

ROOT = pathlib.Path(__file__).resolve().parent.parent
REGION, ACCOUNT = stack.REGION, stack.ACCOUNT
HOUR, DAY = 3600, 24 * 3600
LOOK_BACK = 3 * DAY
# All that Git and S3 take in a name and that means something to a shell, to JSON, to XML, to a URL or to IAM.
ODD = ["a\"b", "a'b", "a$(id)b", "a`id`b", "a;b", "a&b", "a|b", "a<b>c", "a(b)", "a{b}", "a#b", "a%20b", "a!b", "a+b", "a=b", "a,b", "機能/ログイン", "é"]
# All of them in one, with commands that a shell must not run.
ODDEST = "feature/a\"b'c$(touch${IFS}harm)`touch${IFS}harm`;d&e|f<g>h(i){j}#k%20l!m+n=o,p-機能"


# -- What must be true, in virtual time -----------------------------------------------------------------------------------


def try_many():
    world = World()
    for number in range(500):
        world.push(f"feature/{number}")
    began = world.now
    world.run(DAY)
    check(len(world.built()) == len(set(world.built())) == 500, "500 branches at once: each is built, once")
    ends = max(build["endTime"] for build in world.codebuild.builds) - began
    check(world.most_at_once == 5, f"no more than {world.most_at_once} ran at once; the last ended after {ends / HOUR:.1f} h of builds of 3 minutes")
    worst = max(line["OldestBranchWait"] for line in world.lines)
    check(worst > 2 * HOUR and world.lines[-1]["OldestBranchWait"] == 0, f"meanwhile the oldest waited for {worst / HOUR:.1f} h, and the alarm was on")
    looks = len(world.lines)
    say(f"{looks} looks, {len(world.codebuild.calls) / looks:.1f} calls of CodeBuild each")
    refusals = sum(len(line["refused"]) for line in world.lines)
    check(not refusals, "nothing was refused: it does not ask for more than there may be")

    world = World(account=2)
    for number in range(20):
        world.push(f"feature/{number}")
    world.run(DAY)
    refusals = [text for line in world.lines for text in line["refused"].values()]
    check(len(set(world.built())) == 20 and refusals, f"an account that gives 2: all 20 are built; it said {refusals[0]!r}")

    world = World(sweeps=False)
    for number in range(1200):
        world.s3.put(f"{PREFIX}old/{number}.zip")
    world.run(LOOK_BACK)
    world.push("feature/x")
    world.sweep()
    world.run(HOUR)
    check(world.built() == [world.newest("feature/x")], "a new stack beside 1,200 branches of last week builds none of them")


def try_newer():
    world = World(build_seconds=lambda key: 1800)
    first = world.push("feature/x")
    other = world.push("feature/y")
    world.run(300)
    second = world.push("feature/x")
    world.run(60)
    state = {build["sourceVersion"]: build["buildStatus"] for build in world.codebuild.builds}
    check(state == {first: "STOPPED", other: "IN_PROGRESS", second: "IN_PROGRESS"}, f"a newer push stops the build of the older one: {state}")
    for _ in range(4):
        third = world.push("feature/x")
    world.run(2 * HOUR)
    check(world.built()[3:] == [third], "four pushes in a second are one build, of the last")
    by_hand = {"projectName": PROJECT, "sourceLocationOverride": f"{BUCKET}/{PREFIX}feature/x.zip", "sourceVersion": first}
    build = world.codebuild.StartBuild(by_hand)["build"]
    world.run(HOUR)
    check(build["buildStatus"] in ("SUCCEEDED", "FAILED"), "a build of an older version that somebody starts by hand is not stopped")
    world.s3.put(f"{PREFIX}feature/x.zip", deleted=True)
    world.event()
    world.run(HOUR)
    check(len(world.built()) == 5, "an object that was deleted is not built")

    # Between the two lists of a look, a version is written, and somebody has it built.
    world = World(sweeps=False)
    world.push("feature/x")
    world.run(HOUR)
    lists = set()

    def between(request):
        kind = str(request.headers.get("X-Amz-Target", "objects"))
        if ("ListBuilds" in kind or kind == "objects") and kind not in lists and (lists.add(kind) or len(lists) == 2):
            world.s3.put(f"{PREFIX}feature/x.zip")
            variable = {"name": "SOURCE_ETAG", "value": world.s3.of[f"{PREFIX}feature/x.zip"][0]["ETag"]}
            given = {"projectName": PROJECT, "sourceLocationOverride": f"{BUCKET}/{PREFIX}feature/x.zip", "sourceVersion": "v"}
            world.codebuild.StartBuild(given | {"environmentVariablesOverride": [variable]})

    world.between = between
    world.message()
    world.run(HOUR)
    check(len(lists) == 2 and not any(line["stopped"] for line in world.lines), "a build that somebody starts in the middle of a look is not stopped")

    # While 5 long builds run, two branches wait; the first pushes once more.
    world = World(build_seconds=lambda key: 1800)
    for number in range(5):
        world.push(f"long/{number}")
    world.run(60)
    for branch in ("a", "b", "a"):
        world.push(branch)
        world.run(10)
    world.run(2 * HOUR)
    check(world.built()[5:] == [world.newest("b"), world.newest("a")], "who waits and pushes again is built once, and goes to the end")


def try_lost():
    world = World()
    world.lost = lambda: True
    version = world.push("feature/x")
    world.run(SWEEP + 10)
    check(world.built() == [version], "every event is lost: the next sweep finds the branch")
    for number in range(12):
        world.push(f"feature/{number}")
    world.run(4 * SWEEP)
    check(len(set(world.built())) == 13, "and those that wait, 5 a sweep")

    world = World(sweeps=False)
    world.push("feature/x")
    world.run(HOUR)
    world.load()
    world.message()
    world.run(HOUR)
    check(len(world.built()) == 1, "a process that starts anew knows what was built, too")


def try_odd():
    world = World(refuses=lambda location: "refused" in location)
    for branch in ("refused", *ODD):
        world.push(branch)
    world.s3.put("other/x.zip")
    world.s3.put("config/routes.toml")
    world.run(2 * HOUR)
    check(set(world.built()) == {world.newest(branch) for branch in ODD}, f"{len(ODD)} odd names are built: {' '.join(ODD)}")
    told = {key: build["environment"]["environmentVariables"][1] for key, build in ((build["source"]["location"], build) for build in world.codebuild.builds)}
    check(all(variable == {"name": "SOURCE_KEY", "value": key.removeprefix(f"{BUCKET}/"), "type": "PLAINTEXT"} for key, variable in told.items()), "each build is told its key as it is")
    last = world.lines[-1]
    check(last["refused"] == {f"{PREFIX}refused.zip": "Invalid source location"}, f"one that CodeBuild refuses keeps nobody waiting: {last['refused']}")
    check(last["OldestBranchWait"] > HOUR, "and the alarm comes on for it")

    world = World(ExceptKeys="web/main.zip,web/other.zip")
    for branch in ("main", "other", "x"):
        world.push(branch)
    world.run(HOUR)
    check(world.built() == [world.newest("x")], "ExceptKeys are not built")


def try_loop():
    world = World(BuildsPerDay="20")
    world.codebuild.ended = lambda build: (world.push("loop"), world.event()) if "loop" in build["source"]["location"] else world.event()
    world.push("loop")
    world.push("feature/x")
    world.run(DAY)
    check(len(world.built()) == 21, "a build that pushes to its own branch: 20 builds in 24 hours, and the other branch was built")
    refused = world.lines[-1]["refused"]
    check(refused == {f"{PREFIX}loop.zip": "20 builds in 24 hours"}, f"it says {refused}")
    world.run(DAY)
    check(len(world.built()) <= 42, f"{len(world.built()) - 1} in 48 hours")


def try_any_order(seed):
    """Random hours. Whatever happened: once it is quiet, and one sweep is over, what is newest was built."""
    random.seed(seed)
    world = World(limit=random.choice([1, 3, 5]), build_seconds=lambda key: random.uniform(20, 900))
    branches = [f"b{number}" for number in range(random.choice([2, 12]))]
    world.lost, world.codebuild.lag = lambda: random.random() < 0.3, random.choice([0, 8])
    # Pushes in the middle of a look, between any two of its requests.
    world.between = lambda request: world.push(random.choice(branches)) if random.random() < 0.02 else None
    for _ in range(random.randint(20, 60)):
        world.after(random.uniform(0, 3 * HOUR), lambda: world.push(random.choice(branches)))
        world.after(random.uniform(0, 3 * HOUR), world.load) if random.random() < 0.2 else None
    world.run(3 * HOUR)
    world.between = lambda request: None
    world.run(12 * HOUR)
    counts = collections.Counter(world.built())
    pushed = [branch for branch in branches if world.s3.of[f"{PREFIX}{branch}.zip"]]
    missing = [branch for branch in pushed if not counts[world.newest(branch)]]
    assert not missing and world.waits() == 0, f"seed {seed}: not built: {missing}"
    assert max(counts.values()) == 1, f"seed {seed}: built twice"
    assert world.most_at_once <= world.limit, f"seed {seed}: {world.most_at_once} at once"
    stopped = {build["sourceVersion"] for build in world.codebuild.builds if build["buildStatus"] == "STOPPED"}
    wrong = [branch for branch in pushed if world.newest(branch) in stopped]
    assert not wrong, f"seed {seed}: the build of the newest version was stopped: {wrong}"
    return len(world.built()), len(stopped), sum(len(of) for of in world.s3.of.values())


def try_orders(mornings):
    totals = [sum(column) for column in zip(*(try_any_order(seed) for seed in range(mornings)))]
    check(totals[1] > mornings, f"{mornings} random mornings: {totals[2]} pushes, {totals[0]} builds, {totals[1]} of them stopped; always the newest, once, never too many")


def try_history():
    """A thousand pushes a day, of a hundred branches, for a week."""
    world = World(sweeps=False)
    for number in range(7000):
        world.now += DAY / 1000
        world.s3.put(key := f"{PREFIX}b{number % 100}.zip")
        etag = world.s3.of[key][0]["ETag"]
        variables = {"SOURCE_KEY": key, "SOURCE_ETAG": etag}
        given = {"projectName": PROJECT, "sourceLocationOverride": f"{BUCKET}/{key}", "sourceVersion": etag}
        build = world.codebuild.StartBuild(given | {"environmentVariablesOverride": [{"name": name, "value": value} for name, value in variables.items()]})
        build["build"]["buildStatus"] = "SUCCEEDED"
    world.steps.clear()
    asked = []
    for _ in range(2):
        before = len(world.codebuild.calls)
        world.message()
        world.run(60)
        asked.append(len(world.codebuild.calls) - before)
    check(not world.lines[-1]["started"] and asked[0] < 65 and asked[1] < 33, f"7,000 builds in a week: a look asks CodeBuild {asked[0]} times, {asked[1]} in a process that looked before")


# -- What a build may do --------------------------------------------------------------------------------------------------


def fits(pattern, text):
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text, re.DOTALL) is not None


def listed(value):
    return value if isinstance(value, list) else [value]


def applies(statement, action, resource, context):
    """Whether a statement of a policy is about this. Of its conditions, those that these templates have."""

    def about(name, text):
        if name in statement:
            return any(fits(each, text) for each in listed(statement[name]))
        return not any(fits(each, text) for each in listed(statement[f"Not{name}"]))

    for operator, wanted in statement.get("Condition", {}).items():
        for key, values in wanted.items():
            is_equal = context.get(key) in listed(values)
            if is_equal != {"StringEquals": True, "StringNotEquals": False}[operator]:
                return False
    return about("Action", action) and about("Resource", resource)


def decision(policy, action, resource, context):
    """The first statement that denies, or else allows, or None."""
    for effect in ("Deny", "Allow"):
        for statement in policy["Statement"]:
            if statement["Effect"] == effect and applies(statement, action, resource, context):
                return effect, statement["Sid"]
    return None


def try_rights():
    template = Template("branches.yaml", PROJECT, SourceBucket=BUCKET, KeyPrefix="web/branches/", SourceKmsKeyArn="arn:aws-us-gov:kms:ap-northeast-1:123456789012:key/of-sources")
    policies = {}
    for role, properties in template.of_type("AWS::IAM::Role").items():
        (policies[role],) = (template.resolve(each["PolicyDocument"]) for each in properties["Policies"])
        check("ManagedPolicyArns" not in properties, f"{role} has no managed policy")
    names = {"ARTIFACTS": template.physical("Artifacts")[0], "arn:aws:": f"arn:{PSEUDO['AWS::Partition']}:"}
    for document in ("docs/branches.md", "docs/branches.ja.md"):
        rows = re.findall(r"^\|[^|]+\| `([a-z0-9-]+:[A-Za-z]+)` \| `([^`]+)` \| ([^|]+) \|$", (ROOT / document).read_text(), re.MULTILINE)
        seen = collections.Counter()
        for action, resource, verdict in rows:
            for short, long in names.items():
                resource = resource.replace(short, long)
            (sid,) = re.findall(r"`(\w+)`", verdict)
            effect = "Deny" if sid in {each["Sid"] for each in policies["BuildRole"]["Statement"] if each["Effect"] == "Deny"} else "Allow"
            # As a call of its own, and not as one of S3's.
            found = decision(policies["BuildRole"], action, resource, {"kms:ViaService": None})
            assert found == (effect, sid), f"{document}: {action} on {resource}: {found}, not {(effect, sid)}"
            seen[effect] += 1
        check(seen["Deny"] >= 15 and seen["Allow"] >= 4, f"{document}: {seen['Deny']} things are denied, {seen['Allow']} are allowed, each by the statement that it names")
    via = {"kms:ViaService": "s3.ap-northeast-1.amazonaws.com.cn"}
    key = "arn:aws-us-gov:kms:ap-northeast-1:123456789012:key/of-sources"
    check(decision(policies["BuildRole"], "kms:Decrypt", key, via) == ("Allow", "EncryptedSource"), "S3 may use the source's key for it")
    check(decision(policies["BuildRole"], "kms:GenerateDataKey", key, via) is None, "and what is not denied is not allowed by that")
    allowed = {action for each in policies["BuildRole"]["Statement"] if each["Effect"] == "Allow" for action in listed(each["Action"])}
    (exempt,) = (set(each["NotAction"]) for each in policies["BuildRole"]["Statement"] if "NotAction" in each)
    check(exempt == allowed | {"kms:GenerateDataKey"}, "NothingElse denies all that is not allowed, but for the key of what S3 encrypts")
    allowed = {action for each in policies["StarterRole"]["Statement"] for action in listed(each["Action"])}
    check(not any(fits(each, action) for action in allowed for each in ("iam:*", "s3:Get*", "s3:Put*", "secretsmanager:*", "*:*Override*")), f"the starter may {', '.join(sorted(allowed))}")


def try_prefixes():
    template = Template("branches.yaml", PROJECT)
    for prefix in ("web/", "APP/web/", "a b/c's/", "web-branches/"):
        check(template.is_allowed("KeyPrefix", prefix), f"KeyPrefix may be {prefix!r}")
    for prefix in ("", "/", "/web/", "web", "config/", "config/x/", "機能/", "web/*/", "web?/", "${AWS::AccountId}/"):
        check(not template.is_allowed("KeyPrefix", prefix), f"KeyPrefix is not {prefix!r}")


# -- On ministack ---------------------------------------------------------------------------------------------------------


def s3_event(key, kind="Object Created", reason="PutObject", bucket=BUCKET):
    """As S3 sends it. Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html"""
    detail = {
        "version": "0",
        "bucket": {"name": bucket},
        "object": {"key": key, "size": 5, "etag": "b1946ac92492d2347c6235b4d2611184", "version-id": "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e", "sequencer": "0061"},
        "request-id": "N4N7GDK58NMKJ12R",
        "requester": ACCOUNT,
        "source-ip-address": "192.0.2.1",
        "reason": reason,
    }
    return event("aws.s3", kind, detail)


def build_event(status, project=PROJECT):
    """As CodeBuild sends it. Source: https://docs.aws.amazon.com/codebuild/latest/userguide/sample-build-notifications.html"""
    detail = {
        "build-status": status,
        "project-name": project,
        "build-id": f"arn:aws:codebuild:{REGION}:{ACCOUNT}:build/{project}:8745a7a9-c340-456a-9166-edf953571bEX",
        "additional-information": {
            "source": {"location": f"{BUCKET}/web/feature/x.zip", "type": "S3"},
            "logs": {"deep-link": f"https://console.aws.amazon.com/cloudwatch/home?region={REGION}#logEvent:group=x"},
            "build-complete": status != "IN_PROGRESS",
        },
        "current-phase": "COMPLETED",
        "version": "1",
    }
    return event("aws.codebuild", "CodeBuild Build State Change", detail)


def event(source, kind, detail):
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "source": source,
        "detail-type": kind,
        "account": ACCOUNT,
        "time": "2026-06-01T00:00:00Z",
        "region": REGION,
        "resources": [f"arn:aws:s3:::{BUCKET}"],
        "detail": detail,
    }


def try_patterns(events, template):
    rules = {name: template.resolve(rule["EventPattern"]) for name, rule in template.of_type("AWS::Events::Rule").items() if "EventPattern" in rule}
    for rule, case, sent, expected in (
        ("NewVersion", "a branch", s3_event("web/feature/x.zip"), True),
        ("NewVersion", "a Japanese branch", s3_event("web/機能/ログイン.zip"), True),
        ("NewVersion", "a tag of a glob with the same prefix", s3_event("web/v1.0.zip"), True),
        ("NewVersion", "a multipart upload that is complete", s3_event("web/feature/x.zip", reason="CompleteMultipartUpload"), True),
        ("NewVersion", "a key that begins otherwise", s3_event("api/feature/x.zip"), False),
        ("NewVersion", "a key that begins alike", s3_event("website/feature/x.zip"), False),
        ("NewVersion", "the routing table", s3_event("config/routes.toml"), False),
        ("NewVersion", "another bucket", s3_event("web/feature/x.zip", bucket="others"), False),
        ("NewVersion", "a delete marker", s3_event("web/feature/x.zip", kind="Object Deleted", reason="DeleteObject"), False),
        ("NewVersion", "a tag of an object", s3_event("web/feature/x.zip", kind="Object Tags Added", reason=""), False),
        ("BuildEnded", "a build that began", build_event("IN_PROGRESS"), False),
        ("BuildEnded", "a build that succeeded", build_event("SUCCEEDED"), True),
        ("BuildEnded", "a build that was stopped", build_event("STOPPED"), True),
        ("BuildEnded", "a build of another project", build_event("SUCCEEDED", "web-main"), False),
        ("Failed", "a build that failed", build_event("FAILED"), True),
        ("Failed", "a build that was stopped", build_event("STOPPED"), False),
    ):
        result = events.test_event_pattern(EventPattern=json.dumps(rules[rule]), Event=json.dumps(sent))["Result"]
        check(result == expected, f"{rule}, {case}: {'matches' if result else 'no match'}")
    for name, rule in template.of_type("AWS::Events::Rule").items():
        (target,) = rule["Targets"]
        if name != "Failed":
            check(target["InputPath"] == "$.id" and target["SqsParameters"] == {"MessageGroupId": "look"}, f"{name} sends the id of its event, and nothing of what it says")


def deploy(client, folder, endpoint):
    from samtranslator.yaml_helper import yaml_parse

    template = yaml_parse((ROOT / "branches.yaml").read_text())
    variables = template["Resources"]["Starter"]["Properties"]["Environment"]["Variables"]
    variables["AWS_ENDPOINT_URL_CODEBUILD"] = endpoint
    say("another CodeBuild than ministack's, which knows no limit and forgets what a build is told")
    del template["Resources"]["ArtifactsPolicy"]
    say("taken out: ArtifactsPolicy, because ministack is spoken to without TLS")
    return stack.create(
        client("cloudformation"),
        PROJECT,
        template,
        SourceBucket=BUCKET,
        KeyPrefix=PREFIX,
        AlarmTopicArn=f"arn:aws:sns:{REGION}:{ACCOUNT}:alarms",
        TellFailures="yes",
    )


@contextlib.contextmanager
def bridge(program, folder, endpoint):
    """`serve`, that delivers into ministack's S3. The URL of its webhook."""
    (folder / "routes.toml").write_text(
        f'[[space]]\nurl = "file://{folder}/repositories"\n'
        '[[route]]\nname = "web-main"\nrepository = "APP/web"\nref = "refs/heads/main"\nobject = "main/web.zip"\n'
        '[[route]]\nname = "branches"\nrepository = "APP/web"\nref = "refs/heads/feature/*"\nobject = "web/{ref}.zip"\n'
    )
    port, token = stack.free_port(), "a-token-that-is-long-enough"
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "WEBHOOK_TOKEN": token,
        "SOURCE_BUCKET": BUCKET,
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    with open(folder / "serve.log", "wb") as log:
        command = [program, "serve", "--aws", "--routes", "routes.toml", "--listen", f"127.0.0.1:{port}"]
        server = subprocess.Popen(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait("serve listens", 30, lambda: b"hooks" in (folder / "serve.log").read_bytes())
        yield f"http://127.0.0.1:{port}/hooks/{token}"
    finally:
        server.terminate()
        server.wait(20)


def push(repository, branch, url):
    """A commit on a branch, and the webhook that tells of it."""
    git = stack.Repository.git
    (repository.work / "note.txt").write_text(f"{branch} {random.random()}\n")
    git("add", ".", cwd=repository.work)
    git("commit", "--quiet", "--message", "Say \"hello\" & more", cwd=repository.work)
    git("push", "--quiet", "origin", f"HEAD:{branch}", cwd=repository.work)
    commit = git("rev-parse", "HEAD", cwd=repository.work)
    # A project's webhook: it names no host.
    body = json.loads((ROOT / "events" / "project-push-update.json").read_text())
    body["content"] |= {"ref": f"refs/heads/{branch}", "revisions": [{"rev": commit, "comment": "Say hello"}]}
    body["project"]["projectKey"], body["content"]["repository"]["name"] = "APP", "web"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 202, answer.status
    return commit


AWS = """\
#!{python}
import boto3, json, sys
assert sys.argv[1:3] == ["s3api", "head-object"], sys.argv
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
answer = boto3.client("s3").head_object(Bucket=options["--bucket"], Key=options["--key"], VersionId=options["--version-id"])
assert options["--query"] == "Metadata" and options["--output"] == "json", sys.argv
print(json.dumps(answer["Metadata"]))
"""


def as_build(client, role):
    """The credentials that a build gets."""
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}]}
    client("iam").update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(trust))
    say("for this test: the account may take the role of the build")
    given = client("sts").assume_role(RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{role}", RoleSessionName="build")["Credentials"]
    return {"AWS_ACCESS_KEY_ID": given["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"], "AWS_SESSION_TOKEN": given["SessionToken"]}


def try_as_build(client, endpoint, keys, told, artifacts, role):
    import boto3
    from botocore.exceptions import ClientError

    def of(service):
        names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        return boto3.client(service, endpoint_url=endpoint, region_name=REGION, **dict(zip(names, keys.values())))

    client("s3").put_object(Bucket=BUCKET, Key="config/routes.toml", Body=b"")
    client("secretsmanager").create_secret(Name="backlog-bridge/git", SecretString="{}")
    queue = client("sqs").create_queue(QueueName="others")["QueueUrl"]
    key, version = told["SOURCE_KEY"], told["SOURCE_VERSION"]
    for text, may, call in (
        ("read its source", True, lambda: of("s3").get_object(Bucket=BUCKET, Key=key, VersionId=version)),
        ("store an artifact", True, lambda: of("s3").put_object(Bucket=artifacts, Key="builds/1/artifact.zip", Body=b"")),
        ("read the routing table", False, lambda: of("s3").get_object(Bucket=BUCKET, Key="config/routes.toml")),
        ("write the source", False, lambda: of("s3").put_object(Bucket=BUCKET, Key=key, Body=b"")),
        ("write beside the artifacts", False, lambda: of("s3").put_object(Bucket=artifacts, Key="other", Body=b"")),
        ("read an artifact", False, lambda: of("s3").get_object(Bucket=artifacts, Key="builds/1/artifact.zip")),
        ("list the bucket", False, lambda: of("s3").list_objects_v2(Bucket=BUCKET)),
        ("read the Git login", False, lambda: of("secretsmanager").get_secret_value(SecretId="backlog-bridge/git")),
        ("send a message", False, lambda: of("sqs").send_message(QueueUrl=queue, MessageBody="x")),
        ("take another role", False, lambda: of("sts").assume_role(RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{role}", RoleSessionName="other")),
        ("log in to ECR", False, lambda: of("ecr").get_authorization_token()),
        ("write its own role", False, lambda: of("iam").delete_role_policy(RoleName=role, PolicyName="build")),
    ):
        try:
            call()
            done = True
        except ClientError as error:
            assert error.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException", "AccessDeniedFault"), (text, error)
            done = False
        check(done == may, f"a build may {'' if may else 'not '}{text}")


def follow(client, program, folder, endpoint):
    s3 = client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration={"EventBridgeConfiguration": {}})
    client("sns").create_topic(Name="alarms")
    codebuild = CodeBuild(PROJECT, 5)
    address, end = codebuild.serve()
    try:
        print("deploy")
        outputs, resources = deploy(client, folder, address)
        print("rules")
        try_patterns(client("events"), Template("branches.yaml", PROJECT, SourceBucket=BUCKET, KeyPrefix=PREFIX, TellFailures="yes"))

        print("a push to feature/x")
        repository = stack.Repository(folder)
        shutil.copytree(ROOT / "examples" / "buildspec" / "node", repository.work, dirs_exist_ok=True)
        with bridge(program, folder, endpoint) as url:
            push(repository, "main", url)
            commit = push(repository, "feature/x", url)
            wait("a build began", 90, lambda: codebuild.builds)
            (build,) = codebuild.builds
            (_, given) = next(call for call in codebuild.calls if call[0] == "StartBuild")
            say(f"what StartBuild is told: {json.dumps(given)}")
            told = {each["name"]: each["value"] for each in given["environmentVariablesOverride"]}
            newest = s3.head_object(Bucket=BUCKET, Key="web/feature/x.zip")
            expected = {"SOURCE_BUCKET": BUCKET, "SOURCE_KEY": "web/feature/x.zip", "SOURCE_VERSION": newest["VersionId"], "SOURCE_ETAG": newest["ETag"]}
            check(told == expected and given["sourceVersion"] == newest["VersionId"], "that is the newest version of the branch's object, and main is not built")
            check(given["sourceLocationOverride"] == f"{BUCKET}/web/feature/x.zip", given["sourceLocationOverride"])
            check(newest["Metadata"]["git-commit"] == commit, f"it holds {commit}")

            print("the build")
            keys = as_build(client, resources["BuildRole"])
            try_example(client, folder / "x", endpoint, keys, told, "feature/x", commit)
            try_as_build(client, endpoint, keys, told, outputs["ArtifactBucket"], resources["BuildRole"])

            print("a push to the oddest name")
            commit = push(repository, ODDEST, url)
            wait("a build began", 90, lambda: len(codebuild.builds) == 2)
            told = {each["name"]: each["value"] for each in codebuild.builds[1]["environment"]["environmentVariables"]}
            check(told["SOURCE_KEY"] == f"web/{ODDEST}.zip", told["SOURCE_KEY"])
            try_example(client, folder / "odd", endpoint, keys, told, ODDEST, commit)

            print("a second push")
            push(repository, "feature/x", url)
            wait("the first build was stopped, and another began", 90, lambda: [each["buildStatus"] for each in codebuild.builds] == ["STOPPED", "IN_PROGRESS", "IN_PROGRESS"])
    finally:
        end()


def try_example(client, folder, endpoint, keys, told, branch, commit):
    """Runs the example for Node on what the build is told, with the rights of the build."""
    import yaml

    missing = [need for need in buildspecs.EXAMPLES["node"] if not shutil.which(need)]
    if missing:
        print(f"skipped: there is no {missing[0]}")
        return
    tools, source = folder / "tools", folder / "source"
    tools.mkdir(parents=True)
    (tools / "aws").write_text(AWS.format(python=sys.executable))
    (tools / "aws").chmod(0o755)
    archive = client("s3").get_object(Bucket=BUCKET, Key=told["SOURCE_KEY"], VersionId=told["SOURCE_VERSION"])["Body"].read()
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        file.extractall(source)
    spec = yaml.safe_load((source / "buildspec.yml").read_text())
    done = buildspecs.run(spec, folder, source, told | keys | {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": REGION}, tools)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    found = buildspecs.exported(spec, folder)
    expected = {"COMMIT_ID": commit, "GIT_REF": f"refs/heads/{branch}", "GIT_AUTHOR": "Robot", "COMMIT_MESSAGE": 'Say "hello" & more'}
    check(found == expected, f"the example builds, with the role of the build, and exports {found}")
    ref = json.loads((source / "dist" / "version.json").read_text())["ref"]
    check(ref == f"refs/heads/{branch}" and not list(folder.rglob("harm")), f"its artifact knows {ref}")


def main():
    packages.inside(stack.VENV, "ministack", stack.NEEDS)
    import boto3

    program = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/debug/backlog-bridge").resolve()
    os.environ["PATH"] = f"{stack.VENV / 'bin'}:{os.environ['PATH']}"
    random.seed(1)
    for what, attempt in (
        ("many branches", try_many),
        ("a newer push", try_newer),
        ("lost events", try_lost),
        ("odd names", try_odd),
        ("an endless loop", try_loop),
        ("any order", lambda: try_orders(10)),
        ("a long history", try_history),
        ("rights", try_rights),
        ("prefixes", try_prefixes),
    ):
        print(what)
        attempt()
    with tempfile.TemporaryDirectory(prefix="backlog-bridge-branches-") as name:
        folder = pathlib.Path(name)
        with stack.ministack(folder, folder / "none.pem") as endpoint:

            def client(service):
                keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
                return boto3.client(service, endpoint_url=endpoint, region_name=REGION, **keys)

            try:
                follow(client, program, folder, endpoint)
            except BaseException:
                for log in ("serve.log", "ministack.log"):
                    print(f"{log}:")
                    if (folder / log).exists():
                        print("".join((folder / log).read_text(errors="replace").splitlines(True)[-60:]))
                raise
    print("every branch is built")


if __name__ == "__main__":
    main()
