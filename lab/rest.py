# SPDX-License-Identifier: Apache-2.0
"""The few calls the lab itself makes to its APIs: urllib, so that they need no virtualenv and start at once."""
import json
import urllib.error
import urllib.request

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RestError(Exception):
    """An API said no; `status` is its HTTP code."""

    def __init__(self, status, text):
        super().__init__("HTTP %s: %s" % (status, text))
        self.status = status


def request(method, url, body=None, headers=None, timeout=70):
    """One HTTP call: (headers, decoded body)."""
    headers = dict(headers or {})
    if isinstance(body, bytes):
        headers.setdefault("Content-Type", "application/octet-stream")
    elif body is not None:
        body = json.dumps(body).encode()
        headers.setdefault("Content-Type", "application/json")
    call = urllib.request.Request(url, data=body, method=method, headers=headers)
    try:
        with OPENER.open(call, timeout=timeout) as answer:
            raw = answer.read()
            return answer.headers, json.loads(raw) if raw and b"{" in raw[:1] else raw
    except urllib.error.HTTPError as error:
        raise RestError(error.code, error.read().decode(errors="replace")[:400]) from None
    except OSError as error:
        raise RestError(0, "%s does not answer (%s)" % (url, error)) from None


class Api:
    """The admin's session with one lab."""

    def __init__(self, lab):
        self.lab = lab
        self.urls = {"identity": lab.url("keystone", "/v3"), "compute": lab.url("nova-api", "/v2.1"),
                     "image": lab.url("glance"), "network": lab.url("neutron"), "placement": lab.url("placement"),
                     **({"block-storage": lab.url("cinder-api", "/v3")} if lab.cinder else {})}
        domain = {"id": "default"}
        body = {"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": "admin", "domain": domain, "password": lab.password("admin")}}},
            "scope": {"project": {"name": "admin", "domain": domain}}}}
        headers, answer = request("POST", self.urls["identity"] + "/auth/tokens", body)
        self.headers = {"X-Auth-Token": headers["X-Subject-Token"], "Accept": "application/json",
                        "OpenStack-API-Version": "compute 2.94, volume 3.0"}
        self.project_id = answer["token"]["project"]["id"]

    def call(self, method, service, path, body=None):
        return request(method, self.urls[service] + path, body, self.headers)[1]

    def get(self, service, path):
        return self.call("GET", service, path)

    def computes(self):
        """Nova's service records of the hosts, by host."""
        return {row["host"]: row for row in self.get("compute", "/os-services?binary=nova-compute")["services"]}
