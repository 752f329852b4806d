"""What stands in for CodeBuild: one project, with the rules that its documentation gives.

Sources: https://docs.aws.amazon.com/codebuild/latest/APIReference/API_StartBuild.html (idempotencyToken: 5 minutes),
API_ListBuildsForProject.html (100 a page, no order of ours beyond 100), API_BatchGetBuilds.html (100 ids),
https://docs.aws.amazon.com/codebuild/latest/userguide/builds-working.html (a limit that is reached is an error).
"""

import http.server
import json
import threading
import time

TOKEN_SECONDS = 300


class Refused(Exception):
    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


class CodeBuild:
    def __init__(self, project, limit, clock=time.time, refuses=lambda location: False):
        from botocore.session import Session
        from botocore.validate import ParamValidator

        self.project, self.limit, self.clock, self.refuses = project, limit, clock, refuses
        self.builds, self.tokens, self.calls = [], {}, []
        # For how many seconds a new build is in no list.
        self.lag = 0
        # Called after each start and each end, with the build.
        self.started, self.ended = lambda build: None, lambda build: None
        self.model, self.validator = Session().get_service_model("codebuild"), ParamValidator()

    def running(self):
        return [build for build in self.builds if build["buildStatus"] == "IN_PROGRESS"]

    def end(self, build, status):
        if build["buildStatus"] == "IN_PROGRESS":
            build |= {"buildStatus": status, "buildComplete": True, "endTime": self.clock()}
            self.ended(build)

    def answer(self, target, body):
        """Status and body of the answer to a request with this `X-Amz-Target`."""
        operation, given = target.partition(".")[2], json.loads(body)
        self.calls.append((operation, given))
        report = self.validator.validate(given, self.model.operation_model(operation).input_shape)
        if report.has_errors():
            return 400, {"__type": "ValidationException", "message": report.generate_report()}
        try:
            return 200, getattr(self, operation)(given)
        except Refused as error:
            return 400, {"__type": error.kind, "message": str(error)}

    def StartBuild(self, given):
        token, now = given.get("idempotencyToken"), self.clock()
        if given["projectName"] != self.project:
            raise Refused("ResourceNotFoundException", "no such project")
        if token in self.tokens and now - self.tokens[token][0] < TOKEN_SECONDS:
            _, before, build = self.tokens[token]
            if before != given:
                raise Refused("InvalidInputException", "the same token with other parameters")
            return {"build": build}
        if "/" not in given["sourceLocationOverride"] or self.refuses(given["sourceLocationOverride"]):
            raise Refused("InvalidInputException", "Invalid source location")
        if len(self.running()) >= self.limit:
            raise Refused("AccountLimitExceededException", f"Cannot have more than {self.limit} builds in queue for the project")
        number = len(self.builds) + 1
        build = {
            "id": f"{self.project}:{number:08}",
            "arn": f"arn:aws:codebuild:us-east-1:000000000000:build/{self.project}:{number:08}",
            "buildNumber": number,
            "projectName": self.project,
            "startTime": now,
            "buildStatus": "IN_PROGRESS",
            "buildComplete": False,
            "sourceVersion": given["sourceVersion"],
            "source": {"type": "S3", "location": given["sourceLocationOverride"], "buildspec": "buildspec.yml"},
            "environment": {
                "type": "LINUX_CONTAINER",
                "image": "aws/codebuild/amazonlinux-x86_64-standard:5.0",
                "computeType": "BUILD_GENERAL1_SMALL",
                "environmentVariables": given.get("environmentVariablesOverride", []),
            },
        }
        self.builds.append(build)
        if token:
            self.tokens[token] = now, given, build
        self.started(build)
        return {"build": build}

    def StopBuild(self, given):
        (build,) = (each for each in self.builds if each["id"] == given["id"])
        if build["buildStatus"] != "IN_PROGRESS":
            raise Refused("InvalidInputException", "the build has ended")
        self.end(build, "STOPPED")
        return {"build": build}

    def ListBuildsForProject(self, given):
        if "sortOrder" in given and len(self.builds) > 100:
            raise Refused("InvalidInputException", "no order beyond 100 builds")
        first = int(given.get("nextToken", 0))
        ids = [build["id"] for build in reversed(self.builds) if build["startTime"] <= self.clock() - self.lag][first : first + 100]
        more = {"nextToken": str(first + 100)} if first + 100 < len(self.builds) else {}
        return {"ids": ids} | more

    def BatchGetBuilds(self, given):
        if len(given["ids"]) > 100:
            raise Refused("InvalidInputException", "more than 100 ids")
        wanted = set(given["ids"])
        return {"builds": [build for build in self.builds if build["id"] in wanted]}

    def serve(self):
        """Its address on loopback, and how to end it."""
        model = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = model.answer(self.headers["X-Amz-Target"], body)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", server.shutdown
