"""The corpus: requests and responses that can be read in two ways, or in none, made by mutating sound ones.

Everything is a function of the seed. What must become of a case is said where the case is made, by the RFCs (9110, 9112), not by what the
gateway does (`Case.expect`; `drive.py` judges by it):

refused      4xx or 5xx; no request of it reaches the service, except where it is the service's answer that is bad
served       2xx for each request, and exactly the requests named reach the service
either       one of these
cut          the visitor stops in the middle: no complete request reaches the service
then-refused the first request is served, what follows is refused
shifted      the first request is served; what follows is another matter
answered     the service's answer, whatever its status, reaches the visitor whole, and nothing after it
aborted      the answer cannot be complete: 502, or it ends in the middle so that the visitor notices
early        the service answers before the request's end; the visitor gets the answer
upgraded     a 101; what was sent before it reaches the service only after it
unambiguous  anything that all parsers understand in the same way
"""
import random

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: nobody\r\n\r\n"
HELLO = b"hello"
# Says whose request it is where the target does not.
TAGGED = b"X-Tag: TAG"


class Case:
    """One visitor's connection. HOST and TARGET in what it sends stand for the way's host and the case's path."""

    def __init__(self, name, wire, expect="refused", seen=(), *, methods=("GET",), script=None, keeps=(), drops=(),
                 status=None, by_path=False, piece=None):
        self.name = name
        # One piece of bytes, or several with pauses between them.
        self.wire = [wire] if isinstance(wire, bytes) else list(wire)
        self.expect = expect
        # What reaches the service: (method, target, body) of each request; TARGET as above.
        self.seen = list(seen)
        # The methods of the answers that are read, in turn: HEAD has no body.
        self.methods = list(methods)
        # What the service answers to the (first) request, in pieces; None for 200 with the case's number.
        self.script = script if script is None or isinstance(script, Script) else Script(script)
        # Lines that must, or must not, be in the head that reaches the service.
        self.keeps, self.drops = list(keeps), list(drops)
        # The statuses that are right, where the class does not say it all.
        self.status = status
        # Whether the visitor reaches the route by a path (`/proxy/NAME`) instead of a host.
        self.by_path = by_path
        # How many bytes are sent at a time.
        self.piece = piece


class Script:
    """What the service answers with: bytes, then perhaps its end; perhaps before it has read the request's body."""

    def __init__(self, *pieces, end=False, early=False, pause=0.0):
        self.pieces, self.end, self.early, self.pause = pieces, end, early, pause


def head(method=b"GET", target=b"TARGET", version=b"HTTP/1.1", host=b"HOST", fields=(), line_end=b"\r\n"):
    """A head; `fields` are whole lines without their end."""
    lines = [method + b" " + target + b" " + version]
    if host is not None:
        lines.append(b"Host: " + host)
    lines += fields
    return line_end.join(lines) + line_end * 2


def post(*fields, body=HELLO, **more):
    return head(b"POST", fields=fields, **more) + body


def chunked(body, *fields, **more):
    return post(b"Transfer-Encoding: chunked", *fields, body=body, **more)


def label(value):
    """A value in a case's name."""
    text = repr(bytes(value))[2:-1]
    return text if len(text) < 60 else f"{text[:40]}… ({len(value)})"


# MARK: Lengths

# Values of Content-Length that are no number for everybody. The body has five bytes.
BAD_LENGTHS = [
    b"+5", b"-5", b"-0", b"0x5", b"0X5", b"5.0", b"5e0", b"5;", b"5; q=1", b"5,5", b"5, 5", b"5 ,5", b"5,6", b"6,5", b",5", b"5,", b"5 5",
    b"\"5\"", b"'5'", b"five", b"5_0", b"5L", b"", b" ", b"5\x00", b"\x005", b"5\x0b", b"\x0b5", b"5\x0c", b"\xa05", b"5\xa0",
    b"\xd9\xa5", b"\xef\xbc\x95", b"9223372036854775808", b"18446744073709551621", b"18446744073709551616",
    b"99999999999999999999999999999999", b"1" * 400, b"5\x7f", b"5\x1b", b"(5)", b"5()", b"5(x)", b"0b101", b"0o5", b"5%00", b"%35",
    b"5/1", b"=5", b"5=", b"chunked", b"NaN", b"\\5", b"5:5", b"5\xc2\xa0", b"5\xe2\x80\x8b", b"\xc2\xb2", b"1e400", b"infinity",
]
# What names the field for some and not for others.
BAD_NAMES = [
    b"NAME : ", b"NAME\t: ", b" NAME: ", b"\tNAME: ", b"NAME\x00: ", b"\x00NAME: ", b"NAME\x0b: ", b"NAME\x0c: ", b"NAME\xa0: ",
    b"\xefNAME: ", b"NAME\x7f: ", b"NAME\r: ", b"NAME\n: ", b"(NAME): ", b"\"NAME\": ", b"NAME= ", b"NAME ", b"NAME;: ", b"NAME,: ",
    b"NAME/: ", b"NA ME: ", b"NAME\xe2\x80\x8b: ", b"NAME: \r\n ", b"NAME: \r\n\t", b"NAME: \n ", b"NAME\r\n : ", b"NAME\r\n: ",
    b"X: y\nNAME: ", b"X: y\rNAME: ", b"X: y\n\rNAME: ", b"X: y\r\rNAME: ", b"X: y\r\r\nNAME: ", b"X: y\x00\r\nNAME: ",
    b"X: y\r\n NAME: ", b"X\r\nNAME: ",
]


def lengths(add):
    for value in BAD_LENGTHS:
        add(f"Content-Length: {label(value)}", post(b"Content-Length: " + value))
    for spelling in [b"Content-Length: 5", b"content-length:5", b"CONTENT-LENGTH: \t 5 \t", b"Content-Length: 05",
                     b"Content-Length: 0000000000000000000000000005"]:
        add(f"{label(spelling)} is a length", post(spelling), "served", [(b"POST", b"TARGET", HELLO)], keeps=[b"Content-Length: 5"])
    for other in [b"5", b"0", b"6", b"05", b"x"]:
        for second in [b"Content-Length", b"content-length", b"CONTENT-LENGTH"]:
            add(f"Content-Length: 5 and {label(second)}: {label(other)}", post(b"Content-Length: 5", second + b": " + other))
            add(f"{label(second)}: {label(other)} far from Content-Length: 5",
                post(second + b": " + other, b"X-A: b", b"X-C: d", b"Content-Length: 5"))
    for name in BAD_NAMES:
        field = name.replace(b"NAME", b"Content-Length") + b"5"
        add(f"a length in {label(field)}", post(field))
        add(f"a length in {label(field)} that hides a request",
            head(fields=[name.replace(b"NAME", b"Content-Length") + str(len(SMUGGLED)).encode()]) + SMUGGLED)
        add(f"{label(field)} beside Content-Length: 0", post(b"Content-Length: 0", field))
    for value in [b"9223372036854775807", b"4294967301", b"4294967296", b"2147483648", b"6", b"100"]:
        add(f"Content-Length: {label(value)} with five bytes of it", post(b"Content-Length: " + value), "cut")
    # Not the same field: whoever takes it for one is no HTTP server, so that what is passed on must have its own framing.
    for name in [b"Content_Length", b"Content.Length", b"ContentLength", b"X-Content-Length", b"Content-Lengthh", b"HTTP_CONTENT_LENGTH"]:
        add(f"{label(name)} is another field", head(fields=[name + b": 5"]), "either", [(b"GET", b"TARGET", b"")])
    # Bodies where none is usual (CL.0): they are passed on with their length.
    for method in [b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"PUT", b"PATCH", b"PROPFIND"]:
        body = SMUGGLED
        add(f"{label(method)} whose body looks like a request", head(method, fields=[b"Content-Length: %d" % len(body)]) + body, "served",
            [(method, b"TARGET", body)], methods=[method.decode()])
        add(f"{label(method)} whose chunk looks like a request",
            head(method, fields=[b"Transfer-Encoding: chunked"]) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body), "served",
            [(method, b"TARGET", body)], methods=[method.decode()])
        add(f"{label(method)} with Content-Length: 0 and a request after it",
            head(method, fields=[b"Content-Length: 0"]) + head(target=b"TARGET/2"), "served",
            [(method, b"TARGET", b""), (b"GET", b"TARGET/2", b"")], methods=[method.decode(), "GET"])
    add("POST without any length and a request after it", head(b"POST") + head(target=b"TARGET/2"), "served",
        [(b"POST", b"TARGET", b""), (b"GET", b"TARGET/2", b"")], methods=["POST", "GET"])


# MARK: Encodings

# Values of Transfer-Encoding that are `chunked` for some and not for others.
BAD_ENCODINGS = [
    b"xchunked", b"chunkedx", b"chunked, identity", b"identity, chunked", b"chunked, chunked", b"gzip, chunked", b"chunked, gzip", b"identity",
    b"chunked;q=1", b"chunked; a=b", b"\"chunked\"", b"'chunked'", b"chunked\x0b", b"\x0bchunked", b"chunked\x0c", b"chunked\x00",
    b"\x00chunked", b"chun ked", b"chunked x", b"x chunked", b"", b" ", b"cow", b"chunk\xe9d", b"chun\xe2\x84\xaaed", b"[chunked]", b"chunked,",
    b",chunked", b"chunked,,", b", chunked", b"chunked\xa0", b"\xa0chunked", b"chunked\x7f", b"chunked\x1f", b"chunked\r\n ", b"\r\n chunked",
    b"\r\n\tchunked", b"\n chunked", b"chunked\n ", b"chunked\r", b"\rchunked", b"chunked\\", b"=chunked", b"chunked=1", b"chunked/1.1",
    b"br", b"deflate, chunked", b"Chunked-", b"chunked:", b": chunked", b"chunked\xe2\x80\x8b", b"\xef\xbb\xbfchunked", b"chunked,\tchunked",
]


def encodings(add):
    # Two bodies: one ends early for who counts (CL.TE), one for who reads chunks (TE.CL).
    by_chunks = b"0\r\n\r\n" + SMUGGLED
    by_length = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    for value in BAD_ENCODINGS:
        add(f"Transfer-Encoding: {label(value)}", post(b"Transfer-Encoding: " + value, body=by_chunks))
        add(f"Content-Length, then Transfer-Encoding: {label(value)}",
            post(b"Content-Length: %d" % len(by_chunks), b"Transfer-Encoding: " + value, body=by_chunks))
        add(f"Transfer-Encoding: {label(value)}, then a short Content-Length",
            post(b"Transfer-Encoding: " + value, b"Content-Length: 4", body=by_length))
    for value in [b"chunked", b"Chunked", b"CHUNKED", b"\t chunked \t"]:
        for name in [b"Transfer-Encoding: ", b"transfer-encoding:", b"TRANSFER-ENCODING: "]:
            add(f"{label(name + value)} is an encoding", post(name + value, body=b"5\r\nhello\r\n0\r\n\r\n"), "served",
                [(b"POST", b"TARGET", HELLO)], keeps=[b"Transfer-Encoding: chunked"])
            for length in [b"0", b"4", b"%d" % len(by_chunks), b"x", b""]:
                add(f"CL.TE: Content-Length: {label(length)}, {label(name + value)}",
                    post(b"Content-Length: " + length, name + value, body=by_chunks))
                add(f"TE.CL: {label(name + value)}, Content-Length: {label(length)}",
                    post(name + value, b"Content-Length: " + length, body=by_length))
    for name in BAD_NAMES:
        field = name.replace(b"NAME", b"Transfer-Encoding") + b"chunked"
        add(f"an encoding in {label(field)}", post(field, body=by_chunks))
        add(f"TE.TE: an encoding in {label(field)} beside a length",
            post(b"Content-Length: %d" % len(by_chunks), field, body=by_chunks))
        add(f"TE.TE: an encoding and {label(field)}", post(b"Transfer-Encoding: chunked", field, body=by_chunks))
    for first, second in [(b"chunked", b"chunked"), (b"chunked", b"identity"), (b"identity", b"chunked"), (b"chunked", b"x"), (b"x", b"chunked"),
                          (b"", b"chunked"), (b"chunked", b""), (b"gzip", b"chunked")]:
        add(f"TE.TE: {label(first)} and {label(second)}",
            post(b"Transfer-Encoding: " + first, b"Transfer-Encoding: " + second, body=by_chunks))
        add(f"TE.TE: {label(first)} and, in other letters, {label(second)}",
            post(b"Transfer-encoding: " + first, b"X: y", b"transfer-Encoding: " + second, body=by_chunks))
    add("an encoding in HTTP/1.0", post(b"Transfer-Encoding: chunked", body=by_chunks, version=b"HTTP/1.0"))
    add("both framings in HTTP/1.0",
        post(b"Content-Length: 4", b"Transfer-Encoding: chunked", body=by_chunks, version=b"HTTP/1.0"))
    for name in [b"Transfer_Encoding", b"TransferEncoding", b"X-Transfer-Encoding", b"Transfer-Encodings", b"HTTP_TRANSFER_ENCODING"]:
        add(f"{label(name)} is another field", post(b"Content-Length: 5", name + b": chunked"), "either", [(b"POST", b"TARGET", HELLO)])
    add("TE: chunked is no encoding", head(fields=[b"TE: chunked"]), "served", [(b"GET", b"TARGET", b"")], drops=[b"TE: chunked"])


# MARK: Chunks

BAD_SIZES = [
    b"+5", b"-5", b"0x5", b"0X5", b" 5", b"5 ", b"5\t", b"\t5", b"", b" ", b"G", b"5G", b"5_", b"5,", b"5.", b"5 5", b"five", b"\xef\xbc\x95",
    b"5\x00", b"\x005", b"5\x0b", b"5\x0c", b"5\xa0", b"\"5\"", b"ffffffffffffffff", b"8000000000000000", b"10000000000000005",
    b"fffffffffffffffb", b"100000000000000000000005", b"5" * 40, b"5\n", b"\n5", b"\r5", b"5\r", b"5\r\r", b"\r\n5", b"5:", b"5=",
    b"5;\x00", b"5;a=\x00", b"5;a=\"b", b"5;a=\"\r\n0\r\n\r\n\"", b"5;\n", b"5;a\n", b"5;a=b\n", b"5;a=b\r", b"5;a=b\x7f", b"5;=b",
    b"5; " + b"a" * 17_000, b"5" + b";a=b" * 5_000, b"-0", b"0x0",
]
GOOD_SIZES = [b"5", b"05", b"0005", b"0000000000000005", b"5;a", b"5;a=b", b"5;a=b;c=d", b"5;a=\"b;c\"", b"5;a=\"\\\"\"", b"5;" + b"a" * 200]
# The standard allows them; whoever refuses them is right, too.
STRANGE_SIZES = [b"5;", b"5 ;a", b"5; a", b"5;a =b", b"5;a= b", b"5;a=", b"00000000000000005", b"5;\xe9", b"5;a=\"\xe9\""]


def chunks(add):
    rest = b"\r\nhello\r\n0\r\n\r\n"
    seen = [(b"POST", b"TARGET", HELLO)]
    for size in BAD_SIZES:
        add(f"chunk size {label(size)}", chunked(size + rest))
        add(f"second chunk size {label(size)}", chunked(b"2\r\nhe\r\n" + size + b"\r\nhello\r\n0\r\n\r\n"))
    for size in GOOD_SIZES:
        add(f"chunk size {label(size)} is one", chunked(size + rest), "served", seen)
    for size in STRANGE_SIZES:
        add(f"chunk size {label(size)} may be one", chunked(size + rest), "either", seen)
    for value in [b"7fffffffffffffff", b"100000005", b"80000005", b"6", b"fffff"]:
        add(f"chunk size {label(value)} with five bytes of it", chunked(value + b"\r\nhello"), "cut")
    for tail, name in [(b"hello\n0\r\n\r\n", "LF after the data"), (b"hello\r0\r\n\r\n", "CR after the data"), (b"hello0\r\n\r\n", "no end of the data"),
                       (b"helloXX0\r\n\r\n", "other bytes after the data"), (b"hello\r\n\r\n0\r\n\r\n", "an empty line after the data"),
                       (b"hello!\r\n0\r\n\r\n", "a byte too many"), (b"hell\r\n0\r\n\r\n", "a byte too few"), (b"hello\r\n0\n\n", "a last chunk with LF"),
                       (b"hello\r\n0\r\n\n", "LF at the end"), (b"hello\r\n0\n\r\n", "LF after the last size"), (b"hello\r\n0\r\r\n", "CR CR LF at the end"),
                       (b"hello\r\n0\r\n\r", "CR at the end"), (b"hello\r\n0 \r\n\r\n", "SP after the last size"), (b"hello\r\n-0\r\n\r\n", "a last size of -0"),
                       (b"hello\n\r0\r\n\r\n", "LF CR after the data"), (b"hello\r\n0x0\r\n\r\n", "a last size of 0x0")]:
        add(f"chunk with {name}", chunked(b"5\r\n" + tail), "cut" if name in ("CR at the end", "a byte too few") else "refused")
    for last in [b"0", b"00", b"0000000000000000", b"0;a=b"]:
        add(f"last chunk {label(last)}", chunked(b"5\r\nhello\r\n" + last + b"\r\n\r\n"), "served", seen)
    for tail in [b"", b"0", b"0\r", b"0\r\n", b"0\r\nX: y", b"0\r\nX: y\r\n"]:
        add(f"the end {label(tail)} of a body", chunked(b"5\r\nhello\r\n" + tail), "cut")
    trailers = chunked(b"5\r\nhello\r\n0\r\n%s\r\n\r\n")
    add("a trailer", trailers % b"X-T: 1", "served", seen)
    for field in [b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Host: other", b"Authorization: x", b"Cookie: a=b", b"Connection: close",
                  b"Upgrade: h2c", b"X-Forwarded-For: 1.2.3.4", b"Via: 1.1 a", b"Content-Type: a/b", b"Expect: 100-continue", b"TE: trailers",
                  b"Forwarded: for=x", b"Content-Encoding: gzip", b"Set-Cookie: a=b", b"Trailer: x", b"Max-Forwards: 1"]:
        add(f"trailer {label(field)} has no effect", trailers % field, "served", seen, drops=[field] if b"chunked" not in field else ())
    for line in [b"X : y", b" X: y", b"X: a\nb", b"X: a\rb", b"X: a\x00", b"X", b": y", b"X: a\r\n b", b"\xe9: y", b"X: y\n", b"X\x00: y", b"X(: y",
                 b"GET / HTTP/1.1", b"X: " + b"y" * 20_000, b"\r\n".join([b"X: y"] * 300)]:
        add(f"trailer {label(line)}", trailers % line)


# MARK: Lines and fields

def lines(add):
    fields = [b"X-A: b", b"X-C: d"]
    good = head(fields=fields)
    # One line end at a time becomes another.
    parts = good.split(b"\r\n")
    for bad in [b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\x00", b"\x0b", b"\x0c", b"\xc2\x85", b"\\r\\n", b"\r\n\r", b"\x00\r\n", b"\xe2\x80\xa8"]:
        for position in range(5):
            text = b"".join(part + (bad if index == position else b"\r\n") for index, part in enumerate(parts[:-1]))
            # Near the end of the head, what is no line end leaves it incomplete; within values, text is text.
            expect, seen = "cut" if position > 2 else "refused", []
            if position == 4 and bad in (b"\r\n\x00", b"\r\n\r"):
                expect, seen = "served" if bad == b"\r\n\r" else "then-refused", [(b"GET", b"TARGET", b"")]
            elif position == 2 and bad in (b"\xc2\x85", b"\\r\\n", b"\xe2\x80\xa8"):
                expect, seen = "served", [(b"GET", b"TARGET", b"")]
            add(f"line {position} ends with {label(bad)}", text, expect, seen)
    for before, verdict in [(b"\r\n", "served"), (b"\r\n\r\n", "served"), (b"\r\n" * 20, "refused"), (b"\n", "refused"), (b"\r", "refused"),
                            (b" ", "refused"), (b"\t", "refused"), (b"\x00", "refused"), (b"\xef\xbb\xbf", "refused"), (b"\r\n ", "refused"),
                            (b"\r\r\n", "refused"), (b"X: y\r\n", "refused"), (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "refused"),
                            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "refused"),
                            (b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02", "refused")]:
        add(f"{label(before)} before the request", before + good, verdict, [(b"GET", b"TARGET", b"")] if verdict == "served" else ())
    for code in [*range(0, 9), *range(11, 13), *range(14, 32), 127]:
        byte = bytes([code])
        add(f"byte {code} in a value", head(fields=[b"X-A: b" + byte + b"c"]))
        add(f"byte {code} in a name", head(fields=[b"X" + byte + b"A: b"]))
        add(f"byte {code} in the target", head(target=b"TARGET/a" + byte + b"b"))
        add(f"byte {code} in the method", head(method=b"G" + byte + b"ET"))
    for byte in [bytes([code]) for code in b"\"(),/;<=>?@[\\]{} "] + [b"\x80", b"\xa0", b"\xe9", b"\xff", b"\xc3\xa9"]:
        add(f"{label(byte)} in a name", head(fields=[b"X" + byte + b"A: b"]))
        add(f"{label(byte)} in the method", head(method=b"G" + byte + b"ET"))
    for byte in [b"\x80", b"\xa0", b"\xe9", b"\xff", b"\xc3\xa9", b"\x85", b"\t", b"\"", b"\\", b",", b":", b";"]:
        add(f"{label(byte)} in a value is passed on", head(fields=[b"X-A: b" + byte + b"c"]), "served", [(b"GET", b"TARGET", b"")],
            keeps=[b"X-A: b" + byte + b"c"])
    for line in [b"X", b"X-A", b": y", b" : y", b":", b"X\xe9: y", b"X A: y", b"GET / HTTP/1.1", b"X-A; y", b"=", b"\x00"]:
        add(f"line {label(line)} is no field", head(fields=[b"X-B: c", line]))
    for fold in [b" ", b"\t", b"  \t"]:
        add(f"obs-fold with {label(fold)}", head(fields=[b"X-A: b\r\n" + fold + b"c"]))
        add(f"obs-fold with {label(fold)} into a request", head(fields=[b"X-A: b\r\n" + fold + b"GET /smuggled HTTP/1.1"]))
        add(f"a first line that begins with {label(fold)}", head(host=None, fields=[fold + b"X-A: b", b"Host: HOST"]))
        add(f"an empty line of {label(fold)}", head(fields=[b"X-A: b\r\n" + fold]))
    for value in [b"", b" ", b"\t", b"  b  ", b"\t\tb\t"]:
        add(f"value {label(value)} is one", head(fields=[b"X-A:" + value]), "served", [(b"GET", b"TARGET", b"")])
    add("many fields", head(fields=[b"X-%d: y" % number for number in range(240)]), "served", [(b"GET", b"TARGET", b"")], keeps=[b"X-239: y"])
    for count in [257, 300, 1_000, 10_000]:
        add(f"{count} fields", head(fields=[b"X-%d: y" % number for number in range(count)]), status=[431])
        add(f"{count} fields of one name", head(fields=[b"X: y"] * count), status=[431])
    for size in [66_000, 200_000]:
        add(f"a value of {size} bytes", head(fields=[b"X: " + b"y" * size]), status=[431])
        add(f"a name of {size} bytes", head(fields=[b"X" * size + b": y"]), status=[431])
        add(f"a method of {size} bytes", head(method=b"X" * size))
    add("a value of 8000 bytes is passed on", head(fields=[b"X: " + b"y" * 8_000]), "served", [(b"GET", b"TARGET", b"")])
    add("a head that comes byte by byte", head(fields=[b"X-A: b"]), "served", [(b"GET", b"TARGET", b"")], piece=1)
    add("a body that comes byte by byte", chunked(b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n"), "served", [(b"POST", b"TARGET", HELLO)], piece=1)


# MARK: The request line

def request_lines(add):
    once = [(b"GET", b"TARGET", b"")]
    for version in [b"HTTP/0.9", b"HTTP/1.2", b"HTTP/1.9", b"HTTP/2.0", b"HTTP/2", b"HTTP/3.0", b"http/1.1", b"Http/1.1", b"HTTP/01.1", b"HTTP/1.01",
                    b"HTTP/1.10", b"HTTP/11", b"HTTP/1,1", b"HTTP/1.", b"HTTP/.1", b"HTTP/1", b"HTTP 1.1", b"HTTP/ 1.1", b"HTTP/1 .1", b"ICY/1.1",
                    b"HTTPS/1.1", b"HTTP/1.1 ", b"HTTP/1.1\t", b"HTTP/1.1 x", b"HTTP/1.1x", b"HTTP/+1.1", b"HTTP/1.-1", b"HTTP/1.1\x00", b"RTSP/1.0",
                    b"HTTP/\xb9.1", b"HTTP/1.1;", b"", b" HTTP/1.1", b"\tHTTP/1.1", b"HTTP//1.1"]:
        add(f"version {label(version)}", head(version=version))
    add("HTTP/1.0 is served", head(version=b"HTTP/1.0"), "served", once)
    add("HTTP/1.0 that stays is served", head(version=b"HTTP/1.0", fields=[b"Connection: keep-alive"]), "served", once)
    for line in [b"GET TARGET", b"GET", b"GET  TARGET HTTP/1.1", b"GET TARGET  HTTP/1.1", b"GET\tTARGET HTTP/1.1", b"GET TARGET\tHTTP/1.1",
                 b"GET\x0bTARGET HTTP/1.1", b"GET\xa0TARGET HTTP/1.1", b"GETTARGET HTTP/1.1", b" GET TARGET HTTP/1.1", b"TARGET HTTP/1.1",
                 b"GET HTTP/1.1", b"HTTP/1.1 200 OK", b"GET TARGET HTTP/1.1 HTTP/1.1", b"GET TARGET TARGET HTTP/1.1", b"", b"GET TARGET HTTP/1.1\x00",
                 b"\"GET\" TARGET HTTP/1.1", b"GET: TARGET HTTP/1.1", b"GET,POST TARGET HTTP/1.1", b"{\"method\":\"GET\"}", b"GET TARGET\x00 HTTP/1.1"]:
        # An empty line before a request is no error, but what follows is none.
        add(f"line {label(line)}", line + b"\r\nHost: HOST\r\nX-A: b\r\n\r\n")
    for method in [b"get", b"Get", b"gET", b"BREW", b"X-Y", b"!#$%&'*+-.^_`|~", b"GETT", b"G", b"PRI", b"QUERY"]:
        add(f"method {label(method)}", head(method), "either", [(method, b"TARGET", b"")], methods=[method.decode()],
            script=Script(b"HTTP/1.1 200 OK\r\nX-Case: TAG\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", end=True))
    add("a method of 33 letters", head(b"A" * 33))
    for fields in [[], [b"Max-Forwards: 0"], [b"Max-Forwards: 1"], [b"Content-Length: 5"], [b"Cookie: a=b", b"Authorization: x"]]:
        add(f"TRACE with {label(b', '.join(fields))}", head(b"TRACE", fields=fields) + (HELLO if b"Content-Length: 5" in fields else b""), "either",
            [(b"TRACE", b"TARGET", HELLO if b"Content-Length: 5" in fields else b"")], methods=["TRACE"])
    for value in [b"x", b"-1", b"1, 2", b"", b"1.0"]:
        add(f"OPTIONS with Max-Forwards: {label(value)}", head(b"OPTIONS", fields=[b"Max-Forwards: " + value]))
    add("OPTIONS that must not go further", head(b"OPTIONS", fields=[b"Max-Forwards: 0"]), "served", [], methods=["OPTIONS"])
    add("OPTIONS that may go further once", head(b"OPTIONS", fields=[b"Max-Forwards: 1"]), "served", [(b"OPTIONS", b"TARGET", b"")],
        methods=["OPTIONS"], keeps=[b"Max-Forwards: 0"], drops=[b"Max-Forwards: 1"])
    for target in [b"HOST:443", b"HOST", b"example.com:80", b"TARGET", b"/", b"*", b"http://HOST/", b"127.0.0.1:22", b"[::1]:22", b":80", b"x@HOST:80"]:
        add(f"CONNECT {label(target)}", head(b"CONNECT", target) + SMUGGLED)

    # Targets.
    for target in [b"TARGET/%2e%2e/a", b"TARGET/%2E%2E%2fb", b"TARGET/../b", b"TARGET/./b", b"TARGET//b", b"TARGET/a%2Fb", b"TARGET/a%5Cb", b"TARGET/%00",
                   b"TARGET/%0d%0aX:%20y", b"TARGET/%0d%0a%0d%0aGET%20/smuggled", b"TARGET/%zz", b"TARGET/%", b"TARGET/a;b=c", b"TARGET/a?b?c=d&e",
                   b"TARGET?%2e%2e", b"TARGET/a?", b"TARGET/'()*,!$&+", b"TARGET/~:@", b"TARGET/..;/b", b"TARGET/%252e%252e/", b"TARGET/%c0%ae",
                   b"TARGET/a//", b"TARGET/a/..", b"TARGET/..%2f..%2f", b"TARGET/%u002e", b"TARGET/?a=http://b/c", b"TARGET/http://b/c"]:
        for by_path in [False, True]:
            add(f"target {label(target)} reaches the service as it is" + (", by path" if by_path else ""), head(target=target), "served",
                [(b"GET", target, b"")], by_path=by_path)
    for target in [b"TARGET/{a}|b", b"TARGET/a\"b", b"TARGET/<a>", b"TARGET/a\\b", b"TARGET/a^b`c", b"TARGET/[a]"]:
        add(f"target {label(target)} as it is, or not at all", head(target=target), "either", [(b"GET", target, b"")])
    for target in [b"TARGET/a b", b"TARGET/a#b", b"TARGET#", b"TARGET/\xe9", b"TARGET/\xc3\xa9", b"TARGET/\x80", b"*", b"a", b"", b"?a=b", b".", b"..", b"#", b"ftp://HOST/", b"http:/HOST/", b"http:HOST/", b"http://", b"http:///", b"http://HOST:x/",
                   b"http://HOST:/", b"http://HOST:99999/", b"http://user@HOST/", b"http://user:pw@HOST/", b"http://HOST\\@other/", b"http://HOST#/",
                   b"http://HOST /", b"http://[::1/", b"http://HOST%2f/", b"http://%48OST/", b"ws://HOST/", b"javascript:a", b"mailto:a@b", b"HOST:80",
                   b"HOST/", b"http//HOST/", b"\\\\HOST\\a", b"\\a", b"%2fa", b"http://HOST,other/"]:
        add(f"target {label(target)}", head(target=target))
    for target, seen in [(b"http://HOSTTARGET", b"TARGET"), (b"HTTP://HOSTTARGET?a=b", b"TARGET?a=b"), (b"https://HOSTTARGET", b"TARGET"),
                         (b"http://HOST:80TARGET", b"TARGET")]:
        add(f"absolute target {label(target)}", head(target=target), "served", [(b"GET", seen, b"")])
    for target in [b"http://otherTARGET", b"http://HOST.otherTARGET", b"http://HOST:81TARGET", b"http://127.0.0.1TARGET", b"http://other@HOSTTARGET",
                   b"http://HOST.TARGET", b"https://HOST:80TARGET", b"http://HOST:0080TARGET"]:
        add(f"absolute target {label(target)} against Host", head(target=target))
    add("an absolute target without Host", head(target=b"http://HOSTTARGET", host=None))
    add("an absolute target with two hosts", head(target=b"http://HOSTTARGET", fields=[b"Host: HOST"]))
    for rest, seen in [(b"", b"*"), (b"/", b"/")]:
        add(f"OPTIONS http://HOST{label(rest)}", head(b"OPTIONS", b"http://HOST" + rest, fields=[TAGGED]), "served", [(b"OPTIONS", seen, b"")], methods=["OPTIONS"])
    add("OPTIONS *", head(b"OPTIONS", b"*", fields=[TAGGED]), "served", [(b"OPTIONS", b"*", b"")], methods=["OPTIONS"])
    for method in [b"POST", b"PUT", b"DELETE", b"HEAD", b"TRACE"]:
        add(f"{label(method)} *", head(method, b"*"), methods=[method.decode()])
    add("OPTIONS * with a query", head(b"OPTIONS", b"*?a"))
    for length in [16_500, 60_000, 70_000, 300_000]:
        add(f"a target of {length} bytes", head(target=b"/" + b"a" * length), status=[414])
    add("a target of 16000 bytes", head(target=b"TARGET/" + b"a" * 16_000), "served", [(b"GET", b"TARGET/" + b"a" * 16_000, b"")])


# MARK: Hosts

def hosts(add):
    add("no Host", head(host=None))
    add("no Host in HTTP/1.0 reaches no route by host", head(host=None, version=b"HTTP/1.0"))
    for host in [b"", b" ", b"HOST, other", b"HOST other", b"HOST/", b"HOST/a", b"user@HOST", b"HOST@other", b"HOST:", b"HOST:x", b"HOST:-1", b"HOST:99999",
                 b"HOST:80:80", b"HOST:8\x00", b"HOST\x00", b"\x00HOST", b"HOST\x00.other", b"HOST#", b"HOST?a", b"http://HOST", b"[HOST]", b"[::1", b"::1",
                 b"[::1]x", b"%48OST", b"HOST%00", b"HOST%0d%0aX: y", b"H\xc3\xb6ST", b"HOST\xa0", b"HOST;a", b"\"HOST\"", b"HOST\\other", b"(HOST)",
                 b"HOST\tother", b"HOST\x0b", b"HOST,", b",HOST", b"*", b"HOST=", b"a" * 300, b"HOST:+80", b"HOST:0x50", b"HOST:\xd9\xa5", b"[::1]:x", b"[]"]:
        add(f"Host: {label(host)}", head(host=host))
    for second in [b"HOST", b"other", b"", b"HOST:80"]:
        for name in [b"Host: ", b"host:", b"HOST: "]:
            # The placeholder is for values only.
            field = name.replace(b"HOST", b"HoSt") + second
            add(f"Host and {label(field)}", head(fields=[field]))
            add(f"{label(field)} before Host", head(host=None, fields=[field, b"X-A: b", b"Host: HOST"]))
    for name in BAD_NAMES:
        field = name.replace(b"NAME", b"Host") + b"other"
        add(f"a host in {label(field)}", head(fields=[field]))
        add(f"a host in {label(field)} alone", head(host=None, fields=[name.replace(b"NAME", b"Host") + b"HOST"]))
    for field in [b"X-Forwarded-Host: other", b"Forwarded: host=other", b"X-Forwarded-For: 1.2.3.4", b"X-Real-IP: 1.2.3.4", b"X-Forwarded-Proto: https",
                  b"X-Forwarded-Prefix: /other"]:
        add(f"{label(field)} is not believed", head(fields=[field]), "served", [(b"GET", b"TARGET", b"")], drops=[field])
    for field in [b"X-Original-URL: /admin", b"X-Rewrite-URL: /admin", b"X-HTTP-Method-Override: DELETE", b"X-Host: other"]:
        add(f"{label(field)} does not change the target", head(fields=[field]), "served", [(b"GET", b"TARGET", b"")])
    for host in [b"nobody.HOST", b"other.example", b"127.0.0.1", b"[::1]:80", b"HOST.", b"-"]:
        add(f"Host: {label(host)} is nobody's", head(host=host), status=[404])


# MARK: Connection, Upgrade, Expect

def connections(add):
    once = [(b"GET", b"TARGET", b"")]
    for name, value in [(b"Authorization", b"Bearer x"), (b"Cookie", b"a=b"), (b"Content-Type", b"text/plain"), (b"Origin", b"http://a"),
                        (b"Cache-Control", b"no-cache")]:
        for option in [name, name.lower(), b"close, " + name, b"x," + name + b",keep-alive", b"\t" + name + b" "]:
            add(f"Connection: {label(option)} keeps it", head(fields=[name + b": " + value, b"Connection: " + option]), "served", once,
                keeps=[name + b": " + value], drops=[b"Connection: " + option])
        add(f"two Connection fields, {label(name)} in the second, keep it",
            head(fields=[b"Connection: close", name + b": " + value, b"Connection: " + name]), "served", once, keeps=[name + b": " + value])
    for option in [b"Host", b"host", b"Via", b"X-Forwarded-For", b"Forwarded", b"X-Real-IP", b"X-Forwarded-Host", b"X-Forwarded-Proto", b"close, Host"]:
        add(f"Connection: {label(option)} takes nothing away", head(fields=[b"Connection: " + option]), "served", once)
    for option in [b"Content-Length", b"content-length", b"Transfer-Encoding", b"close, Content-Length", b"Content-Length, Host"]:
        add(f"Connection: {label(option)} with a length", post(b"Content-Length: 5", b"Connection: " + option), "served",
            [(b"POST", b"TARGET", HELLO)], keeps=[b"Content-Length: 5"])
        add(f"Connection: {label(option)} with chunks", post(b"Connection: " + option, b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
            "served", [(b"POST", b"TARGET", HELLO)], keeps=[b"Transfer-Encoding: chunked"])
    for name in [b"X-A", b"x-a", b"close, X-A", b"X-A, close", b"X-B,X-A"]:
        add(f"Connection: {label(name)} takes X-A away", head(fields=[b"X-A: b", b"Connection: " + name]), "served", once, drops=[b"X-A: b"])
    for field in [b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"TE: gzip", b"Connection: keep-alive"]:
        add(f"{label(field)} ends at the gateway", head(fields=[field]), "served", once, drops=[field])
    for value in [b"", b",", b",,", b"\"close\"", b"close;a", b"clos e", b"a=b", b"\xe9"]:
        add(f"Connection: {label(value)} is harmless", head(fields=[b"Connection: " + value]), "either", once)
    for value in [b"close\x00", b"clo\rse", b"close\r\n x"]:
        add(f"Connection: {label(value)}", head(fields=[b"Connection: " + value]))
    add("a request after Connection: close is not served", head(fields=[b"Connection: close"]) + head(target=b"TARGET/2"), "served", once)
    add("a request after HTTP/1.0 is not served", head(version=b"HTTP/1.0") + head(target=b"TARGET/2"), "served", once)

    # HTTP/2 in any disguise is not passed on.
    settings = b"HTTP2-Settings: AAMAAABkAAQAAP__"
    for value in [b"h2c", b"H2C", b"h2", b"HTTP/2.0", b"http/2", b"h2c, h2c", b"h2c ", b"\th2c", b"h2c,HTTP/2.0", b"HTTP/1.1", b"HTTP/3"]:
        for option in [b"Upgrade, HTTP2-Settings", b"Upgrade", b"HTTP2-Settings", b"upgrade,http2-settings", b"keep-alive"]:
            add(f"Upgrade: {label(value)}, Connection: {label(option)}",
                head(fields=[b"Upgrade: " + value, b"Connection: " + option, settings]), "served", once,
                drops=[b"Upgrade: " + value.strip(), b"Connection: Upgrade"] + ([settings] if b"ettings" in option else []))
    for value in [b"h2c\x00", b"h2\rc", b"h2c\r\n x"]:
        add(f"Upgrade: {label(value)}", head(fields=[b"Upgrade: " + value, b"Connection: Upgrade, HTTP2-Settings", settings]))
    for first, second in [(b"h2c", b"websocket"), (b"websocket", b"h2c"), (b"h2c", b"h2c")]:
        add(f"Upgrade: {label(first)} and Upgrade: {label(second)}",
            head(fields=[b"Upgrade: " + first, b"Upgrade: " + second, b"Connection: Upgrade"]), "either", once, drops=[b"Upgrade: h2c"])
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    add("the preface of HTTP/2", preface + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    add("the preface of HTTP/2 after a request", head() + preface, "then-refused", once)
    add("half a preface of HTTP/2", b"PRI * HTTP/2.0\r\n", "cut")
    add("the preface of HTTP/2 with a Host", b"PRI * HTTP/2.0\r\nHost: HOST\r\n\r\nSM\r\n\r\n")
    add("the method PRI in HTTP/1.1", head(b"PRI", b"*"))

    # Upgrades: what comes before the 101 goes nowhere.
    websocket = [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    refusal = b"HTTP/1.1 %s\r\nX-Case: TAG\r\nContent-Length: 2\r\n\r\nno"
    switched = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Case: TAG\r\n\r\n"
    for early in [b"\x81\x85\x00\x00\x00\x00hello", SMUGGLED, b"\x00" * 3_000]:
        add(f"bytes {label(early[:24])} sent before a 101 wait for it", head(fields=websocket) + early, "upgraded", once,
            script=Script(switched, pause=0.1))
    for fields in [websocket, [b"Upgrade: echo", b"Connection: upgrade"], [b"Upgrade: TLS/1.0", b"Connection: Upgrade"]]:
        for status in [b"200 OK", b"400 Bad Request", b"426 Upgrade Required", b"403 Forbidden"]:
            add(f"a request behind {label(fields[0])} that gets {label(status)}", head(fields=fields) + head(target=b"TARGET/2"), "answered",
                [(b"GET", b"TARGET", b""), (b"GET", b"TARGET/2", b"")], methods=["GET", "GET"], script=Script(refusal % status, pause=0.02))
        add(f"a request in the body of {label(fields[0])}",
            head(fields=fields + [b"Content-Length: %d" % len(SMUGGLED)]) + SMUGGLED, "served", [(b"GET", b"TARGET", SMUGGLED)],
            drops=[b"Connection: Upgrade", fields[0]])
    add("Upgrade without its option", head(fields=[b"Upgrade: websocket"]), "served", once, drops=[b"Upgrade: websocket"])
    add("an upgrade in HTTP/1.0", head(version=b"HTTP/1.0", fields=websocket), "served", once, drops=[b"Upgrade: websocket"])
    add("an upgrade to a list with WebSocket names that alone", head(fields=[b"Upgrade: h2c, websocket", b"Connection: Upgrade"]), "upgraded", once,
        script=Script(switched), keeps=[b"Upgrade: websocket"], drops=[b"Upgrade: h2c, websocket"])

    body = b"Content-Length: 5"
    for value in [b"200-ok", b"100-continue, x", b"x", b"", b"100", b"\"100-continue\"", b"100-continue;a", b"101-continue"]:
        add(f"Expect: {label(value)}", post(body, b"Expect: " + value), status=[417])
    for value in [b"100-continue", b"100-CONTINUE", b" 100-continue "]:
        sent = [(b"POST", b"TARGET", HELLO)]
        add(f"Expect: {label(value)} with the body at once", post(body, b"Expect: " + value), "served", sent, drops=[b"Expect: " + value.strip()])
        add(f"Expect: {label(value)} with the body later", [post(body, b"Expect: " + value, body=b""), HELLO], "served", sent)
        add(f"Expect: {label(value)} without a body", head(fields=[b"Expect: " + value]), "served", once)
        add(f"Expect: {label(value)} in HTTP/1.0", post(body, b"Expect: " + value, version=b"HTTP/1.0"), "served", sent)
        add(f"Expect: {label(value)} and no body after it", post(body, b"Expect: " + value, body=b""), "cut")
    add("Expect twice", post(body, b"Expect: 100-continue", b"Expect: 100-continue"), "either", [(b"POST", b"TARGET", HELLO)])
    add("Expect twice, not the same", post(body, b"Expect: 100-continue", b"Expect: x"))
    add("Expect in a wrong field", post(body, b"Expect : 100-continue"))


# MARK: One after the other

def pipelines(add):
    one = head()
    for count in [2, 3, 10, 40]:
        targets = [b"TARGET/%d" % number for number in range(count)]
        add(f"{count} requests at once", b"".join(head(target=target) for target in targets), "served",
            [(b"GET", target, b"") for target in targets], methods=["GET"] * count)
        text = b"".join(post(b"Content-Length: 5", target=target) if number % 2 else head(b"HEAD", target) for number, target in enumerate(targets))
        add(f"{count} requests, with and without bodies", text, "served",
            [(b"POST", target, HELLO) if number % 2 else (b"HEAD", target, b"") for number, target in enumerate(targets)],
            methods=["POST" if number % 2 else "HEAD" for number in range(count)])
    for bad in [b"GET TARGET\r\n\r\n", b"x", b"\x00", head(fields=[b"Content-Length: x"]), head(host=None), b"GET TARGET HTTP/1.1\nHost: HOST\n\n", b" " + one,
                chunked(b"0x0\r\n\r\n"), post(b"Content-Length: 5", b"Content-Length: 6"), head(fields=[b"X : y"]), b"\n" + one]:
        add(f"a sound request, then {label(bad)}", one + bad, "then-refused" if bad != b"x" else "served", [(b"GET", b"TARGET", b"")])
        add(f"a sound body, then {label(bad)}", post(b"Content-Length: 5") + bad, "then-refused" if bad != b"x" else "served",
            [(b"POST", b"TARGET", HELLO)], methods=["POST"])
    for number in [1, 4, 6, 7]:
        # A length that is wrong by a little moves the start of the next request; five is right.
        text = post(b"Content-Length: %d" % number) + head(target=b"TARGET/2")
        shifted = (HELLO + head(target=b"TARGET/2"))[:number]
        add(f"five bytes that are said to be {number}", text, "shifted", [(b"POST", b"TARGET", shifted)], methods=["POST"])
    add("chunks, then a request", chunked(b"5\r\nhello\r\n0\r\n\r\n") + head(target=b"TARGET/2"), "served",
        [(b"POST", b"TARGET", HELLO), (b"GET", b"TARGET/2", b"")], methods=["POST", "GET"])


# MARK: Responses

def responses(add):
    once = [(b"GET", b"TARGET", b"")]

    def answer(name, script, expect="refused", method=b"GET", status=None, end=False, **more):
        if isinstance(script, bytes):
            script = Script(script.replace(b"OK\r\n", b"OK\r\nX-Case: TAG\r\n", 1)
                            if expect in ("answered", "aborted") and b"TAG" not in script else script, end=end)
        add(f"answer: {name}", head(method), expect, [(method, b"TARGET", b"")], methods=[method.decode()], script=script,
            status=status or ([502] if expect == "refused" else None), **more)

    ok = b"HTTP/1.1 200 OK\r\n"
    five = b"Content-Length: 5\r\n\r\nhello"
    second = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned"
    answer("a sound one", ok + five, "answered")
    answer("both lengths", ok + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    answer("both lengths, the other way round", ok + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n")
    for value in BAD_LENGTHS:
        answer(f"Content-Length: {label(value)}", ok + b"Content-Length: " + value + b"\r\n\r\nhello")
    for other in [b"5", b"6", b"0"]:
        answer(f"Content-Length: 5 and {label(other)}", ok + b"Content-Length: 5\r\nContent-Length: " + other + b"\r\n\r\nhello")
    for value in BAD_ENCODINGS:
        answer(f"Transfer-Encoding: {label(value)}", ok + b"Transfer-Encoding: " + value + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    answer("two encodings", ok + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    answer("an encoding in HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    for name in BAD_NAMES:
        for field in [b"Content-Length", b"Transfer-Encoding"]:
            value = b"5" if field == b"Content-Length" else b"chunked"
            answer(f"a framing in {label(name.replace(b'NAME', field))}", ok + name.replace(b"NAME", field) + value + b"\r\n\r\nhello")
    for line in [b"HTTP/1.1 OK", b"HTTP/1.1", b"200 OK", b"HTTP/2 200 OK", b"HTTP/2.0 200 OK", b"HTTP/1.2 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.1 099 OK",
                 b"HTTP/1.1 000 OK", b"HTTP/1.1 1000 OK", b"HTTP/1.1 -200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 20x OK", b"HTTP/1.1\t200 OK",
                 b"HTTP/1.1  200 OK", b"HTTP/1.1 200\tOK", b"ICY 200 OK", b"http/1.1 200 OK", b"HTTP/1.1 200 O\x00K", b"HTTP/1.1 200 O\rK",
                 b" HTTP/1.1 200 OK", b"\r\nHTTP/1.1 200 OK", b"\nHTTP/1.1 200 OK", b"HTTP/1.1 200 O\x7fK", b"HTTP/1.1 +200 OK", b"HTTP/1.1 2 0 0",
                 b"HTTP/11 200 OK", b"HTTP/1.1x200 OK", b"GET / HTTP/1.1", b"\x15\x03\x01\x00\x02\x02\x46", b"HTTP/1.1 200,OK", b"HTTP/1.01 200 OK"]:
        answer(f"status line {label(line)}", line + b"\r\n" + five)
    for line in [b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1 200 All's \xe9\tright", b"HTTP/1.1 299 Other"]:
        answer(f"status line {label(line)} is one", line + b"\r\nX-Case: TAG\r\n" + five, "answered")
    for status in [b"600 More", b"999 Most"]:
        answer(f"status {label(status)}", b"HTTP/1.1 " + status + b"\r\nX-Case: TAG\r\n" + five, "answered-or-refused")
    for code in [*range(0, 9), *range(11, 13), *range(14, 32), 127]:
        answer(f"byte {code} in a value", ok + b"X-A: b" + bytes([code]) + b"c\r\n" + five)
        answer(f"byte {code} in a name", ok + b"X" + bytes([code]) + b"A: b\r\n" + five)
    for field in [b"X-A: b\nSet-Cookie: a=b", b"X-A: b\rSet-Cookie: a=b", b"X-A: b\r\r\nSet-Cookie: a=b", b"X-A: b\n\rSet-Cookie: a=b",
                  b"X-A: b\n\nHTTP/1.1 200 OK", b"X-A: b\r\n c", b"X-A: b\r\n\tc", b" X-A: b", b"X-A : b", b"X-A", b": b", b"X-\xe9: b", b"X(A): b",
                  b"Location: /a\nSet-Cookie: a=b", b"Location: /a\rSet-Cookie: a=b", b"Location: /a\x00b", b"Set-Cookie: a=b\x0bc"]:
        answer(f"field {label(field)}", ok + field + b"\r\n" + five)
    for line_end in [b"\n", b"\r", b"\r\r\n", b"\n\r"]:
        # Where the lines end with CR only, no head ever ends.
        answer(f"lines that end with {label(line_end)}", Script((ok + five).replace(b"\r\n", line_end), end=True))
    answer("an empty field name after a sound field", ok + b"X: y\r\n: z\r\n" + five)
    answer("a head of 70000 bytes", ok + b"X: " + b"y" * 70_000 + b"\r\n" + five)
    answer("a head without end", Script(ok + b"X: " + b"y" * 300_000))
    answer("300 fields", ok + b"X: y\r\n" * 300 + five)
    answer("10000 fields", ok + b"X: y\r\n" * 10_000 + five)
    answer("100 fields", ok + b"X: y\r\n" * 100 + five, "answered")

    # 1xx
    for text, name in [(b"HTTP/1.1 100 Continue\r\n\r\n", "100"), (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "103"),
                       (b"HTTP/1.1 102 Processing\r\n\r\n", "102"), (b"HTTP/1.1 199 X\r\n\r\n", "199")]:
        answer(f"one {name} first", text + ok + five, "answered")
        answer(f"a flood of {name}", Script(text * 200 + ok + five))
        answer(f"{name} and then the end", Script(text, end=True))
        answer(f"{name} with a length", Script(text[:-2] + b"Content-Length: 5\r\n\r\n" + ok.replace(b"OK\r\n", b"OK\r\nX-Case: TAG\r\n") + five),
               "answered-or-refused")
        answer(f"{name} with an encoding", Script(text[:-2] + b"Transfer-Encoding: chunked\r\n\r\n" + ok + five))
    answer("101 unasked", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    answer("101 unasked, without a protocol", b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + ok + five)
    answer("101 unasked, after 100", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")

    # Where no body may be
    for status in [b"204 No Content", b"304 Not Modified"]:
        line = b"HTTP/1.1 " + status + b"\r\nX-Case: TAG\r\n"
        answer(f"{label(status)} with a body", line + five, "answered")
        answer(f"{label(status)} with another response in its body", line + b"Content-Length: %d\r\n\r\n" % len(second) + second, "answered")
        answer(f"{label(status)} with nothing more", line + b"\r\n", "answered")
    answer("204 with chunks", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    answer("304 with chunks", b"HTTP/1.1 304 Not Modified\r\nX-Case: TAG\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "answered")
    for body in [five, b"Content-Length: 5\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"\r\n", b"\r\nhello",
                 b"Content-Length: %d\r\n\r\n" % len(second) + second, b"Content-Length: 0\r\n\r\n" + second]:
        answer(f"HEAD gets {label(body)}", ok + body, "answered", b"HEAD")
    answer("HEAD gets two lengths", ok + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", method=b"HEAD")
    answer("HEAD gets both framings", ok + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", method=b"HEAD")
    answer("205 with a body", b"HTTP/1.1 205 Reset Content\r\nX-Case: TAG\r\n" + five, "answered-or-refused")

    # More, or less, than said
    for surplus in [b"x", b"\r\n", second, b"\x00" * 100, ok]:
        answer(f"{label(surplus)} after it", ok + five + surplus, "answered")
        answer(f"{label(surplus)} after chunks", ok + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + surplus, "answered")
        answer(f"{label(surplus)} after Content-Length: 0", ok + b"Content-Length: 0\r\n\r\n" + surplus, "answered")
    for text, name in [(b"Content-Length: 6\r\n\r\nhello", "a body cut short"), (b"Transfer-Encoding: chunked\r\n\r\n6\r\nhello", "a chunk cut short"),
                       (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "chunks without an end"),
                       (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", "chunks without the last line"),
                       (b"Content-Length: 9223372036854775807\r\n\r\nhello", "a body that is said to be endless")]:
        answer(name, ok + text, "aborted", end=True)
    for size in BAD_SIZES:
        answer(f"chunk size {label(size)}", ok + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n0\r\n\r\n", "aborted", end=True)
    for size in GOOD_SIZES:
        answer(f"chunk size {label(size)} is one", ok + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n0\r\n\r\n", "answered")
    for field in [b"X-T: 1", b"Content-Length: 9", b"Set-Cookie: a=b", b"Transfer-Encoding: chunked", b"Connection: close", b"Location: /a"]:
        answer(f"trailer {label(field)}", ok + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + field + b"\r\n\r\n", "answered")
    for line in [b"X : y", b" X: y", b"X: a\nb", b"X: a\x00", b"X", b": y", b"X: a\r\n b"]:
        answer(f"broken trailer {label(line)}", ok + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + line + b"\r\n\r\n", "aborted", end=True)
    answer("a body until the end", ok + b"\r\nhello", "answered", end=True)
    answer("HTTP/1.0 with a body until the end", b"HTTP/1.0 200 OK\r\n\r\nhello", "answered", end=True)
    answer("HTTP/1.0 that stays", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + five, "answered")
    for text in [b"", b"H", b"HTTP/1.1 200 OK", ok, ok + b"Content-Le", ok + b"X: y\r\n"]:
        answer(f"only {label(text)}, and the end", Script(text, end=True))
    for field in [b"Connection: Content-Length", b"Connection: Set-Cookie", b"Connection: X-Case", b"Connection: close, Date", b"Keep-Alive: x",
                  b"Upgrade: h2c", b"Proxy-Connection: close"]:
        answer(f"{label(field)}", b"HTTP/1.1 200 OK\r\nX-Case: TAG\r\nSet-Cookie: a=b\r\n" + field + b"\r\n" + five,
               "answered-without-case" if field == b"Connection: X-Case" else "answered")

    # Answers to uploads that go on.
    big = b"x" * 200_000
    for end in [False, True]:
        for framing, body in [(b"Content-Length: %d" % len(big), big), (b"Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(big), big)),
                              (b"Content-Length: 900000000", big)]:
            for status in [b"200 OK", b"413 Content Too Large"]:
                script = Script(b"HTTP/1.1 " + status + b"\r\nX-Case: TAG\r\n" + five, early=True, end=end)
                add(f"answer: {label(status)} before the end of an upload with {label(framing)}" + (", and the end" if end else ""),
                    [post(framing, body=b""), body[:1_000], body[1_000:]], "early", [(b"POST", b"TARGET", None)], methods=["POST"], script=script)
    add("answer: before the end of an upload, and a request after it",
        [post(b"Content-Length: 1000", body=b""), b"x" * 1_000 + head(target=b"TARGET/2")], "early",
        [(b"POST", b"TARGET", None), (b"GET", b"TARGET/2", b"")], methods=["POST", "GET"],
        script=Script(ok.replace(b"OK\r\n", b"OK\r\nX-Case: TAG\r\n") + five, early=True))


# MARK: Chance

# Changes of bytes that leave a request sound for nobody; what comes of two of them is either refused or understood by all.
def chance(add, random, count):
    pieces = [b"\r\n", b"\n", b"\r", b" ", b"\t", b"\x00", b":", b";", b",", b"0", b"5", b"chunked", b"Content-Length: 5\r\n", b"Host: other\r\n",
              b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding", b"\r\n\r\n", b"GET ", b" HTTP/1.1", b"\xff", b"%0a", b"X: y\r\n", b"\x0b",
              b"Connection: Host\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"\\", b"\"", b"//", b"?", b"#"]
    bases = [
        head(fields=[b"X-A: b", b"Cookie: a=b"]),
        post(b"X-A: b", b"Content-Length: 5"),
        chunked(b"5\r\nhello\r\n3;a=b\r\nabc\r\n0\r\nX-T: 1\r\n\r\n", b"X-A: b"),
        head(b"PUT", fields=[b"Content-Length: 0", b"Connection: keep-alive, X-A", b"X-A: b"]),
        post(b"Content-Length: 5") + head(target=b"TARGET/2"),
    ]
    for number in range(count):
        text = random.choice(bases)
        for _ in range(random.choice([1, 1, 2, 3])):
            at = random.randrange(len(text) + 1)
            # What stands for the host and the path stays whole, or the case cannot be told from others.
            for word in (b"TARGET", b"HOST"):
                start = text.find(word, max(0, at - len(word)))
                if start != -1 and start < at < start + len(word):
                    at = start + len(word)
            what = random.randrange(4)
            if what == 0:
                text = text[:at] + random.choice(pieces) + text[at:]
            elif what == 1 and not any(word in text[at - 6 : at + 7] for word in (b"TARGET", b"HOST")):
                text = text[:at] + text[at + 1 :]
            elif what == 2 and not any(word in text[at - 6 : at + 7] for word in (b"TARGET", b"HOST")):
                text = text[:at] + bytes([random.randrange(256)]) + text[at + 1 :]
            else:
                lines = text.split(b"\r\n")
                lines.insert(random.randrange(1, len(lines)), random.choice(lines))
                text = b"\r\n".join(lines)
        add(f"by chance {number}: {label(text)}", text, "unambiguous")


def corpus(seed):
    """All cases, in an order of chance: neighbours share connections to the service."""
    cases = []

    def add(name, *arguments, **more):
        cases.append(Case(name, *arguments, **more))

    for family in [lengths, encodings, chunks, lines, request_lines, hosts, connections, pipelines, responses]:
        family(add)
    dice = random.Random(seed)
    chance(add, dice, 300)
    dice.shuffle(cases)
    return cases
