# SPDX-License-Identifier: Apache-2.0
"""A storage of the lab's Cinder: it keeps nothing, is never full, and lets a volume go to any other of its kind."""
from cinder.volume import driver


class Nowhere(driver.VolumeDriver):
    VERSION = "1"

    def check_for_setup_error(self):
        """Nothing can be wrong with it."""

    def get_volume_stats(self, refresh=False):
        return {"volume_backend_name": self.configuration.volume_backend_name, "vendor_name": "vmhad lab",
                "driver_version": self.VERSION, "storage_protocol": "nowhere", "total_capacity_gb": "infinite",
                "free_capacity_gb": "infinite", "multiattach": True}

    def _nothing(self, *arguments, **named):
        """There is nothing to do it with."""

    create_volume = delete_volume = ensure_export = create_export = remove_export = terminate_connection = _nothing

    def initialize_connection(self, volume, connector):
        return {"driver_volume_type": "nowhere", "data": {}}

    def migrate_volume(self, context, volume, host):
        """What was never written need not be copied."""
        return True, None
