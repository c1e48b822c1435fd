# SPDX-License-Identifier: Apache-2.0
"""Whether a certificate holds: its digest, its chain, and the rules of safety, read from its JSON alone.

Nothing of what decided or built it is asked here: who checks with the builder's own code finds what the builder finds.
Times are compared only where one engine's clock stamped both; across a take-over the epochs tell the order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SCHEMA = 1
NEVER = -1.0
# Times are written to the microsecond.
ROUNDING_S = 2e-6


def broken(certificate: Mapping[str, Any]) -> list[str]:
    """A sentence for each rule that this one breaks by itself."""
    if certificate.get("schema") != SCHEMA:
        return [f"its schema is {certificate.get('schema')}, and only {SCHEMA} is known here"]
    try:
        return [*_digest(certificate), *_rules(certificate)]
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        return [*_digest(certificate), f"it is not made as the schema says: {type(error).__name__} {error}"]


def broken_chain(chain: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of all certificates of one VM in one incident, in their order."""
    said = []
    before = ""
    for place, one in enumerate(chain, start=1):
        if one.get("number") != place:
            said.append(f"certificate {place} of the chain is missing: number {one.get('number')} stands in its place")
            return said
        if one.get("previous") != before:
            said.append(f"number {place} does not follow the one before it: its «previous» is another digest")
        before = str(one.get("digest"))
    return said


def _digest(certificate: Mapping[str, Any]) -> Iterator[str]:
    body = {key: value for key, value in certificate.items() if key != "digest"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() != certificate.get("digest"):
        yield "its digest is not that of its content: it was changed after it was written"


def _rules(certificate: Mapping[str, Any]) -> Iterator[str]:
    start, host = certificate["start"], certificate["incident"]["host"]
    if start is None:
        yield "nobody kept when and on which proof the evacuation was started"
        return
    if certificate["verdict"] is None:
        yield "nobody kept the verdict that began the fence"
    owners = {one["epoch"] for one in certificate["owners"]}
    if start["epoch"] not in owners:
        yield f"it was started under epoch {start['epoch']}, which no owner had"
    if certificate["result"]["epoch"] not in owners:
        yield f"it was settled under epoch {certificate['result']['epoch']}, which no owner had"
    if certificate["plan"].get("target", "") in ("", host):
        yield "its target is no other host"
    proofs = {one["host"]: one for one in certificate["proofs"]}
    named = {host} | {
        one.partition("/")[0]
        for key, value in certificate["plan"].items() if key.startswith("proof_")
        for one in value.split(",") if one
    }  # fmt: skip
    for missing in sorted(named - proofs.keys()):
        yield f"there is no proof of {missing}"
    own = proofs.get(host)
    if own is not None and (own["round"], own["incident"]) != (start["round"], certificate["incident"]["id"]):
        yield f"the proof of {host} is of round {own['round']}, and the evacuation is of round {start['round']}"
    if own is not None and own["epoch"] not in owners:
        yield f"{host} was proven under epoch {own['epoch']}, which no owner had"
    for name in sorted(proofs):
        yield from _of_proof(certificate, proofs[name], start)
    if start["acts"] and start["epoch"] == certificate["result"]["epoch"]:
        if _s(start["acted_at"]) + ROUNDING_S < _s(start["at"]):
            yield "it was sent before it was started"


def _of_proof(certificate: Mapping[str, Any], proof: Mapping[str, Any], start: Mapping[str, Any]) -> Iterator[str]:
    host, observed = proof["host"], proof["observed"]
    times = [_s(one["at"]) for one in observed]
    if not observed:
        yield f"the proof of {host} rests on no observation"
        return
    if proof["epoch"] > start["epoch"]:
        yield f"the proof of {host} does not precede the start of the evacuation: it is of a later owner"
    elif proof["epoch"] == start["epoch"] and max(*times, _s(proof["proven_at"])) > _s(start["at"]) + ROUNDING_S:
        yield f"the proof of {host} does not precede the start of the evacuation"
    if proof["kind"] != "cut_storage":
        # Who is cut off may live, isolated: nothing that it writes lands, which is read just before the start.
        yield from _life(proof, start)
    if proof["kind"] == "power_off":
        yield from _power_off(proof, times)
    elif proof["kind"] == "cut_storage":
        yield from _cut_storage(certificate, proof)
    elif proof["kind"] == "self_fenced":
        yield from _self_fenced(proof)
    elif proof["kind"] == "word":
        yield from _word(proof)
    else:
        yield f"{host} is proven by {proof['kind']}, which is no fence level"


def _life(proof: Mapping[str, Any], start: Mapping[str, Any]) -> Iterator[str]:
    host = proof["host"]
    if proof["epoch"] == start["epoch"]:
        if _s(proof["life_at_start"]) > _s(proof["at"]) + ROUNDING_S:
            yield f"{host} gave a sign of life after its proof, before the start"
    elif proof["epoch"] < start["epoch"] and proof["life_at_start"] is not None:
        yield f"{host} gave a sign of life to the owner that started it, which had not seen the proof"
    if _s(proof["seen"]["life_at"]) > _s(proof["at"]) + ROUNDING_S:
        yield f"{host} gave a sign of life after the first observation of its proof"


def _power_off(proof: Mapping[str, Any], times: Sequence[float]) -> Iterator[str]:
    host, apart_s = proof["host"], float(proof["seen"]["policy"]["readings_apart_s"])
    if any(one["reading"] != "off" for one in proof["observed"]):
        yield f"the proof of {host} holds a reading that is not OFF"
    if len(times) < 2 or max(times) - min(times) + ROUNDING_S < apart_s:
        yield f"{host} was not read OFF twice, {apart_s:g} s apart"
    acts = [one for one in proof["acts"] if one["verb"] == "power_off" and one["acts"]]
    if not acts:
        yield f"nothing was done to {host} before it was observed"
    if any(min(times) + ROUNDING_S < _s(one["acted_at"]) for one in acts):
        yield f"the observations that prove {host} came before the act"


def _cut_storage(certificate: Mapping[str, Any], proof: Mapping[str, Any]) -> Iterator[str]:
    host, proven = proof["host"], set(proof["backends"])
    if not proven or any(one["reading"] != "cut" for one in proof["observed"]):
        yield f"the proof of {host} holds a reading that is not CUT"
    for backend in sorted(proven):
        yield from _cut_off(proof, backend)
    disks = certificate["server"]["disks"]
    if host != certificate["incident"]["host"]:
        yield f"{host} might have run it, and is only proven to be cut off from storages"
    elif not disks:
        yield f"nobody knows where its disks are, and {host} is only proven to be cut off from storages"
    for disk, backends in sorted(disks.items()):
        if not backends or not set(backends) <= proven:
            where = ", ".join(backends) or "no storage that can cut it off"
            yield f"its disk {disk} is on {where}, from which {host} is not proven to be cut off"
    read = certificate["plan"].get("proof_cuts", "").split(",")
    for backend in sorted({one.partition("/")[2] for one in read if one.startswith(f"{host}/")} - proven):
        yield f"its start rested on {backend}, from which {host} is not proven to be cut off"


def _cut_off(proof: Mapping[str, Any], backend: str) -> Iterator[str]:
    """From one storage: one of the observations that prove it is of that storage, after the cut."""
    host, mine = proof["host"], [one for one in proof["acts"] if one["args"].get("backend") == backend]
    acts = [one for one in mine if one["verb"] == "cut_storage" and one["acts"]]
    if not acts:
        yield f"nothing was done to {host} at {backend} before it was observed"
        return
    proving = {_s(one["at"]) for one in proof["observed"]}
    cuts = [one["at"] for one in acts[-1]["observed"] if one["reading"] == "cut" and _s(one["at"]) in proving]
    if not cuts:
        yield f"{backend} was never read to have cut {host} off"
    elif max(_s(at) for at in cuts) + ROUNDING_S < _s(acts[-1]["acted_at"]):
        yield f"the observations that prove {host} at {backend} came before the act"


def _self_fenced(proof: Mapping[str, Any]) -> Iterator[str]:
    host, seen = proof["host"], proof["seen"]
    if any(one["reading"] != "reset" for one in proof["observed"]):
        yield f"the proof of {host} holds a reading that is no reset"
    if seen["policy"].get("self_fence_proof") != "True":
        yield f"policy did not take it for a proof that {host} fences itself"
    if not any((one["channel"], one["reading"]) == ("self-fencing", "down") for one in seen["sights"]):
        yield f"nobody saw that {host} had fenced itself"


def _word(proof: Mapping[str, Any]) -> Iterator[str]:
    said = [one["args"] for one in proof["acts"] if one["verb"] == "confirm_down"]
    if not any(one.get("by") and one.get("why") for one in said):
        yield f"an operator's word proves {proof['host']}, and his name or his reason is not kept"


def _s(time: Mapping[str, Any] | None) -> float:
    return NEVER if time is None else float(time["s"])
