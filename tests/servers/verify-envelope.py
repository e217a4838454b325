"""Checks a DSSE envelope and its in-toto statement with libraries that know nothing of firedrill.

usage: verify-envelope.py ATTESTATION PUBLIC_KEY_PEM KEYID
Prints the result of the test, as the predicate says it.
"""

import json
import sys

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf import json_format
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

attestation, pem, keyid = sys.argv[1:]
with open(pem, "rb") as file:
    key = SSlibKey.from_crypto(load_pem_public_key(file.read()), keyid=keyid)
with open(attestation, "rb") as file:
    envelope = Envelope.from_dict(json.load(file))
envelope.verify([key], 1)
assert envelope.payload_type == "application/vnd.in-toto+json", envelope.payload_type

statement = json.loads(envelope.payload)
parsed = json_format.ParseDict(statement, Statement([], "", {}).pb)
Statement.copy_from_pb(parsed).validate()
assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
result = json_format.ParseDict(statement["predicate"], test_result_pb2.TestResult())
print(result.result)
