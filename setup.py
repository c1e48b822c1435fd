# SPDX-License-Identifier: Apache-2.0
"""Packaging by pbr; what is packaged stands in setup.cfg."""

import setuptools

setuptools.setup(setup_requires=["pbr>=6.1.1"], pbr=True)
