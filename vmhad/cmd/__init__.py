# SPDX-License-Identifier: Apache-2.0
"""Commands. oslo.service picks eventlet unless it is told otherwise before anything imports it: so it is told here."""

import warnings

# futurist imports eventlet where it is installed, only to ask whether it is in use; nothing of vmhad uses it.
warnings.filterwarnings("ignore", message="(?s).*Eventlet is deprecated")

from oslo_service import backend  # noqa: E402

backend.init_backend(backend.BackendType.THREADING)
