#!/usr/bin/env python3
"""What can be known of the templates without AWS.

    python3 tests/templates.py

Each role's policies are resolved, with the longest parameters that are allowed and with Japanese ones, and compared with what
IAM takes. So are rules and names. `sam deploy` is run as docs/deploy.md says, against an address where nobody listens. What it
needs is installed into target/templates; where that cannot be done it prints why, and succeeds.
"""

import io
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import zipfile

import packages

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "release"))

import pack

VENV = ROOT / "target" / "templates"
NEEDS = ["cfn-lint", "aws-sam-cli"]
TEMPLATES = ["template.yaml", "results.yaml", "pipeline.yaml", "branches.yaml", "build.yaml"]
# The region and the partition with the longest names.
PSEUDO = {
    "AWS::Partition": "aws-us-gov",
    "AWS::Region": "ap-northeast-1",
    "AWS::AccountId": "123456789012",
    "AWS::URLSuffix": "amazonaws.com.cn",
    "AWS::StackId": "arn:aws-us-gov:cloudformation:ap-northeast-1:123456789012:stack/" + "a" * 128 + "/" + "0" * 36,
}
NOTHING = {"Ref": "AWS::NoValue"}
# Source: https://docs.aws.amazon.com/IAM/latest/APIReference/API_PutRolePolicy.html
TAKEN_BY_IAM = re.compile("[\u0009\u000a\u000d\u0020-\u00ff]+")
# All inline policies of a role together, without blanks.
# Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
MOST_OF_A_ROLE = 10240
# A managed policy, likewise.
MOST_OF_A_POLICY = 6144


def check(is_so, text):
    if not is_so:
        raise AssertionError(text)
    print(f"  {text}", flush=True)


# -- Templates ------------------------------------------------------------------------------------------------------------


class Template:
    """A template, with values for its parameters."""

    def __init__(self, name, stack, **values):
        from samtranslator.yaml_helper import yaml_parse

        template = yaml_parse((ROOT / name).read_text())
        self.resources, self.parameters = template["Resources"], template["Parameters"]
        self.conditions, self.rules, self.stack = template["Conditions"], template.get("Rules", {}), stack
        self.values = {name: str(each.get("Default", "")) for name, each in self.parameters.items()} | values
        unknown = values.keys() - self.parameters.keys()
        assert not unknown, f"{name} has no {unknown}"

    def refused(self):
        """The parameters whose values CloudFormation would not take."""
        return {name for name, value in self.values.items() if not self.is_allowed(name, value)}

    def is_allowed(self, name, value):
        parameter = self.parameters[name]
        # All the values of a template are 4,096 bytes or less.
        # Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
        return (
            len(value.encode()) <= 4096
            and len(value) <= parameter.get("MaxLength", 4096)
            and re.search(parameter.get("AllowedPattern", ""), value) is not None
            and value in map(str, parameter.get("AllowedValues", [value]))
        )

    def broken_rules(self):
        for rule in self.rules.values():
            if self.is_true(rule.get("RuleCondition", {"Fn::Equals": ["", ""]})):
                yield from (each["AssertDescription"] for each in rule["Assertions"] if not self.is_true(each["Assert"]))

    def physical(self, name):
        """What CloudFormation could call a resource: its name, and its ARN."""
        kind, properties = self.resources[name]["Type"], self.resources[name].get("Properties", {})
        service, _, resource = kind.removeprefix("AWS::").lower().partition("::")
        place = "{AWS::Region}:{AWS::AccountId}".replace("{", "${")
        given = {
            "AWS::S3::Bucket": None,
            "AWS::SecretsManager::Secret": properties.get("Name"),
            "AWS::SQS::Queue": properties.get("QueueName"),
        }.get(kind, properties.get("Name"))
        # A name of its own making: that of the stack, the resource's, and 12 characters or more. No bucket has more than 63.
        text = self.resolve(given) if given else f"{self.stack}-{name}-1234567890AB"
        if kind == "AWS::S3::Bucket":
            return text[:63].lower(), f"arn:{PSEUDO['AWS::Partition']}:s3:::{text[:63].lower()}"
        if kind == "AWS::SecretsManager::Secret":
            text = self.resolve({"Fn::Sub": f"arn:${{AWS::Partition}}:secretsmanager:{place}:secret:{text}-AbCdEf"})
            return text, text
        path = {"AWS::SQS::Queue": text, "AWS::CodeBuild::Project": f"project/{text}"}.get(kind, text)
        return text, self.resolve({"Fn::Sub": f"arn:${{AWS::Partition}}:{service}:{place}:{path}"})

    def ref(self, name):
        if name in PSEUDO:
            return PSEUDO[name]
        if name == "AWS::StackName":
            return self.stack
        if name == "AWS::NoValue":
            return NOTHING
        if name in self.parameters:
            value = self.values[name]
            return value.split(",") if self.parameters[name]["Type"] == "CommaDelimitedList" else value
        return self.physical(name)[0]

    def is_true(self, condition):
        if isinstance(condition, str):
            return self.is_true(self.conditions[condition])
        (function, of), = condition.items()
        if function == "Condition":
            return self.is_true(of)
        if function == "Fn::Equals":
            left, right = map(self.resolve, of)
            return left == right
        parts = map(self.is_true, of)
        return {"Fn::Not": lambda: not next(parts), "Fn::And": lambda: all(parts), "Fn::Or": lambda: any(parts)}[function]()

    def sub(self, of):
        text, names = (of, {}) if isinstance(of, str) else of

        def value(found):
            name = found[1]
            if name in names:
                return self.resolve(names[name])
            return self.resolve({"Fn::GetAtt": name.split(".")} if "." in name else {"Ref": name})

        return re.sub(r"\$\{([^}]+)\}", value, text)

    def resolve(self, value):
        """A value as CloudFormation would hand it on."""
        if isinstance(value, list):
            return [item for item in map(self.resolve, value) if item != NOTHING]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (function, of), = value.items()
            if function == "Ref":
                return self.ref(of)
            if function == "Fn::Sub":
                return self.sub(of)
            if function == "Fn::GetAtt":
                assert of[1] in ("Arn", "Id", "QueueName"), of
                return self.physical(of[0])[1 if of[1] == "Arn" else 0]
            if function == "Fn::If":
                return self.resolve(of[1] if self.is_true(of[0]) else of[2])
            if function == "Fn::Join":
                return of[0].join(self.resolve(of[1]))
            if function == "Fn::Split":
                return self.resolve(of[1]).split(of[0])
            assert not function.startswith("Fn::"), function
        fields = ((name, self.resolve(each)) for name, each in value.items())
        return {name: each for name, each in fields if each != NOTHING}

    def of_type(self, kind):
        return {name: each["Properties"] for name, each in self.resources.items() if each["Type"] == kind}

    def roles(self):
        """Each role's inline policies, as text."""
        for name, properties in self.of_type("AWS::IAM::Role").items():
            documents = [self.resolve(policy["PolicyDocument"]) for policy in properties["Policies"]]
            yield name, "".join(json.dumps(each, ensure_ascii=False, separators=(",", ":")) for each in documents)


    def policies(self):
        """Each managed policy, as text."""
        for name, properties in self.of_type("AWS::IAM::ManagedPolicy").items():
            document = self.resolve(properties["PolicyDocument"])
            yield name, json.dumps(document, ensure_ascii=False, separators=(",", ":"))


# -- Roles ----------------------------------------------------------------------------------------------------------------


def roles_fit(case, template):
    refused = template.refused()
    assert not refused, f"{case}: {refused} would not be taken"
    for role, text in template.roles():
        size = len(re.sub(r"\s", "", text))
        strange = sorted(set(TAKEN_BY_IAM.sub("", text)))
        check(size <= MOST_OF_A_ROLE and not strange, f"{case}: {role}: {size} characters{', and ' if strange else ''}{''.join(strange)}")


    for policy, text in template.policies():
        size = len(re.sub(r"\s", "", text))
        check(size <= MOST_OF_A_POLICY and TAKEN_BY_IAM.fullmatch(text), f"{case}: {policy}: {size} characters")


def limits_that_are_told():
    """The tables in docs/deploy.md and docs/branches.md: of each first column the first number in the second."""
    rows = []
    for document, title in (("deploy.md", "## Limits of the stack\n"), ("branches.md", "## Limits\n")):
        table = (ROOT / "docs" / document).read_text().split(title, 1)[1].split("\n## ", 1)[0]
        rows += re.findall(r"^\| `?([^|`]+)`? \| ([0-9,]+)", table, re.MULTILINE)
    return {name.strip(): int(number.replace(",", "")) for name, number in rows}


def name(length, letter="a"):
    return letter * length


def longest_bridge(stack, buckets, secrets):
    secret = f"arn:aws:secretsmanager:ap-northeast-1:123456789012:secret:{name(30)}-AbCdEf"
    return Template(
        "template.yaml",
        name(stack),
        GitSecretName=name(200),
        ExtraGitSecrets=",".join([secret] * secrets),
        ExistingBucket=name(63),
        BucketKmsKeyArn=f"arn:aws-us-gov:kms:ap-northeast-1:123456789012:key/{name(64)}",
        ExtraBuckets=",".join([name(30)] * buckets),
        ObjectKeys=name(1024),
        PermissionsBoundaryArn=f"arn:aws-us-gov:iam::123456789012:policy/{name(600)}",
    )


def longest_results(bridge, buckets, secrets):
    return Template(
        "results.yaml",
        name(128),
        BridgeStack=name(bridge),
        SourceBucket=name(63),
        AlarmTopicArn=f"arn:aws-us-gov:sns:ap-northeast-1:123456789012:{name(256)}",
        ObjectKeys=name(1024),
        BucketKmsKeyArn=f"arn:aws-us-gov:kms:ap-northeast-1:123456789012:key/{name(64)}",
        ApiKeySecretName=name(200),
        ExtraBuckets=",".join([name(30)] * buckets),
        ExtraApiKeySecrets=",".join([f"arn:aws:secretsmanager:ap-northeast-1:123456789012:secret:{name(30)}-AbCdEf"] * secrets),
    )


def longest_pipeline(stack, deploy, **values):
    longest = {
        "SourceBucket": name(63),
        "ObjectKey": name(1024),
        "SourceKmsKeyArn": f"arn:aws-us-gov:kms:ap-northeast-1:123456789012:key/{name(64)}",
        "AlarmTopicArn": f"arn:aws-us-gov:sns:ap-northeast-1:123456789012:{name(256)}",
        "EcrRepository": name(256),
        "VpcId": "vpc-0123456789abcdef0",
        "SubnetIds": "subnet-0123456789abcdef0",
        "SecurityGroupIds": "sg-0123456789abcdef0",
        "Approval": "yes",
        "Deploy": deploy,
        "DeployBucket": name(63),
        "EcsCluster": name(255),
        "EcsService": name(255),
        "EcsTaskRole": name(576),
        "EcsExecutionRole": name(576),
    }
    return Template("pipeline.yaml", name(stack), **longest | values)


def longest_branches(stack):
    return Template(
        "branches.yaml",
        name(stack),
        SourceBucket=name(63),
        KeyPrefix=f"{name(255)}/",
        ExceptKeys=name(1024),
        SourceKmsKeyArn=f"arn:aws-us-gov:kms:ap-northeast-1:123456789012:key/{name(64)}",
        AlarmTopicArn=f"arn:aws-us-gov:sns:ap-northeast-1:123456789012:{name(256)}",
        PermissionsBoundaryArn=f"arn:aws-us-gov:iam::123456789012:policy/{name(600)}",
    )


def try_roles():
    for each in TEMPLATES:
        # `aws cloudformation` reads a template in the encoding of the terminal, and takes so much without a bucket.
        content = (ROOT / each).read_bytes()
        assert content.isascii(), f"{each} is not ASCII"
        boundary = {"Fn::If": ["HasPermissionsBoundary", {"Ref": "PermissionsBoundaryArn"}, NOTHING]}
        roles = Template(each, "stack").of_type("AWS::IAM::Role")
        bare = [role for role, properties in roles.items() if properties.get("PermissionsBoundary") != boundary]
        check(roles and not bare, f"{each}: a permissions boundary on {', '.join(roles)}")
        check(len(content) <= 51200, f"{each}: {len(content)} bytes")

    told = limits_that_are_told()
    print(f"what docs/deploy.md says: {told}")
    stack, pipeline = told["Name of the bridge's stack"], told["Name of a pipeline's stack"]
    buckets, secrets = told["ExtraBuckets"], told["ExtraGitSecrets"]
    of_pipeline = {"SourceBucket": "sources", "AlarmTopicArn": "arn:aws:sns:ap-northeast-1:123456789012:t"}

    roles_fit("template.yaml as it is", Template("template.yaml", "backlog-bridge"))
    roles_fit("template.yaml with the longest names", longest_bridge(stack, buckets, secrets))
    roles_fit("results.yaml with the longest names", longest_results(stack, buckets, secrets))
    roles_fit("build.yaml", Template("build.yaml", name(128)))
    for deploy in ("none", "S3", "ECS"):
        roles_fit(f"pipeline.yaml with the longest names, Deploy={deploy}", longest_pipeline(pipeline, deploy))

    roles_fit("branches.yaml with the longest names", longest_branches(told["Name of a branches' stack"]))

    japanese = of_pipeline | {"ObjectKey": "web/機能/ログイン.zip"}
    roles_fit("pipeline.yaml with a Japanese key", Template("pipeline.yaml", "s", **japanese, ObjectArnPattern="web/*/*.zip"))
    without = Template("pipeline.yaml", "s", **japanese)
    refused = {role for role, text in without.roles() if not TAKEN_BY_IAM.fullmatch(text)}
    check(refused == {"PipelineRole", "BuildRole"}, f"without ObjectArnPattern IAM would refuse {sorted(refused)}")
    for template, parameter, value in (
        ("pipeline.yaml", "ObjectArnPattern", "web/機能.zip"),
        ("template.yaml", "ObjectKeys", "機能/*.zip"),
        ("template.yaml", "ObjectKeys", "a.zip,b.zip"),
        ("pipeline.yaml", "SourceKmsKeyArn", "arn:aws:kms:ap-northeast-1:123456789012:alias/sources"),
    ):
        check(not Template(template, "s").is_allowed(parameter, value), f"{parameter} is not {value}")
    for template, parameter, value in (
        ("pipeline.yaml", "ObjectArnPattern", "web/*.zip"),
        ("pipeline.yaml", "ObjectArnPattern", ""),
        ("template.yaml", "ObjectKeys", "bridge/*-1.0 (a).zip"),
    ):
        check(Template(template, "s").is_allowed(parameter, value), f"{parameter} may be {value!r}")


def try_rules():
    """What cannot work is refused before anything is made."""
    network = {"VpcId": "vpc-0a", "SubnetIds": "subnet-0a,subnet-0b", "SecurityGroupIds": "sg-0a"}
    service = {"Deploy": "ECS", "EcsCluster": "c", "EcsService": "s", "EcsExecutionRole": "service-role/e"}
    arm = {"BuildMachine": "ARM_CONTAINER"}
    for values, words in (
        ({}, None),
        (arm, "BuildMachine: ARM_CONTAINER needs"),
        (arm | {"BuildImage": "aws/codebuild/amazonlinux-aarch64-standard:3.0"}, None),
        (network, None),
        (network | {"SubnetIds": ""}, "VpcId needs"),
        (network | {"SecurityGroupIds": ""}, "VpcId needs"),
        ({"Approval": "yes"}, "Approval: yes needs Deploy"),
        ({"Approval": "yes", "Deploy": "S3", "DeployBucket": "site"}, None),
        ({"Deploy": "S3"}, "Deploy: S3 needs DeployBucket"),
        (service, None),
        (service | {"EcsExecutionRole": ""}, "Deploy: ECS needs"),
    ):
        template = Template("pipeline.yaml", "s", **values)
        broken = list(template.broken_rules())
        as_meant = len(broken) == 1 and broken[0].startswith(words) if words else not broken
        unallowed = template.refused() & values.keys()
        check(as_meant and not unallowed, f"{values or 'as it is'}: {', '.join(broken) or 'nothing against it'}")


def try_names():
    """One character more than the documents say, and a name is too long."""
    told = limits_that_are_told()
    most = {
        "AWS::Serverless::Function": ("FunctionName", 64),
        "AWS::Lambda::Function": ("FunctionName", 64),
        "AWS::SQS::Queue": ("QueueName", 80),
        "AWS::CodePipeline::Pipeline": ("Name", 100),
        "AWS::CodeBuild::Project": ("Name", 150),
        "AWS::CloudWatch::Alarm": ("AlarmName", 255),
    }
    for file, row in (
        ("template.yaml", "Name of the bridge's stack"),
        ("pipeline.yaml", "Name of a pipeline's stack"),
        ("branches.yaml", "Name of a branches' stack"),
    ):

        def too_long(length):
            template = Template(file, name(length))
            for kind, (field, limit) in most.items():
                for resource, properties in template.of_type(kind).items():
                    if field in properties and len(template.resolve(properties[field])) > limit:
                        yield resource

        longest = told[row]
        check(not list(too_long(longest)), f"{file}: every name fits where the stack's has {longest} characters")
        check(list(too_long(longest + 1)), f"{file}: with one more they are too long: {list(too_long(longest + 1))}")

    results = longest_results(told["Name of the bridge's stack"], told["ExtraBuckets"], told["ExtraGitSecrets"])
    for kind, (field, limit) in most.items():
        named = [results.resolve(properties[field]) for properties in results.of_type(kind).values() if field in properties]
        check(all(len(each) <= limit for each in named), f"results.yaml: the names of {len(named)} {kind} fit")


# -- Without Rust ---------------------------------------------------------------------------------------------------------


def documented(document, words):
    """The one line of a document's shell blocks that holds these words. One that goes on in the next is one with it."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    blocks = (re.sub(r"\\\n *", "", block) for block in blocks)
    (line,) = {line.strip() for block in blocks for line in block.splitlines() if words in line}
    return line


def dead_endpoint():
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def sam(command, folder):
    # The region as the document has it: not every program reads the same variable.
    regions = dict(re.findall(r"(AWS_\w*REGION)=(\S+)", documented("docs/deploy.md", "export AWS_PROFILE=")))
    env = regions | {
        "PATH": f"{VENV / 'bin'}:{os.environ['PATH']}",
        "HOME": str(folder),
        "SAM_CLI_TELEMETRY": "0",
        "AWS_ENDPOINT_URL": dead_endpoint(),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    done = subprocess.run(["sh", "-c", command], cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    said = f"{done.stdout}\n{done.stderr}"
    assert done.returncode, said
    return said


def try_without_rust():
    """What a release packs is deployed as docs/deploy.md says. What CodeBuild builds is the same."""
    from samtranslator.yaml_helper import yaml_parse

    for architecture, systems in (("x86_64", "linux-x86_64"), ("arm64", "linux-x86_64 linux-arm64")):
        template = Template("build.yaml", "s", Architecture=architecture)
        spec = yaml_parse(template.resolve(template.resources["Project"]["Properties"]["Source"]["BuildSpec"]))
        build = spec["phases"]["build"]["commands"][-1]
        check(build.endswith(f"bash release/make.sh {systems}"), f"{architecture}: {build}")
        assert spec["artifacts"] == {"base-directory": "target/release-files", "files": ["**/*"]}, spec["artifacts"]

    deploy = documented("docs/deploy.md", "sam deploy --parameter-overrides")
    with tempfile.TemporaryDirectory(prefix="backlog-bridge-templates-") as temporary:
        programs, here = pathlib.Path(temporary) / "programs", pathlib.Path(temporary) / "functions"
        programs.mkdir()
        for name in ("receive", "deliver", "results", "THIRD-PARTY.txt"):
            (programs / name).write_text("")
        with zipfile.ZipFile(io.BytesIO(pack.zipped(pack.functions(programs, programs, "arm64")))) as archive:
            archive.extractall(here)
        said = sam(deploy, here)
        reached = [line for line in said.splitlines() if re.search("[Cc]ould not connect|[Ff]ailed to connect", line)]
        check(reached and "Missing option" not in said, f"{deploy}: {reached[0].strip() if reached else said}")
        (here / "samconfig.toml").unlink()
        said = sam(deploy, here)
        check("Missing option" in said, "without samconfig.toml it would say: Missing option")


def main():
    packages.inside(VENV, "cfn-lint and the SAM CLI", NEEDS)
    print("roles")
    try_roles()
    print("rules")
    try_rules()
    print("names")
    try_names()
    print("without Rust")
    try_without_rust()
    print("the templates are as far right as can be seen from here")


if __name__ == "__main__":
    main()
