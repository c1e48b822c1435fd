# SPDX-License-Identifier: Apache-2.0
"""[nova]: whom to ask, and as whom. An evacuation needs a project-scoped administrator."""

from __future__ import annotations

from oslo_config import cfg

GROUP = cfg.OptGroup("nova", title="Access to Nova")

OPTS = [
    cfg.StrOpt("auth_url", sample_default="http://192.0.2.1:5000/v3", help="Keystone's URL."),
    cfg.StrOpt("username", default="vmhad", help="The user; needs the role admin in the project."),
    cfg.StrOpt("password", secret=True, help="The user's password. Either this or password_file."),
    cfg.StrOpt("password_file", help="A file of mode 0600 that holds the password alone. Either this or password."),
    cfg.StrOpt("project_name", default="service", help="The project the token is scoped to."),
    cfg.StrOpt("user_domain_name", default="Default", help="The user's domain."),
    cfg.StrOpt("project_domain_name", default="Default", help="The project's domain."),
    cfg.StrOpt("region_name", help="The region; needed where the catalogue has several."),
    cfg.StrOpt(
        "interface",
        default="internal",
        choices=["internal", "public", "admin"],
        help="Which endpoints of the catalogue.",
    ),
    cfg.StrOpt("cafile", help="The CA certificates to trust; empty: the system's."),
    cfg.FloatOpt("timeout_s", default=5.0, min=0.5, max=60.0, help="Time limit of one call to Nova."),
    cfg.FloatOpt(
        "poll_interval_s", default=2.0, min=0.2, max=60.0, help="Seconds between two readings of Nova's service list."
    ),
]
