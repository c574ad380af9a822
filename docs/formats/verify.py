#!/usr/bin/env python3
"""Verifies a Tidegate log, or a bundle of one, with nothing but public keys. Python 3.11, no other library.

A second implementation: it shares no code with tidegate-collector, and was written from docs/formats/*.md. Ed25519 is
computed here in plain Python (RFC 8032), so that nothing has to be installed: about 4 ms a signature.

    verify.py --log DIR --keys keys.json [--policy policy.txt] [--checkpoint FILE ..] [--range A..B]
    verify.py --bundle DIR [--keys keys.json] [--policy policy.txt]
    verify.py --golden DIR    checks itself against docs/formats/golden
    verify.py --batch FILE    one JSON array of such arguments a line; one JSON object a line comes back

Exit code: 0 verified, 10 with declared gaps, 20 tampering, 30 cannot be decided.

Behind a damaged frame (a bad CRC) it goes on where the next frame's index is certain (segment.md), else with the next
segment.
It reads a log that nobody is writing; beside a collector that serves, copy the directory first.
"""

import argparse, base64, functools, hashlib, json, os, struct, sys

# ---- Ed25519, RFC 8032 5.1; strict: canonical S, no point of small order, no cofactor ----------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
IDENTITY = (0, 1, 1, 0)


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def double(p):
    a, b, c = p[0] * p[0] % P, p[1] * p[1] % P, 2 * p[2] * p[2] % P
    h = a + b
    e, g = h - (p[0] + p[1]) ** 2 % P, a - b
    f = c + g
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def decode_point(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    y2 = y * y % P
    u, v = (y2 - 1) % P, (D * y2 + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P == (-u) % P:
        x = x * SQRT_M1 % P
    if v * x * x % P != u or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def encode_point(p):
    inverse = pow(p[2], P - 2, P)
    x, y = p[0] * inverse % P, p[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def is_small(p):
    p = double(double(double(p)))
    return p[0] == 0 and (p[1] - p[2]) % P == 0


BASE = decode_point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


@functools.lru_cache(4096)  # the same note stands in several files
def ed25519(key, message, signature):
    if len(key) != 32 or len(signature) != 64:
        return False
    a, r = decode_point(key), decode_point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L or is_small(a) or is_small(r):
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    minus = (P - a[0], a[1], 1, P - a[3])
    both, at = add(BASE, minus), IDENTITY
    for bit in range(max(s.bit_length(), k.bit_length()) - 1, -1, -1):
        at = double(at)
        which = (s >> bit & 1, k >> bit & 1)
        if which != (0, 0):
            at = add(at, {(1, 0): BASE, (0, 1): minus, (1, 1): both}[which])
    return encode_point(at) == signature[:32]


# ---- protobuf: single fields (record.md, seal.md, log.md) --------------------------------------------------------


class Wrong(Exception):
    pass


class Fixed(int):
    """A fixed64, which is not a varint of the same value."""


def fields(data):
    """All fields of a message as (number, value): an int for a varint, Fixed, or bytes."""
    at, found = 0, []

    def varint():
        nonlocal at
        value = 0
        for shift in range(0, 70, 7):
            if at >= len(data):
                raise Wrong("ends inside a field")
            byte = data[at]
            at += 1
            if shift == 63 and byte & 0x7F > 1:
                break
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise Wrong("no protobuf")

    def take(count):
        nonlocal at
        if at + count > len(data):
            raise Wrong("ends inside a field")
        at += count
        return data[at - count : at]

    while at < len(data):
        tag = varint()
        number, kind = tag >> 3, tag & 7
        if number == 0 or number > 0xFFFFFFFF:
            raise Wrong("no protobuf")
        if kind == 0:
            found.append((number, varint()))
        elif kind == 1:
            found.append((number, Fixed(struct.unpack("<Q", take(8))[0])))
        elif kind == 2:
            found.append((number, take(varint())))
        elif kind == 5:
            take(4)
            found.append((number, None))
        else:
            raise Wrong("no protobuf")
    return found


def once(found, wanted):
    """{number: value} of the wanted fields {number: type, or length of bytes, 0 for any}; a second one is wrong."""
    values = {}
    for number, value in found:
        if number not in wanted:
            continue
        if number in values:
            raise Wrong(f"field {number} is there twice")
        kind = wanted[number]
        if type(value) is not (kind if isinstance(kind, type) else bytes):
            raise Wrong(f"field {number} is of another type")
        if not isinstance(kind, type) and kind and len(value) != kind:
            raise Wrong(f"field {number} is not {kind} bytes")
        values[number] = value
    return values


def need(values, *numbers):
    for number in numbers:
        if number not in values:
            raise Wrong(f"field {number} is missing")


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


# ---- notes, checkpoints, cosignatures, policies (checkpoint.md, witness.md) --------------------------------------


def read_vkey(text, kind):
    name, key_hash, key = text.strip().split("+", 2)
    key = base64.b64decode(key, validate=True)
    if not name or any(c.isspace() for c in name) or len(key) != 33 or key[0] != kind:
        raise Wrong("not a verifier key of the kind that is needed here")
    if sha256(name.encode(), b"\n", key)[:4].hex() != key_hash:
        raise Wrong("the key's hash is not that of its name and key")
    return name, key[1:], sha256(name.encode(), b"\n", key)[:4]


def split_note(note):
    if len(note.encode()) > 65536 or any(c < " " and c != "\n" for c in note):
        raise Wrong("not a signed note")
    end = note.rfind("\n\n")
    if end < 0 or not note.endswith("\n"):
        raise Wrong("not a signed note")
    text, lines = note[: end + 1], note[end + 2 : -1].split("\n")
    signatures = []
    for line in lines:
        if not line.startswith("\u2014 ") or " " not in line[2:] or len(signatures) >= 100:
            raise Wrong("a line of the note is no signature")
        name, signature = line[2:].split(" ", 1)
        try:
            signature = base64.b64decode(signature, validate=True)
        except ValueError:
            raise Wrong("a signature is not base64")
        if len(signature) < 4:
            raise Wrong("a signature is too short")
        signatures.append((name, signature[:4], signature[4:]))
    return text, signatures


def open_checkpoint(note, vkey):
    """(size, root) of a checkpoint that the log's key signed."""
    name, key, key_hash = vkey
    text, signatures = split_note(note)
    signed = False
    for by, by_hash, signature in signatures:
        if (by, by_hash) == (name, key_hash):
            if not ed25519(key, text.encode(), signature):
                raise Wrong(f"the signature of {name} is not over this text")
            signed = True
    if not signed:
        raise Wrong(f"no signature of {name}")
    lines = text.split("\n")
    if len(lines) < 4 or lines[0] != name:
        raise Wrong("not a checkpoint of this log")
    if not lines[1].isascii() or not lines[1].isdigit() or str(int(lines[1])) != lines[1]:
        raise Wrong("the size is not in plain decimal")
    try:
        root = base64.b64decode(lines[2], validate=True)
    except ValueError:
        raise Wrong("the root is not base64")
    if len(root) != 32:
        raise Wrong("the root is not 32 bytes")
    return int(lines[1]), root


def cosigned_by(note, witnesses):
    """Names of the witnesses {name in policy: vkey} that signed the note."""
    text, signatures = split_note(note)
    good = set()
    for by, by_hash, signature in signatures:
        for name, (key_name, key, key_hash) in witnesses.items():
            if (by, by_hash) == (key_name, key_hash):
                time = int.from_bytes(signature[:8], "big")
                message = f"cosignature/v1\ntime {time}\n{text}".encode()
                if not ed25519(key, message, signature[8:]):
                    raise Wrong(f"the signature of {key_name} is not over this text")
                good.add(name)
    return good


class Policy:
    def __init__(self, text):
        self.logs, self.witnesses, self.groups, self.quorum = [], {}, [], False
        names, grouped, keys = set(), set(), set()
        for line in text.split("\n"):
            words = line.replace("\t", " ").split()
            if not words or words[0].startswith("#"):
                continue
            if words[0] == "log" and len(words) in (2, 3):
                self.logs.append(read_vkey(words[1], 1))
                self.unique(keys, self.logs[-1][1])
            elif words[0] == "witness" and len(words) in (3, 4):
                self.unique(names, words[1])
                self.witnesses[words[1]] = read_vkey(words[2], 4)
                self.unique(keys, self.witnesses[words[1]][1])
            elif words[0] == "group" and len(words) >= 4:
                members = words[3:]
                count = {"all": str(len(members)), "any": "1"}.get(words[2], words[2])
                if not count.isdigit() or str(int(count)) != count or not 1 <= int(count) <= len(members):
                    raise Wrong("policy: a group's number of members")
                for member in members:
                    if member not in names:
                        raise Wrong(f"policy: {member} is not defined above")
                    self.unique(grouped, member)
                self.unique(names, words[1])
                self.groups.append((words[1], int(count), members))
            elif words[0] == "quorum" and len(words) == 2 and self.quorum is False:
                if words[1] != "none" and words[1] not in names:
                    raise Wrong(f"policy: {words[1]} is not defined above")
                self.quorum = None if words[1] == "none" else words[1]
            else:
                raise Wrong(f"policy: {line}")
        if self.quorum is False or "none" in names:
            raise Wrong("policy: no quorum line, or a name that is taken")

    @staticmethod
    def unique(known, name):
        if name in known:
            raise Wrong("policy: a name or key is there twice")
        known.add(name)

    def is_met(self, signed):
        good = set(signed)
        for name, count, members in self.groups:
            if sum(member in good for member in members) >= count:
                good.add(name)
        return self.quorum in good


# ---- the tree (checkpoint.md; RFC 6962) ---------------------------------------------------------------------------


class Tree:
    def __init__(self):
        self.size, self.subtrees = 0, []

    def push(self, entry):
        node, size = sha256(b"\0", entry), self.size
        while size & 1:
            node, size = sha256(b"\1", self.subtrees.pop(), node), size >> 1
        self.subtrees.append(node)
        self.size += 1

    def root(self):
        if not self.subtrees:
            return sha256()
        node = self.subtrees[-1]
        for left in reversed(self.subtrees[:-1]):
            node = sha256(b"\1", left, node)
        return node


def included(leaf, index, size, proof, root):
    """RFC 9162, 2.1.3.2."""
    if index >= size:
        return False
    at, last, node = index, size - 1, leaf
    for step in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            node = sha256(b"\1", step, node)
            while at & 1 == 0 and at:
                at, last = at >> 1, last >> 1
        else:
            node = sha256(b"\1", node, step)
        at, last = at >> 1, last >> 1
    return last == 0 and node == root


# ---- segments (segment.md) ----------------------------------------------------------------------------------------

CRC_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ (0x82F63B78 if _byte & 1 else 0)
    CRC_TABLE.append(_byte)


def crc32c(data):
    crc, table = 0xFFFFFFFF, CRC_TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


class Damaged(Exception):
    def __init__(self, file, offset, index, what):
        super().__init__(what)
        self.file, self.offset, self.index, self.what = file, offset, index, what


def frame_at(data, at):
    """(kind, payload, end) of a good frame; None at the end; Wrong where there is none."""
    if at + 4 > len(data) or data[at : at + 4] == b"\0\0\0\0":
        return None
    length, crc = struct.unpack_from("<II", data, at) if at + 8 <= len(data) else (0, 0)
    if not 1 <= length <= 16777217 or at + 8 + length > len(data):
        raise Wrong("the frame's length is impossible")
    body = data[at + 8 : at + 8 + length]
    if crc32c(body) != crc:
        raise Wrong("the frame's CRC is wrong")
    return body[0], body[1:], at + 8 + length


def marks_in(data, at, owner):
    """The greatest place that a mark anywhere in these bytes says to have been durable."""
    best, needle = 0, struct.pack("<I", 25)
    while (at := data.find(needle, at)) >= 0:
        try:
            found = frame_at(data, at)
            if found and found[0] == 0 and found[1][8:24] == owner[:16]:
                best = max(best, struct.unpack("<Q", found[1][:8])[0])
        except Wrong:
            pass
        at += 1
    return best


def index_behind(data, offset, index, end):
    """The index of the frame behind a damaged one at `offset`; None if that is not certain (segment.md)."""
    length = struct.unpack_from("<I", data, offset)[0] if offset + 4 <= len(data) else 0
    if not 1 <= length <= 16777217 or offset + 8 + length > len(data):
        return None
    at, indexed, steps = offset + 8 + length, 0, 0
    try:
        while (found := frame_at(data, at)) is not None:
            at, indexed, steps = found[2], indexed + (found[0] != 0), steps + 1
            if end is None:
                # A mark is of 33 bytes, and has no index.
                return None if length + 8 == 33 else index + 1
    except Wrong:
        return None
    if not steps or end is None:
        return None
    return {end - 1: index + 1, end: index}.get(index + indexed)


def read_segments(directory, known_durable):
    """Yields (index, file, offset, kind, payload), and a Damaged where a frame that was durable is not there."""
    segments, durable, owner = [], known_durable, None
    for name in sorted(os.listdir(directory)):
        if len(name) != 24 or not name.endswith(".seg") or not name[:20].isdigit():
            continue
        with open(os.path.join(directory, name), "rb") as file:
            data = file.read()
        if len(data) < 80 or data[:8] != b"TIDESEGM" or crc32c(data[:76]) != struct.unpack_from("<I", data, 76)[0]:
            raise Damaged(name, 0, None, "the segment's header is damaged")
        version, ordinal, first, header_durable = struct.unpack_from("<I32xQQQ", data, 8)
        if version != 1 or ordinal != int(name[:20]) or (owner or data[12:44]) != data[12:44]:
            raise Damaged(name, 0, None, "the segment's header is of another log or version")
        owner, durable = data[12:44], max(durable, header_durable)
        segments.append((ordinal, first, name, data))
    index = 0
    for at, (ordinal, first, name, data) in enumerate(segments):
        end = min([later[1] for later in segments[at + 1 :]], default=None)
        if end is not None and first >= end:
            continue
        index, offset = first, 80
        while end is None or index < end:
            what = "the frame is missing"
            try:
                found = frame_at(data, offset)
            except Wrong as wrong:
                found, what = None, str(wrong)
            if found is None:
                proven = max(durable, marks_in(data, offset, owner))
                for later in segments[at + 1 :]:
                    proven = max(proven, marks_in(later[3], 80, owner))
                if proven <= index:
                    return
                yield Damaged(name, offset, index, what)
                if (index := index_behind(data, offset, index, end)) is None:
                    break
                offset += 8 + struct.unpack_from("<I", data, offset)[0]
                continue
            if found[0] != 0:
                yield index, name, offset, found[0], found[1]
                index += 1
            offset = found[2]


# ---- records, seals, chains (record.md, seal.md, chain.md) --------------------------------------------------------

RECORD, SEAL = 1, 2
GENESIS, HEARTBEAT, GAP, BYPASS, RECOVERED, EQUIVOCATION, MISSING = 20, 22, 23, 24, 25, 51, 52
CLOCK_STEP_NS, CLOCK_STEPS_MAX = 2_000_000_000, 16


def read_entry(data):
    entry = once(fields(data), {1: int, 2: 32, 3: Fixed, 4: 0})
    need(entry, 1, 2, 4)
    return entry[1], entry[2], entry.get(3, 0), entry[4]


class Record:
    def __init__(self, data):
        found = fields(data)
        header = once(found, {1: int, 2: 32, 3: int, 4: 32, 5: Fixed, 6: Fixed})
        if header.get(1, 0) != 1:
            raise Wrong("format version, and only 1 is known")
        need(header, 2, 4)
        self.chain, self.seq, self.prev = header[2], header.get(3, 0), header[4]
        self.clocks = header.get(5, 0) - header.get(6, 0)
        self.value = sha256(b"tidegate/rec/v1\0", data)
        self.bodies = [(number, value) for number, value in found if isinstance(value, bytes) and number >= 20]
        self.genesis, self.genesis_wrong = None, None
        try:
            self.genesis = self.read_genesis(found)
        except Wrong as wrong:
            self.genesis_wrong = str(wrong)

    def read_genesis(self, found):
        body = once(found, {GENESIS: 0}).get(GENESIS)
        if body is None:
            return None
        genesis = once(fields(body), {1: 0, 2: 16, 3: 16, 4: 32, 9: 32, 10: 32, 11: int})
        need(genesis, 1, 2, 3, 4)
        agent = genesis[1]
        agent.decode()
        made = sha256(b"tidegate/chain/v1\0", struct.pack("<Q", len(agent)), agent, genesis[2], genesis[4], genesis[3])
        if made != self.chain:
            raise Wrong("the Genesis names another chain than its fields make")
        if (9 in genesis) != (10 in genesis):
            raise Wrong("the Genesis names half of a chain before")
        return genesis


def read_seal(data):
    """((chain, first, last, value), what was signed, signature)."""
    outer = once(fields(data), {1: 0, 2: 0})
    need(outer, 1, 2)
    body = once(fields(outer[1]), {1: 32, 2: int, 3: int, 4: 32, 5: Fixed, 6: Fixed})
    need(body, 1, 4)
    facts = (body[1], body.get(2, 0), body.get(3, 0), body[4])
    if facts[2] < facts[1]:
        raise Wrong("a seal that ends before it begins")
    return facts, b"tidegate/seal/v1\0" + outer[1], outer[2]


class Chain:
    def __init__(self, spot):
        self.genesis, self.first, self.last, self.next = None, spot, spot, 0
        self.head, self.sealed_next, self.unsealed = b"\0" * 32, 0, []
        self.suspect, self.holes, self.broken = None, [], False
        self.clocks, self.steps = None, 0


class Verifier:
    """Fed every entry in order, finds what is wrong. `place` is (index, file, offset)."""

    def __init__(self, keys, policy, notes):
        self.findings, self.agents = [], {}
        self.log_key = read_vkey(keys["log_key"], 1)
        for agent in keys["agents"]:
            self.agents.setdefault(agent["agent_id"], set()).add(bytes.fromhex(agent["audit_key"]))
        self.policy = policy
        if policy and policy.logs and self.log_key not in policy.logs:
            self.log_key = policy.logs[0]
        self.tree, self.broken_tree, self.next_index = Tree(), False, 0
        self.chains, self.gaps, self.recovered, self.missing, self.forks = {}, [], [], [], []
        self.shown = set()
        self.roots, self.bound, self.witnessed, self.seen, self.checked = {}, 0, 0, 0, 0
        self.received, self.steps, self.records, self.seals = 0, 0, 0, 0
        self.heads, self.opened = [], {}
        if not notes:
            self.find("undecided", None, "no checkpoint is given")
        for source, note in notes:
            try:
                size, root = self.open(note)
                self.heads.append((size, root, source, self.is_witnessed(note)))
            except (Wrong, ValueError) as wrong:
                self.find("tampering", None, f"checkpoint {source}: {wrong}")
        self.heads.sort(key=lambda head: head[0], reverse=True)
        self.newest_head = self.heads[0][0] if self.heads else 0
        self.check_heads()

    def open(self, note):
        # The same note comes often: agents repeat the newest one.
        if note not in self.opened:
            self.opened[note] = open_checkpoint(note, self.log_key)
        return self.opened[note]

    def is_witnessed(self, note):
        if not self.policy:
            return False
        signed = cosigned_by(note, self.policy.witnesses)
        return self.policy.quorum is not None and self.policy.is_met(signed)

    def find(self, grade, place, what, chain=None, seq=None):
        index, file, offset = place or (None, None, None)
        self.findings.append({
            "class": grade, "index": index, "entries": None, "file": file, "offset": offset,
            "chain": chain.hex() if chain else None, "seq": seq, "what": what,
        })
        if grade == "tampering" and chain in self.chains:
            self.chains[chain].broken = True

    def feed(self, place, data):
        if place[0] != self.next_index:
            self.find("tampering", place, f"log index {place[0]} where {self.next_index} follows")
            self.broken_tree = True
        self.next_index = place[0] + 1
        self.tree.push(data)
        self.check_heads()
        try:
            kind, chain, received, inner = read_entry(data)
        except Wrong as wrong:
            return self.find("tampering", place, f"the entry can't be read: {wrong}")
        back, self.received = self.received - received, received
        if back >= CLOCK_STEP_NS and self.steps < CLOCK_STEPS_MAX:
            self.steps += 1
            self.find("notice", place, f"the collector's clock was set back by {back // 10**9} s")
        if kind == RECORD:
            self.records += 1
            self.record(place, chain, inner)
        elif kind == SEAL:
            self.seals += 1
            self.seal(place, chain, inner)
        else:
            self.find("undecided", place, f"an entry of kind {kind}, which this verifier does not know", chain)

    def damage(self, damage):
        self.broken_tree = True
        self.find("tampering", (self.next_index, damage.file, damage.offset), damage.what)

    def check_heads(self):
        size = self.tree.size
        while self.heads and self.heads[-1][0] <= size:
            _, root, source, witnessed = self.heads.pop()
            if self.broken_tree:
                continue
            here = self.roots.setdefault(size, self.tree.root())
            if root == here:
                self.checked, self.bound = self.checked + 1, size
                self.witnessed = size if witnessed else self.witnessed
            else:
                what = f"the first {size} entries are not those that checkpoint {source} was signed over"
                # A checkpoint that only the log's key signed may be the thief's own.
                good = self.witnessed if witnessed else self.bound
                self.find("tampering", (size - 1, None, None), f"{what}: the change lies in entries {good} to {size - 1}")
                self.findings[-1]["entries"] = [good, size - 1]

    # -- records

    def record(self, place, chain_id, data):
        chain = self.chains.setdefault(chain_id, Chain(place))
        try:
            record = Record(data)
            if record.chain != chain_id:
                raise Wrong("it is filed under another chain")
        except Wrong as wrong:
            self.find("tampering", place, f"the record can't be read: {wrong}", chain_id, chain.next)
            chain.suspect, chain.head, chain.last = None, None, place
            chain.unsealed.append(None)
            chain.next += 1
            return
        self.link(place, chain_id, chain, record)
        for fork in self.forks:
            if fork["facts"][0] == chain_id and fork["facts"][2] == record.seq:
                fork["taken"] |= fork["facts"][3] == record.value
        for number, body in record.bodies:
            try:
                self.body(place, record, number, body)
            except (Wrong, ValueError) as wrong:
                self.find("tampering", place, f"its body can't be read: {wrong}", chain_id, record.seq)

    def link(self, place, chain_id, chain, record):
        seq = record.seq
        if seq < chain.next:
            return self.find("tampering", place, f"record {seq} is there again, where {chain.next} follows", chain_id, seq)
        if seq > chain.next:
            self.settle(chain_id, chain)
            self.report_unsealed(chain_id, chain)
            chain.holes.append((chain.next, seq - 1, place))
            chain.head, chain.next, chain.sealed_next, chain.unsealed = None, seq, seq, []
        if record.genesis_wrong:
            self.find("tampering", place, record.genesis_wrong, chain_id, seq)
        if (record.genesis is None) == (seq == 0):
            what = "a Genesis inside of a chain" if seq else "the chain does not begin with a readable Genesis"
            self.find("tampering", place, what, chain_id, seq)
        elif seq == 0:
            chain.genesis = record.genesis
        self.judge(place, chain_id, chain, seq, chain.head is None or chain.head == record.prev)
        if chain.clocks is not None and abs(record.clocks - chain.clocks) >= CLOCK_STEP_NS and chain.steps < CLOCK_STEPS_MAX:
            chain.steps += 1
            step = (record.clocks - chain.clocks) // 10**9
            self.find("notice", place, f"the host's clock was set by {step} s before this record", chain_id, seq)
        chain.clocks = record.clocks
        chain.head = record.value
        chain.unsealed.append(record.value)
        chain.next, chain.last = seq + 1, place
        if seq == 0 and record.genesis:
            self.check_key(place, chain_id, record.genesis)

    def judge(self, place, chain_id, chain, seq, holds):
        """Where a link is broken, the link behind it tells which end was changed (chain.md)."""
        if holds:
            return self.settle(chain_id, chain)
        suspect, chain.suspect = chain.suspect, None
        if suspect and suspect[0] + 1 == seq:
            self.changed(suspect[2], chain_id, suspect[0])
        elif seq == 0:
            self.find("tampering", place, "the first record names a record before it", chain_id, seq)
        else:
            chain.suspect = (seq, chain.last, place)

    def settle(self, chain_id, chain):
        if chain.suspect:
            seq, before, _ = chain.suspect
            chain.suspect = None
            self.changed(before, chain_id, seq - 1)

    def changed(self, place, chain_id, seq):
        self.find("tampering", place, f"record {seq} is not the one that its agent wrote", chain_id, seq)

    def report_unsealed(self, chain_id, chain):
        if chain.unsealed:
            what = f"records {chain.sealed_next} to {chain.next - 1} are under no seal"
            self.find("undecided", chain.last, what, chain_id, chain.next - 1)

    def check_key(self, place, chain_id, genesis):
        agent = genesis[1].decode()
        if agent not in self.agents:
            self.find("undecided", place, f"no audit key of agent {agent} is given", chain_id, 0)
        elif genesis[4] not in self.agents[agent]:
            self.find("tampering", place, f"the audit key is none of agent {agent}'s", chain_id, 0)

    def seal(self, place, chain_id, data):
        chain = self.chains.get(chain_id)
        if chain is None:
            return self.find("tampering", place, "a seal of a chain of which no record is here", chain_id)
        last_record = max(chain.next - 1, 0)
        try:
            facts, signed, signature = read_seal(data)
            if chain.genesis is None:
                self.find("undecided", place, "its Genesis is not in the log", chain_id, last_record)
            elif not ed25519(chain.genesis[4], signed, signature):
                raise Wrong("the seal's signature is not its agent's")
            if facts[0] != chain_id:
                raise Wrong("a seal of another chain is filed under this one")
        except Wrong as wrong:
            return self.find("tampering", place, str(wrong), chain_id, last_record)
        _, first, last, value = facts
        if first != chain.sealed_next or last >= chain.next:
            what = f"a seal over records {first} to {last}, and the log has {chain.sealed_next} to {last_record} here"
            self.find("tampering", place, what, chain_id, last)
            if first < chain.sealed_next or last >= chain.next:
                return
        covered = last - chain.sealed_next
        have = chain.unsealed[covered] if covered < len(chain.unsealed) else None
        confirmed = have is None or have == value
        if chain.suspect and chain.suspect[0] == last and not confirmed:
            at, chain.suspect = chain.suspect[2], None
            self.changed(at, chain_id, last)
        else:
            self.settle(chain_id, chain)
            if not confirmed:
                self.changed(chain.last if last == last_record else place, chain_id, last)
        if last == last_record:
            chain.head = value
        chain.unsealed = chain.unsealed[covered + 1 :]
        chain.sealed_next = last + 1

    # -- what records say

    def body(self, place, record, number, body):
        if number == HEARTBEAT:
            for field, value in fields(body):
                if field == 10:
                    self.check_seen(place, record, value.decode())
        elif number == GAP:
            gap = dict(fields(body))
            self.gaps.append((gap.get(4, record.chain), gap.get(1, 0), gap.get(2, 0), record.chain, place))
        elif number == BYPASS:
            self.find("gap", place, "use of on_failure = open, by its record", record.chain, record.seq)
        elif number == RECOVERED:
            self.recovered.append((once(fields(body), {1: 32}).get(1), record.chain))
        elif number == EQUIVOCATION:
            self.check_equivocation(place, record, dict(fields(body)))
        elif number == MISSING:
            said = dict(fields(body))
            self.missing.append((place, said.get(2, record.chain), said.get(3, 0), said.get(4, 0)))

    def check_seen(self, place, record, note):
        """A checkpoint in a heartbeat: what the agent was shown, under the agent's own key."""
        try:
            size, root = self.open(note)
        except (Wrong, ValueError) as wrong:
            return self.find("undecided", place, f"the heartbeat's checkpoint: {wrong}", record.chain, record.seq)
        if self.broken_tree or (place[0] >= self.newest_head and size > self.newest_head):
            return
        if size <= place[0] and self.roots.get(size) == root:
            self.seen += 1
            return
        what = f"the agent was shown a checkpoint over {size} entries that is not of this log"
        self.find("tampering", place, what, record.chain, record.seq)

    def check_equivocation(self, place, record, said):
        agent, chain = said.get(1, b"").decode(), said.get(2, record.chain)
        keys = set(self.agents.get(agent, ()))
        if chain in self.chains and self.chains[chain].genesis:
            keys.add(self.chains[chain].genesis[4])
        try:
            facts, signed, signature = read_seal(said.get(4, b""))
            good = facts[0] == chain and any(ed25519(key, signed, signature) for key in keys)
        except Wrong:
            good = False
        if good:
            self.forks.append({"place": place, "by": record, "facts": facts, "agent": agent, "taken": False})
        else:
            self.find("undecided", place, f"agent {agent} is said to have forked, without its seal", record.chain, record.seq)

    # -- the end

    def finish(self, whole=True):
        for chain_id, chain in sorted(self.chains.items()):
            self.settle(chain_id, chain)
            self.report_unsealed(chain_id, chain)
        for chain_id, chain in sorted(self.chains.items()):
            for first, last, place in chain.holes:
                self.hole(place, chain_id, first, last, "and no Gap record says why")
        self.check_succession()
        for number, (of, first, last, by, place) in enumerate(self.gaps):
            if number not in self.shown:
                self.find("gap", place, f"records {first} to {last} of chain {of.hex()} are declared lost, and no hole shows it", by)
        for ended, by in self.recovered:
            old, new = (self.chains[c].genesis if c in self.chains else None for c in (ended, by))
            if old and new and old[2] != new[2]:
                self.find("gap", self.chains[by].first, "the host went down without a clean end", by)
        for place, chain_id, first, last in self.missing:
            if chain_id not in self.chains or self.chains[chain_id].next <= last:
                self.find("gap", place, f"records {first} to {last} never came to the collector", chain_id, first)
        for fork in self.forks:
            if not fork["taken"]:
                by = fork["by"]
                self.find("tampering", fork["place"], f"FORK of agent {fork['agent']}", by.chain, by.seq)
        for size, _, source, witnessed in self.heads:
            good = self.witnessed if witnessed else self.bound
            what = f"the log has {self.tree.size} entries, and checkpoint {source} was signed over {size}: its end is cut"
            self.find("tampering", (self.tree.size, None, None), f"{what}, or it was changed from entry {good} on")
            self.findings[-1]["entries"] = [good, size - 1]
        if self.broken_tree:
            self.find("tampering", None, "entries are missing, so later checkpoints were not compared")
        if self.policy and (self.tree.size or not whole):
            if self.policy.quorum is None:
                self.find("undecided", None, "the policy asks for no witness")
            elif self.witnessed == 0:
                self.find("undecided", None, "no checkpoint was signed by the quorum of witnesses")

    def hole(self, place, chain_id, first, last, otherwise):
        agent = lambda c: self.chains[c].genesis[1] if c in self.chains and self.chains[c].genesis else None
        for number, (of, gap_first, gap_last, by, _) in enumerate(self.gaps):
            known = agent(chain_id)
            if of == chain_id and gap_first <= first and last <= gap_last and (by == chain_id or known in (None, agent(by))):
                self.shown.add(number)
                return self.find("gap", place, f"records {first} to {last} are missing, declared", chain_id, first)
        self.find("tampering", place, f"records {first} to {last} are missing, {otherwise}", chain_id, first)

    def check_succession(self):
        followed, latest = {}, {}
        for chain_id, chain in sorted(self.chains.items(), key=lambda item: item[1].first[0]):
            if not chain.genesis:
                continue
            earlier, latest[chain.genesis[1]] = latest.get(chain.genesis[1]), chain_id
            before = chain.genesis.get(9)
            if before is None:
                if earlier:
                    self.find("gap", chain.first, "the agent begins anew without naming its chain before", chain_id, 0)
                continue
            if before in followed:
                self.find("tampering", chain.first, "two chains follow one chain", chain_id, 0)
            followed[before] = chain_id
            count, head = chain.genesis.get(11, 0), chain.genesis[10]
            old = self.chains.get(before)
            if old is None:
                self.find("undecided", chain.first, "the chain before is not in this log", chain_id, 0)
            elif old.next < count:
                self.hole(old.last, before, old.next, count - 1, "and the agent's next chain counts them")
            elif old.next > count:
                self.find("tampering", old.last, f"has {old.next} records, and the next chain counts {count}", before, old.next - 1)
            elif old.head is not None and old.head != head and not old.broken:
                self.find("tampering", old.last, "its last record is not the one that the next chain names", before, old.next - 1)


# ---- logs and bundles ---------------------------------------------------------------------------------------------

NOT_PROVEN = [
    "That a host told the truth: whoever is root there can leave out or invent records from then on.",
    "Anything about connections that the kernel hooks did not see.",
    "The times: they are the clocks of agents and collector.",
    "That records which no collector has received yet still exist on their host.",
]


def read_text(path):
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


def notes_of(path):
    """A file of one note, or of one JSON string a line; a last line without line feed was torn and does not count."""
    text = read_text(path)
    if not text.startswith('"') and os.path.basename(path) not in ("checkpoints", "cosigned"):
        return [(path, text)]
    found = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].split("\n")[:-1], 1):
        try:
            note = json.loads(line)
        except ValueError:
            note = line
        found.append((f"{path}:{number}", note if isinstance(note, str) else line))
    return found


def verify_log(args, keys, policy):
    notes = []
    for path in [os.path.join(args.log, name) for name in ("checkpoints", "cosigned", "checkpoint")]:
        if os.path.exists(path):
            notes += notes_of(path)
    for path in args.checkpoint:
        notes += notes_of(path)
    verifier = Verifier(keys, policy, notes)
    try:
        for found in read_segments(os.path.join(args.log, "seg"), verifier.newest_head):
            if isinstance(found, Damaged):
                verifier.damage(found)
            else:
                index, file, offset, _, payload = found
                verifier.feed((index, file, offset), payload)
    except Damaged as damage:
        verifier.damage(damage)
    verifier.finish()
    if args.range:
        first, last = map(int, args.range.split(".."))
        at = lambda f: f["entries"] or (f["index"], f["index"])
        verifier.findings = [f for f in verifier.findings if at(f)[0] is None or (at(f)[0] <= last and first <= at(f)[1])]
    return verifier


def verify_bundle(args, keys, policy):
    manifest = json.loads(read_text(os.path.join(args.bundle, "manifest.json")))
    if manifest.get("v") != 1:
        raise Wrong("a bundle of another version")
    note = read_text(os.path.join(args.bundle, "checkpoint"))
    verifier = Verifier(keys, policy, [("checkpoint", note)])
    if not verifier.heads:
        verifier.finish(whole=False)
        return verifier
    size, root, _, witnessed = verifier.heads.pop()
    verifier.bound, verifier.witnessed, verifier.checked = size, size if witnessed else 0, 1
    strands, sealed, there = {}, set(), {}
    for index in manifest["entries"]:
        place = (index, None, None)
        try:
            with open(os.path.join(args.bundle, "entries", str(index)), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            continue
        proof = os.path.join(args.bundle, "proofs", f"{index}.tlog-proof")
        try:
            check_proof(read_text(proof), index, data, note, size, root)
        except (Wrong, ValueError, OSError) as wrong:
            verifier.find("tampering", place, str(wrong))
        try:
            kind, chain, _, inner = read_entry(data)
            there[index] = kind
            strand = strands.setdefault(chain, {"genesis": None, "records": {}, "seals": []})
            if kind == RECORD:
                verifier.records += 1
                record = Record(inner)
                if record.genesis_wrong:
                    raise Wrong(record.genesis_wrong)
                strand["records"][record.seq] = (place, record)
                strand["genesis"] = record.genesis or strand["genesis"]
                if record.genesis:
                    verifier.check_key(place, chain, record.genesis)
            elif kind == SEAL:
                verifier.seals += 1
                strand["seals"].append((place, inner))
        except Wrong as wrong:
            there.setdefault(index, None)
            verifier.find("tampering", place, f"the entry can't be read: {wrong}")
    for chain, strand in strands.items():
        if not strand["genesis"]:
            verifier.find("undecided", None, "its Genesis is not in the bundle", chain)
            continue
        for place, data in strand["seals"]:
            try:
                facts, signed, signature = read_seal(data)
                if facts[0] != chain or not ed25519(strand["genesis"][4], signed, signature):
                    raise Wrong("the seal is not that of the chain's agent")
            except Wrong as wrong:
                verifier.find("tampering", place, str(wrong), chain)
                continue
            _, first, seq, expected = facts
            while seq >= first and seq in strand["records"]:
                at, record = strand["records"][seq]
                if record.value != expected:
                    verifier.find("tampering", at, f"record {seq} is not the one that its agent sealed", chain, seq)
                    break
                sealed.add(at[0])
                expected, seq = record.prev, seq - 1
    for first, last in manifest["wanted"]:
        for index in range(first, last + 1):
            if index not in there:
                verifier.find("tampering", (index, None, None), "it was asked for, and is not in the bundle")
                break
            if there[index] == RECORD and index not in sealed:
                verifier.find("undecided", (index, None, None), "no seal in the bundle covers it")
    verifier.finish(whole=False)
    return verifier


def check_proof(text, index, data, note, size, root):
    head, _, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    if lines.pop(0) != "c2sp.org/tlog-proof@v1":
        raise Wrong("not a tlog-proof")
    if lines and lines[0].startswith("extra "):
        lines.pop(0)
    if not lines or lines.pop(0) != f"index {index}" or checkpoint != note or len(lines) > 63:
        raise Wrong("the proof of another entry, or to another checkpoint")
    hashes = [base64.b64decode(line, validate=True) for line in lines]
    if not included(sha256(b"\0", data), index, size, hashes, root):
        raise Wrong("it is not the entry that is in the log at this index")


def run(arguments):
    """(exit code, report)."""
    parser = argparse.ArgumentParser(description="Verifies a Tidegate log or bundle.")
    parser.add_argument("--log")
    parser.add_argument("--bundle")
    parser.add_argument("--keys")
    parser.add_argument("--policy")
    parser.add_argument("--checkpoint", action="append", default=[])
    parser.add_argument("--range")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    if bool(args.log) == bool(args.bundle) or (args.log and not args.keys):
        parser.error("--log with --keys, or --bundle")
    try:
        keys = json.loads(read_text(args.keys or os.path.join(args.bundle, "keys.json")))
        policy = Policy(read_text(args.policy)) if args.policy else None
        if args.bundle and not policy:
            own = Policy(read_text(os.path.join(args.bundle, "policy.txt")))
            policy = own if own.quorum is not None else None
        verifier = (verify_log if args.log else verify_bundle)(args, keys, policy)
    except (Wrong, OSError, ValueError, KeyError) as error:
        return args, {"exit_code": 30, "findings": [], "error": str(error)}
    except Damaged as damage:
        return args, {"exit_code": 20, "findings": [{"class": "tampering", "index": damage.index, "what": damage.what}]}
    grades = {"notice": 0, "gap": 10, "undecided": 30, "tampering": 20}
    order = ["notice", "gap", "undecided", "tampering"]
    worst = max((order.index(f["class"]) for f in verifier.findings), default=0)
    verifier.findings.sort(key=lambda f: (f["class"] != "tampering", f["offset"] is None))
    return args, {
        "exit_code": grades[order[worst]], "findings": verifier.findings, "entries": verifier.tree.size,
        "records": verifier.records, "seals": verifier.seals, "root": verifier.tree.root().hex(),
        "checkpoints_checked": verifier.checked, "bound_size": verifier.bound,
        "witnessed_size": verifier.witnessed, "seen_by_agents": verifier.seen,
    }


def check_golden(directory):
    """This program against the golden files: how many values agree."""
    read = lambda name: read_text(os.path.join(directory, name))
    values = lambda text: dict(line.split(" = ", 1) for line in text.split("\n") if " = " in line)
    chain, tree, witness = (values(read(name)) for name in ("chain.txt", "checkpoint.txt", "witness.txt"))
    checks = []
    for name in ("genesis", "operation", "outcome"):
        record = Record(bytes.fromhex(chain[name]))
        checks += [record.value.hex() == chain[f"{name}.chain_value"], record.chain.hex() == chain["chain_id"]]
    checks.append(Record(bytes.fromhex(chain["genesis"])).genesis[4].hex() == chain["audit_key.public"])
    facts, signed, signature = read_seal(bytes.fromhex(chain["seal"]))
    checks.append(ed25519(bytes.fromhex(chain["audit_key.public"]), signed, signature))
    checks.append((facts[0].hex(), facts[3].hex()) == (chain["chain_id"], chain["outcome.chain_value"]))
    checks.append(read_entry(bytes.fromhex(chain["entry.genesis"]))[3].hex() == chain["genesis"])
    log_key, leaves = read_vkey(tree["vkey"], 1), Tree()
    for leaf in tree["leaves"].replace("[empty]", "").split(" "):
        leaves.push(bytes.fromhex(leaf))
    note = read("checkpoint.txt").partition("to the end of the file\n")[2].rstrip("\n") + "\n"
    checks += [leaves.root().hex() == tree["root"], open_checkpoint(note, log_key) == (5, leaves.root())]
    body, signature = bytes.fromhex(tree["receipt.body"]), bytes.fromhex(tree["receipt.signature"])
    checks.append(ed25519(log_key[1], b"tidegate/receipt/v1\0" + body, signature))
    cosigned, policy = json.loads(witness["cosigned"]), Policy(json.loads(witness["policy"]))
    checks += [policy.logs == [log_key], policy.is_met(cosigned_by(cosigned, policy.witnesses)), not policy.is_met(set())]
    checks.append(read_vkey(witness["vkey"], 4) == policy.witnesses["audit"])
    check_proof(json.loads(witness["proof.3"]), 3, bytes.fromhex(witness["leaf.3"]), cosigned, 5, leaves.root())
    heartbeat = dict(fields(dict(fields(bytes.fromhex(witness["body.heartbeat"])))[HEARTBEAT]))
    checks.append(heartbeat[10].decode() == note)
    missing = dict(fields(dict(fields(bytes.fromhex(witness["body.missing"])))[MISSING]))
    checks.append((missing[3], missing[4]) == (3, 5))
    segment = list(marks_and_frames(os.path.join(directory, "segment-v1.bin")))
    checks.append(len(segment) > 0)
    print(f"{sum(checks)} values agree, {len(checks) - sum(checks)} do not")
    return 0 if all(checks) else 1


def marks_and_frames(path):
    with open(path, "rb") as file:
        data = file.read()
    offset = 80
    while found := frame_at(data, offset):
        yield found
        offset = found[2]


def main():
    if sys.argv[1:2] == ["--golden"]:
        return check_golden(sys.argv[2])
    if sys.argv[1:2] == ["--batch"]:
        with open(sys.argv[2], encoding="utf-8") as lines:
            for line in lines:
                print(json.dumps(run(json.loads(line))[1]), flush=True)
        return 0
    args, report = run(sys.argv[1:])
    if args.json:
        print(json.dumps(report))
        return report["exit_code"]
    for found in report["findings"]:
        where = "".join(f" {name} {found[name]}," for name in ("file", "offset", "index", "seq") if found.get(name) is not None)
        print(f"{found['class']}:{where} {found['what']}")
    if "error" in report:
        print(f"cannot be read: {report['error']}")
    else:
        print(
            f"{report['entries']} entries: {report['records']} records, {report['seals']} seals; checkpoints up to "
            f"{report['bound_size']}, witnessed up to {report['witnessed_size']}"
        )
        for line in NOT_PROVEN:
            print(f"not proven: {line}")
    print({0: "verified", 10: "verified, with declared gaps", 20: "TAMPERING"}.get(report["exit_code"], "can't decide"))
    return report["exit_code"]


if __name__ == "__main__":
    sys.exit(main())
