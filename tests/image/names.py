#!/usr/bin/env python3
"""Runs a command beside a name server on 127.0.0.1:53 that knows graph.in-dns.test as 127.0.0.8, and nothing else. For a network
namespace of its own: names.py COMMAND..."""

import socket
import subprocess
import sys
import threading

KNOWN = b"\x05graph\x06in-dns\x04test\x00"
A = b"\x00\x01"


def answer(query: bytes) -> bytes:
    """To one question, which is sent back as it came (RFC 1035, section 4.1)."""
    end = query.index(b"\x00", 12) + 1
    name, kind = query[12:end].lower(), query[end : end + 2]
    found = name == KNOWN and kind == A
    code = b"\x80" if name == KNOWN else b"\x83"
    head = query[:2] + b"\x81" + code + b"\x00\x01" + (b"\x00\x01" if found else b"\x00\x00") + b"\x00" * 4
    record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + socket.inet_aton("127.0.0.8")
    return head + query[12 : end + 4] + (record if found else b"")


subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))


def serve() -> None:
    while True:
        query, client = server.recvfrom(512)
        server.sendto(answer(query), client)


threading.Thread(target=serve, daemon=True).start()
sys.exit(subprocess.run(sys.argv[1:], timeout=60, check=False).returncode)
