# SPDX-License-Identifier: Apache-2.0
"""Before the failure: what of a cloud can be lost with every protected VM back, and what would be left and why.

Pure, as the guards are: values in, values out. Rule kept: nothing here knows a rule of placement or of treatment. What
would become of a VM is asked of the very functions that recover it.
"""
