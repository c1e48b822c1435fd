# SPDX-License-Identifier: Apache-2.0
"""The verbs of `lab/cloud`: reads the command line, does one thing, and ends a mistake with one clear sentence."""
import argparse
import os
import pathlib
import subprocess
import sys

from lab import bringup, hosts, processes, report, rest, services
from lab.layout import Lab, LabError, Progress

HURTS = {"cut": (hosts.cut, "the host loses its power at once; guests gone, BMC says off"),
         "crash": (hosts.crash, "nova-compute and guests gone, power on"),
         "hang": (hosts.hang, "nova-compute stops in its tracks, guests run on"),
         "unplug": (hosts.unplug, "the host loses its power and its BMC dies with it"),
         "stop-compute": (hosts.stop_compute, "nova-compute is killed, guests run on"),
         "isolate": (hosts.isolate, "the host's cable is out, everything on it runs on (--virt qemu)"),
         "freeze": (hosts.freeze, "all of the host stops, its cable is out, and its power is on (--virt qemu)"),
         "stop-libvirtd": (hosts.stop_libvirtd, "libvirtd is killed, guests run on (--virt qemu)"),
         "lose-storage": (hosts.lose_storage, "the host alone finds an empty shared storage (--virt qemu)"),
         "reboot": (hosts.reboot, "nova-compute and guests gone, back after a while")}


def parser():
    top = argparse.ArgumentParser(
        prog="lab/cloud", description="A small real OpenStack with pretend hosts, or real ones, and real BMCs.")
    top.add_argument("--name", default="lab", help="which lab (default: lab)")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="COMMAND")

    def verb(name, text, *words):
        one = verbs.add_parser(name, help=text, description=text)
        one.add_argument("--name", default=argparse.SUPPRESS, help="which lab (default: lab)")
        for word in words:
            one.add_argument(word)
        return one

    one = verb("up", "install what is missing and start everything")
    one.add_argument("--computes", "--hosts", type=int, metavar="N",
                     help="number of hosts (default: as before, at first 4, or 2 with --virt qemu)")
    one.add_argument("--virt", choices=("fake", "qemu"), help="what the hosts run (default: as before, at first fake)")
    one.add_argument("--storage", choices=("dir", "rbd"), help="of real guests (default: as before, at first dir)")
    one.add_argument("--own-disks", nargs="+", metavar="HOST",
                     help="hosts whose guests have their disks on the host itself (default: as before, at first none)")
    one.add_argument("--cinder", action="store_true", default=None,
                     help="with Cinder (default: as before, at first without)")
    one.add_argument("--etcd", type=int, metavar="N", help="number of etcd members (default: as before, at first 1)")
    one.add_argument("--no-affinity-workaround", dest="affinity_workaround", action="store_false", default=None,
                     help="leave [workarounds] disable_group_policy_check_upcall off on the hosts")
    one.add_argument("--affinity-workaround", dest="affinity_workaround", action="store_true", help=argparse.SUPPRESS)
    verb("down", "stop everything").add_argument("--wipe", action="store_true", help="forget all state as well")
    verb("status", "what runs, and how much memory it takes")
    for name, (_, text) in HURTS.items():
        one = verb(name, text, "host")
        if name == "reboot":
            one.add_argument("--boot-s", type=float, default=20.0, metavar="S",
                             help="how long it is away (default: 20)")
    verb("lose-guest", "one guest's process is gone, the host runs on", "host", "server")
    verb("panic", "one guest's kernel panics (--virt qemu)", "host", "server")
    one = verb("restore", "the host and its BMC run again, whatever was done to them", "host")
    one.add_argument("--enable", action="store_true", help="also lift forced_down and disabled in nova")
    verb("guests", "what each host really runs").add_argument("--json", action="store_true")
    verb("logs", "the end of one log, or a list of all").add_argument("log", nargs="?", metavar="NAME")
    verb("env", "shell exports for the admin of this cloud")
    verb("start", "start one service", "service")
    verb("stop", "stop one service", "service").add_argument("--kill", action="store_true", help="with -9, at once")
    verb("watch", "look for guests on two living hosts until interrupted").add_argument(
        "--json", type=pathlib.Path, metavar="FILE", help="where the findings are written at the end")
    return top


def hurt(lab, args, say):
    report.must_be_up(lab)
    lab.host(args.host)
    extra = (args.boot_s,) if args.verb == "reboot" else ()
    say("%s %s" % (args.host, HURTS[args.verb][0](lab, args.host, *extra)))


def one_service(lab, args, say):
    """Start or stop a single service of a lab that is otherwise up."""
    if not lab.facts:
        report.must_be_up(lab)
    if args.service not in services.names(lab):
        services.find(lab, args.service)
    if args.verb == "start":
        services.bring(lab, args.service)
    else:
        processes.end([services.pid_file(lab, args.service)], at_once=args.kill)
    services.record(lab)
    say("%s %s" % (args.service, "runs" if args.verb == "start" else "stopped"))


def run(args, say):
    lab = Lab(args.name)
    if args.verb == "up":
        with lab.lock():
            bringup.up(lab.reload(), say, computes=args.computes, etcd=args.etcd, virt=args.virt, storage=args.storage,
                       own_disks=args.own_disks,
                       cinder=args.cinder, affinity_workaround=args.affinity_workaround)
    elif args.verb == "down":
        with lab.lock():
            bringup.down(lab.reload(), say, args.wipe)
    elif args.verb in HURTS:
        hurt(lab, args, say)
    elif args.verb in ("lose-guest", "panic"):
        report.must_be_up(lab)
        lab.host(args.host)
        suffers = hosts.panic if args.verb == "panic" else hosts.lose_guest
        say("%s %s" % (args.host, suffers(lab, args.host, args.server)))
    elif args.verb == "restore":
        report.must_be_up(lab)
        lab.host(args.host)
        hosts.restore(lab, args.host, say, args.enable)
    elif args.verb in ("start", "stop"):
        one_service(lab, args, say)
    elif args.verb == "guests":
        report.must_be_up(lab)
        report.guests(lab, args.json)
    elif args.verb == "watch":
        return report.watch(lab, args.json)
    else:
        {"status": lambda: report.status(lab), "env": lambda: report.env(lab),
         "logs": lambda: report.logs(lab, args.log)}[args.verb]()
    return 0


def main(argv=None):
    args = parser().parse_args(argv)
    try:
        return run(args, Progress())
    except (LabError, rest.RestError) as error:
        print(error, file=sys.stderr)
    except subprocess.CalledProcessError as error:
        print("%s failed with code %d." % (error.cmd[0], error.returncode), file=sys.stderr)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has seen enough
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    return 1
