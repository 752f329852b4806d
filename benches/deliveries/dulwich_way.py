"""The way of the Python Lambdas: clone with a checkout, shutil.make_archive, boto3.

usage: dulwich_way.py URL DEPTH FOLDER BUCKET KEY    (DEPTH 0: the whole history)

Kinder than most: the archive is written outside the tree, and does not hold .git.
"""

import io
import os
import shutil
import sys

import boto3
from botocore.config import Config
from dulwich import porcelain

url, depth, folder, bucket, key = sys.argv[1:]
tree = os.path.join(folder, "tree")
porcelain.clone(
    url, tree, depth=int(depth) or None, errstream=io.BytesIO(), outstream=io.BytesIO()
).close()
shutil.rmtree(os.path.join(tree, ".git"))
archive = shutil.make_archive(os.path.join(folder, "archive"), "zip", tree)
# As over HTTPS: only over HTTP is the archive hashed once more for its signature.
config = Config(s3={"payload_signing_enabled": False})
with open(archive, "rb") as body:
    boto3.client("s3", config=config).put_object(Bucket=bucket, Key=key, Body=body)
