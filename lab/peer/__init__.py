# SPDX-License-Identifier: Apache-2.0
"""Another project's answer to the same failure, run beside the same lab, so that numbers can be compared."""
