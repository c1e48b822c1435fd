# SPDX-License-Identifier: Apache-2.0
"""Before the failure: what of a cloud can be lost with every protected VM back, and what would be left and why.

Pure, as the guards are: values in, values out. Rule kept: what would become of a VM in a loss is asked of the very
functions that recover it. Only the bound for any hosts, and what Nova's scheduler refuses where recovery would have to
try, are counted here, and never in favour of the cloud.
"""
