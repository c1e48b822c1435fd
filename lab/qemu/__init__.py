# SPDX-License-Identifier: Apache-2.0
"""Hosts that are namespaces, with a real libvirtd and real QEMU guests in each: `lab/cloud up --virt qemu`."""
