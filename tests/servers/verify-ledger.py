"""Checks a firedrill ledger by RFC 6962 and the C2SP forms, with nothing of firedrill.

usage: verify-ledger.py LEDGER PUBLIC_KEY_PEM [PROOF]
Prints how many entries the checkpoint covers.
"""

import base64
import hashlib
import json
import pathlib
import sys

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key


def leaf(data):
    return hashlib.sha256(b"\0" + data).digest()


def root(leaves):
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root(leaves[:split]) + root(leaves[split:])).digest()


def open_checkpoint(note, key):
    text, signatures = note.rsplit("\n\n", 1)
    text += "\n"
    origin, size, digest = text.splitlines()
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    key_id = hashlib.sha256(origin.encode() + b"\n\1" + raw).digest()[:4]
    for line in signatures.splitlines():
        dash, name, signature = line.split(" ")
        signature = base64.b64decode(signature, validate=True)
        assert dash == "—"
        if name == origin and signature[:4] == key_id:
            key.verify(signature[4:], text.encode())
            return int(size), base64.b64decode(digest, validate=True)
    raise SystemExit("no signature of this key")


def check_proof(proof, key):
    head, checkpoint = proof.split("\n\n", 1)
    version, extra, index, *hashes = head.splitlines()
    assert version == "c2sp.org/tlog-proof@v1"
    size, expected = open_checkpoint(checkpoint, key)
    node, last = int(index.removeprefix("index ")), size - 1
    found = leaf(base64.b64decode(extra.removeprefix("extra ")))
    # RFC 9162, section 2.1.3.2
    for sibling in (base64.b64decode(h) for h in hashes):
        assert last > 0
        if node & 1 or node == last:
            found = hashlib.sha256(b"\1" + sibling + found).digest()
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            found = hashlib.sha256(b"\1" + found + sibling).digest()
        node >>= 1
        last >>= 1
    assert last == 0 and found == expected, "the proof does not lead to the root"


ledger, pem, *proofs = map(pathlib.Path, sys.argv[1:])
key = load_pem_public_key(pem.read_bytes())
size, expected = open_checkpoint((ledger / "checkpoint").read_text(), key)
lines = (ledger / "entries.jsonl").read_bytes().split(b"\n")[:size]
assert len(lines) == size, "entries are missing"
assert [json.loads(line)["index"] for line in lines] == list(range(size))
assert root([leaf(line) for line in lines]) == expected, "another root"
for proof in proofs:
    check_proof(proof.read_text(), key)
print(size)
