#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A stub. It ends «stack» with an error rather than leave a cloud that only looks protected.

if is_service_enabled vmhad-engine; then
    case "$1 $2" in
        "stack install")
            die $LINENO "vmhad's DevStack plugin is not implemented yet: nothing was installed. See devstack/README.md."
            ;;
        "stack "*)
            echo "vmhad: not implemented yet (phase $2)"
            ;;
        "unstack "* | "clean "*)
            echo "vmhad: nothing to undo, the plugin is not implemented yet"
            ;;
    esac
fi
