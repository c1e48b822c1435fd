# SPDX-License-Identifier: Apache-2.0
"""Fills an empty cloud with what every trial needs: accounts, catalogue, flavors, an image and a network."""
from lab import rest
from lab.layout import REGION

FLAVORS = (("m1.nano", 64), ("m1.tiny", 512), ("m1.small", 2048))


def endpoints(lab):
    return {"identity": lab.url("keystone", "/v3"), "placement": lab.url("placement"),
            "compute": lab.url("nova-api", "/v2.1"), "image": lab.url("glance"), "network": lab.url("neutron"),
            **({"block-storage": lab.url("cinder-api", "/v3")} if lab.cinder else {})}


def ensure(api, kind, name, body):
    """The named thing of keystone's, found or made."""
    for row in api.get("identity", "/%ss?name=%s" % (kind, name))[kind + "s"]:
        return row
    return api.call("POST", "identity", "/%ss" % kind, {kind: {"name": name, **body}})[kind]


def seed_identity(lab):
    """The services' own account and the catalogue; conductor and scheduler do not start without them."""
    api = rest.Api(lab)
    project = ensure(api, "project", "service", {"domain_id": "default"})
    user = ensure(api, "user", "svc", {"domain_id": "default", "default_project_id": project["id"],
                                       "password": lab.password("svc")})
    for role in ("admin", "service"):
        api.call("PUT", "identity", "/projects/%s/users/%s/roles/%s" % (
            project["id"], user["id"], ensure(api, "role", role, {})["id"]))
    seed_catalogue(lab, api)


def seed_catalogue(lab, api):
    have = {(row["service_id"], row["interface"]) for row in api.get("identity", "/endpoints")["endpoints"]}
    for kind, url in endpoints(lab).items():
        if kind == "identity":
            continue  # made by the bootstrap
        service = ensure(api, "service", "lab-" + kind, {"type": kind})
        for interface in ("public", "internal", "admin"):
            if (service["id"], interface) not in have:
                api.call("POST", "identity", "/endpoints", {"endpoint": {
                    "service_id": service["id"], "interface": interface, "url": url, "region_id": REGION}})


def seed_image(api):
    if not api.get("image", "/v2/images?name=tiny")["images"]:
        image = api.call("POST", "image", "/v2/images", {
            "name": "tiny", "disk_format": "raw", "container_format": "bare", "visibility": "public"})
        api.call("PUT", "image", "/v2/images/%s/file" % image["id"], bytes(65536))


def seed_network(api):
    if not api.get("network", "/v2.0/networks?name=net1")["networks"]:
        body = {"network": {"name": "net1", "shared": True}}
        network = api.call("POST", "network", "/v2.0/networks", body)["network"]
        api.call("POST", "network", "/v2.0/subnets", {"subnet": {
            "name": "net1-v4", "network_id": network["id"], "ip_version": 4, "cidr": "10.20.0.0/16",
            "enable_dhcp": False}})


def seed_resources(lab):
    api = rest.Api(lab)
    have = {row["name"] for row in api.get("compute", "/flavors")["flavors"]}
    for name, ram in FLAVORS:
        if name not in have:
            api.call("POST", "compute", "/flavors", {"flavor": {"name": name, "ram": ram, "vcpus": 1, "disk": 0}})
    seed_image(api)
    seed_network(api)
