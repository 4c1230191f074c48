"""A known traffic in a network of its own, as the monitor and psutil count it.

Run as a program: prints one JSON object, or ends with status 77 where the system
gives no network namespace. `/proc/self/net` is of the whole process, hence one.
"""

import asyncio
import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
import time

import psutil

from mtaio.monitoring import ResourceMonitor

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
TUNSETIFF, SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFFLAGS = (
    0x400454CA,
    0x8916,
    0x891C,
    0x8914,
)
TUN_WITHOUT_HEADER, UP_AND_RUNNING = 0x1001, 0x41
NAME = b"load0"
SENT, ANSWERED = 200, 50
# An IP and a UDP header before it.
PAYLOAD, PACKET = 1000, 1028


def own_network() -> int:
    """A namespace with one interface; whoever holds the descriptor is its cable."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWNET | CLONE_NEWUSER
    if libc.unshare(flags) != 0:
        sys.exit(77)
    try:
        cable = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(cable, TUNSETIFF, struct.pack("16sH22x", NAME, TUN_WITHOUT_HEADER))
    except OSError:
        sys.exit(77)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, address in (
            (SIOCSIFADDR, "10.9.9.1"),
            (SIOCSIFNETMASK, "255.255.255.0"),
        ):
            inet = struct.pack("H2x4s8x", socket.AF_INET, socket.inet_aton(address))
            fcntl.ioctl(control, request, struct.pack("16s16s8x", NAME, inet))
        up = struct.pack("16sH22x", NAME, UP_AND_RUNNING)
        fcntl.ioctl(control, SIOCSIFFLAGS, up)
    return cable


def carry(cable: int) -> None:
    """Send datagrams out, take each off the cable, and put some back in."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(SENT):
            sender.sendto(bytes(PAYLOAD), ("10.9.9.2", 9))
            while len(packet := os.read(cable, 65536)) != PACKET:
                pass  # not ours: a neighbour is looked for
            if number < ANSWERED:
                os.write(cable, packet)


def by_psutil() -> dict[str, int]:
    """All interfaces but the loopback."""
    nics = psutil.net_io_counters(pernic=True)
    nics.pop("lo", None)
    return {
        "received_bytes": sum(nic.bytes_recv for nic in nics.values()),
        "sent_bytes": sum(nic.bytes_sent for nic in nics.values()),
        "received_packets": sum(nic.packets_recv for nic in nics.values()),
        "sent_packets": sum(nic.packets_sent for nic in nics.values()),
    }


async def main() -> None:
    cable = own_network()
    before, made = by_psutil(), time.monotonic()
    monitor = ResourceMonitor()
    carry(cable)
    stats = await monitor.get_current_stats()
    seconds, after = time.monotonic() - made, by_psutil()
    network = stats.network
    told = {
        "seconds": seconds,
        "sent_bytes_per_second": network.sent_bytes_per_second,
        "received_bytes_per_second": network.received_bytes_per_second,
        "ours": {name: getattr(network, name) for name in after},
        "before": before,
        "after": after,
    }
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
