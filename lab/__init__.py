# SPDX-License-Identifier: Apache-2.0
"""A real small OpenStack on one machine, so that recovery is tried against Nova itself and not against a mock of it."""
