# SPDX-License-Identifier: Apache-2.0
"""Passes TCP from the switch's address to the same port of the loopback, where the controllers listen.

It listens in one network namespace and calls in another: a socket stays in the namespace it was made in, and a
namespace is a property of a thread.
"""
import os
import socket
import sys
import threading

from lab.layout import Lab
from lab.qemu import namespaces, network


def pump(source, sink):
    """Until the source ends, then the sink is told so."""
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def carry(caller, port, home):
    namespaces.enter(home, namespaces.NEWNET)
    with caller:
        try:
            callee = socket.create_connection(("127.0.0.1", port), timeout=5)
        except OSError:
            return
        with callee:
            callee.settimeout(None)
            back = threading.Thread(target=pump, args=(callee, caller), daemon=True)
            back.start()
            pump(caller, callee)
            back.join()


def serve(door, port, home):
    while True:
        caller, _ = door.accept()
        # A cable that was pulled must not leave a thread behind for ever.
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        threading.Thread(target=carry, args=(caller, port, home), daemon=True).start()


def main():
    lab = Lab(sys.argv[1])
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    namespaces.enter(os.open("/proc/%d/ns/net" % network.switch_pid(lab), os.O_RDONLY), namespaces.NEWNET)
    threads = []
    for service in network.CARRIED:
        port = lab.port(service)
        door = socket.create_server((network.GATEWAY, port), backlog=128)
        threads.append(threading.Thread(target=serve, args=(door, port, home)))
    for thread in threads:
        thread.start()


if __name__ == "__main__":
    main()
