"""The stack of branches.yaml in virtual time: its function, between stand-ins for S3, CodeBuild, the rules and the queue."""

import collections
import contextlib
import datetime
import functools
import heapq
import io
import itertools
import json
import os
import random
import types
import unittest.mock
import urllib.parse
import xml.sax.saxutils

from codebuild import CodeBuild
from templates import Template

PROJECT, BUCKET, PREFIX, REGION = "web-branches", "sources", "web/", "us-east-1"
SWEEP = 15 * 60


class Versions:
    """A bucket with versions: of S3, what the function asks for."""

    def __init__(self, clock):
        self.clock, self.of, self.number = clock, collections.defaultdict(list), itertools.count()

    def put(self, key, deleted=False):
        number = next(self.number)
        self.of[key].insert(0, {"VersionId": f"v{number:07}", "ETag": f'"{number:032x}"', "written": self.clock(), "deleted": deleted})

    def answer(self, url):
        asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query, keep_blank_values=True))
        assert asked["encoding-type"] == "url", asked
        keys = [key for key in sorted(self.of, key=str.encode) if key.startswith(asked["prefix"])]
        if "versions" in asked:
            # In the order of S3: keys as bytes, of each the newest first.
            rows = [(key, version, at == 0) for key in keys for at, version in enumerate(self.of[key])][: int(asked["max-keys"])]
            return self.page("ListVersionsResult", rows, "")
        assert asked["list-type"] == "2", asked
        rows = [(key, self.of[key][0], True) for key in keys if not self.of[key][0]["deleted"] and key > asked.get("continuation-token", "")]
        more = f"<NextContinuationToken>{xml.sax.saxutils.escape(rows[999][0])}</NextContinuationToken>" if len(rows) > 1000 else ""
        return self.page("ListBucketResult", rows[:1000], more)

    @staticmethod
    def page(kind, rows, more):
        text = f"<EncodingType>url</EncodingType><IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}"
        for key, version, latest in rows:
            name = "Contents" if kind == "ListBucketResult" else "DeleteMarker" if version["deleted"] else "Version"
            written = datetime.datetime.fromtimestamp(version["written"], datetime.timezone.utc)
            text += (
                f"<{name}><Key>{urllib.parse.quote(key)}</Key><VersionId>{version['VersionId']}</VersionId><ETag>{version['ETag']}</ETag>"
                f"<IsLatest>{str(latest).lower()}</IsLatest><LastModified>{written:%Y-%m-%dT%H:%M:%S}.000Z</LastModified></{name}>"
            )
        return f'<{kind} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{text}</{kind}>'.encode()


def moment(text):
    """As botocore reads a time, at a fraction of its time."""
    if isinstance(text, (int, float)):
        return datetime.datetime.fromtimestamp(text, datetime.timezone.utc)
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc)


class Body(io.BytesIO):
    def stream(self, **_):
        while chunk := self.read(65536):
            yield chunk


class Clients:
    """The clients of AWS, which take long to make: they ask the world that was loaded last."""

    world, made = None, {}

    @classmethod
    def of(cls, world, name):
        cls.world = world
        if name not in cls.made:
            import boto3

            session = boto3.session.Session()
            session._session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=moment)
            made = session.client(name, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test")
            made.meta.events.register("before-send", lambda **given: cls.world.answer(**given))
            cls.made[name] = made
        return cls.made[name]


class World:
    """The stack in virtual time. The function and its clients are the real ones; their requests are answered here."""

    # From a day of an ordinary year on, so that no subtraction of days leaves the calendar.
    START = datetime.datetime(2026, 6, 1, tzinfo=datetime.timezone.utc).timestamp()

    def __init__(self, limit=5, build_seconds=lambda key: 180, account=None, refuses=lambda location: False, sweeps=True, **parameters):
        self.now, self.steps, self.order = self.START, [], itertools.count()
        self.s3 = Versions(self.clock)
        self.codebuild = CodeBuild(PROJECT, min(limit, account or limit), self.clock, refuses)
        self.build_seconds, self.limit = build_seconds, limit
        self.codebuild.started, self.codebuild.ended = self.build_started, self.build_ended
        self.messages, self.busy, self.lines, self.most_at_once = 0, False, [], 0
        self.lost, self.between = lambda: False, lambda request: None
        self.template = Template(
            "branches.yaml",
            PROJECT,
            SourceBucket=BUCKET,
            KeyPrefix=PREFIX,
            ConcurrentBuildLimit=str(limit),
            AlarmTopicArn="arn:aws:sns:ap-northeast-1:123456789012:t",
            **parameters,
        )
        self.load()
        if sweeps:
            self.after(random.uniform(0, SWEEP), self.sweep)

    def load(self):
        """The function as a process that starts anew."""
        function = self.template.resources["Starter"]["Properties"]
        variables = self.template.resolve(function["Environment"]["Variables"]) | {"AWS_LAMBDA_FUNCTION_NAME": f"{PROJECT}-starter"}
        client = functools.partial(Clients.of, self)
        module = types.ModuleType("index")
        with unittest.mock.patch.dict(os.environ, variables), unittest.mock.patch("boto3.client", client):
            exec(compile(function["Code"]["ZipFile"], "branches.yaml, Starter", "exec"), module.__dict__)
        module.time = types.SimpleNamespace(time=self.clock)
        self.function = getattr(module, function["Handler"].partition(".")[2])

    def answer(self, request, **_):
        from botocore.awsrequest import AWSResponse

        self.between(request)
        if "X-Amz-Target" in request.headers:
            target = request.headers["X-Amz-Target"]
            status, answer = self.codebuild.answer(target if isinstance(target, str) else target.decode(), request.body)
            return AWSResponse(request.url, status, {"Content-Type": "application/x-amz-json-1.1"}, Body(json.dumps(answer).encode()))
        return AWSResponse(request.url, 200, {"Content-Type": "application/xml"}, Body(self.s3.answer(request.url)))

    def clock(self):
        return self.now

    def after(self, seconds, step):
        heapq.heappush(self.steps, (self.now + seconds, next(self.order), step))

    def run(self, seconds):
        end = self.now + seconds
        while self.steps and self.steps[0][0] <= end:
            self.now, _, step = heapq.heappop(self.steps)
            step()
        self.now = end

    def push(self, branch):
        self.s3.put(f"{PREFIX}{branch}.zip")
        self.event()
        return self.newest(branch)

    def event(self):
        """An event on its way: late, twice, or never."""
        if not self.lost():
            for _ in range(1 + (random.random() < 0.1)):
                self.after(random.uniform(0.1, 2), self.message)

    def sweep(self):
        self.message()
        self.after(SWEEP, self.sweep)

    def message(self):
        self.messages += 1
        if not self.busy:
            self.look()

    def look(self):
        """A batch of messages: one look. The group's next one begins when it is over."""
        self.messages -= min(10, self.messages)
        self.busy, said = True, io.StringIO()
        with contextlib.redirect_stdout(said):
            self.function({"Records": []}, None)
        line = json.loads(said.getvalue())
        (metrics,) = line["_aws"]["CloudWatchMetrics"]
        assert all(each["Name"] in line for each in metrics["Metrics"]), line
        self.lines.append(line)
        self.after(2, self.rest)

    def rest(self):
        self.busy = False
        if self.messages:
            self.look()

    def build_started(self, build):
        self.most_at_once = max(self.most_at_once, len(self.codebuild.running()))
        self.after(self.build_seconds(build["source"]["location"]), lambda: self.codebuild.end(build, random.choice(["SUCCEEDED", "FAILED"])))
        self.event()

    def build_ended(self, build):
        self.event()

    def waits(self):
        return self.lines[-1]["waiting"]

    def built(self):
        return [build["sourceVersion"] for build in self.codebuild.builds]

    def newest(self, branch):
        return self.s3.of[f"{PREFIX}{branch}.zip"][0]["VersionId"]
