"""Asks a gateway what restore tools built on boto3 ask.

usage: gateway-boto3.py ENDPOINT BUCKET PREFIX
Prints "done".
"""

import io
import sys

import boto3
from botocore.client import Config
from botocore.exceptions import ClientError

endpoint, bucket, prefix = sys.argv[1:]


def client(**options):
    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, proxies={}, **options)
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=config)


def code(call, **arguments):
    try:
        call(Bucket=bucket, **arguments)
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]
    return None


s3 = client()
assert [b["Name"] for b in s3.list_buckets()["Buckets"]] == [bucket]
s3.head_bucket(Bucket=bucket)
names = ["p/a", "p/big", "p/d/b c", "p/plus+per%cent", "p/ü"]
for operation in ("list_objects", "list_objects_v2"):
    pages = s3.get_paginator(operation).paginate(Bucket=bucket, Prefix=prefix, PaginationConfig={"PageSize": 2})
    assert [o["Key"] for page in pages for o in page.get("Contents", [])] == names, operation
versions = s3.list_object_versions(Bucket=bucket, Prefix=prefix)["Versions"]
assert [v["Key"] for v in versions] == names
for name in names:
    head = s3.head_object(Bucket=bucket, Key=name)
    body = s3.get_object(Bucket=bucket, Key=name)["Body"].read()
    assert len(body) == head["ContentLength"], name
whole = s3.get_object(Bucket=bucket, Key="p/big")["Body"].read()
parts = io.BytesIO()
s3.download_fileobj(bucket, "p/big", parts)
assert parts.getvalue() == whole
assert s3.get_object(Bucket=bucket, Key="p/a", Range="bytes=-3")["Body"].read() == b"ent"
assert s3.get_object_tagging(Bucket=bucket, Key="p/a")["TagSet"] == []
assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
assert code(s3.get_object, Key="p/none") == (404, "NoSuchKey")
assert code(s3.head_object, Key="p/none") == (404, "404")
assert code(s3.get_object, Key="q/none") == (403, "AccessDenied")
assert code(s3.get_object, Key="p/a", Range="bytes=100-") == (416, "InvalidRange")
assert code(s3.get_object, Key="p/a", IfMatch='"other"') == (412, "PreconditionFailed")
assert code(s3.get_bucket_policy) == (404, "NoSuchBucketPolicy")
assert code(s3.create_multipart_upload, Key="p/new") == (403, "AccessDenied")

# checksums in trailers and in headers, signed and unsigned payloads
for options in ({}, {"request_checksum_calculation": "when_required"}, {"signature_version": "s3v4"}):
    writer = client(**options)
    writer.put_object(Bucket=bucket, Key="p/new", Body=b"x" * 70000)
    assert writer.get_object(Bucket=bucket, Key="p/new")["Body"].read() == b"x" * 70000
    writer.put_object(Bucket=bucket, Key="p/new", Body=io.BytesIO(b"y" * 9000))
    assert writer.get_object(Bucket=bucket, Key="p/new")["ContentLength"] == 9000
    writer.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "p/new"}]})
    assert code(writer.head_object, Key="p/new") == (404, "404")
url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "p/plus+per%cent"}, ExpiresIn=60)
assert bucket in url
print("done")
