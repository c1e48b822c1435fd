# SPDX-License-Identifier: Apache-2.0
"""A hypervisor of the lab: Nova's fake driver, with its guests in a file, for the truth must outlive nova-compute.

`guests.json` in the host's state folder plays the part of the qemu processes: it survives a kill -9 of nova-compute
and is emptied by whoever takes the host's power away. Files beside it change the host's ways: `spawn_delay` (seconds),
`fail_spawn`, `hang_spawn` (spawn waits while the file exists), `shared_storage` (disks are seen by every host). The
guests that `lose_guest` names have lost their process; as with libvirt, nova is told so 15 s later.
"""
import json
import os
import threading
import time

import nova.conf
from nova import exception
from nova.compute import power_state
from nova.virt import event as virtevent
from nova.virt import fake

CONF = nova.conf.CONF
WORDS = {power_state.RUNNING: "running", power_state.PAUSED: "paused", power_state.SHUTDOWN: "shutdown",
         power_state.SUSPENDED: "suspended"}
CODES = {word: code for code, word in WORDS.items()}
# What libvirt's driver waits before it passes on that a guest stopped: it may be a reboot.
STOPPED_LATE_S = 15.0


def _beside(name):
    return os.path.join(CONF.state_path, name)


class LabDriver(fake.FakeDriverWithoutFakeNodes):
    vcpus = 64
    memory_mb = 262144
    local_gb = 4096

    def __init__(self, virtapi, read_only=False):
        super().__init__(virtapi)
        self._writing = threading.Lock()

    def init_host(self, host):
        super().init_host(host)
        try:
            with open(_beside("guests.json")) as source:
                for guest in json.load(source):
                    self.instances[guest["uuid"]] = fake.FakeInstance(
                        guest["name"], CODES.get(guest["state"], power_state.SHUTDOWN), guest["uuid"])
        except FileNotFoundError:
            pass
        threading.Thread(target=self._lose_guests, daemon=True).start()

    def _lose_guests(self):
        while True:
            time.sleep(0.1)
            try:
                with open(_beside("lose_guest")) as source:
                    lost = source.read().split()
            except FileNotFoundError:
                continue
            os.unlink(_beside("lose_guest"))
            for uuid in lost:
                if uuid in self.instances:
                    self._set(self.instances[uuid], power_state.SHUTDOWN)
                    event = virtevent.LifecycleEvent(uuid, virtevent.EVENT_LIFECYCLE_STOPPED)
                    threading.Timer(STOPPED_LATE_S, self.emit_event, [event]).start()

    def _save(self):
        with self._writing:
            guests = [{"uuid": uuid, "name": guest.name, "state": WORDS.get(guest.state, "shutdown")}
                      for uuid, guest in list(self.instances.items())]
            with open(_beside("guests.json.new"), "w") as out:
                json.dump(guests, out)
            os.replace(_beside("guests.json.new"), _beside("guests.json"))

    def _set(self, instance, state):
        """A guest that is not there is made, as libvirt defines and starts a domain anew."""
        self.instances[instance.uuid] = fake.FakeInstance(instance.name, state, instance.uuid)
        self._save()

    def spawn(self, context, instance, *args, **kwargs):
        while os.path.exists(_beside("hang_spawn")):
            time.sleep(0.2)
        try:
            with open(_beside("spawn_delay")) as source:
                time.sleep(float(source.read().strip() or 0))
        except FileNotFoundError:
            pass
        if os.path.exists(_beside("fail_spawn")):
            raise exception.NovaException("this host of the lab was told to fail every spawn")
        super().spawn(context, instance, *args, **kwargs)
        self._save()

    def destroy(self, context, instance, *args, **kwargs):
        super().destroy(context, instance, *args, **kwargs)
        self._save()

    def power_off(self, instance, timeout=0, retry_interval=0):
        if instance.uuid in self.instances:
            self._set(instance, power_state.SHUTDOWN)

    def power_on(self, context, instance, *args, **kwargs):
        self._set(instance, power_state.RUNNING)

    def reboot(self, context, instance, *args, **kwargs):
        self._set(instance, power_state.RUNNING)

    def resume_state_on_host_boot(self, context, instance, *args, **kwargs):
        self._set(instance, power_state.RUNNING)

    def pause(self, instance):
        self._set(instance, power_state.PAUSED)

    def unpause(self, instance):
        self._set(instance, power_state.RUNNING)

    def suspend(self, context, instance):
        self._set(instance, power_state.SUSPENDED)

    def resume(self, context, instance, *args, **kwargs):
        self._set(instance, power_state.RUNNING)

    def migrate_disk_and_power_off(self, context, instance, *args, **kwargs):
        result = super().migrate_disk_and_power_off(context, instance, *args, **kwargs)
        self.power_off(instance)
        return result

    def finish_migration(self, context, migration, instance, *args, **kwargs):
        super().finish_migration(context, migration, instance, *args, **kwargs)
        self._save()

    def finish_revert_migration(self, context, instance, *args, **kwargs):
        super().finish_revert_migration(context, instance, *args, **kwargs)
        self._save()

    def confirm_migration(self, context, migration, instance, network_info):
        super().confirm_migration(context, migration, instance, network_info)
        self._save()

    def live_migration(self, context, instance, dest, post_method, *args, **kwargs):
        """The guest leaves here before it is reported there: it never runs on both."""
        self.instances.pop(instance.uuid, None)
        self._save()
        super().live_migration(context, instance, dest, post_method, *args, **kwargs)

    def instance_on_disk(self, instance):
        return os.path.exists(_beside("shared_storage"))

    def get_num_instances(self):
        return len(self.instances)
