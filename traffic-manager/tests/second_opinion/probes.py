"""Asks a server on loopback and checks what it answers. Argument: its port. Prints "ok <what>" for each check."""

import random
import socket
import struct
import sys

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.query
import dns.rcode
import dns.rdatatype

HOST, PORT = "127.0.0.1", int(sys.argv[1])
TIMEOUT = 10


def udp(message, **options):
    return dns.query.udp(message, HOST, port=PORT, timeout=TIMEOUT, **options)


def ask(name, kind, **options):
    message = dns.message.make_query(name, kind, **options)
    answer, over_tcp = udp(message), dns.query.tcp(message, HOST, port=PORT, timeout=TIMEOUT)
    assert answer.rcode() == over_tcp.rcode(), (answer, over_tcp)
    return answer


def raw(payload, timeout=TIMEOUT):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        client.sendto(payload, (HOST, PORT))
        return client.recv(65535)


def is_silent(payload):
    """Nothing comes back for it, while the next query is answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT)
        client.sendto(payload, (HOST, PORT))
        query = dns.message.make_query("one.tm.test", "A")
        client.sendto(query.to_wire(), (HOST, PORT))
        return dns.message.from_wire(client.recv(65535)).id == query.id


def addresses(answer):
    return sorted(item.address for rrset in answer.answer for item in rrset if hasattr(item, "address"))


def check_positive():
    answer = ask("p.tm.test", "A")
    assert len(addresses(answer)) == 3 and answer.answer[0].ttl == 42
    assert answer.flags & dns.flags.AA and not answer.flags & dns.flags.RA


def check_negative():
    for name, kind, code in [("nosuch.tm.test", "A", dns.rcode.NXDOMAIN), ("p.tm.test", "MX", dns.rcode.NOERROR)]:
        answer = ask(name, kind)
        assert answer.rcode() == code and not answer.answer
        (soa,) = answer.authority
        assert soa.rdtype == dns.rdatatype.SOA and soa.ttl == 30 and soa.name.to_text() == "tm.test."


def check_alias():
    answer = ask("www.tm.test", "A")
    alias, final = answer.answer
    assert alias.rdtype == dns.rdatatype.CNAME and alias[0].target.to_text() == "p.tm.test."
    assert final.name.to_text() == "p.tm.test." and len(final) == 3


def check_letter_case():
    random.seed(7)
    for _ in range(50):
        name = "".join(random.choice([c.upper(), c.lower()]) for c in "weighted.tm.test.")
        answer = udp(dns.message.make_query(name, "A"))
        assert answer.question[0].name.to_text() == name and answer.answer[0].name.to_text() == name


def check_refused():
    for name, kind in [("x.other", "A"), ("tm.test", "AXFR"), (".", "NS")]:
        message = dns.message.make_query(name, kind)
        answer = dns.message.from_wire(raw(message.to_wire()), ignore_trailing=False)
        assert answer.rcode() == dns.rcode.REFUSED and not answer.answer, (name, answer)


def check_opcodes():
    for opcode in [1, 2, 3, 4, 5, 6, 15]:
        header = struct.pack("!HHHHHH", 77, opcode << 11, 0, 0, 0, 0)
        answer = raw(header)
        identity, flags = struct.unpack("!HH", answer[:4])
        assert identity == 77 and flags & 0x8000 and (flags >> 11) & 15 == opcode and flags & 15 == 4


def check_subnet_scopes():
    for client, bits, address, least, most in [
        ("198.51.100.7", 32, "203.0.113.1", 24, 24),
        ("192.0.2.9", 32, "203.0.113.2", 25, 25),
        ("192.0.2.200", 32, "203.0.113.3", 25, 32),
        ("8.8.8.0", 24, "203.0.113.3", 1, 24),
    ]:
        option = dns.edns.ECSOption(client, bits)
        answer = ask("near.tm.test", "A", use_edns=0, options=[option])
        (echo,) = [item for item in answer.options if isinstance(item, dns.edns.ECSOption)]
        assert addresses(answer) == [address], (client, answer)
        assert echo.srclen == bits and least <= echo.scopelen <= most, (client, echo)


def check_subnet_does_not_matter():
    option = dns.edns.ECSOption("198.51.100.0", 24)
    for name in ["p.tm.test", "one.tm.test", "weighted.tm.test", "nosuch.tm.test"]:
        (echo,) = ask(name, "A", use_edns=0, options=[option]).options
        assert echo.scopelen == 0


def check_malformed_subnets():
    for data in ["00051800cb0071", "00011800cb00", "00011800cb007105", "00011400cb00ff", "000121cb00710500", ""]:
        option = dns.edns.GenericOption(8, bytes.fromhex(data))
        answer = udp(dns.message.make_query("near.tm.test", "A", use_edns=0, options=[option]))
        assert answer.rcode() == dns.rcode.FORMERR and answer.edns == 0, data


def check_silence():
    response = bytearray(dns.message.make_query("p.tm.test", "A").to_wire())
    response[2] |= 0x80
    for payload in [bytes(response), b"", b"\0" * 11]:
        assert is_silent(payload), payload


def check_cut_messages():
    whole = dns.message.make_query("p.tm.test", "A", use_edns=0).to_wire()
    for length in range(12, len(whole)):
        answer = raw(whole[:length])
        assert answer[:2] == whole[:2] and answer[3] & 15 == 1, length


def check_sizes():
    wide = ".".join([c * 60 for c in "xyz"] + ["w" * 40, "tm.test"])
    for payload in [0, 512, 1232, 4096]:
        answer = udp(dns.message.make_query(wide, "AAAA", use_edns=0, payload=payload))
        size = len(answer.to_wire())
        assert size <= max(512, min(payload, 1232)), (payload, size)
        assert bool(answer.flags & dns.flags.TC) == (not answer.answer)
    assert len(dns.query.tcp(dns.message.make_query(wide, "AAAA"), HOST, port=PORT, timeout=TIMEOUT).answer[0]) == 10


def check_several_over_one_connection():
    with socket.create_connection((HOST, PORT), timeout=TIMEOUT) as stream:
        for name in ["p.tm.test", "one.tm.test", "nosuch.tm.test"]:
            query = dns.message.make_query(name, "A")
            dns.query.send_tcp(stream, query)
            answer, _ = dns.query.receive_tcp(stream)
            assert query.is_response(answer)


def check_two_questions():
    query = bytearray(dns.message.make_query("p.tm.test", "A", flags=0).to_wire())
    question = bytes(query[12:])
    for count, payload in [(0, bytes(query[:12])), (2, bytes(query) + question)]:
        packet = bytearray(payload)
        packet[4:6] = struct.pack("!H", count)
        assert raw(bytes(packet))[3] & 15 == dns.rcode.FORMERR


for name, check in sorted((name, check) for name, check in globals().items() if name.startswith("check_")):
    check()
    print("ok", name.removeprefix("check_"))
